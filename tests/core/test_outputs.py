"""New folders: fit for every client, and for upload as they are."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub import HfApi

from langsamp import LangSAMPForMaskedLM
from langsamp.checkpoints.add_language import add_language
from langsamp.checkpoints.average import average
from langsamp.checkpoints.convert import convert
from langsamp.checkpoints.export import export_encoder, export_monolingual
from langsamp.core.manifest import MANIFEST_NAME, verify_manifest
from langsamp.core.outputs import GITIGNORE, add_gitignore, add_pooling, new_folder


def test_a_checkpoint_says_mean_pooling(tiny_model_dir, tmp_path):
    with new_folder(tmp_path / "out") as folder:
        LangSAMPForMaskedLM.from_pretrained(tiny_model_dir).save_pretrained(folder)
    out = tmp_path / "out"
    modules = json.loads((out / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling"]
    pooling = json.loads((out / "1_Pooling" / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == 32
    assert [name for name, value in pooling.items() if value is True and name != "include_prompt"] == [
        "pooling_mode_mean_tokens"
    ]
    assert verify_manifest(out) == []
    assert "1_Pooling/config.json" in (out / MANIFEST_NAME).read_text()


def test_sentence_transformers_takes_the_mean(tiny_model_dir, langsamp_folder):
    models = pytest.importorskip("sentence_transformers")
    encoder = models.SentenceTransformer(str(langsamp_folder), device="cpu")
    texts = ["Das Haus steht am Fluss.", "Дом"]
    from transformers import AutoModel, AutoTokenizer

    batch = AutoTokenizer.from_pretrained(langsamp_folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(langsamp_folder, add_pooling_layer=False)(**batch).last_hidden_state
    weights = batch["attention_mask"][..., None]
    wanted = (hidden * weights).sum(1) / weights.sum(1)
    torch.testing.assert_close(torch.tensor(encoder.encode(texts)), wanted, atol=1e-5, rtol=0)


@pytest.fixture
def langsamp_folder(tiny_model_dir, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_model_dir, tmp_path / "st")
    add_pooling(folder)
    return folder


def test_a_gitignore_of_the_user_stays(tmp_path):
    add_gitignore(tmp_path / "run")
    assert (tmp_path / "run" / ".gitignore").read_text() == GITIGNORE
    (tmp_path / "run" / ".gitignore").write_text("mine")
    add_gitignore(tmp_path / "run")
    assert (tmp_path / "run" / ".gitignore").read_text() == "mine"


def test_a_client_that_honours_it_sends_no_half_written_file(hub, tmp_path):
    names = (".model.safetensors.host-1-ab.partial", "checkpoint-2/optimizer.pt", ".langsamp.lock", "config.json")
    for name in names:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{}")
    add_gitignore(tmp_path / "run")
    api = HfApi()
    api.create_repo("jane/run")
    api.upload_folder(repo_id="jane/run", folder_path=tmp_path / "run")
    assert {"config.json", ".gitignore"} <= set(api.list_repo_files("jane/run"))
    assert not set(names[:-1]) & set(api.list_repo_files("jane/run"))


@pytest.mark.parametrize("there", [True, False], ids=["an empty folder", "nothing yet"])
def test_a_link_to_a_larger_disk_stays_a_link(tmp_path, there):
    (tmp_path / "large").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large" / "model")
    if there:
        (tmp_path / "large" / "model").mkdir()
    with new_folder(tmp_path / "out") as folder:
        assert folder.parent == tmp_path / "large"
        (folder / "config.json").write_text("{}")
    assert (tmp_path / "out").is_symlink()
    assert verify_manifest(tmp_path / "large" / "model") == []


def test_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with new_folder(".") as folder:
        (folder / "config.json").write_text("{}")
    assert (tmp_path / "config.json").is_file()


@pytest.mark.parametrize(
    "make",
    [
        lambda out: add_language("no-model", out, "nld_Latn"),
        lambda out: average(["no-model", "no-model"], out),
        lambda out: convert("no-model", out),
        lambda out: export_encoder("no-model", out),
        lambda out: export_monolingual("no-model", out, "deu_Latn"),
    ],
    ids=["add_language", "average", "convert", "export_encoder", "export_monolingual"],
)
def test_a_taken_name_is_told_before_any_work(tmp_path, make):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError, match="out exists already; give a new folder"):
        make(tmp_path / "out")
