"""What a run shows: one bar on a terminal, a few lines in a file, every entry in train.jsonl."""

from __future__ import annotations

import logging
import sys

import pytest
from transformers import TrainerState

from langsamp.train.callbacks import JsonLog, read_log


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


TORN = [
    b'{"step": 2, "sec',
    b"\0" * 40,
    b'{"step": 2, "\0\0\0\0": 2.0}',
    b"\xff\xfe",
    b"[1]",
    b"2",
    b'{"step": "2"}',
    b"",
    b"[" * 10**5,
]


@pytest.mark.parametrize("torn", TORN, ids=lambda line: ascii(line[:12]))
@pytest.mark.parametrize(
    "after", [b"", b"\n", b'\n{"step": 3, "seconds": 2.0, "loss": 1.0}\n'], ids=["end", "line", "inside"]
)
def test_lines_that_are_not_whole_are_left_out_of_a_log(tmp_path, torn, after):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"step": 1, "seconds": 1.5, "loss": 2.0}\n' + torn + after)
    assert [entry["step"] for entry in read_log(path)] == [1, 3] if b"3" in after else [1]
    JsonLog(path, 10).on_train_begin(None, TrainerState(global_step=1), None)
    assert path.read_bytes() == b'{"step": 1, "seconds": 1.5, "loss": 2.0}\n'


def test_a_run_that_goes_on_goes_on_counting_the_seconds(tmp_path):
    """A second process that trains for longer than the first would hide the first one's time."""
    path = tmp_path / "train.jsonl"
    path.write_text('{"step": 1, "seconds": 40.0}\n{"step": 2, "seconds": 90.0}\n{"step": 3, "seconds": 130.0}\n')
    log = JsonLog(path, 10)
    log.on_train_begin(None, TrainerState(global_step=2), None)
    log.on_log(None, TrainerState(global_step=3), None, {"loss": 1.0})
    assert [entry["seconds"] for entry in read_log(path)] == [40, 90, pytest.approx(90, abs=5)]
