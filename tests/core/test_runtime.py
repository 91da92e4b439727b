"""runtime.py: names to folders, the folders whole, files written whole or not at all."""

from __future__ import annotations

import shutil

import pytest

from langsamp.core import files, runtime
from langsamp.core.manifest import RECORD_NAME, damaged, write_manifest


def test_atomic_write_replaces_whole_files_only(tmp_path):
    target = tmp_path / "deep" / "file.json"
    files.atomic_write(target, "é")
    assert target.read_bytes() == b"\xc3\xa9"
    files.atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    with pytest.raises(TypeError):
        files.atomic_write(target, 3)  # type: ignore[arg-type]
    assert target.read_bytes() == b"new"
    assert [p.name for p in target.parent.iterdir()] == ["file.json"]


def test_resolve_model_names_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    source = runtime.resolve_model(tmp_path / "model")
    assert (source.path, source.name, source.revision) == (tmp_path / "model", "model", None)
    monkeypatch.chdir(tmp_path / "model")
    assert runtime.resolve_model(".").name == "model"
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match="is a file; give the folder"):
        runtime.resolve_model(tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match="no folder"):
        runtime.resolve_model(tmp_path / "absent" / "deep" / "model")


def test_weights_that_were_cut_off_are_named_without_a_manifest(tmp_path, tiny_xlmr_dir):
    weights = (tiny_xlmr_dir / "model.safetensors").read_bytes()
    for name, data, problem in (
        ("cut", weights[:-100], f"expected {len(weights)} bytes, found {len(weights) - 100}"),
        ("header", weights[:1000], "no safetensors file"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("empty", b"", "no safetensors file"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(data)
        with pytest.raises(RuntimeError, match=f"model.safetensors: .*{problem}"):
            runtime.resolve_model(tmp_path / name)
    assert runtime.resolve_model(tiny_xlmr_dir).path == tiny_xlmr_dir


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_clone_without_git_lfs_is_told_what_to_do(tmp_path, tiny_xlmr_dir, name):
    """A clone has the manifest and, of its large files, pointers."""
    folder = shutil.copytree(tiny_xlmr_dir, tmp_path / "clone")
    write_manifest(folder)
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(RuntimeError, match=rf"{name}: it is a Git LFS pointer, which `git lfs pull` turns into"):
        runtime.resolve_model(folder)


def test_a_record_that_is_no_text_says_nothing(tmp_path):
    (tmp_path / RECORD_NAME).write_bytes(b"\xff\xfe")
    assert damaged(tmp_path) == {}
