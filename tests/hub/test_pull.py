"""Pull: what comes down, how it is verified, what is refused, and what happens to files that are there already."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants

from langsamp.core.manifest import MANIFEST_NAME, RECORD_NAME, verify_manifest
from langsamp.core.retry import HubError, IncompletePushError
from langsamp.core.runtime import resolve_model
from langsamp.hub.pull import pull
from langsamp.hub.push import push
from langsamp.hub.remote import read_record

WEIGHTS = "model.safetensors"


@pytest.fixture
def repo(hub, checkpoint):
    push(checkpoint, "user/x")
    hub.log.clear()
    return hub.repos["user/x"]


def flip(path, at=-5):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {RECORD_NAME}


def test_folder_equals_the_commit(hub, repo, checkpoint, tmp_path, pushed_names):
    result = pull("user/x", tmp_path / "out")
    assert names_in(tmp_path / "out") == pushed_names | {".gitattributes"}
    assert result.verified
    assert verify_manifest(tmp_path / "out") == []
    for name in pushed_names - {MANIFEST_NAME}:
        assert (tmp_path / "out" / name).read_bytes() == (checkpoint / name).read_bytes()


def test_commit_is_recorded(hub, repo, tmp_path):
    result = pull("user/x", tmp_path / "out")
    record = read_record(tmp_path / "out")
    assert (record.repo, record.revision, record.commit) == ("user/x", "main", repo.resolve("main"))
    assert record.complete
    assert result.commit == record.commit


@pytest.mark.parametrize("how", ["option", "suffix", "commit"])
def test_revision(hub, repo, checkpoint, tmp_path, how):
    first = repo.resolve("main")
    repo.refs["refs/tags/v1"] = first
    (checkpoint / "results.jsonl").write_text("second\n")
    push(checkpoint, "user/x")
    asked = {"option": ("user/x", "v1"), "suffix": ("user/x@v1", None), "commit": ("user/x", first)}[how]
    assert pull(asked[0], tmp_path / "out", revision=asked[1]).commit == first
    assert (tmp_path / "out" / "results.jsonl").read_text() == '{"schema": 1}\n'


def test_pull_request(hub, repo, checkpoint, tmp_path):
    (checkpoint / "results.jsonl").write_text("second\n")
    result = push(checkpoint, "user/x", create_pr=True)
    assert pull("user/x", tmp_path / "out", revision="refs/pr/1").commit == result.commit
    assert (tmp_path / "out" / "results.jsonl").read_text() == "second\n"


def test_several_processes_pull_into_one_folder(hub, repo, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: pull("user/x", tmp_path / "out"), range(4)))
    assert sorted(len(result.fetched) for result in results)[:3] == [0, 0, 0]
    assert verify_manifest(tmp_path / "out") == []


def test_second_pull_fetches_nothing(hub, repo, tmp_path):
    pull("user/x", tmp_path / "out")
    hub.log.clear()
    result = pull("user/x", tmp_path / "out")
    assert result.fetched == []
    assert not hub.requests("^(GET|HEAD) /user/x/resolve")


def test_only_differences_are_fetched(hub, repo, checkpoint, tmp_path):
    pull("user/x", tmp_path / "out")
    (checkpoint / "results.jsonl").write_text("more\n")
    (checkpoint / "report.html").unlink()
    push(checkpoint, "user/x")
    hub.log.clear()
    result = pull("user/x", tmp_path / "out")
    assert (result.fetched, result.removed) == ([MANIFEST_NAME, "results.jsonl"], ["report.html"])
    assert not hub.requests("GET .*safetensors")
    assert verify_manifest(tmp_path / "out") == []


def test_damaged_and_missing_files_are_fetched_again(hub, repo, tmp_path):
    pull("user/x", tmp_path / "out")
    flip(tmp_path / "out" / WEIGHTS)
    (tmp_path / "out" / "config.json").unlink()
    assert pull("user/x", tmp_path / "out").fetched == ["config.json", WEIGHTS]
    assert verify_manifest(tmp_path / "out") == []


def test_damaged_cache_is_noticed_and_mended(hub, repo, tmp_path, caplog):
    pull("user/x", tmp_path / "one")
    for blob in (tmp_path / "cache").rglob("blobs/*"):
        flip(blob, 0)
    hub.log.clear()
    pull("user/x", tmp_path / "two")
    assert verify_manifest(tmp_path / "two") == []
    assert "is damaged in the cache" in caplog.text
    assert hub.requests("GET .*safetensors")


def test_offline_from_the_cache(hub, repo, tmp_path, monkeypatch):
    online = pull("user/x", tmp_path / "one")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    offline = pull("user/x", tmp_path / "two")
    assert hub.log == []
    assert offline.commit == online.commit
    assert names_in(tmp_path / "one") == names_in(tmp_path / "two")
    with pytest.raises(HubError, match="user/y@main is not in the cache"):
        pull("user/y", tmp_path / "three")


def test_offline_damage_is_not_accepted(hub, repo, tmp_path, monkeypatch):
    pull("user/x", tmp_path / "one")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for blob in (tmp_path / "cache").rglob("blobs/*"):
        flip(blob, 0)
    with pytest.raises(HubError, match="is damaged in the cache"):
        pull("user/x", tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_part_of_a_repository_in_the_cache_is_not_a_checkpoint(hub, repo, tmp_path, monkeypatch):
    pull("user/x", tmp_path / "one")
    for name in (tmp_path / "cache").rglob("snapshots/*/model.safetensors"):
        name.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(IncompletePushError, match=r"model\.safetensors is missing"):
        pull("user/x", tmp_path / "two")


# ---------------------------------------------------------------- edits on this side


def test_edited_document_is_kept_until_the_hub_changes_it_too(hub, repo, checkpoint, tmp_path, caplog):
    out = tmp_path / "out"
    pull("user/x", out)
    (out / "results.jsonl").write_text("mine\n")
    result = pull("user/x", out)
    assert (result.kept, result.fetched) == (["results.jsonl"], [])
    (checkpoint / "results.jsonl").write_text("theirs\n")
    push(checkpoint, "user/x")
    pull("user/x", out)
    assert (out / "results.jsonl").read_text() == "theirs\n"
    assert (out / "results.jsonl.orig").read_text() == "mine\n"
    assert "yours is kept" in caplog.text


def test_pull_then_edit_then_push_builds_on_the_pulled_commit(hub, repo, tmp_path):
    out = tmp_path / "out"
    pull("user/x", out)
    (out / "results.jsonl").write_text("mine\n")
    push(out, "user/x")
    assert repo.files()["results.jsonl"] == b"mine\n"
    assert RECORD_NAME not in repo.files()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "C:evil.py", "a\\evil.py"])
def test_names_that_leave_the_folder_are_refused(hub, repo, tmp_path, name):
    repo.commit("main", {name: b"evil"})
    with pytest.raises(HubError, match="not a plain relative path"):
        pull("user/x", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil.py").exists()


@pytest.mark.parametrize("name", [".git/hooks/post-checkout", "a/.GIT/config", ".langsamp_pull/config.json"])
def test_names_that_would_change_a_git_repository_or_this_pull_are_refused(hub, repo, tmp_path, name):
    repo.commit("main", {name: b"evil"})
    with pytest.raises(HubError, match=r"is refused: .* is not part of a model"):
        pull("user/x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_gathered_through_a_link(hub, repo, checkpoint, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text("mine")
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "out" / ".langsamp_pull")
    pull("user/x", tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == (checkpoint / "config.json").read_bytes()
    assert (tmp_path / "elsewhere" / "config.json").read_text() == "mine"
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_manifest_that_names_a_path_outside_is_refused(hub, repo, tmp_path):
    manifest = repo.files()[MANIFEST_NAME].replace(b'"README.md"', b'"../README.md"')
    repo.commit("main", {MANIFEST_NAME: manifest})
    with pytest.raises(IncompletePushError, match="not a plain relative path"):
        pull("user/x", tmp_path / "out")


def test_nothing_is_written_through_a_link(hub, repo, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "out" / "plots")
    with pytest.raises(HubError, match="symbolic link"):
        pull("user/x", tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_pickles_are_never_downloaded(hub, repo, tmp_path):
    repo.commit("main", {"pytorch_model.bin": b"evil", "checkpoint-3/optimizer.pt": b"evil", "X.PKL": b"evil"})
    hub.log.clear()
    result = pull("user/x", tmp_path / "out")
    assert sorted(result.refused) == ["X.PKL", "checkpoint-3/optimizer.pt", "pytorch_model.bin"]
    assert not hub.requests(r"resolve/.*(bin|pt|PKL)$")
    assert not names_in(tmp_path / "out") & set(result.refused)


def test_weights_only_as_pickle_are_refused(hub, tmp_path):
    hub.add_repo("user/old").commit("main", {"config.json": b"{}", "pytorch_model.bin": b"evil"})
    with pytest.raises(HubError, match="safetensors only"):
        pull("user/old", tmp_path / "out")


def test_repository_without_a_manifest_warns_once_and_strict_refuses(hub, tmp_path, caplog):
    hub.add_repo("user/third").commit("main", {"config.json": b"{}", WEIGHTS: b"weights"})
    result = pull("user/third", tmp_path / "out")
    assert not result.verified
    assert [r.levelname for r in caplog.records if r.name.startswith("langsamp")] == ["WARNING"]
    with pytest.raises(HubError, match="refused"):
        pull("user/third", tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_strict_refuses_files_that_the_manifest_does_not_name(hub, repo, tmp_path):
    repo.commit("main", {"extra.py": b"import os\n"})
    pull("user/x", tmp_path / "out")
    with pytest.raises(HubError, match=r"holds extra\.py, which its manifest does not name"):
        pull("user/x", tmp_path / "out", strict=True)


@pytest.mark.parametrize("changed", [WEIGHTS, "config.json", "modeling_x.py"])
def test_unfinished_push_is_refused_and_last_good_goes_back(hub, repo, tmp_path, changed, caplog):
    good = repo.resolve("main")
    repo.commit("main", {changed: bytes(len(repo.files()[changed]))}, "half a push")
    with pytest.raises(IncompletePushError, match=f"not a finished push: {changed}"):
        pull("user/x", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert pull("user/x", tmp_path / "out", last_good=True).commit == good
    assert "not a finished push" in caplog.text
    assert verify_manifest(tmp_path / "out") == []


def test_last_good_takes_a_good_head_as_it_is(hub, repo, tmp_path):
    assert pull("user/x", tmp_path / "out", last_good=True).commit == repo.resolve("main")


def test_card_edited_on_the_website_is_accepted(hub, repo, tmp_path, caplog):
    repo.commit("main", {"README.md": b"edited on the website\n"})
    pull("user/x", tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_bytes() == b"edited on the website\n"
    assert "changed on the Hub after the push" in caplog.text


@pytest.mark.parametrize("spec", ["user/none", "user/x@none"])
def test_missing_repository_or_revision(hub, repo, tmp_path, spec):
    with pytest.raises(HubError, match="no such repository or revision"):
        pull(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_that_a_bad_disk_made_is_not_put_in_place(hub, checkpoint, tmp_path, monkeypatch):
    push(checkpoint, "user/x")
    whole = shutil.copyfile

    def damaged(source, target):
        whole(source, target)
        if str(target).endswith("model.safetensors"):
            Path(target).write_bytes(Path(target).read_bytes()[:-1] + b"!")

    monkeypatch.setattr(shutil, "copyfile", damaged)
    with pytest.raises(HubError, match=r"model.safetensors changed while it was copied .* Pull again"):
        pull("user/x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- files and folders of one name


def test_a_folder_that_becomes_a_file_and_back(hub, repo, tmp_path):
    """`plots/` is a folder of the first commit."""
    out, first = tmp_path / "out", repo.resolve("main")
    pull("user/x", out)
    repo.commit("main", {"plots": b"a file"}, deletes=("plots/map.png",))
    pull("user/x", out)
    assert (out / "plots").read_bytes() == b"a file"
    pull("user/x", out, revision=first)
    assert (out / "plots" / "map.png").is_file()


def test_a_folder_that_is_gone_on_the_hub_goes(hub, repo, tmp_path):
    pull("user/x", tmp_path / "out")
    repo.commit("main", {}, deletes=("plots/map.png",))
    pull("user/x", tmp_path / "out")
    assert not (tmp_path / "out" / "plots").exists()


@pytest.mark.parametrize("mine", ["README.md/notes", "plots"])
def test_what_is_in_the_way_is_named_and_stays(hub, repo, tmp_path, mine):
    out = tmp_path / "out"
    (out / mine).parent.mkdir(parents=True)
    (out / mine).write_text("mine")
    with pytest.raises(HubError, match=rf"{mine} is in the way of (README.md|plots/map.png); move it"):
        pull("user/x", out)
    assert names_in(out) == {mine}
    assert (out / mine).read_text() == "mine"


def test_a_file_instead_of_the_folder_is_named(hub, repo, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(HubError, match="out is in the way of"):
        pull("user/x", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_cache_that_cannot_be_written_serves_what_it_holds(hub, repo, tmp_path, read_only, pushed_names):
    """A cluster's, that somebody else has filled."""
    pull("user/x", tmp_path / "theirs")
    read_only(constants.HF_HUB_CACHE)
    pull("user/x", tmp_path / "mine")
    assert names_in(tmp_path / "mine") == pushed_names | {".gitattributes"}
    assert resolve_model("user/x").revision == repo.resolve("main")


@pytest.mark.parametrize("state", ["empty", "older", "damaged"])
def test_a_cache_that_cannot_be_written_and_lacks_something_says_so(hub, repo, checkpoint, tmp_path, read_only, state):
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir()
    if state != "empty":
        pull("user/x", tmp_path / "theirs")
    if state == "older":
        (checkpoint / "results.jsonl").write_text("second\n")
        push(checkpoint, "user/x")
    if state == "damaged":
        flip(next(cache.glob(f"models--*/snapshots/*/{WEIGHTS}")).resolve())
    read_only(str(cache))
    with pytest.raises(
        HubError, match=r"failed: the cache does not hold all .*/cache.*; set HF_HOME, or .* to a folder of yours"
    ):
        pull("user/x", tmp_path / "mine")
    assert names_in(tmp_path / "mine") == set()
    if state != "damaged":
        with pytest.raises(FileNotFoundError, match=r"cannot be had .* set HF_HOME, or .* to a folder of yours"):
            resolve_model("user/x")
