"""The GPU benchmark where there is no GPU: a failure costs its own row, and a log is read rightly."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks.gpu import commands
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.commands import speeds
from benchmarks.gpu.measure import Bench, markdown


@pytest.fixture
def bench(tmp_path):
    return Bench(100.0, tmp_path, device="cpu", tiny=True)


def test_a_row_that_fails_or_takes_too_long_says_so_and_the_next_is_measured(bench, tmp_path):
    def breaks():
        raise RuntimeError("no such\nkernel")

    bench.row("table", "broken", breaks)
    started = time.monotonic()
    bench.row("table", "slow", time.sleep, 30, needs=0.05)
    bench.row("table", "dear", dict, needs=1000)
    bench.row("table", "good", lambda number: {"ms": number}, 7)
    assert time.monotonic() - started < 10
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]["table"]
    assert rows[0]["trouble"] == "RuntimeError: no such kernel"
    assert "stopped" in rows[1]["trouble"]
    assert "left out" in rows[2]["trouble"]
    assert rows[3] == {"name": "good", "ms": 7}
    text = markdown(bench, {"table": "A table", "nothing": "None"})
    assert "| good | 7 |" in text
    assert "no such kernel" in text


def test_speeds_from_a_log():
    # five steps a second; a save of two seconds after step 20; first steps after nine seconds
    marks = [(5, 9.0), (10, 10.0), (15, 11.0), (20, 12.0), (25, 15.0), (30, 16.0)]
    row = speeds(marks, 4, {"save s": 20})
    assert row["steady ktok/s"] == pytest.approx(5 * 4 * 0.512, abs=0.05)
    assert row["ktok/s with pauses"] == pytest.approx(20 / 6 * 4 * 0.512, abs=0.05)
    assert row["first steps s"] == 9.0
    assert row["save s"] == pytest.approx(2.0)


def test_a_run_that_ends_badly_still_has_its_speeds(bench, tmp_path, monkeypatch):
    """The log of the first run on a card was lost with a package that only the card of the model needs."""

    def broken(*words):
        output = Path(words[words.index("--output") + 1])
        output.mkdir()
        lines = [json.dumps({"step": step, "seconds": float(step), "loss": 1.0}) for step in range(1, 9)]
        (output / "train.jsonl").write_text("\n".join(lines[:lost]), encoding="utf-8")
        raise RuntimeError("langsamp train ended with 1: ... no module named card")

    monkeypatch.setattr(commands, "run", broken)
    lost = 8
    row = commands._train(bench, tmp_path, 2, {})
    assert row["steady ktok/s"] == pytest.approx(2 * 0.512, abs=0.05)
    assert row["ended badly"].endswith("no module named card")
    lost = 1
    bench.row("commands", "train", commands._train, bench, tmp_path, 2, {"fast": False})
    assert "no module named card" in bench.rows["commands"][0]["trouble"]


def test_parts_that_there_are_not_and_no_gpu(capsys, monkeypatch, tmp_path):
    with pytest.raises(SystemExit):
        main(["--only", "stepp"])
    assert "stepp" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--output", str(tmp_path)]) == 1
    assert "no NVIDIA GPU" in capsys.readouterr().err
