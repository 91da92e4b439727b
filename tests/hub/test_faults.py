"""Every fault of the Hub and the network, in every step of push and pull: it ends right, or says what is wrong.

After each test nothing that was printed, logged or raised may hold the access token; the server even echoes it.
"""

from __future__ import annotations

import pytest
from support.fault_helpers import DOWNLOADS, PASSING, STEPS, is_pushed_once, refused
from support.loopback import Fault

from langsamp.core.manifest import MANIFEST_NAME, verify_manifest
from langsamp.core.retry import ConflictError, HubError, UnreachableError
from langsamp.core.runtime import resolve_model
from langsamp.hub.pull import pull
from langsamp.hub.push import push

pytestmark = pytest.mark.usefixtures("no_token_in_any_output")


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
    repo = hub.add_repo("user/x")
    before = repo.resolve("main")
    hub.faults = [Fault("/preupload/", 403, times=9)]
    refused(HubError, "write access", lambda: push(checkpoint, "user/x"))
    assert repo.resolve("main") == before
    outcome("token without write access", "push", "says so; nothing written")


# ---------------------------------------------------------------- pull


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
