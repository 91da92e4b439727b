"""What is on the Hub and what is in a folder, in the same terms: names, sizes, hashes; what push and pull compare."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from huggingface_hub import HfApi

from langsamp.core.files import atomic_write
from langsamp.core.manifest import RECORD_NAME
from langsamp.core.retry import HubError, attempt
from langsamp.core.typed import from_json
from langsamp.safe_files import read_json

logger = logging.getLogger(__name__)
_READ_BYTES = 1 << 20
_FETCHES = 3  # a file that arrives damaged three times is not a passing fault


@dataclass(frozen=True)
class Digest:
    """A file's content: its size in bytes, its sha256, and the id git gives it (sha1 with a header)."""

    size: int
    sha256: str
    oid: str


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub; `sha256` is known of large (LFS) files only, and their `oid` is that of a pointer."""

    name: str
    size: int
    oid: str
    sha256: str | None = None

    def is_content(self, digest: Digest) -> bool:
        """Whether the Hub holds exactly this content under this name."""
        return digest.sha256 == self.sha256 if self.sha256 else digest.oid == self.oid


@dataclass(frozen=True)
class RemoteTree:
    """All files of a repository at one commit."""

    repo: str
    commit: str
    private: bool
    files: dict[str, RemoteFile]

    def differing(self, digests: Mapping[str, Digest]) -> list[str]:
        """Names whose content here is not what the Hub holds."""
        return [name for name, d in digests.items() if name not in self.files or not self.files[name].is_content(d)]


@dataclass(frozen=True)
class Synced:
    """Which commit a folder equals: written by push and pull to ``.langsamp_hub.json``, never pushed itself."""

    repo: str
    revision: str
    commit: str
    files: dict[str, Digest] = field(default_factory=dict)
    complete: bool = True  # False while a pull puts files in place


def read_tree(api: HfApi, repo: str, revision: str | None = None) -> RemoteTree:
    """Files, sizes and hashes of a repository at a revision, resolved to one commit.

    Raises:
        HubError: no such repository or revision, no access, or the Hub does not answer.
    """
    at = f"{repo}@{revision}" if revision else repo
    info = attempt(lambda: api.model_info(repo, revision=revision, files_metadata=True), f"reading {at}", token_of(api))
    files = {}
    for sibling in info.siblings or []:
        sha256 = sibling.lfs["sha256"] if sibling.lfs else None
        files[sibling.rfilename] = RemoteFile(sibling.rfilename, sibling.size or 0, sibling.blob_id or "", sha256)
    return RemoteTree(repo, str(info.sha), bool(info.private), files)


def fetch(api: HfApi, tree: RemoteTree, name: str) -> Path:
    """Download a file into the cache, or find it there, and compare its content with the hash that the Hub tells.

    The clients trust what they receive and what lies in the cache; a damaged copy is thrown away and fetched again.

    Raises:
        HubError: the file cannot be had, or arrives damaged again and again.
    """
    expected = tree.files[name]
    for number in range(_FETCHES):
        path = Path(
            attempt(
                lambda: api.hf_hub_download(
                    tree.repo,
                    name,
                    revision=tree.commit,
                    force_download=number > 0,  # noqa: B023
                ),
                f"downloading {name} of {tree.repo}",
                token_of(api),
            )
        )
        if expected.is_content(digest_file(path)):
            return path
        logger.warning("%s of %s is damaged in the cache or on the way; fetching it again.", name, tree.repo)
        with suppress(OSError):  # where nothing can be removed, nothing can be fetched either, and that is told
            path.resolve().unlink()  # the content itself, which other names may share
            path.unlink()
    raise HubError(
        f"downloading {name} of {tree.repo}@{tree.commit[:8]} failed: it arrived damaged {_FETCHES} times "
        "(its hash is not the one the Hub tells); is there a faulty proxy or disk?"
    )


def token_of(api: HfApi) -> str | None:
    """The token that was given to the client, if one was (else it uses the stored one)."""
    return api.token if isinstance(api.token, str) else None


def digest_file(path: str | os.PathLike[str]) -> Digest:
    """Hash a file in one pass, in pieces."""
    size = os.path.getsize(path)
    sha256, oid = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    with open(path, "rb") as file:
        while piece := file.read(_READ_BYTES):
            sha256.update(piece)
            oid.update(piece)
    return Digest(size, sha256.hexdigest(), oid.hexdigest())


def digest_bytes(content: bytes) -> Digest:
    """Hash bytes in memory."""
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content)
    return Digest(len(content), hashlib.sha256(content).hexdigest(), oid.hexdigest())


def read_record(folder: str | os.PathLike[str]) -> Synced | None:
    """The record of a folder; None when it has none, or none that can be read."""
    path = Path(folder) / RECORD_NAME
    try:
        return from_json(Synced, read_json(path), path)
    except (OSError, ValueError):
        return None


def write_record(folder: str | os.PathLike[str], record: Synced) -> None:
    """Write the record of a folder, atomically."""
    atomic_write(Path(folder) / RECORD_NAME, json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")
