"""Where a model lives and what it runs on: names to folders, the device, atomic files, CPU kernels and memory.

Used by train, eval and hub; every switch of process-wide state sits here, checks itself and says how it is undone.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from langsamp.manifest import MANIFEST_NAME, damaged

log = logging.getLogger(__name__)
_MATMUL: Any = getattr(torch.backends.mkldnn, "matmul", None)  # torch >= 2.9

COMMIT = re.compile(r"^[0-9a-f]{40}$")
UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5", "*.msgpack", "*.onnx")
MATMUL_TOLERANCE = 1e-5  # largest error against fp64 over the largest value that still counts as fp32


@dataclass(frozen=True)
class ModelSource:
    """A model on the local disk: its folder, the name it was asked for by, and the Hub commit it was taken at."""

    path: Path
    name: str
    revision: str | None = None


def resolve_model(spec: str | os.PathLike[str]) -> ModelSource:
    """Turn MODEL (a folder, a Hub id, or ``repo@revision``) into a local folder.

    A Hub id is resolved to one commit and downloaded as a whole, code files included, so that whatever is loaded from
    the folder later is pinned to that commit. Weights in formats that can run code are never downloaded.

    Where there is a manifest, the files to be loaded are compared with it (a few tenths of a second a gigabyte).

    Raises:
        FileNotFoundError: the folder or the repository does not exist.
        RuntimeError: what is there is damaged or only half written; the file is named.
    """
    text = os.fspath(spec)
    path = Path(text).expanduser()
    if path.is_dir():
        problems = damaged(path)
        if problems:
            raise RuntimeError(
                f"{path} is not a whole checkpoint ({next(iter(problems.values()))}): saving or copying was cut off, "
                f"or a file was changed; restore it or, if the change is yours, delete {path / MANIFEST_NAME}."
            )
        return ModelSource(path, path.resolve().name)
    if path.exists():
        raise FileNotFoundError(f"{text!r} is a file; give the folder that holds config.json and model.safetensors.")
    repo, _, revision = text.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo):
        raise FileNotFoundError(
            f"there is no folder {text!r}, and it is not a Hub id (user/name or user/name@revision)."
        )
    return _snapshot(repo, revision or None)


def _snapshot(repo: str, revision: str | None) -> ModelSource:
    """Download a Hub model at one commit into the cache; what arrives or lies there damaged is fetched once more."""
    folder = _download(repo, revision)
    problems = damaged(folder)
    if problems:
        for name in problems:
            with suppress(OSError):
                (folder / name).resolve().unlink()
                (folder / name).unlink()
        folder = _download(repo, revision)
        problems = damaged(folder)
    if problems:
        raise RuntimeError(
            f"model {repo!r} at {folder.name[:8]} is not a finished push ({next(iter(problems.values()))}); take an "
            f"earlier revision ({repo}@REVISION), or have it pushed again."
        )
    return ModelSource(folder, repo, folder.name if COMMIT.match(folder.name) else revision)


def _download(repo: str, revision: str | None) -> Path:
    """The client's cached folder of a repository at a commit; trainer state below ``checkpoint-N`` stays on the Hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, ignore_patterns=[*UNSAFE_WEIGHTS, "checkpoint-*/*"]))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"model {repo!r}{at} is neither a local folder nor on the Hub as seen from here ({reason}); "
            "check the name, the revision, HF_TOKEN and HF_ENDPOINT."
        ) from error


def pick_device(name: str | None = None) -> torch.device:
    """The device to run on: the one named, else CUDA, else Apple's MPS, else the CPU."""
    if name:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write a file whole or not at all: a temporary sibling, then a rename; a reader never sees a part."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode("utf-8") if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def _umask() -> int:
    """The process's file mode mask (mkstemp makes files private; what we write is as shareable as any other file)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def usable_cpus() -> int:
    """CPU cores this process may use: its affinity mask and, in a container, the cgroup quota (torch reads neither)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return cores


@contextmanager
def threads(count: int | None = None) -> Iterator[int]:
    """Run a block with that many torch threads and put the old number back; yields the number in force.

    Without a number: OMP_NUM_THREADS if the user set it, else no more than :func:`usable_cpus`.
    """
    before = torch.get_num_threads()
    if count is None:
        count = before if os.environ.get("OMP_NUM_THREADS") else min(before, usable_cpus())
    torch.set_num_threads(max(1, count))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@cache
def fast_matmul_allowed() -> bool:
    """Whether oneDNN's fp32 matrix products are both exact and worth having here; decided once per process.

    PyTorch sends fp32 products to MKL, which is 2.1-2.4x slower than oneDNN on AMD CPUs. Asking for "bf16" products
    routes them to oneDNN; without AMX (or Arm's BF16) units it still computes in fp32 (relative error 9e-7 against
    MKL's 4e-7). With such units it would really round to bf16, which the check below sees (error about 2e-3).
    Only the vendor and the error decide, never a timing, so that a resumed run computes with the same kernels.
    The environment variable LANGSAMP_FAST_MATMUL=0 switches the routing off, =1 also tries it on other vendors' CPUs.
    """
    wish = os.environ.get("LANGSAMP_FAST_MATMUL", "")
    if wish == "0" or not (wish == "1" or _is_amd()) or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(_MATMUL, "fp32_precision"):
        return False
    error = _routed_error()
    if error >= MATMUL_TOLERANCE:
        log.info("oneDNN rounds fp32 products on this CPU (error %.0e): keeping PyTorch's own kernels", error)
        return False
    log.debug("fp32 products go through oneDNN (error %.0e)", error)
    return True


def _routed_error() -> float:
    """The largest error of routed products against fp64, over the largest value; plain, transposed and batched."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(256, 768, generator=generator)
    b = torch.randn(768, 768, generator=generator)
    heads = torch.randn(8, 256, 64, generator=generator)
    pairs = [(a, b), (a, b.T), (a.T, a), (heads, heads.transpose(1, 2))]
    with _ROUTE:
        routed = [x @ y for x, y in pairs]
    exact = [x.double() @ y.double() for x, y in pairs]
    return max(float((r - e).abs().max() / e.abs().max()) for r, e in zip(routed, exact))


def _is_amd() -> bool:
    """Whether this is an x86 CPU made by AMD (Linux only; elsewhere no)."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        return False


class _Route:
    """Counts nested and concurrent users of the process-wide switch: the first one turns it, the last puts it back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before = "none"

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self.before = _MATMUL.fp32_precision
                _MATMUL.fp32_precision = "bf16"
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                _MATMUL.fp32_precision = self.before


_ROUTE = _Route()


@contextmanager
def fast_matmul(enabled: bool = True) -> Iterator[bool]:
    """Inside the block, fp32 matrix products on the CPU run at oneDNN's speed where that is exact; yields whether.

    For forward and backward, nestable, safe to enter from several threads. Put it around computation only: while it
    is on, ``torch.get_float32_matmul_precision()`` refuses to answer. Elsewhere (see :func:`fast_matmul_allowed`) and
    on GPUs it changes nothing.
    """
    if not (enabled and fast_matmul_allowed()):
        yield False
        return
    with _ROUTE:
        yield True


@cache
def keep_heap() -> bool:
    """Make glibc keep freed memory instead of giving it back after every large tensor; for the rest of the process.

    Fresh pages are the hidden cost of CPU training: one layer's step takes 616 instead of 759 ms with the heap kept.
    The price is up to 0.5 GB more resident memory, so runs that are short of memory leave it out. Returns False, and
    changes nothing, where the C library is not glibc.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        mallopt = library.mallopt
        library.gnu_get_libc_version  # noqa: B018 (raises AttributeError on any other C library)
    except (OSError, AttributeError):
        return False
    # malloc.h: M_MMAP_THRESHOLD is -3, M_TRIM_THRESHOLD is -1, M_TOP_PAD is -2
    return all([mallopt(-3, 1 << 30), mallopt(-1, (1 << 31) - 1), mallopt(-2, 64 << 20)])
