"""runtime.py: names to folders, atomic files, and switches of process-wide state that check themselves and go back."""

from __future__ import annotations

import contextlib
import threading

import pytest
import torch

from langsamp import runtime

precision = pytest.mark.skipif(not hasattr(runtime._MATMUL, "fp32_precision"), reason="torch without the switch")


@pytest.fixture
def routed(monkeypatch):
    """fast_matmul switched on where the products are exact, whoever made the CPU."""
    monkeypatch.setattr(runtime, "fast_matmul_allowed", lambda: True)
    return runtime._MATMUL.fp32_precision


@precision
def test_fast_matmul_puts_the_switch_back(routed):
    with runtime.fast_matmul():
        with contextlib.suppress(KeyError), runtime.fast_matmul():
            raise KeyError
        assert runtime._MATMUL.fp32_precision == "bf16"
    assert runtime._MATMUL.fp32_precision == routed
    torch.get_float32_matmul_precision()


@precision
def test_fast_matmul_from_two_threads_leaving_in_the_wrong_order(routed):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with runtime.fast_matmul():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with runtime.fast_matmul():
        thread.start()
        inside.wait(10)
    assert runtime._MATMUL.fp32_precision == "bf16"  # the other thread still computes
    leave.set()
    thread.join()
    assert runtime._MATMUL.fp32_precision == routed


@precision
def test_fast_matmul_is_exact_wherever_it_is_on():
    runtime.fast_matmul_allowed.cache_clear()
    a, b = torch.randn(300, 512), torch.randn(512, 700)
    with runtime.fast_matmul() as on:
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
    monkeypatch.setattr(runtime, "_is_amd", lambda: amd)
    monkeypatch.setattr(runtime, "_routed_error", lambda: error)
    runtime.fast_matmul_allowed.cache_clear()
    assert runtime.fast_matmul_allowed() is allowed
    runtime.fast_matmul_allowed.cache_clear()


def test_threads_go_back_and_follow_the_container(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runtime, "usable_cpus", lambda: 1)
    with runtime.threads() as count:
        assert count == torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with contextlib.suppress(KeyError), runtime.threads(3) as count:
        assert count == torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before


def test_usable_cpus_is_at_least_one_and_within_the_machine():
    import os

    assert 1 <= runtime.usable_cpus() <= (os.cpu_count() or 1)


def test_keep_heap_computes_the_same(run_fresh):
    code = """
import torch
from langsamp.runtime import keep_heap
torch.manual_seed(0)
a = torch.randn(400, 400)
before = (a @ a).sum().item()
kept = keep_heap()
assert keep_heap() == kept
print(kept in (True, False) and (a @ a).sum().item() == before)
"""
    assert run_fresh(code).strip() == "True"


def test_atomic_write_replaces_whole_files_only(tmp_path):
    target = tmp_path / "deep" / "file.json"
    runtime.atomic_write(target, "é")
    assert target.read_bytes() == b"\xc3\xa9"
    runtime.atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    with pytest.raises(TypeError):
        runtime.atomic_write(target, 3)  # type: ignore[arg-type]
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
