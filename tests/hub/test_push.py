"""Push: what goes up, how often, and when it is refused."""

from __future__ import annotations

import json

import pytest
from support.loopback import GOOD_TOKEN, Fault

from langsamp.core.manifest import MANIFEST_NAME, RECORD_NAME, read_manifest, write_manifest
from langsamp.core.retry import ConflictError, HubError
from langsamp.hub.commit import Change
from langsamp.hub.documents import complete
from langsamp.hub.pull import pull
from langsamp.hub.push import push
from langsamp.hub.remote import RemoteFile, RemoteTree, digest_bytes, digest_file


def test_one_commit_with_exactly_what_belongs_there(hub, checkpoint, pushed_names):
    result = push(checkpoint, "user/x")
    repo = hub.repos["user/x"]
    assert set(repo.files()) == pushed_names | {".gitattributes"}
    assert repo.titles() == ["Push with langsamp", "initial commit"]
    assert result.commit == repo.resolve("main")
    assert result.created
    assert set(result.uploaded) == set(result.files) == pushed_names
    for name in pushed_names - {MANIFEST_NAME}:
        assert repo.files()[name] == (checkpoint / name).read_bytes()


def test_the_manifest_on_the_hub_names_every_pushed_file(hub, checkpoint, pushed_names, tmp_path):
    push(checkpoint, "user/x")
    (tmp_path / MANIFEST_NAME).write_bytes(hub.repos["user/x"].files()[MANIFEST_NAME])
    entries = read_manifest(tmp_path)
    assert set(entries) == pushed_names - {MANIFEST_NAME}
    weights = digest_file(checkpoint / "model.safetensors")
    assert (entries["model.safetensors"].sha256, entries["model.safetensors"].size) == (weights.sha256, weights.size)


def test_weights_arrive_before_the_commit(hub, checkpoint):
    push(checkpoint, "user/x")
    puts = [i for i, line in enumerate(hub.log) if line.startswith("PUT /_lfs/")]
    (commit,) = [i for i, line in enumerate(hub.log) if "/commit/" in line]
    assert len(puts) == 2  # weights and the plot
    assert max(puts) < commit


def test_unchanged_second_push_makes_no_commit(hub, checkpoint):
    first = push(checkpoint, "user/x")
    hub.log.clear()
    second = push(checkpoint, "user/x")
    assert (second.commit, second.created, second.uploaded) == (first.commit, False, [])
    assert not hub.requests("^(PUT|POST .*/commit/)")
    assert len(hub.repos["user/x"].commits) == 2


def test_changed_folder_sends_only_the_difference(hub, checkpoint):
    push(checkpoint, "user/x")
    (checkpoint / "results.jsonl").write_text('{"schema": 1}\n{"schema": 1}\n')
    hub.log.clear()
    result = push(checkpoint, "user/x")
    assert result.uploaded == [MANIFEST_NAME, "results.jsonl"]
    assert not hub.requests("^PUT")


def test_files_of_an_earlier_push_go_away_and_files_of_others_stay(hub, checkpoint):
    push(checkpoint, "user/x")
    (checkpoint / "report.html").unlink()
    (checkpoint / RECORD_NAME).unlink()
    hub.repos["user/x"].commit("main", {"LOGO.svg": b"<svg/>", "model.safetensors.index.json": b"{}"})
    result = push(checkpoint, "user/x")
    assert result.deleted == ["model.safetensors.index.json", "report.html"]  # a stale index would name other weights
    assert "LOGO.svg" in hub.repos["user/x"].files()


def test_private_and_name_without_a_user(hub, checkpoint):
    assert push(checkpoint, "mine", private=True).repo == "user/mine"
    assert hub.repos["user/mine"].private
    assert not push(checkpoint, "mine", private=True).created


def test_private_refuses_a_public_repository(hub, checkpoint):
    hub.add_repo("user/x")
    with pytest.raises(ValueError, match="exists and is public"):
        push(checkpoint, "user/x", private=True)
    assert not hub.requests("^PUT")


def test_branch_is_made_and_main_stays(hub, checkpoint):
    hub.add_repo("user/x")
    push(checkpoint, "user/x", revision="step-100")
    assert list(hub.repos["user/x"].files("main")) == [".gitattributes"]
    assert "model.safetensors" in hub.repos["user/x"].files("step-100")
    assert not push(checkpoint, "user/x", revision="step-100").created


def test_pull_request(hub, checkpoint):
    repo = hub.add_repo("user/x")
    result = push(checkpoint, "user/x", create_pr=True)
    assert result.url == f"{hub.url}/user/x/discussions/1"
    assert "model.safetensors" in repo.files("refs/pr/1")
    assert list(repo.files("main")) == [".gitattributes"]


def test_tag(hub, checkpoint):
    result = push(checkpoint, "user/x", tag="v1")
    repo = hub.repos["user/x"]
    assert repo.resolve("v1") == result.commit
    assert not push(checkpoint, "user/x", tag="v1").created
    (checkpoint / "results.jsonl").write_text("{}\n")
    with pytest.raises(ConflictError, match=r"tag 'v1'.*already names"):
        push(checkpoint, "user/x", tag="v1")
    assert repo.resolve("main") == result.commit


@pytest.mark.parametrize(
    ("options", "message"), [({"tag": "v1", "create_pr": True}, "cannot be tagged"), ({"revision": "a" * 40}, "branch")]
)
def test_options_that_disagree(hub, checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        push(checkpoint, "user/x", **options)
    assert hub.log == []


def test_dry_run_needs_no_network(hub, checkpoint, pushed_names):
    result = push(checkpoint, "user/x", dry_run=True)
    assert hub.log == []
    assert set(result.files) == pushed_names
    assert result.files["model.safetensors"] == (checkpoint / "model.safetensors").stat().st_size
    assert result.commit is None
    assert not (checkpoint / RECORD_NAME).exists()


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "plots/map.png", "modeling_x.py", "model.safetensors"])
def test_a_link_out_of_the_folder_is_not_followed(hub, checkpoint, tmp_path, name):
    secret = tmp_path / "id_rsa"
    secret.write_bytes((checkpoint / name).read_bytes() if (checkpoint / name).is_file() else b"PRIVATE")
    (checkpoint / name).unlink(missing_ok=True)
    (checkpoint / name).symlink_to(secret)
    with pytest.raises(ValueError, match=f"{name} is or goes through a symbolic link out of the folder"):
        push(checkpoint, "user/x")
    assert hub.log == []


def test_a_folder_that_is_a_link_is_not_followed_either(hub, checkpoint, tmp_path):
    (checkpoint / "plots").rename(tmp_path / "elsewhere")
    (checkpoint / "plots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"plots/map\.png is or goes through a symbolic link"):
        push(checkpoint, "user/x")


def test_trainer_state_and_results_that_are_links_are_not_followed(hub, checkpoint, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (checkpoint / "checkpoint-3" / "trainer_state.json").symlink_to(tmp_path / "secret.json")
    (checkpoint / "checkpoint-3" / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match="symbolic link"):
        push(checkpoint, "user/x", with_trainer_state=True)
    results = tmp_path / "results"
    results.mkdir()
    (results / "results.jsonl").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match="symbolic link"):
        complete(checkpoint, "user/x", results)


def test_links_within_the_folder_and_to_the_folder_are_fine(hub, checkpoint, tmp_path, pushed_names):
    (checkpoint / "README.md").rename(checkpoint / "CARD.md")
    (checkpoint / "README.md").symlink_to("CARD.md")
    (tmp_path / "link").symlink_to(checkpoint)
    assert set(push(tmp_path / "link", "user/x").files) == pushed_names


# ---------------------------------------------------------------- conflicts


def test_moved_branch_since_the_last_push_is_a_conflict(hub, checkpoint):
    first = push(checkpoint, "user/x")
    hub.move_branches()
    moved = hub.repos["user/x"].resolve("main")
    (checkpoint / "results.jsonl").write_text("{}\n")
    with pytest.raises(
        ConflictError, match=f"was at {first.commit[:8]}, now it is at {moved[:8]}.*nothing was written"
    ):
        push(checkpoint, "user/x")
    assert hub.repos["user/x"].resolve("main") == moved
    push(checkpoint, "user/x", parent_commit=moved)
    assert hub.repos["user/x"].files()["NEWS.md"] == b"moved\n"


@pytest.mark.parametrize("how", ["commit", "tag"])
def test_pulling_an_old_commit_and_pushing_to_the_moved_branch_is_a_conflict(hub, checkpoint, tmp_path, how):
    first = push(checkpoint, "user/x", tag="v1").commit
    hub.move_branches()
    pull("user/x", tmp_path / "out", revision={"commit": first, "tag": "v1"}[how])
    (tmp_path / "out" / "results.jsonl").write_text("{}\n")
    with pytest.raises(ConflictError, match="has moved"):
        push(tmp_path / "out", "user/x")


def test_folder_in_step_with_another_branch_may_go_to_main(hub, checkpoint):
    push(checkpoint, "user/x", revision="checkpoints")
    hub.repos["user/x"].commit("main", {"NEWS.md": b"news"})
    push(checkpoint, "user/x")
    assert set(hub.repos["user/x"].files()) > {"NEWS.md", "model.safetensors"}


def test_card_that_the_hub_refuses(hub, checkpoint):
    hub.card_errors = ['"license" is not allowed to be empty']
    with pytest.raises(HubError, match='"license" is not allowed to be empty'):
        push(checkpoint, "user/x")
    assert list(hub.repos["user/x"].files()) == [".gitattributes"]


def test_record_of_a_repository_that_was_made_again_is_forgotten(hub, checkpoint):
    push(checkpoint, "user/x")
    del hub.repos["user/x"]
    assert push(checkpoint, "user/x").created


# ---------------------------------------------------------------- refusals before anything is sent


def _truncate(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-7])


def _pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _missing_shard(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _foreign_code(folder):
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "other/repo--modeling_x.XModel"}}))


def _missing_code(folder):
    (folder / "scripts_x.py").unlink()


def _torn_config(folder):
    (folder / "config.json").write_text('{"model_type": "xlm')


def _token(folder):
    (folder / "training.json").write_text(json.dumps({"hub_token": GOOD_TOKEN}))


def _unfinished_save(folder):
    write_manifest(folder)
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_truncate, ValueError, r"model\.safetensors: expected 40072 bytes, found"),
        (_pickle_only, FileNotFoundError, "only safetensors weights are pushed"),
        (_missing_shard, FileNotFoundError, "no model-00002-of-00002.safetensors"),
        (_foreign_code, ValueError, "code from another repository"),
        (_missing_code, FileNotFoundError, r"scripts_x\.py is missing"),
        (_torn_config, ValueError, "not readable JSON"),
        (_token, ValueError, r"training\.json contains a Hugging Face access token"),
        (_unfinished_save, ValueError, r"config\.json: expected \d+ bytes, found 2.*delete"),
    ],
)
def test_folder_that_is_not_whole_is_refused_before_any_request(hub, checkpoint, damage, error, message):
    damage(checkpoint)
    with pytest.raises(error, match=message) as refusal:
        push(checkpoint, "user/x")
    assert hub.log == []
    assert GOOD_TOKEN not in str(refusal.value)


def test_documents_may_change_after_the_folder_was_finished(hub, checkpoint):
    write_manifest(checkpoint)
    (checkpoint / "README.md").write_text("---\nlicense: apache-2.0\n---\nnew words\n")
    assert push(checkpoint, "user/x").created


def test_missing_folder(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        push(tmp_path / "nowhere", "user/x")


def test_file_that_the_repository_ignores_is_reported(hub, checkpoint):
    repo = hub.add_repo("user/x")
    repo.commit("main", {".gitignore": b"*.html\n"})
    with pytest.raises(HubError, match=r"does not hold what was pushed \(report\.html\).*gitignore"):
        push(checkpoint, "user/x")


def test_shards_replace_a_single_file(hub, checkpoint):
    push(checkpoint, "user/x")
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.log.clear()
    result = push(checkpoint, "user/x")
    assert result.deleted == ["model.safetensors"]
    assert not hub.requests("^PUT")  # the same content is there already


def test_without_a_token(hub, checkpoint, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="HF_TOKEN"):
        push(checkpoint, "user/x")


def test_read_only_folder_is_pushed_with_a_warning(hub, checkpoint, monkeypatch, caplog):
    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("langsamp.hub.push.write_record", refuse)
    assert push(checkpoint, "user/x").created
    assert "could not be noted" in caplog.text


def test_fault_is_only_taken_once(hub):
    hub.faults = [Fault("/x", 503)]
    assert [hub.take_fault("GET", "/x"), hub.take_fault("GET", "/x")] == [503, None]


def test_a_commit_that_did_not_delete_is_not_the_one_that_was_to_be_made():
    """Whether a commit whose answer was lost is there: all it was to add, and nothing that it was to remove."""
    digest = digest_bytes(b"new")
    change = Change(["model.safetensors"], ["model-1.safetensors"], {"model.safetensors": digest})
    files = {name: RemoteFile(name, 3, digest.oid, digest.sha256) for name in (*change.add, *change.delete)}
    assert not change.is_in(RemoteTree("user/x", "0" * 40, False, files))
    del files["model-1.safetensors"]
    assert change.is_in(RemoteTree("user/x", "0" * 40, False, files))
    assert not change.is_in(RemoteTree("user/x", "0" * 40, False, {}))
