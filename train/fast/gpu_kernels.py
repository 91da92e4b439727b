"""Two Triton passes over the logits of a large vocabulary: their log-sum-exp a row, and in place their gradient.

A row of 250,002 logits is half a megabyte, and the rows that run at once are more than the card's cache holds. So the
first pass only reads, and the second, once the incoming gradient is known, reads and writes and adds up the columns on
the way, which is the gradient of the bias: three times the logits' bytes in all, every sum in a fixed order.

Import this only where there is Triton, and a GPU or its interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MULTIPLE = 128  # the width of logits is a multiple of this: aligned rows for the matrix products, whole vectors here
ROWS, COLUMNS = 4, 2048  # of a tile of the first pass: the bias is read once for ROWS rows
PARTS = 8  # programs a group of rows, at most: enough of them to fill the card to the end
STRIP_ROWS, STRIP_COLUMNS, STRIP_WARPS = 2, 1024, 4  # of the second pass, which goes down a strip of columns
STRIP_PARTS = 8  # programs a strip, at most
# Any number of rows goes through one compiled kernel: in training it is a multiple of 128, in measuring it is not.


@triton.jit(do_not_specialize=["rows"])
def _sum_exp_kernel(
    logits, bias, out, rows, width, stride, PART: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """The log-sum-exp of PART columns of ROWS rows, with a running maximum."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * PART
    there = row < rows
    base = logits + row.to(tl.int64)[:, None] * stride
    highest = tl.full((ROWS,), -1e38, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, PART, COLUMNS):
        column = first + start + tl.arange(0, COLUMNS)
        within = column < width
        x = tl.load(base + column[None, :], mask=there[:, None] & within[None, :], other=float("-inf")).to(tl.float32)
        x += tl.load(bias + column, mask=within, other=0.0)[None, :]
        higher = tl.maximum(highest, tl.max(x, 1))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher[:, None]), 1)
        highest = higher
    tl.store(out + row * tl.num_programs(1) + tl.program_id(1), highest + tl.log(total), mask=there)


@triton.jit(do_not_specialize=["rows"])
def _gradient_kernel(
    logits, bias, targets, log_sums, scale, sums, rows, width, stride,
    PART: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A strip of COLUMNS columns, PART rows of it: scale * (softmax - one-hot) in place, and its sum a column."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    within = column < width
    added = tl.load(bias + column, mask=within, other=0.0)
    factor = tl.load(scale).to(tl.float32)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, PART, ROWS):
        row = tl.program_id(1) * PART + start + tl.arange(0, ROWS)
        there = row < rows
        target = tl.load(targets + row, mask=there, other=-100)
        log_sum = tl.load(log_sums + row, mask=there, other=0.0)
        place = logits + row.to(tl.int64)[:, None] * stride + column[None, :]
        seen = there[:, None] & within[None, :]
        x = tl.load(place, mask=seen, other=float("-inf")).to(tl.float32) + added[None, :]
        d = tl.exp(x - log_sum[:, None]) - (column[None, :] == target[:, None]).to(tl.float32)
        d = tl.where((target >= 0)[:, None], d * factor, 0.0)  # also where there is no row: its target is -100
        tl.store(place, d.to(logits.dtype.element_ty), mask=seen)
        total += d
    tl.store(sums + tl.program_id(1) * width + column, tl.sum(total, 0), mask=within)


def log_sum_exp(logits: Tensor, bias: Tensor) -> Tensor:
    """The log-sum-exp of each row of ``logits + bias``.

    Args:
        logits: (N, width) bf16, fp16 or fp32, rows dense, width a multiple of :data:`MULTIPLE`.
        bias: (width,) fp32; -inf where a column does not count (its logits must be finite all the same).

    Returns:
        (N,) fp32.
    """
    rows, width = logits.shape
    part = triton.cdiv(triton.cdiv(width, PARTS), COLUMNS) * COLUMNS
    out = torch.empty(rows, triton.cdiv(width, part), dtype=torch.float32, device=logits.device)
    _sum_exp_kernel[(triton.cdiv(rows, ROWS), out.shape[1])](
        logits, bias, out, rows, width, logits.stride(0), PART=part, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8
    )
    return out.logsumexp(1)


def to_gradient(logits: Tensor, bias: Tensor, targets: Tensor, log_sums: Tensor, scale: Tensor) -> Tensor:
    """Turn logits in place into the gradient of ``scale`` times the summed cross entropy.

    Args:
        logits: (N, width), and bias: (width,), as for :func:`log_sum_exp`; a column that does not count becomes 0.
        targets: (N,) int64; a row whose target is negative becomes 0.
        log_sums: (N,), what :func:`log_sum_exp` gave.
        scale: one number, on the same device.

    Returns:
        (width,) fp32: the sum of each column, the gradient of the bias.
    """
    rows, width = logits.shape
    part = triton.next_power_of_2(max(STRIP_ROWS, triton.cdiv(rows, STRIP_PARTS)))  # few values: each is compiled
    sums = torch.empty(triton.cdiv(rows, part), width, dtype=torch.float32, device=logits.device)
    _gradient_kernel[(triton.cdiv(width, STRIP_COLUMNS), len(sums))](
        logits, bias, targets, log_sums, scale, sums, rows, width, logits.stride(0), PART=part,
        ROWS=STRIP_ROWS, COLUMNS=STRIP_COLUMNS, num_warps=STRIP_WARPS,
    )  # fmt: skip
    return sums.sum(0)
