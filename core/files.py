"""Files: written whole or not at all, and the kinds that are never read. Without torch, which takes a second to import:

comparing, reporting, pushing and pulling do without it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

COMMIT = re.compile(r"^[0-9a-f]{40}$")
SHA256 = re.compile(r"^[0-9a-f]{64}$")
UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5", "*.msgpack", "*.onnx")
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
SYSTEM: Any = ctypes.CDLL(None) if os.name == "posix" else None  # the C library
TOGETHER = 8  # files that are waited for together


class DiskFullError(OSError):
    """There was no room for what was to be written; the message says where."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        super().__init__(errno.ENOSPC, f"no space left on the disk of {os.fspath(place)}")
        self.args = (os.fspath(place),)  # what it is made of again after its way from a worker

    def __str__(self) -> str:
        return f"{self.strerror}; make room there and run the same command again."


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write a file whole or not at all, even if the power goes: a temporary sibling, on the disk, then a rename.

    Args:
        path: the file; its folder is made.
        data: what goes into it, text as UTF-8.

    Raises:
        DiskFullError: there is no room for it; what was there before is as it was.
    """
    target = Path(path)
    atomic_writes({target: data})
    return target


def atomic_writes(files: Mapping[Path, str | bytes]) -> None:
    """The same for several files of one file system, whose disk is waited for once; each by itself is whole or not.

    Raises:
        DiskFullError: there is no room for one of them; what was there before is as it was.
    """
    with ExitStack() as stack:
        hidden = []
        for target, data in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            hidden.append(stack.enter_context(temporary_beside(target)))
            with hidden[-1].open("xb") as file:
                file.write(data.encode("utf-8") if isinstance(data, str) else data)
        to_disk(hidden)
        for temporary, target in zip(hidden, files):
            os.replace(temporary, target)


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """A hidden name beside a file or folder to write it under; gone in the end, unless it was renamed.

    What killed processes of this machine have left under such names for the same target is removed first.

    Raises:
        DiskFullError: writing under it found the disk full.
    """
    host = re.sub(r"\W", "", socket.gethostname())
    start, end = f".{target.name}.{host}-", ".partial"
    for name in os.listdir(target.parent) if target.parent.is_dir() else ():
        if name.startswith(start) and name.endswith(end):
            process = name.removeprefix(start).partition("-")[0]
            if process.isdecimal() and not psutil.pid_exists(int(process)):
                _remove(target.with_name(name))
    temporary = target.with_name(f"{start}{os.getpid()}-{secrets.token_hex(4)}{end}")
    try:
        yield temporary
    except Exception as error:
        if is_disk_full(error) and not isinstance(error, DiskFullError):
            raise DiskFullError(target.parent.resolve()) from error
        raise
    finally:
        _remove(temporary)


@contextmanager
def held(lock: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock file, whose folder is made; a killed process lets go by dying.

    Raises:
        RuntimeError: somebody else holds it; `otherwise` is what it says.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        got = FileLock(lock).acquire(timeout=0)
    except Timeout:
        raise RuntimeError(otherwise) from None
    with got:
        yield


def to_disk(files: Iterable[Path]) -> None:
    """Wait until files of one file system are on the disk; what is written next, and says that they are, comes after.

    Many are waited for together, with all else that the file system has to write: one wait instead of hundreds.
    """
    files = list(files)
    if len(files) >= TOGETHER and hasattr(SYSTEM, "syncfs"):
        with open(files[0], "rb") as file:
            if SYSTEM.syncfs(file.fileno()) == 0:
                return
    for path in files:
        with path.open("r+b" if os.name == "nt" else "rb") as file:  # Windows refuses it where nothing may be written
            os.fsync(file.fileno())


def failed(error: OSError) -> None:
    """For `os.walk`, which would pass over a folder that cannot be read without a word.

    Raises:
        OSError: this one.
    """
    raise error


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room: the system's own, or that of the safetensors library."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    return any(f"os error {number}" in str(error) for number in DISK_FULL)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_url(name: str) -> bool:
    """Whether a file or folder is in an object store, ``s3://bucket/folder``, rather than on this machine."""
    return "://" in name
