"""Files and folders appear whole or not at all, also after kills and on a full disk; what killed writers left goes."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from langsamp.cli import main
from langsamp.core.files import DiskFullError, atomic_write, is_disk_full, temporary_beside
from langsamp.core.outputs import new_folder

KILLED = """
import os, sys
from langsamp.core import files
from langsamp.core.outputs import new_folder
files.os.replace = lambda *names: os._exit(9)  # killed just before the last step
if sys.argv[1] == "file":
    files.atomic_write(sys.argv[2], "half")
else:
    with new_folder(sys.argv[2]) as folder:
        (folder / "config.json").write_text("{}")
"""


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path, kind):
    target = tmp_path / "out.x"
    done = subprocess.run([sys.executable, "-c", KILLED, kind, str(target)])
    assert done.returncode == 9
    assert not target.exists()
    assert len(hidden(tmp_path)) == 1
    (tmp_path / ".out.x.y.otherhost-1-aa.partial").write_text("of another machine")
    (tmp_path / ".other.host-1-aa.partial").write_text("of another target")
    if kind == "file":
        atomic_write(target, "whole")
    else:
        with new_folder(target) as folder:
            (folder / "config.json").write_text("{}")
    assert target.exists()
    assert sorted(hidden(tmp_path)) == [".other.host-1-aa.partial", ".out.x.y.otherhost-1-aa.partial"]


def test_a_writer_at_work_is_left_alone(tmp_path):
    with temporary_beside(tmp_path / "x") as first:
        first.write_text("first")
        with temporary_beside(tmp_path / "x") as second:
            assert first != second
            assert first.read_text() == "first"
    assert hidden(tmp_path) == []


def test_a_full_disk_is_told_by_another_process_too():
    """What a worker raises travels to its parent by pickle."""
    told = pickle.loads(pickle.dumps(DiskFullError(Path("/data/store"))))
    assert isinstance(told, DiskFullError)
    assert is_disk_full(told)
    assert (
        str(told)
        == str(DiskFullError("/data/store"))
        == ("no space left on the disk of /data/store; make room there and run the same command again.")
    )


@pytest.fixture
def small_disk():
    """The command line where no file can be larger than 60 kB."""

    def run(words: list[str]) -> int:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
        try:
            return main(words)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return run


@pytest.mark.parametrize(
    "line",
    [
        "convert BASE OUT",
        "export MODEL OUT --to encoder",
        "extend-vocab --base BASE --corpus CORPUS --size 5 --output OUT",
    ],
)
def test_a_full_disk_is_told_with_the_place_and_nothing_is_left(
    tiny_model_dir, tiny_xlmr_dir, tmp_path, line, small_disk, capsys
):
    """Everything above 60 kB fails, as on a full disk: the weights have 100."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "kat_Geor.txt").write_text("სახლი დგას მდინარესთან\n" * 50)
    places = {
        "MODEL": tiny_model_dir,
        "BASE": tiny_xlmr_dir,
        "OUT": tmp_path / "new" / "out",
        "CORPUS": tmp_path / "corpus",
    }
    (tmp_path / "new").mkdir()
    words = [str(places.get(word, word)) for word in line.split()]
    assert small_disk(words) == 1
    told = capsys.readouterr().err
    assert f"no space left on the disk of {tmp_path / 'new'}; make room there" in told.splitlines()[-1]
    assert "Traceback" not in told
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    atomic_write(tmp_path / "x", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=f"no space left on the disk of {tmp_path}"):
        atomic_write(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert hidden(tmp_path) == []
    assert not is_disk_full(ValueError("os error 2"))
