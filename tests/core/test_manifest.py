"""A manifest names every damage to a folder and never reaches outside it."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from langsamp.core.manifest import MANIFEST_NAME, FileEntry, read_manifest, verify_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "model"
    (root / "sub").mkdir(parents=True)
    (root / "config.json").write_text("{}")
    (root / "sub" / "ä b.bin").write_bytes(b"\x00" * 3_000_000)
    (root / "empty").touch()
    return root


def test_round_trip_lists_every_file_with_hash_and_size(folder):
    assert write_manifest(folder) == folder / MANIFEST_NAME
    entries = read_manifest(folder)
    assert entries == {
        "config.json": FileEntry(hashlib.sha256(b"{}").hexdigest(), 2),
        "empty": FileEntry(hashlib.sha256(b"").hexdigest(), 0),
        "sub/ä b.bin": FileEntry(hashlib.sha256(b"\x00" * 3_000_000).hexdigest(), 3_000_000),
    }
    assert verify_manifest(folder) == []
    write_manifest(folder)  # again: the manifest never lists itself
    assert read_manifest(folder) == entries


def test_who_may_read_the_manifest_may_read_the_weights(folder):
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")  # for the owner only
    (folder / "config.json").chmod(0o640)  # somebody's choice
    write_manifest(folder)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()}
    assert modes["model.safetensors"] == modes[MANIFEST_NAME] == modes["empty"]
    assert modes["config.json"] == 0o640


def test_git_and_download_metadata_are_not_content(folder):
    for name in (".git/HEAD", ".cache/huggingface/x", "__pycache__/m.pyc", ".eval_results/sib.yaml"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    write_manifest(folder)
    assert set(read_manifest(folder)) == {"config.json", "empty", "sub/ä b.bin", ".eval_results/sib.yaml"}


def test_truncated_flipped_and_missing_files_are_named_with_expected_and_actual(folder):
    write_manifest(folder)
    big = folder / "sub" / "ä b.bin"
    big.write_bytes(b"\x00" * 2_999_999)
    assert verify_manifest(folder) == ["sub/ä b.bin: expected 3000000 bytes, found 2999999"]
    big.write_bytes(b"\x00" * 2_999_999 + b"\x01")
    (problem,) = verify_manifest(folder)
    assert problem.startswith("sub/ä b.bin: expected sha256")
    assert hashlib.sha256(b"\x00" * 2_999_999 + b"\x01").hexdigest() in problem
    big.unlink()
    assert verify_manifest(folder) == ["sub/ä b.bin: expected 3000000 bytes, the file is missing"]


def test_only_named_files_and_a_later_file_is_no_problem(folder):
    write_manifest(folder, ["config.json"])
    assert list(read_manifest(folder)) == ["config.json"]
    (folder / "README.md").write_text("later")
    assert verify_manifest(folder) == []


@pytest.mark.parametrize(
    "name", ["../x", "/etc/hostname", "sub/../../x", "sub\\x", "C:x", "./config.json", "", ".", "sub//x", "a\0b"]
)
def test_names_that_leave_the_folder_are_refused(folder, name):
    (folder.parent / "x").write_text("outside")
    with pytest.raises(ValueError, match="plain relative path"):
        write_manifest(folder, [name])
    entry = {"sha256": hashlib.sha256(b"outside").hexdigest(), "size": 7}
    (folder / MANIFEST_NAME).write_text(json.dumps({"format": 1, "files": {name: entry}}))
    (problem,) = verify_manifest(folder)
    assert "plain relative path" in problem
    with pytest.raises(ValueError, match="plain relative path"):
        read_manifest(folder)


def test_symbolic_links_are_refused_unless_followed(folder):
    outside = folder.parent / "secret"
    outside.write_text("{}")
    (folder / "link").symlink_to(outside)
    with pytest.raises(ValueError, match="symbolic link"):
        write_manifest(folder)
    (folder / "link").unlink()
    write_manifest(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(outside)  # same content, still a link
    assert verify_manifest(folder) == ["the entry 'config.json' is or goes through a symbolic link"]
    assert verify_manifest(folder, follow_symlinks=True) == []
    outside.write_text("[]")
    assert "config.json: expected sha256" in verify_manifest(folder, follow_symlinks=True)[0]


def test_a_linked_folder_on_the_way_is_refused(folder):
    write_manifest(folder)
    os.rename(folder / "sub", folder.parent / "elsewhere")
    (folder / "sub").symlink_to(folder.parent / "elsewhere")
    (problem,) = verify_manifest(folder)
    assert "symbolic link" in problem


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 1, "files": {"a": {}}}', '{"format": 1, "files": [1]}', '{"format": 2, "files": {}}'],
)
def test_a_damaged_manifest_is_a_problem_not_a_crash(folder, text):
    (folder / MANIFEST_NAME).write_text(text)
    assert len(verify_manifest(folder)) == 1
    with pytest.raises(ValueError, match=MANIFEST_NAME):
        read_manifest(folder)


def test_missing_things(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="never finished"):
        read_manifest(folder)
    assert "never finished" in verify_manifest(folder)[0]
    with pytest.raises(FileNotFoundError, match="'nope'"):
        write_manifest(folder, ["nope"])
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_manifest(tmp_path / "absent")


def test_a_failed_write_leaves_the_old_manifest(folder, monkeypatch):
    write_manifest(folder)
    before = (folder / MANIFEST_NAME).read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space left on the disk of"):
        write_manifest(folder, ["config.json"])
    assert (folder / MANIFEST_NAME).read_bytes() == before
    assert not [name for name in os.listdir(folder) if name.startswith(f".{MANIFEST_NAME}")]
