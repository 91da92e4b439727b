"""MODEL by name: one commit, code included, nothing damaged, and a folder only when it is whole."""

from __future__ import annotations

import os
import shutil

import huggingface_hub
import pytest
from huggingface_hub import constants
from support.loopback import Fault

from langsamp.core.manifest import MANIFEST_NAME, write_manifest
from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.core.retry import HubError
from langsamp.core.runtime import resolve_model
from langsamp.hub.pull import pull
from langsamp.hub.push import push


def flip(path, at=-5):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture
def repo(hub, checkpoint):
    push(checkpoint, "user/x")
    return hub.repos["user/x"]


def test_name_is_pinned_to_a_commit_with_its_code(hub, repo, checkpoint):
    first = repo.resolve("main")
    (checkpoint / "modeling_x.py").write_text("from .configuration_x import X\n# newer\n")
    push(checkpoint, "user/x")
    old, new = resolve_model(f"user/x@{first}"), resolve_model("user/x")
    assert (old.name, old.revision, new.revision) == ("user/x", first, repo.resolve("main"))
    assert "newer" not in (old.path / "modeling_x.py").read_text()
    assert "newer" in (new.path / "modeling_x.py").read_text()


def test_pickles_and_trainer_state_stay_on_the_hub(hub, repo):
    repo.commit("main", {"pytorch_model.bin": b"evil", "checkpoint-3/optimizer.pt.safetensors": b"large"})
    source = resolve_model("user/x")
    assert not [path.name for path in source.path.rglob("*") if path.name.endswith((".bin", ".pt.safetensors"))]


def test_without_a_network_from_the_cache(hub, repo, waits):
    online = resolve_model("user/x")
    hub.faults = [Fault(".", "drop", times=999)]
    assert resolve_model("user/x") == online
    assert resolve_model(f"user/x@{online.revision}") == online


@pytest.mark.parametrize("with_manifest", [True, False])
def test_damage_in_the_cache_is_mended(hub, checkpoint, with_manifest):
    if with_manifest:
        push(checkpoint, "user/x")
    else:
        files = {"config.json": b"{}", "model.safetensors": (checkpoint / "model.safetensors").read_bytes()}
        hub.add_repo("user/x").commit("main", files)
    weights = resolve_model("user/x").path / "model.safetensors"
    flip(weights.resolve())
    again = resolve_model("user/x").path / "model.safetensors"
    assert again.read_bytes() == (checkpoint / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "modeling_x.py", "tokenizer.json"])
def test_folder_with_one_wrong_byte_is_refused_and_the_file_named(checkpoint, name):
    write_manifest(checkpoint)
    resolve_model(checkpoint)
    flip(checkpoint / name)
    with pytest.raises(RuntimeError, match=f"{name}: expected sha256"):
        resolve_model(checkpoint)
    (checkpoint / MANIFEST_NAME).unlink()
    assert resolve_model(checkpoint).path == checkpoint  # the remedy that the message names


def test_truncated_and_missing_files(checkpoint):
    write_manifest(checkpoint)
    os.truncate(checkpoint / "model.safetensors", 1000)
    with pytest.raises(RuntimeError, match=r"model\.safetensors: expected \d+ bytes, found 1000"):
        resolve_model(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(RuntimeError, match="the file is missing"):
        resolve_model(checkpoint)


def test_documents_and_trainer_state_may_change(checkpoint):
    write_manifest(checkpoint)
    (checkpoint / "README.md").write_text("new words")
    (checkpoint / "results.jsonl").unlink()
    shutil.rmtree(checkpoint / "checkpoint-3")
    assert resolve_model(checkpoint).path == checkpoint


def test_a_gated_repository_is_told_with_the_page_to_accept(hub, repo, waits):
    repo.gated = True
    for load in (resolve_model, load_tokenizer, lambda name: pull(name, "nowhere")):
        with pytest.raises((FileNotFoundError, HubError), match=f"gated: .* on {hub.url}/user/x in a browser"):
            load("user/x")
    assert waits == []


@pytest.mark.parametrize("token", [True, False])
def test_a_name_that_does_not_exist_is_told_at_once(hub, waits, monkeypatch, token):
    if not token:
        monkeypatch.delenv("HF_TOKEN")
    for load in (resolve_model, load_tokenizer):
        for name in ("nowhere", "user/nothing"):
            with pytest.raises(FileNotFoundError, match=f"no folder '{name}' here, and .* there is no such repository"):
                load(name)
    assert waits == []


def test_a_hub_out_of_reach_is_told_within_seconds(hub, waits):
    hub.faults = [Fault(".", "drop", times=99)]
    with pytest.raises(FileNotFoundError, match="no folder 'nowhere' here, and it cannot be had from the Hub") as told:
        load_tokenizer("nowhere")
    assert sum(waits) <= 5
    assert len(str(told.value)) < 400
    assert "\n" not in str(told.value)


def test_of_a_tokenizer_no_weights_are_downloaded(hub, tiny_model_dir):
    push(tiny_model_dir, "user/t")
    assert load_tokenizer("user/t").languages[0] == "und"
    assert not [line for line in hub.log if "safetensors" in line and line.startswith("GET")]


@pytest.mark.parametrize("how", ["offline", "unreachable"])
def test_a_cache_that_holds_a_part_is_not_called_an_unfinished_push(hub, tiny_model_dir, waits, monkeypatch, how):
    """Of a model its tokenizer was used, then the network is gone."""
    push(tiny_model_dir, "user/t")
    load_tokenizer("user/t")
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        getattr(huggingface_hub.utils, "reset_sessions", lambda: None)()  # 0.36 looks when it makes one
    else:
        hub.faults = [Fault(".", "drop", times=999)]
    assert load_tokenizer("user/t").languages[0] == "und"
    with pytest.raises(FileNotFoundError, match=r"the cache does not hold all of|cannot be had from the Hub"):
        resolve_model("user/t")
