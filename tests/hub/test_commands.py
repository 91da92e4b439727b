"""`langsamp push` and `langsamp pull` as they are typed: what they print, what they return, what they never print."""

from __future__ import annotations

import json

import pytest
from support.loopback import GOOD_TOKEN

from langsamp.cli import main
from langsamp.core.manifest import verify_manifest


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
