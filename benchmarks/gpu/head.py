"""The head's loss piece by piece, so that a number which misses its prediction shows where it was lost."""

from __future__ import annotations

from typing import Any

import torch

from langsamp.train.fast import gpu_kernels as kernels
from langsamp.train.fast.gpu_head import product

from .measure import Bench, Row

ROWS, VOCAB, HIDDEN = 4992, 250_002, 768
TILES = ((2, 1024, 4), (1, 1024, 4), (1, 2048, 8), (4, 512, 8), (2, 512, 4))  # of the second pass: rows, columns, warps


def head(bench: Bench) -> None:
    """Time the products and passes of one loss, and other tiles of the second pass."""
    rows, vocab = (130, 3001) if bench.tiny else (ROWS, VOCAB)
    width = -(-vocab // kernels.MULTIPLE) * kernels.MULTIPLE

    def make(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(*shape, device=bench.device, dtype=dtype)

    x, w, logits = make(rows, HIDDEN), make(width, HIDDEN) * 0.02, make(rows, width)
    weight, bias = make(vocab, HIDDEN, dtype=torch.float32), make(width, dtype=torch.float32)
    memory, scale = torch.empty(width, HIDDEN, device=bench.device), torch.full((), 1e-3, device=bench.device)
    targets = torch.randint(vocab, (rows,), device=bench.device)
    sums = torch.full((rows,), 1e3, device=bench.device)  # large: what is in logits stays small pass after pass
    flop, size = 2 * rows * HIDDEN * width, rows * width * 2
    pieces: dict[str, tuple[Any, float, float]] = {  # what, FLOP, bytes
        "weight to bf16": (lambda: w[:vocab].copy_(weight), 0, 6 * vocab * HIDDEN),
        "logits: x @ w.T": (lambda: torch.mm(x, w.t(), out=logits), flop, 0),
        "pass 1: log-sum-exp": (lambda: kernels.log_sum_exp(logits, bias), 0, size),
        "pass 2: gradient in place": (lambda: kernels.to_gradient(logits, bias, targets, sums, scale), 0, 2 * size),
        "features' gradient: d @ w": (lambda: product(logits, w), flop, 0),
        "weight's gradient: d.T @ x": (lambda: product(logits.t(), x, memory), flop, 0),
        "unpadded: x @ w.T": (lambda: torch.mm(x, w[:vocab].t()), flop, 0),
    }
    for name, (call, operations, moved) in pieces.items():
        bench.row("head", name, _piece, bench, call, operations, moved, needs=4)
    before = kernels.STRIP_ROWS, kernels.STRIP_COLUMNS, kernels.STRIP_WARPS
    for tile in TILES:
        kernels.STRIP_ROWS, kernels.STRIP_COLUMNS, kernels.STRIP_WARPS = tile
        name, (call, operations, moved) = "pass 2: gradient in place", pieces["pass 2: gradient in place"]
        bench.row("head", f"{name}, tile {tile}", _piece, bench, call, operations, moved, needs=4)
    kernels.STRIP_ROWS, kernels.STRIP_COLUMNS, kernels.STRIP_WARPS = before


def _piece(bench: Bench, call: Any, flop: float, moved: float) -> Row:
    ms = bench.milliseconds(call, 6, 2)
    row: Row = {"ms": round(ms, 3)}
    if flop:
        row["TFLOP/s"] = round(flop / ms / 1e9, 1)
    if moved:
        row["TB/s"] = round(moved / ms / 1e9, 2)
    return row
