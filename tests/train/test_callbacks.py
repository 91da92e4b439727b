"""What a run shows: one bar on a terminal, a few lines in a file, every entry in train.jsonl."""

from __future__ import annotations

import logging
import sys

from langsamp.train.callbacks import read_log


def test_a_file_gets_some_twenty_lines_and_no_bar(go, capfd, caplog):
    with caplog.at_level(logging.INFO, "langsamp"):
        go(training={"max_steps": 60, "save_steps": 10, "disable_tqdm": False})
    lines = [message for message in caplog.messages if message.startswith("step ")]
    assert len(lines) == 20
    assert lines[-1].startswith("step 60 of 60, loss ")
    assert lines[-1].endswith("0:00:00 to go")
    printed = "".join(capfd.readouterr())
    assert "'loss'" not in printed
    assert "\r" not in printed
    assert "Writing" not in printed


def test_a_terminal_shows_one_bar_with_the_losses(go, capsys, monkeypatch, caplog):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with caplog.at_level(logging.INFO, "langsamp"):
        go(training={"disable_tqdm": False, "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2})
    shown = "".join(capsys.readouterr())
    bars = {line.split(":")[0] for line in shown.replace("\n", "\r").split("\r") if "it/s" in line or "steps/s" in line}
    assert bars == {"training"}
    assert "loss=" in shown
    assert "held out=" in shown
    assert not [message for message in caplog.messages if message.startswith("step ")]


def test_log_of_a_killed_run_is_read_up_to_its_last_whole_line(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_log(tmp_path / "train.jsonl") == [{"step": 1, "loss": 2.0}]
