"""Every fault of the Hub, the network and this machine, in every step of push and pull: right, or said what is wrong.

After each test nothing that was printed, logged or raised may hold the access token; the server even echoes it.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys

import pytest
from huggingface_hub import constants
from loopback import GOOD_TOKEN, Fault

from langsamp.hub.sync import ConflictError, HubError, IncompletePushError, UnreachableError, pull, push
from langsamp.manifest import MANIFEST_NAME, verify_manifest
from langsamp.runtime import resolve_model

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


@pytest.fixture(autouse=True)
def no_token_in_any_output(capfd, caplog):
    caplog.set_level(logging.DEBUG)
    yield
    printed = "".join(capfd.readouterr())
    assert GOOD_TOKEN not in printed + caplog.text


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


# ---------------------------------------------------------------- push


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("step", STEPS)
def test_passing_fault_in_a_push(hub, checkpoint, waits, outcome, step, kind):
    method, match = STEPS[step]
    hub.faults = [Fault(match, kind, method)]
    push(checkpoint, "user/x", tag="v1")
    assert hub.faults[0].times == 0
    is_pushed_once(hub, checkpoint)
    if kind == 429 and step == "committing":
        assert 7 in waits  # Retry-After
    outcome(f"{kind} once", f"push: {step}", "tried again; one commit, complete")


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("step", ["uploading", "committing"])
def test_lasting_fault_in_a_push_then_the_same_command_again(hub, checkpoint, waits, outcome, step, kind):
    method, match = STEPS[step]
    hub.faults = [Fault(match, kind, method, times=999)]
    refused(UnreachableError, "failed 5 times.*run the same command again", lambda: push(checkpoint, "user/x"))
    assert list(hub.repos["user/x"].files()) == [".gitattributes"]
    hub.faults = []
    hub.log.clear()
    push(checkpoint, "user/x")
    is_pushed_once(hub, checkpoint)
    if step == "committing":
        assert not hub.requests("^PUT")  # what arrived is not sent again
    outcome(f"{kind} lasting", f"push: {step}", "says so; nothing on the branch; same command again completes")


@pytest.mark.parametrize("kind", ["lost", "lost-drop"])
@pytest.mark.parametrize("step", ["creating the repository", "uploading", "committing", "tagging"])
def test_answer_lost_after_it_was_done(hub, checkpoint, waits, outcome, step, kind):
    method, match = STEPS[step]
    hub.faults = [Fault(match, kind, method)]
    result = push(checkpoint, "user/x", tag="v1")
    is_pushed_once(hub, checkpoint)
    assert result.commit == hub.repos["user/x"].resolve("main") == hub.repos["user/x"].resolve("v1")
    name = "503 after it was done" if kind == "lost" else "dropped after it was done"
    outcome(name, f"push: {step}", "noticed that it was done; applied once")


def test_commit_answer_lost_and_then_somebody_else_commits(hub, checkpoint, waits, outcome):
    hub.faults = [Fault("/commit/", "lost", "POST"), Fault("/revision/main", "moved", "GET", after="/commit/")]
    result = push(checkpoint, "user/x")
    repo = hub.repos["user/x"]
    assert repo.titles() == ["somebody else was here", "Push with langsamp", "initial commit"]
    assert repo.commits[result.commit][1] == "Push with langsamp"
    outcome("503 after it was done, then the branch moved", "push: committing", "finds its own commit; applied once")


def test_pull_request_is_opened_once(hub, checkpoint, waits, outcome):
    repo = hub.add_repo("user/x")
    hub.faults = [Fault("/commit/", "lost", "POST")]
    result = push(checkpoint, "user/x", create_pr=True)
    assert [ref for ref in repo.refs if "pr" in ref] == ["refs/pr/1"]
    assert result.url.endswith("/discussions/1")
    outcome("503 after it was done", "push --pr: committing", "finds its pull request; opened once")


def test_branch_moves_during_a_push(hub, checkpoint, waits, outcome):
    hub.faults = [Fault("/commit/", "moved", "POST")]
    refused(ConflictError, "has moved.*nothing was written", lambda: push(checkpoint, "user/x"))
    assert hub.repos["user/x"].titles() == ["somebody else was here", "initial commit"]
    outcome("moved branch", "push: committing", "conflict, with both commits named; nothing written")


def test_branch_moves_between_two_tries(hub, checkpoint, waits, outcome):
    hub.faults = [Fault("/commit/", 503, "POST"), Fault("/revision/main", "moved", "GET", after="/commit/")]
    refused(ConflictError, "has moved", lambda: push(checkpoint, "user/x"))
    assert "Push with langsamp" not in hub.repos["user/x"].titles()
    outcome("503, then moved branch", "push: committing", "conflict; nothing written")


@pytest.mark.parametrize("operation", ["push", "pull"])
def test_expired_token(hub, checkpoint, tmp_path, outcome, operation):
    hub.add_repo("user/x", private=True)
    hub.tokens = ["hf_another"]
    call = {"push": lambda: push(checkpoint, "user/x"), "pull": lambda: pull("user/x", tmp_path / "out")}[operation]
    message = refused(HubError, "HF_TOKEN", call)
    assert "401" in message
    assert not (tmp_path / "out").exists()
    outcome("expired token", operation, "says that the token is not accepted, and where it comes from")


def test_token_without_write_access(hub, checkpoint, outcome):
    hub.add_repo("user/x")
    hub.faults = [Fault("/preupload/", 403, times=9)]
    refused(HubError, "write access", lambda: push(checkpoint, "user/x"))
    outcome("token without write access", "push", "says so; nothing written")


# ---------------------------------------------------------------- pull


@pytest.fixture
def pushed(hub, checkpoint):
    push(checkpoint, "user/x")
    hub.log.clear()
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    return hub.repos["user/x"]


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("step", DOWNLOADS)
def test_passing_fault_in_a_pull(hub, pushed, tmp_path, waits, outcome, step, kind):
    method, match = DOWNLOADS[step]
    hub.faults = [Fault(match, kind, method)]
    pull("user/x", tmp_path / "out")
    assert hub.faults[0].times == 0
    assert verify_manifest(tmp_path / "out") == []
    outcome(f"{kind} once", f"pull: {step}", "tried again; complete and verified")


@pytest.mark.parametrize(
    ("step", "kind"), [(step, kind) for step in DOWNLOADS for kind in PASSING] + [("downloading", "truncate")]
)
def test_lasting_fault_in_a_pull(hub, pushed, tmp_path, waits, outcome, step, kind):
    method, match = DOWNLOADS[step]
    hub.faults = [Fault(match, kind, method, times=999)]
    refused(UnreachableError, "failed 5 times", lambda: pull("user/x", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    hub.faults = []
    pull("user/x", tmp_path / "out")
    assert verify_manifest(tmp_path / "out") == []
    outcome(f"{kind} lasting", f"pull: {step}", "says so; folder untouched; same command again completes")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", MANIFEST_NAME])
@pytest.mark.parametrize("kind", ["truncate", "corrupt"])
def test_damaged_download(hub, pushed, tmp_path, waits, outcome, file, kind):
    hub.faults = [Fault(f"/resolve/.*/{file}", kind, "GET")]
    pull("user/x", tmp_path / "out")
    assert hub.faults[0].times == 0
    assert verify_manifest(tmp_path / "out") == []
    assert (tmp_path / "out" / file).read_bytes() == pushed.files()[file]
    name = {"truncate": "truncated body", "corrupt": "corrupted byte, equal length"}[kind]
    outcome(name, f"pull: downloading {file}", "fetched again; complete and verified")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", MANIFEST_NAME])
def test_download_that_is_always_corrupted(hub, pushed, tmp_path, waits, outcome, file):
    hub.faults = [Fault(f"/resolve/.*/{file}", "corrupt", "GET", times=999)]
    refused(HubError, f"{file} of user/x@.* arrived damaged 3 times", lambda: pull("user/x", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    hub.faults = []
    pull("user/x", tmp_path / "out")
    assert verify_manifest(tmp_path / "out") == []
    outcome("corrupted byte, every time", f"pull: downloading {file}", "says which file; folder untouched")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_loading_by_name_notices_damage(hub, pushed, waits, outcome, file):
    hub.faults = [Fault(f"/resolve/.*/{file}", "corrupt", "GET")]
    source = resolve_model("user/x")
    assert verify_manifest(source.path, follow_symlinks=True) == []
    outcome("corrupted byte, equal length", f"loading user/x: {file}", "noticed; fetched again")


def test_loading_by_name_refuses_lasting_damage(hub, pushed, waits, outcome):
    hub.faults = [Fault("/resolve/.*/model.safetensors", "corrupt", "GET", times=99)]
    refused(RuntimeError, r"not a finished push \(model\.safetensors", lambda: resolve_model("user/x"))
    outcome("corrupted byte, every time", "loading user/x", "refused, the file is named")


def test_branch_moves_during_a_pull(hub, pushed, tmp_path, waits, outcome):
    first = pushed.resolve("main")
    hub.faults = [Fault("/resolve/.*/model.safetensors", "moved", "GET")]
    result = pull("user/x", tmp_path / "out")
    assert result.commit == first != pushed.resolve("main")
    assert verify_manifest(tmp_path / "out") == []
    outcome("moved branch", "pull", "all files are of the commit it began with")


def test_hub_out_of_reach_but_in_the_cache(hub, pushed, tmp_path, waits, outcome, caplog):
    pull("user/x", tmp_path / "one")
    hub.faults = [Fault(".", "drop", times=999)]
    result = pull("user/x", tmp_path / "two")
    assert result.commit == pushed.resolve("main")
    assert verify_manifest(tmp_path / "two") == []
    assert "from the cache, which may be old" in caplog.text
    outcome("no connection at all", "pull of something pulled before", "taken from the cache, with a warning")


# ---------------------------------------------------------------- the disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 144 kB, where this machine lets us make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=144k", "tmpfs", str(folder)], check=False, capture_output=True
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("small file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("known", [True, False], ids=["free space known", "found out when writing"])
def test_disk_full_in_the_folder(hub, pushed, small_disk, checkpoint, monkeypatch, outcome, known):
    out = small_disk / "out"
    pull("user/x", out)  # takes 110 kB in pages
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    shutil.copy(another_weights(checkpoint), checkpoint / "model.safetensors")
    push(checkpoint, "user/x")
    if not known:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**9))
    refused(HubError, "disk is full.*files there are as they were", lambda: pull("user/x", out))
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    assert verify_manifest(out) == []
    resolve_model(out)
    outcome("disk full", "pull: writing the folder", "says so; the folder is as it was and loads")


def another_weights(checkpoint):
    content = bytearray((checkpoint / "model.safetensors").read_bytes())
    content[-1] ^= 1
    other = checkpoint.parent / "other.safetensors"
    other.write_bytes(bytes(content))
    return other


def test_disk_full_in_the_cache(hub, pushed, small_disk, tmp_path, monkeypatch, waits, outcome):
    (small_disk / "filler").write_bytes(bytes(80_000))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(small_disk / "cache"))
    refused(HubError, "disk is full", lambda: pull("user/x", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (small_disk / "filler").unlink()
    pull("user/x", tmp_path / "out")
    outcome("disk full", "pull: writing the cache", "says so; folder untouched; works after making room")


def test_disk_full_wherever_it_strikes(hub, pushed, tmp_path, monkeypatch, outcome):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    refused(HubError, "disk is full", lambda: pull("user/x", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_disk_full_after_a_push(hub, checkpoint, monkeypatch, caplog, outcome):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("langsamp.hub.push.write_record", full)
    push(checkpoint, "user/x")
    is_pushed_once(hub, checkpoint)
    assert "could not be noted" in caplog.text
    outcome("disk full", "push", "pushed; a warning that the commit could not be noted in the folder")


# ---------------------------------------------------------------- SIGKILL

PUSH = "from langsamp.hub.sync import push; push({0!r}, 'user/x')"
PULL = "from langsamp.hub.sync import pull; pull('user/x', {0!r})"
KILL_AT_MANIFEST = (
    """
import os, signal
replace = os.replace
def stop(source, target):
    if str(target).endswith("out/{1}"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = stop
"""
    + PULL
)


def kill_while_hanging(hub, hub_env, code, match, method):
    """Start a process, kill it while the Hub keeps the matching request waiting."""
    hub.faults = [Fault(match, "hang", method)]
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=hub_env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert hub.hanging.wait(60)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0].decode()
    hub.release.set()
    assert GOOD_TOKEN not in output
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("step", ["asking where to upload", "uploading", "committing"])
def test_push_killed(hub, hub_env, checkpoint, outcome, step):
    method, match = STEPS[step]
    kill_while_hanging(hub, hub_env, PUSH.format(str(checkpoint)), match, method)
    assert list(hub.repos["user/x"].files()) == [".gitattributes"]
    arrived = set(hub.lfs)
    hub.log.clear()
    push(checkpoint, "user/x")
    is_pushed_once(hub, checkpoint)
    assert len(hub.requests("^PUT")) == 2 - len(arrived)
    outcome(
        "SIGKILL", f"push: {step}", "nothing on the branch; same command again completes, sends only what is missing"
    )


def test_push_killed_between_weights_and_manifest_by_another_tool(hub, pushed, tmp_path, outcome):
    weights = bytes(reversed(pushed.files()["model.safetensors"]))
    pushed.commit("main", {"model.safetensors": weights}, "hf upload, interrupted")
    refused(IncompletePushError, "not a finished push: model.safetensors", lambda: pull("user/x", tmp_path / "out"))
    refused(RuntimeError, "not a finished push", lambda: resolve_model("user/x"))
    pull("user/x", tmp_path / "out", last_good=True)
    resolve_model(tmp_path / "out")
    outcome(
        "SIGKILL between weights and manifest",
        "several commits by another tool",
        "pull and loading refuse; --last-good",
    )


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_pull_killed_while_downloading(hub, hub_env, pushed, tmp_path, outcome, file):
    out = tmp_path / "out"
    kill_while_hanging(hub, hub_env, PULL.format(str(out)), f"/resolve/.*/{file}", "GET")
    refused((RuntimeError, FileNotFoundError), ".", lambda: load(out))
    pull("user/x", out)
    assert verify_manifest(out) == []
    outcome("SIGKILL", f"pull: downloading {file}", "nothing to load; same command again completes")


@pytest.mark.parametrize("before", ["new folder", "older revision"])
def test_pull_killed_between_weights_and_manifest(hub, hub_env, pushed, checkpoint, tmp_path, outcome, before):
    out = tmp_path / "out"
    if before == "older revision":
        pull("user/x", out)
        shutil.copy(another_weights(checkpoint), checkpoint / "model.safetensors")
        push(checkpoint, "user/x")
    code = KILL_AT_MANIFEST.format(str(out), MANIFEST_NAME)
    done = subprocess.run([sys.executable, "-c", code], env=hub_env, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert (out / "model.safetensors").exists()
    refused(RuntimeError, "interrupted", lambda: resolve_model(out))
    refused((ValueError, FileNotFoundError), ".", lambda: push(out, "user/y"))
    pull("user/x", out)
    assert verify_manifest(out) == []
    resolve_model(out)
    outcome(
        "SIGKILL between weights and manifest", f"pull into a {before}", "not loaded, not pushed; pull again completes"
    )


def load(folder):
    """What every command does first with a folder."""
    source = resolve_model(folder)
    if not (source.path / "model.safetensors").is_file():
        raise FileNotFoundError("no model")
