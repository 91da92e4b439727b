"""How it is computed: thread count, fast fp32 products on a CPU and on a card, memory kept; for train and eval.

Every switch of process-wide state in this project sits here, checks itself and is put back (the heap excepted).
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

logger = logging.getLogger(__name__)
_MATMUL: Any = getattr(torch.backends.mkldnn, "matmul", None)  # torch >= 2.9
_CGROUPS, _GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MATMUL_TOLERANCE = 1e-5  # largest error against fp64 over the largest value that still counts as fp32


def usable_cpus() -> int:
    """CPU cores this process may use: its affinity mask and the quota of its control groups (torch reads neither)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota, period in _limits("cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        if quota > 0:
            cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


def free_memory() -> int:
    """Bytes this process may still take: of the machine, and of its control groups (psutil knows the machine alone).

    What is taken counts files in the cache, which the kernel gives back, all but those in use.
    """
    free = psutil.virtual_memory().available
    second = ("memory.max", "memory.current", "memory.stat inactive_file")
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat total_inactive_file")
    for most, taken, cached in _limits("memory", second, first):
        free = min(free, most - taken + cached)
    return max(0, free)


def _limits(controller: str, *names: tuple[str, ...]) -> Iterator[list[int]]:
    """What files of this process's control groups, which a container or a batch job makes, and of those around say.

    Args:
        controller: ``cpu`` or ``memory``.
        names: files of version 2 and of version 1, with the key of the number if there are several.

    Yields:
        The numbers in the files, unless one has no number: "max" is no limit.
    """
    with suppress(OSError):  # not Linux
        for line in _GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = _CGROUPS / controller if controllers else _CGROUPS
            inside = top / place.strip("/")
            for folder in (inside, *inside.parents):
                for files in names if folder.is_relative_to(top) else ():  # a container sees the outermost alone
                    with suppress(OSError, ValueError, KeyError):
                        yield [number for file in files for number in _numbers(folder, *file.split())]


def _numbers(folder: Path, name: str, key: str = "") -> list[int]:
    text = (folder / name).read_text(encoding="ascii")
    if key:
        text = dict(line.split(" ", 1) for line in text.splitlines())[key]
    return [int(word) for word in text.split()]


@contextmanager
def patch(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an instance another attribute inside the block."""
    own = vars(owner)
    before = {name: own[name]} if name in own else {}
    own[name] = value
    try:
        yield
    finally:
        del own[name]
        own.update(before)


@contextmanager
def threads(count: int | None = None) -> Iterator[int]:
    """Run a block with that many torch threads and put the old number back.

    Without a number: OMP_NUM_THREADS if the user set it, else no more than :func:`usable_cpus`.

    Yields:
        The number in force.
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
        logger.info("oneDNN rounds fp32 products on this CPU (error %.0e): keeping PyTorch's own kernels", error)
        return False
    logger.debug("fp32 products go through oneDNN (error %.0e)", error)
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
    """Inside the block, fp32 matrix products on the CPU run at oneDNN's speed where that is exact.

    For forward and backward, nestable, safe to enter from several threads. Put it around computation only: while it
    is on, ``torch.get_float32_matmul_precision()`` refuses to answer. Elsewhere (see :func:`fast_matmul_allowed`) and
    on GPUs it changes nothing.

    Yields:
        Whether it is on.
    """
    if not (enabled and fast_matmul_allowed()):
        yield False
        return
    with _ROUTE:
        yield True


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on a device; the host does not wait until a CUDA card has come to it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@contextmanager
def products(dtype: str) -> Iterator[None]:
    """Inside the block, a CUDA card multiplies fp32 numbers as the name of the precision says.

    "tf32" rounds the factors to 10 bits, which is several times faster; any other name leaves them exact. Process-wide.
    """
    if dtype != "tf32":
        yield
        return
    switch = torch.backends.cuda.matmul
    name, value = ("fp32_precision", "tf32") if hasattr(switch, "fp32_precision") else ("allow_tf32", True)
    before = getattr(switch, name)
    setattr(switch, name, value)
    try:
        yield
    finally:
        setattr(switch, name, before)


@cache
def keep_heap() -> bool:
    """Make glibc keep freed memory instead of giving it back after every large tensor; for the rest of the process.

    Fresh pages are the hidden cost of CPU training: one layer's step takes 616 instead of 759 ms with the heap kept.
    The price is up to 0.5 GB more resident memory, so runs that are short of memory leave it out.

    Returns:
        Whether it does; False, and nothing is changed, where the C library is not glibc.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        mallopt = library.mallopt
        library.gnu_get_libc_version  # noqa: B018 (raises AttributeError on any other C library)
    except (OSError, AttributeError):
        return False
    # malloc.h: M_MMAP_THRESHOLD is -3, M_TRIM_THRESHOLD is -1, M_TOP_PAD is -2
    return all([mallopt(-3, 1 << 30), mallopt(-1, (1 << 31) - 1), mallopt(-2, 64 << 20)])
