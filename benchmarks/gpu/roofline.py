"""What the card can do: the ceilings that everything else is held against."""

from __future__ import annotations

import torch

from .measure import Bench, Row


def roofline(bench: Bench) -> None:
    """Two matrix products in bf16 on random numbers, one in tf32 and fp32, and a copy."""
    small = 16 if bench.tiny else 1
    products = {
        "bf16 8192^3": (8192, 8192, 8192, torch.bfloat16),
        "bf16 32768 x 768 x 3072": (32768, 768, 3072, torch.bfloat16),
        "fp32 4096^3": (4096, 4096, 4096, torch.float32),
    }
    for name, (m, k, n, dtype) in products.items():
        bench.row("roofline", name, _product, bench, m // small, k // small, n // small, dtype, needs=3)
    bench.row("roofline", "copy of 2 GB", _copy, bench, 2**31 // small**3, needs=3)
    rates = {row["name"]: row.get("TFLOP/s") for row in bench.rows["roofline"]}
    bench.note(peak_tflops=rates["bf16 8192^3"])


def _product(bench: Bench, m: int, k: int, n: int, dtype: torch.dtype) -> Row:
    a = torch.randn(m, k, device=bench.device, dtype=dtype)
    b = torch.randn(k, n, device=bench.device, dtype=dtype)
    ms = bench.milliseconds(lambda: a @ b)
    return {"ms": round(ms, 3), "TFLOP/s": round(2 * m * k * n / ms / 1e9, 1)}


def _copy(bench: Bench, size: int) -> Row:
    source = torch.empty(size, device=bench.device, dtype=torch.uint8).random_()
    target = torch.empty_like(source)
    ms = bench.milliseconds(lambda: target.copy_(source))
    return {"ms": round(ms, 3), "TB/s": round(2 * size / ms / 1e9, 2)}
