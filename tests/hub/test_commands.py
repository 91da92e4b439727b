"""`langsamp push` and `langsamp pull` as they are typed: what they print, what they return, what they never print."""

from __future__ import annotations

import json

import pytest
from support.loopback import GOOD_TOKEN

from langsamp.cli import main
from langsamp.core.manifest import verify_manifest
from langsamp.hub.documents import complete


def test_dry_run_lists_files_and_sizes(hub, checkpoint, capsys):
    assert main(["push", str(checkpoint), "user/x", "--dry-run"]) == 0
    out = capsys.readouterr().out
    weights = (checkpoint / "model.safetensors").stat().st_size
    assert f"{weights:,}  model.safetensors" in out
    assert "left out: checkpoint-3/optimizer.pt, notes.txt, test_x.py, training_args.bin" in out
    assert hub.log == []


def test_push_and_pull(hub, checkpoint, tmp_path, capsys):
    assert main(["push", str(checkpoint), "user/x", "--tag", "v1", "--message", "First"]) == 0
    assert "pushed 15 of 15 files" in capsys.readouterr().out
    assert hub.repos["user/x"].titles()[0] == "First"
    assert main(["push", str(checkpoint), "user/x"]) == 0
    assert "nothing to push" in capsys.readouterr().out
    assert main(["pull", "user/x@v1", str(tmp_path / "out")]) == 0
    assert "manifest and hashes verified" in capsys.readouterr().out
    assert verify_manifest(tmp_path / "out") == []


@pytest.mark.parametrize(
    "words",
    [
        ["push", "{folder}", "user/x"],
        ["pull", "user/x", "out"],
        ["eval", "--model", "user/x", "--tasks", "lm", "--output", "r"],
    ],
)
def test_expired_token_is_one_sentence_without_the_token(hub, checkpoint, capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    hub.add_repo("user/x", private=True)
    hub.tokens = ["hf_another"]
    assert main([word.format(folder=checkpoint) for word in words]) == 1
    shown = "".join(capsys.readouterr())
    assert "langsamp: error: " in shown
    assert "HF_TOKEN" in shown
    assert "Traceback" not in shown
    assert GOOD_TOKEN not in shown


def test_results_and_card_go_with_a_push(hub, tiny_model_dir, tmp_path):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    results = tmp_path / "results"
    (results / "plots").mkdir(parents=True)
    (results / "plots" / "scores.png").write_bytes(b"\x89PNG")
    empty = dict.fromkeys(["layer", "direction", "source", "seed", "revision"])
    record = {"schema": 1, "task": "sib200", "language": "deu", "script": "Latn", "metric": "macro_f1", "value": 0.625}
    (results / "results.jsonl").write_text(json.dumps({**record, "n": 204, "model": "x", **empty}) + "\n")
    push = ["push", str(model), "user/x", "--results", str(results)]
    assert main(push) == 0
    files = hub.repos["user/x"].files()
    assert {"results.jsonl", "plots/scores.png", "README.md", "handler.py"} <= set(files)
    assert "62.5" in files["README.md"].decode()
    assert main(push) == 0
    assert len(hub.repos["user/x"].commits) == 2
    assert main(["push", str(model), "user/x", "--results", str(tmp_path)]) == 1


def test_results_for_a_folder_that_is_not_there_make_none(hub, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").touch()
    assert main(["push", str(tmp_path / "typo"), "user/x", "--results", str(tmp_path / "run")]) == 1
    assert f"there is no folder {tmp_path / 'typo'}" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_results_replace_a_link_and_not_what_it_leads_to(hub, checkpoint, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").write_text("new")
    (tmp_path / "old.jsonl").write_text("of another model")
    (checkpoint / "results.jsonl").unlink()
    (checkpoint / "results.jsonl").symlink_to(tmp_path / "old.jsonl")
    complete(checkpoint, "user/x", tmp_path / "run")
    assert (checkpoint / "results.jsonl").read_text() == "new"
    assert (tmp_path / "old.jsonl").read_text() == "of another model"


def test_a_torn_config_is_named(hub, checkpoint, capsys):
    (checkpoint / "config.json").write_text("{")
    assert main(["push", str(checkpoint), "user/x"]) == 1
    assert "config.json is not readable JSON" in capsys.readouterr().err
