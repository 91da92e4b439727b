"""The command line as a whole: version, bars, what it prints of others' names, and what it composes of the rooms."""

from __future__ import annotations

import argparse
import logging
import shutil

import pytest
from safetensors import SafetensorError

import langsamp
from langsamp import cli
from langsamp.cli import main
from langsamp.core.manifest import read_manifest, verify_manifest
from langsamp.core.record import Record
from langsamp.eval.results.records import append

BAD = "x\x1b[2J\x1b]0;owned\x07\x9b31m\u202ey"


def test_names_of_others_are_no_commands_to_the_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (("a", 0.5), ("b", 0.6)):
        rows = (Record(task=BAD, language=f"q{i}{BAD}", metric=BAD, value=value, model=BAD + name) for i in "abcdefg")
        append(tmp_path / name, [*rows, Record(task=BAD, language=name + BAD, metric=BAD, value=1, model=BAD + name)])
        with open(tmp_path / name / "results.jsonl", "ab") as file:
            file.write(f'{{"task": "{BAD}'.encode())  # half a line, which a warning tells of
    assert main(["compare", "a", "b", "--output", "out"]) == 0
    assert main(["report", "a", "b", "--output", "page.html", "--baseline", BAD]) == 1
    assert main(["eval", "--model", BAD, "--tasks", "lm", "--output", "out"]) == 1
    logging.getLogger("langsamp.eval").warning("left out: %s", BAD)
    shown = capsys.readouterr()
    for text in shown:
        assert not set("\x1b\x07\x9b\u202e\r") & set(text)
        assert r"\x1b[2J" in text


def test_a_card_is_there_after_training_and_what_a_person_writes_in_it_stays(tmp_path, small_store_dir, tiny_xlmr_dir):
    base = shutil.copytree(tiny_xlmr_dir, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    line = f"train --base {base} --store {small_store_dir} --output {tmp_path / 'run'} --max_steps 2 "
    line += "--per_device_train_batch_size 2 --logging_steps 1 --use_cpu true --disable_tqdm true"
    assert main(line.split()) == 0
    card = tmp_path / "run" / "README.md"
    assert "| steps | 2 |" in card.read_text(encoding="utf-8")
    assert "license: cc-by-4.0" in card.read_text(encoding="utf-8"), "that of the weights it came from"
    assert "README.md" in read_manifest(tmp_path / "run")
    assert verify_manifest(tmp_path / "run") == []
    text = card.read_text(encoding="utf-8").replace("<!-- end about -->", "mine\n<!-- end about -->")
    card.write_text(text.replace("license: cc-by-4.0", "license: cc-by-nc-4.0"))
    assert main(line.split()) == 0  # it is finished: nothing is trained again
    assert "mine\n<!-- end about -->" in card.read_text(encoding="utf-8")
    assert "license: cc-by-nc-4.0" in card.read_text(encoding="utf-8")
    assert verify_manifest(tmp_path / "run") == []


def test_version(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out.strip() == f"langsamp {langsamp.__version__}"


@pytest.mark.parametrize(
    "line", [["push", "a", "b", "x\x1b[31m.txt"], ["push", "a", "b", "--retries\x1b", "x"], ["\x1b[2J"]]
)
def test_wrong_usage_repeats_no_escape_sequence(capsys, line):
    with pytest.raises(SystemExit):
        cli.main(line)
    printed = capsys.readouterr().err
    assert r"\x1b" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SafetensorError("header too large"), "header too large"),
        (OSError(28, "No space left on device", "/data/x"), "no space left on the disk of /data/x; make room there"),
        (OSError(28, "No space left on device"), "no space left on the disk of out; make room there"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "no space left on the disk of out"),
    ],
)
def test_errors_of_libraries_are_one_sentence(monkeypatch, capsys, error, sentence):
    def fail(arguments: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(cli, "commands", lambda: {"x": ("x", lambda p: p.add_argument("--output"), fail)})
    assert cli.main(["x", "--output", "out"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"langsamp: error: {sentence}")
    assert printed.count("\n") == 1


def test_no_bar_for_loading_a_model(tiny_model_dir, tmp_path, run_fresh):
    """In a process of its own: the switch is the whole process's."""
    line = ["export", str(tiny_model_dir), str(tmp_path / "out"), "--to", "encoder"]
    printed = run_fresh(f"import os; os.dup2(1, 2); from langsamp.cli import main; print(main({line!r}))")
    assert printed.splitlines()[-1] == "0"
    assert "Loading weights" not in printed
    assert "%|" not in printed
