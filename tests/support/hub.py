"""Fixtures for the Hub tests: a loopback Hub and a clean client, a small checkpoint folder, the fault table."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, file_download
from safetensors.numpy import save_file

from support import loopback


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator:
    """A running loopback Hub; this process's client talks to it, with an empty cache and a good token."""
    with loopback.LoopbackHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # 0.36 has a copy
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", loopback.GOOD_TOKEN)
        yield server
        # 0.36 keeps a session for each thread, and one that was made offline stays so
        getattr(huggingface_hub.utils, "reset_sessions", lambda: None)()


@pytest.fixture
def hub_env(hub, tmp_path) -> dict[str, str]:
    """The environment of a new process that talks to the loopback Hub."""
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": loopback.GOOD_TOKEN,
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **own}


@pytest.fixture
def read_only() -> Iterator:
    """A function that makes a folder one that nobody can write to, root neither, until the test ends."""
    _watch_writes()
    yield _READ_ONLY.append
    _READ_ONLY.clear()


_READ_ONLY: list[str] = []


@cache
def _watch_writes() -> None:
    sys.addaudithook(_refuse_writes)  # such hooks stay


def _refuse_writes(event: str, args: tuple) -> None:
    changes = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.utime", "os.chmod")
    writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if event == "open" else event in changes
    for path in args[:2] if writes and _READ_ONLY else ():
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(tuple(_READ_ONLY)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that anybody wanted to sleep, in order; nobody really sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A small checkpoint folder with everything that belongs on the Hub, and much that does not."""
    return make_checkpoint(tmp_path / "checkpoint")


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint folder: 40 kB of random weights, code, documents, and clutter."""
    rng = np.random.default_rng(seed)
    (folder / "plots").mkdir(parents=True)
    (folder / ".eval_results").mkdir()
    (folder / "checkpoint-3").mkdir()
    (folder / "__pycache__").mkdir()
    save_file({"w": rng.normal(size=(100, 100)).astype("float32")}, folder / "model.safetensors")
    auto_map = {"AutoModel": "modeling_x.XModel", "AutoConfig": "configuration_x.XConfig"}
    (folder / "config.json").write_text(json.dumps({"model_type": "xlm-roberta", "auto_map": auto_map}))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "configuration_x.py").write_text("X = 1\n")
    (folder / "modeling_x.py").write_text("from .configuration_x import X\nfrom .scripts_x import Y\n")
    (folder / "scripts_x.py").write_text("Y = 1\n")
    (folder / "handler.py").write_text("class EndpointHandler: pass\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")
    (folder / "results.jsonl").write_text('{"schema": 1}\n')
    (folder / "training.json").write_text("{}")
    (folder / "report.html").write_text("<html></html>")
    (folder / "plots" / "map.png").write_bytes(b"\x89PNG" + bytes(100))
    (folder / ".eval_results" / "sib200.yaml").write_text("- a: 1\n")
    for clutter in ("checkpoint-3/optimizer.pt", "training_args.bin", "notes.txt", "test_x.py", "__pycache__/a.pyc"):
        (folder / clutter).write_bytes(b"clutter")
    return folder


PUSHED = {
    ".eval_results/sib200.yaml", "README.md", "config.json", "configuration_x.py", "handler.py", "model.safetensors",
    "modeling_x.py", "plots/map.png", "report.html", "results.jsonl", "scripts_x.py", "tokenizer.json",
    "tokenizer_config.json", "training.json", "langsamp_manifest.json",
}  # fmt: skip


@pytest.fixture
def pushed_names() -> set[str]:
    """What of `checkpoint` belongs on the Hub."""
    return PUSHED


@pytest.fixture
def another_checkpoint(tmp_path):
    """Make further checkpoint folders: call with a name and a seed."""
    return lambda name, seed: make_checkpoint(tmp_path / name, seed)


@pytest.fixture
def pushed(hub, checkpoint):
    """A repository that `checkpoint` was pushed to, and an empty cache."""
    from langsamp.hub.push import push

    push(checkpoint, "user/x")
    hub.log.clear()
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    return hub.repos["user/x"]


@pytest.fixture
def no_token_in_any_output(capfd, caplog):
    """After the test, nothing that was printed or logged may hold the token; the loopback Hub even echoes it."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = "".join(capfd.readouterr())
    assert loopback.GOOD_TOKEN not in printed + caplog.text


# ---------------------------------------------------------------- the table fault x operation x outcome

_ROWS: dict[tuple[str, str, str], str] = {}


@pytest.fixture
def outcome():
    """Note what became of an operation under a fault, after the test has asserted it."""

    def note(fault: str, operation: str, result: str) -> None:
        _ROWS[fault, operation, f"huggingface_hub {huggingface_hub.__version__}"] = result

    return note


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the table; with LANGSAMP_FAULT_TABLE=FILE also write it, keeping the rows of other client versions."""
    if not _ROWS:
        return
    lines = [f"| {' | '.join([*key, result])} |" for key, result in sorted(_ROWS.items())]
    terminalreporter.section("faults of the Hub: fault | operation | client | outcome")
    for line in lines:
        terminalreporter.write_line(line)
    if target := os.environ.get("LANGSAMP_FAULT_TABLE"):
        _write_table(Path(target), lines)


def _write_table(path: Path, lines: list[str]) -> None:
    head = [
        "# Faults of the Hub: what push and pull do", "",
        "Made by the tests, not by hand, once for each client version:",
        "`LANGSAMP_FAULT_TABLE=docs/hub_faults.md pytest tests/hub`. Every row was asserted by a test in that run.", "",
        "| fault | operation | client | outcome |", "|---|---|---|---|",
    ]  # fmt: skip
    mine = f"| huggingface_hub {huggingface_hub.__version__} |"
    old = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in old if "| huggingface_hub " in line and mine not in line]
    path.write_text("\n".join([*head, *sorted(kept + lines)]) + "\n", encoding="utf-8")
