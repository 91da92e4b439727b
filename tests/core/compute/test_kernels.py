"""cpu_kernels.py: switches of process-wide state that check themselves, do no harm to results and go back."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace

import pytest
import torch

from langsamp.core.compute import kernels as cpu_kernels

precision = pytest.mark.skipif(not hasattr(cpu_kernels._MATMUL, "fp32_precision"), reason="torch without the switch")


@pytest.fixture
def routed(monkeypatch):
    """fast_matmul switched on where the products are exact, whoever made the CPU."""
    monkeypatch.setattr(cpu_kernels, "fast_matmul_allowed", lambda: True)
    return cpu_kernels._MATMUL.fp32_precision


@precision
def test_fast_matmul_puts_the_switch_back(routed):
    with cpu_kernels.fast_matmul():
        with contextlib.suppress(KeyError), cpu_kernels.fast_matmul():
            raise KeyError
        assert cpu_kernels._MATMUL.fp32_precision == "bf16"
    assert cpu_kernels._MATMUL.fp32_precision == routed
    torch.get_float32_matmul_precision()


@precision
def test_fast_matmul_from_two_threads_leaving_in_the_wrong_order(routed):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with cpu_kernels.fast_matmul():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with cpu_kernels.fast_matmul():
        thread.start()
        inside.wait(10)
    assert cpu_kernels._MATMUL.fp32_precision == "bf16"  # the other thread still computes
    leave.set()
    thread.join()
    assert cpu_kernels._MATMUL.fp32_precision == routed


@precision
def test_fast_matmul_is_exact_wherever_it_is_on():
    cpu_kernels.fast_matmul_allowed.cache_clear()
    a, b = torch.randn(300, 512), torch.randn(512, 700)
    with cpu_kernels.fast_matmul() as on:
        product = a @ b
    exact = a.double() @ b.double()
    error = float((product - exact).abs().max() / exact.abs().max())
    assert error < 1e-5, f"on={on}"


@pytest.mark.parametrize(("wish", "amd", "error", "allowed"), [
    ("", True, 1e-6, True),
    ("", True, 2e-3, False),  # a CPU that really rounds to bf16
    ("", False, 1e-6, False),
    ("1", False, 1e-6, True),
    ("1", False, 2e-3, False),
    ("0", True, 1e-6, False),
])  # fmt: skip
@precision
def test_who_gets_the_routing(monkeypatch, wish, amd, error, allowed):
    monkeypatch.setenv("LANGSAMP_FAST_MATMUL", wish)
    monkeypatch.setattr(cpu_kernels, "_is_amd", lambda: amd)
    monkeypatch.setattr(cpu_kernels, "_routed_error", lambda: error)
    cpu_kernels.fast_matmul_allowed.cache_clear()
    assert cpu_kernels.fast_matmul_allowed() is allowed
    cpu_kernels.fast_matmul_allowed.cache_clear()


def test_threads_go_back_and_follow_the_container(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpu_kernels, "usable_cpus", lambda: 1)
    with cpu_kernels.threads() as count:
        assert count == torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with contextlib.suppress(KeyError), cpu_kernels.threads(3) as count:
        assert count == torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before


GB = 2**30
LIMITS = {  # /proc/self/cgroup, files below /sys/fs/cgroup, cores and gigabytes of 8 and 64
    "none": ("0::/user.slice", {"user.slice/memory.max": "max", "user.slice/cpu.max": "max 100000"}, 8, 64),
    "a container": (
        "0::/",
        {"memory.max": 20 * GB, "memory.current": 12 * GB, "memory.stat": f"anon 5\ninactive_file {3 * GB}",
         "cpu.max": "250000 100000"},
        3, 11,
    ),
    "a batch job": (
        "0::/slurm/job_7/step_0",
        {"slurm/job_7/step_0/memory.max": "max", "slurm/job_7/memory.max": 16 * GB,
         "slurm/job_7/memory.current": 17 * GB, "slurm/job_7/memory.stat": "inactive_file 0",
         "slurm/cpu.max": "400000 100000"},
        4, 0,
    ),
    "version 1": (
        "9:name=systemd:/\n5:cpu,cpuacct:/docker/f00\n4:memory:/docker/f00",
        {"memory/memory.limit_in_bytes": 10 * GB, "memory/memory.usage_in_bytes": 9 * GB,
         "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {4 * GB}",
         "cpu/cpu.cfs_quota_us": 150_000, "cpu/cpu.cfs_period_us": 100_000},
        2, 5,
    ),
    "version 1 without limits": (
        "5:cpu,cpuacct:/\n4:memory:/",
        {"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/memory.usage_in_bytes": 9 * GB,
         "memory/memory.stat": "total_inactive_file 0", "cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100_000},
        8, 64,
    ),
    "a stranger": ("0::/../..", {}, 8, 64),
}  # fmt: skip


@pytest.mark.parametrize("kind", LIMITS)
def test_limits_of_containers_and_batch_jobs_count(tmp_path, monkeypatch, kind):
    groups, files, cores, memory = LIMITS[kind]
    (tmp_path / "own").write_text(groups + "\n")
    for name, content in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(f"{content}\n")
    monkeypatch.setattr(cpu_kernels, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(cpu_kernels, "_GROUPS", tmp_path / "own")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=64 * GB))
    assert (cpu_kernels.usable_cpus(), cpu_kernels.free_memory()) == (cores, memory * GB)


def test_usable_cpus_is_at_least_one_and_within_the_machine():
    import os

    assert 1 <= cpu_kernels.usable_cpus() <= (os.cpu_count() or 1)


def test_keep_heap_computes_the_same(run_fresh):
    code = """
import torch
from langsamp.core.compute.kernels import keep_heap
torch.manual_seed(0)
a = torch.randn(400, 400)
before = (a @ a).sum().item()
kept = keep_heap()
assert keep_heap() == kept
print(kept in (True, False) and (a @ a).sum().item() == before)
"""
    assert run_fresh(code).strip() == "True"
