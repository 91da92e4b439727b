"""Disk full and SIGKILL in every step of push and pull: nothing half-done is loaded; the same call completes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest
from huggingface_hub import constants
from support.fault_helpers import STEPS, is_pushed_once, refused
from support.loopback import GOOD_TOKEN, Fault

from langsamp.core.manifest import MANIFEST_NAME, verify_manifest
from langsamp.core.retry import HubError, IncompletePushError
from langsamp.core.runtime import resolve_model
from langsamp.hub.pull import pull
from langsamp.hub.push import push

pytestmark = pytest.mark.usefixtures("no_token_in_any_output")


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

PUSH = "from langsamp.hub.push import push; push({0!r}, 'user/x')"
PULL = "from langsamp.hub.pull import pull; pull('user/x', {0!r})"
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
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == bytes(reversed(weights))
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
