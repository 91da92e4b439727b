"""Weights come from a checkpoint's own safetensors, whatever its files name; no code of it runs, whatever is typed."""

from __future__ import annotations

import io
import json
import runpy
import shutil
import sys
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from langsamp import LangSAMPForMaskedLM, LangSAMPModel, LangSAMPTokenizer
from langsamp.cli import main
from langsamp.core.manifest import damaged, write_manifest
from langsamp.core.outputs import add_handler
from langsamp.core.retry import HubError
from langsamp.core.runtime import resolve_model
from langsamp.hub.pull import pull
from langsamp.hub.push import push
from langsamp.safe_files import INDEX, read_json

BESIDE = r"names weights in .*, which is no \*\.safetensors file beside it"


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


@pytest.fixture
def sharded(tiny_model_dir, tmp_path):
    LangSAMPForMaskedLM.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    LangSAMPTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "sharded")
    assert (tmp_path / "sharded" / INDEX).is_file()
    return tmp_path / "sharded"


def edit(path, **changes):
    data = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**data, **changes}))


@pytest.mark.parametrize(
    "name",
    ["weights.dat", "README.md", "../outside.safetensors", "deep/inside.safetensors", "{0}/abs.safetensors", 7, None],
)
def test_an_index_that_names_other_files_is_refused(folder, tmp_path, hub, name):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "deep").mkdir()
    name = name.format(tmp_path) if isinstance(name, str) else name
    for place in ("weights.dat", "README.md"):
        torch.save(state, folder / place)
    for place in ("../outside.safetensors", "deep/inside.safetensors", f"{tmp_path}/abs.safetensors"):
        save_file(state, folder / place)
    save_file({"x": torch.zeros(1)}, folder / "extra.safetensors")
    edit(folder / INDEX, metadata={}, weight_map=dict.fromkeys(state, name))
    for load in (LangSAMPModel.from_pretrained, LangSAMPForMaskedLM.from_pretrained, resolve_model):
        with pytest.raises(ValueError, match=BESIDE):
            load(folder)
    with pytest.raises(ValueError, match=BESIDE):
        push(folder, "user/y")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    hub.add_repo("user/x").commit("main", files)
    for load in (LangSAMPForMaskedLM.from_pretrained, resolve_model, lambda repo: pull(repo, tmp_path / "out")):
        with pytest.raises((ValueError, HubError), match=BESIDE):
            load("user/x")
    assert not (tmp_path / "out").exists()


def test_shards_with_plain_names_are_read(sharded, tmp_path, tiny_model_dir):
    whole, parts = (LangSAMPForMaskedLM.from_pretrained(path).state_dict() for path in (tiny_model_dir, sharded))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert resolve_model(sharded).path == sharded


def test_weights_that_the_manifest_does_not_name_are_noticed(sharded, folder):
    """One file of the whole model beside shards would be loaded instead of them."""
    write_manifest(sharded)
    resolve_model(sharded)
    shutil.copy(folder / "model.safetensors", sharded)
    with pytest.raises(RuntimeError, match=r"model\.safetensors: it is not in the manifest"):
        resolve_model(sharded)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"transformers_weights": "../outside.safetensors"}, BESIDE),
        ("config.json", {"transformers_weights": "adapter_model.bin"}, BESIDE),
        ("config.json", {"_attn_implementation": "someone/kernel"}, "code on the Hub .*someone/kernel.*never run"),
        ("adapter_config.json", {"base_model_name_or_path": "../other"}, "an adapter to another model"),
    ],
)
def test_other_files_that_lead_elsewhere(folder, tmp_path, file, content, message):
    shutil.copy(folder / "model.safetensors", tmp_path / "outside.safetensors")
    edit(folder / file, **content)
    for load in (LangSAMPModel.from_pretrained, resolve_model):
        with pytest.raises(ValueError, match=f"{file} .*{message}"):
            load(folder)


def test_a_tokenizer_file_of_another_folder_is_not_read(folder, tmp_path):
    shutil.copy(folder / "tokenizer.json", tmp_path / "outside.json")
    edit(folder / "tokenizer_config.json", tokenizer_file=str(tmp_path / "outside.json"))
    for load in (LangSAMPTokenizer.from_pretrained, resolve_model):
        with pytest.raises(ValueError, match=r"tokenizer_config\.json names a file of its own choice \(tokenizer_file"):
            load(folder)


def test_a_file_that_is_no_safetensors_is_not_loaded_by_its_name(folder, tmp_path):
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "weights.bin")
    config = LangSAMPModel.config_class.from_pretrained(folder)
    with pytest.raises(ValueError, match="no safetensors file"):
        LangSAMPModel.from_pretrained(tmp_path / "weights.bin", config=config)


def test_pickles_are_not_read_even_when_asked_for(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    save_file({"x": torch.zeros(1)}, folder / "extra.safetensors")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        LangSAMPModel.from_pretrained(folder, use_safetensors=False)


def test_a_header_is_not_read_as_long_as_the_file_claims(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write((900 << 20).to_bytes(8, "little"))
        file.truncate(1 << 30)  # takes no space on the disk
    tracemalloc.start()
    problems = damaged(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "no safetensors file" in problems["model.safetensors"]
    assert peak < 1 << 20


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "nonsense", '"\\ud800"', "\xff"])
def test_json_of_any_kind_is_one_sentence(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json (is not readable JSON|must hold a JSON object).*again\.$"):
        read_json(tmp_path / "config.json")


SWAPPED = ["und", "ell", "deu", "eng", "hin", "jpn", "rus"]  # the model has deu in row 1


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"languages": SWAPPED}, "languages disagree .*: row 1 is 'ell' in the tokenizer and 'deu' in the model"),
        ({"languages": SWAPPED[1:]}, "row 1 is 'ell' in the tokenizer and 'deu' in the model"),
        ({"scripts": ["Zyyy", "Cyrl"]}, "scripts disagree .*: row 2 is 'nothing' in the tokenizer and 'Deva'"),
        ({"languages": 3}, "row 1 is 3 in the tokenizer"),
    ],
)
def test_tables_that_disagree_are_refused_wherever_both_are_at_hand(folder, tmp_path, hub, tables, message):
    edit(folder / "tokenizer_config.json", **tables)
    add_handler(folder)
    loads = [
        resolve_model,
        LangSAMPForMaskedLM.from_pretrained,
        lambda path: AutoModelForMaskedLM.from_pretrained(path, trust_remote_code=True),
        lambda path: push(path, "user/y"),
        lambda path: runpy.run_path(str(path / "handler.py"))["EndpointHandler"](str(path)),
    ]
    for load in loads:
        with pytest.raises(ValueError, match=message):
            load(folder)
    hub.add_repo("user/x").commit("main", {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()})
    with pytest.raises(ValueError, match=message):
        LangSAMPForMaskedLM.from_pretrained("user/x")


def test_a_stock_tokenizer_beside_the_model_is_no_contradiction(folder, tiny_tokenizer_dir):
    shutil.copy(tiny_tokenizer_dir / "tokenizer_config.json", folder)
    assert resolve_model(folder).path == folder


@pytest.fixture
def evil(tiny_xlmr_dir, tmp_path):
    """A checkpoint whose config and tokenizer are code of its own."""
    folder = tmp_path / "evil"
    folder.mkdir()
    ran = tmp_path / "RAN"
    (folder / "code.py").write_text(f"import pathlib; pathlib.Path({str(ran)!r}).write_text('ran')\nX = E = 1\n")
    edit(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "code.X", "AutoModelForMaskedLM": "code.X"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.E", "code.E"]})
    shutil.copy(tiny_xlmr_dir / "model.safetensors", folder)
    return folder


@pytest.mark.parametrize("with_tokenizer", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        "prepare --corpus corpus --tokenizer evil --output out --num-proc 1",
        "train --base evil --store store --output out --max_steps 1 --use_cpu true",
        "train --base good --tokenizer evil --store store --output out --max_steps 1 --use_cpu true",
        "extend-vocab --base evil --corpus corpus --size 9 --output out",
        "convert good out --tokenizer evil",
        "convert evil out",
        "export evil out --to encoder",
        "export evil out --to onnx",
        "add-language evil out --language fra_Latn",
        "eval --model evil --tasks lm --data corpus --output out",
    ],
)
def test_no_command_runs_or_offers_to_run_code_of_a_repository(
    evil, tiny_xlmr_dir, tmp_path, monkeypatch, capfd, line, with_tokenizer
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    shutil.copytree(tiny_xlmr_dir, "good")
    if with_tokenizer:
        shutil.copy(tiny_xlmr_dir / "tokenizer.json", evil)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "deu_Latn.txt").write_text("Das Haus steht am Fluss.\n" * 50)
    prepare = "prepare --corpus corpus --tokenizer good --output store --num-proc 1 --block-size 32"
    assert main(prepare.split()) == 0
    capfd.readouterr()
    assert main(line.split()) == 1
    printed = "".join(capfd.readouterr())
    assert not (tmp_path / "RAN").exists()
    assert "[y/N]" not in printed
    assert len([text for text in printed.splitlines() if text.startswith("langsamp: error: ")]) == 1
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("*.safetensors"))
