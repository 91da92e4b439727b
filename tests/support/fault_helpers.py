"""What the fault tests share: the steps that a fault can strike, and how a failed call and a finished push look."""

from __future__ import annotations

import pytest

from langsamp.core.manifest import MANIFEST_NAME
from support.loopback import GOOD_TOKEN

PASSING = [503, 429, 500, "drop"]
STEPS = {
    "looking for the repository": ("GET", r"/api/models/user/x$"),
    "creating the repository": ("POST", "/api/repos/create"),
    "reading the branch": ("GET", r"/api/models/user/x/revision/main"),
    "asking how to upload": ("POST", "/preupload/"),
    "asking where to upload": ("POST", "/objects/batch"),
    "uploading": ("PUT", "/_lfs/"),
    "committing": ("POST", "/commit/"),
    "verifying": ("GET", r"/revision/(?!main)[0-9a-f]{40}$"),
    "tagging": ("POST", "/tag/"),
}
DOWNLOADS = {
    "resolving the revision": ("GET", r"/revision/main"),
    "asking for a file": ("HEAD", r"/resolve/.*/model\.safetensors"),
    "downloading": ("GET", r"/resolve/.*/model\.safetensors"),
    "downloading the manifest": ("GET", r"/resolve/.*/langsamp_manifest\.json"),
}


def refused(error, match, call):
    """Run a call that must fail with this error and message; the message holds no token."""
    with pytest.raises(error, match=match) as raised:
        call()
    chain = [
        raised.value,
        raised.value.__cause__,
        raised.value.__context__ if not raised.value.__suppress_context__ else None,
    ]
    assert GOOD_TOKEN not in "".join(map(str, chain))
    return str(raised.value)


def is_pushed_once(hub, checkpoint):
    repo = hub.repos["user/x"]
    assert repo.titles() == ["Push with langsamp", "initial commit"]
    assert repo.files()["model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
    assert MANIFEST_NAME in repo.files()
