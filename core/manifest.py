"""The manifest of a checkpoint folder: sha256 and size of every file, written last, so that a torn folder shows.

Pure standard library. Training writes and checks it round every save, the Hub commands round every push and pull.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from langsamp.core.files import SHA256, atomic_write, failed, to_disk
from langsamp.safe_files import first_problem, read_json

MANIFEST_NAME = "langsamp_manifest.json"
_LFS_POINTER = b"version https://git-lfs"  # how a file starts that stands for one that was not downloaded
RECORD_NAME = ".langsamp_hub.json"  # which commit a folder equals; written by push and pull, never pushed
FORMAT = 1
_NOT_CONTENT = {".git", ".cache", "__pycache__"}  # what git, huggingface_hub and Python leave beside the files
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it
_LOADED = re.compile(
    r"[^/]+\.(safetensors|py|model)|[^/]+\.index\.json|(generation_)?config\.json|tokenizer(_config)?\.json"
    r"|special_tokens_map\.json|added_tokens\.json|modules\.json|sentence_bert_config\.json|1_Pooling/config\.json"
)


@dataclass(frozen=True)
class FileEntry:
    """What a file must be: the sha256 of its content (hexadecimal) and its size in bytes."""

    sha256: str
    size: int


def write_manifest(folder: str | os.PathLike[str], files: Iterable[str] | None = None) -> Path:
    """Write ``langsamp_manifest.json`` for a folder, last and atomically: what it names is on the disk before.

    Who may read the manifest may then read the weights, too, which safetensors and onnx write for their owner only.

    Args:
        folder: the folder to describe.
        files: names relative to the folder, with ``/``; default every file below it except the manifest itself and
            what lies in ``.git``, ``.cache`` or ``__pycache__``.

    Raises:
        ValueError: a name that is absolute, leaves the folder or is a symbolic link.
        FileNotFoundError: a named file does not exist.
    """
    root = Path(folder)
    names = sorted(set(_content(root) if files is None else files) - {MANIFEST_NAME})
    entries = {}
    for name in names:
        problem = unsafe_name(root, name)
        if problem:
            raise ValueError(f"{problem}; a manifest names only real files below {root}.")
        if not (root / name).is_file():
            raise FileNotFoundError(f"{name!r} is not a file in {root}, so it cannot go into the manifest.")
        entries[name] = measure(root / name)
    to_disk(root / name for name in names)
    manifest = atomic_write(root / MANIFEST_NAME, manifest_text(entries))
    for path in (root / name for name in entries):
        if not path.stat().st_mode & 0o077:
            path.chmod(manifest.stat().st_mode)
    return manifest


def manifest_text(entries: dict[str, FileEntry]) -> str:
    """The text of a manifest: the same entries always give the same bytes, so that nothing changed means no commit."""
    files = {name: asdict(entry) for name, entry in entries.items()}
    return json.dumps({"format": FORMAT, "files": files}, indent=1, sort_keys=True) + "\n"


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, FileEntry]:
    """The entries of a folder's manifest, by name; the names have the right form but are not compared with the disk.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it is not a manifest, or a name in it is absolute or leaves the folder.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{Path(folder)} has no {MANIFEST_NAME}: it was never finished, or not made by langsamp."
        )
    try:
        data = read_json(path)
        entries = {name: FileEntry(str(e["sha256"]), int(e["size"])) for name, e in data["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{path} is not a manifest ({type(error).__name__}: {error}); delete it or fetch it again."
        ) from error
    if data.get("format") != FORMAT:
        raise ValueError(f"{path} has format {data.get('format')!r}, this version reads {FORMAT}; upgrade langsamp.")
    for name in entries:
        problem = bad_name(name)
        if problem:
            raise ValueError(f"{path}: {problem}.")
    return entries


def verify_manifest(folder: str | os.PathLike[str], follow_symlinks: bool = False) -> list[str]:
    """Compare a folder with its manifest; each problem names the file, what was expected and what is there.

    Files that the manifest does not name are no problem (a card may be added later).

    Args:
        folder: the folder to check.
        follow_symlinks: accept symbolic links, as the Hub's cache makes them; their content is compared all the same.

    Returns:
        One sentence per problem; an empty list means that every file is as it was written.
    """
    root = Path(folder)
    try:
        entries = read_manifest(root)
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    found = (_compare(root, name, entry, follow_symlinks) for name, entry in sorted(entries.items()))
    return [problem for problem in found if problem]


def _compare(root: Path, name: str, entry: FileEntry, follow_symlinks: bool) -> str | None:
    """What is wrong with one file, or None."""
    problem = bad_name(name) if follow_symlinks else unsafe_name(root, name)
    if problem:
        return problem
    path = root / name
    if not path.is_file():
        return f"{name}: expected {entry.size} bytes, the file is missing"
    size = path.stat().st_size
    if size != entry.size:
        return not_fetched(path) or f"{name}: expected {entry.size} bytes, found {size}"
    actual = measure(path)
    if actual != entry:
        return f"{name}: expected sha256 {entry.sha256}, found {actual.sha256}"
    return None


def is_loaded(name: str) -> bool:
    """Whether a file of a checkpoint decides what the model computes; the others are documents people may edit."""
    return _LOADED.fullmatch(name) is not None


def damaged(folder: str | os.PathLike[str]) -> dict[str, str]:
    """What is wrong with the files that a model in this folder would be loaded from; nothing known: empty.

    Unlike `verify_manifest` this accepts documents edited later, and folders without a manifest (third-party models,
    plain ``save_pretrained``): there weights must be as long as their own header says. In the Hub's cache, where files
    are links to contents named by their sha256, it also checks contents that no manifest names. A file is hashed once a
    process, unless it changes.

    Returns:
        One sentence by file name.
    """
    root = Path(folder)
    record = root / RECORD_NAME
    if record.is_file() and b'"complete": false' in record.read_bytes():
        return {RECORD_NAME: "a pull into this folder was interrupted, run it again"}
    try:
        entries = read_manifest(root) if (root / MANIFEST_NAME).is_file() else {}
    except ValueError as error:
        return {MANIFEST_NAME: str(error)}
    found = {name: _compare(root, name, entry, True) for name, entry in entries.items() if is_loaded(name)}
    for path in sorted(path for path in root.iterdir() if path.is_file() and path.name not in found):
        content = path.resolve().name
        if path.suffix == ".safetensors" and entries:
            found[path.name] = f"{path.name}: it is not in the manifest, but would be loaded"
        elif path.is_symlink() and SHA256.match(content):
            same = measure(path).sha256 == content
            found[path.name] = None if same else f"{path.name}: its content is not what the Hub says"
        elif path.suffix == ".safetensors":
            found[path.name] = _wrong_length(path)
    return {name: problem for name, problem in found.items() if problem}


def not_whole(folder: str | os.PathLike[str]) -> str | None:
    """One sentence without an end on a folder with `damaged` files, and what to do; None for a whole one."""
    problem = next(iter(damaged(folder).values()), None)
    manifest = Path(folder) / MANIFEST_NAME
    mine = f" or, if the change is yours, delete {manifest}" if manifest.is_file() else ""
    return problem and (
        f"{folder} is not a whole checkpoint ({problem}): saving or copying was cut off, or a file was changed; "
        f"restore it{mine}"
    )


def refused(folder: str | os.PathLike[str]) -> str | None:
    """Why the small files of a folder make it unfit for use: they lead elsewhere or contradict each other."""

    def read(name: str) -> dict[str, Any] | None:
        path = Path(folder) / name
        return read_json(path) if path.is_file() else None

    return first_problem(read)


def leads_out(root: Path, name: str) -> bool:
    """Whether a name is, or goes through, a symbolic link out of the folder."""
    return not (root / name).resolve().is_relative_to(root.resolve())


def not_fetched(path: Path) -> str | None:
    """One sentence on a file that `git clone` left as a pointer to its content; None for any other."""
    with path.open("rb") as file:
        pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
    return f"{path.name}: it is a Git LFS pointer, which `git lfs pull` turns into the file" if pointer else None


def _wrong_length(path: Path) -> str | None:
    """What is wrong with the length of a safetensors file: 8 bytes for the size of a JSON header, the header, data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length < min(size, _LONGEST_HEADER) else b""
    try:
        tensors = [tensor for name, tensor in json.loads(header).items() if name != "__metadata__"]
        expected = 8 + length + max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
        return not_fetched(path) or f"{path.name}: its {size} bytes are no safetensors file"
    return None if size == expected else f"{path.name}: expected {expected} bytes, found {size}"


def _content(root: Path) -> list[str]:
    """Every file below a folder that is content, as relative names with ``/``."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root} to write a manifest for.")
    names = []
    for parent, folders, files in os.walk(root, onerror=failed):
        folders[:] = [name for name in folders if name not in _NOT_CONTENT]
        names += [(Path(parent) / name).relative_to(root).as_posix() for name in files]
    return names


def bad_name(name: str) -> str | None:
    """Why a name cannot be a manifest entry: absolute, a drive, a backslash, ``..``, or not in its plain form."""
    pure = PurePosixPath(name)
    leaves = pure.is_absolute() or ".." in pure.parts
    if leaves or name != pure.as_posix() or name in ("", ".") or any(c in name for c in "\\:\0"):
        return f"the entry {name!r} is not a plain relative path inside the folder"
    return None


def unsafe_name(root: Path, name: str) -> str | None:
    """Why an entry must not be read: a bad name, or a symbolic link anywhere on the way to it."""
    problem = bad_name(name)
    if problem:
        return problem
    path = root
    for part in PurePosixPath(name).parts:
        path = path / part
        if path.is_symlink():
            return f"the entry {name!r} is or goes through a symbolic link"
    return None


def measure(path: Path) -> FileEntry:
    """The sha256 and the size of a file; a file of a megabyte or more is read once a process, unless it changes."""
    status = path.stat()
    read = _measure.__wrapped__ if status.st_size < 1 << 20 else _measure
    return read(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@lru_cache(maxsize=256)
def _measure(path: Path, *status: int) -> FileEntry:
    """Of a file as it was when it had this status."""
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
