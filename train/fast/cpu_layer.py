"""One encoder layer of XLM-R, forward and backward by hand: few passes over memory, cheap dropout, optional recompute.

Same mathematics and the same parameters as the stock layer; `train/fast/cpu.py` puts it in place for CPU training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

SCORES_AT_ONCE = 2**20  # attention scores worked on together: short sequences by the batch, long ones one by one
PARAMETERS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)  # each has a weight and a bias; this order is the order of the arguments below


class LayerOptions(NamedTuple):
    """What does not change from batch to batch."""

    heads: int
    eps: float
    p_attention: float
    p_hidden: float
    recompute: bool  # keep only the layer's input and compute the rest again in the backward pass


class Saved(NamedTuple):
    """What the backward pass needs: N = batch x length tokens, H heads of size D, uint8 masks (None: no dropout)."""

    x: Tensor  # (N, hidden) in the matrix products' type, as are qkv, context, y1 and u
    qkv: tuple[Tensor, Tensor, Tensor]  # each (batch, H, length, D); the query is scaled
    probabilities: Tensor  # (batch, H, length, length), before dropout
    context: Tensor  # (N, hidden)
    h1: Tensor  # (N, hidden) what the first LayerNorm sees
    norm1: list[Tensor]  # mean and 1 / deviation
    y1: Tensor
    u: Tensor  # (N, intermediate) before GELU
    h2: Tensor
    norm2: list[Tensor]
    masks: tuple[Tensor | None, Tensor | None, Tensor | None]


def draw_seed() -> int:
    """A seed for :func:`keep_mask` from torch's CPU generator, so that whoever saves its state can resume exactly."""
    return int(torch.randint(2**63 - 1, ()))


def keep_mask(shape: tuple[int, ...], p: float, seed: int) -> Tensor | None:
    """Which elements dropout keeps: uint8 ones and zeros, or None if p is 0.

    One 64-bit draw decides four elements with 16 bits each, so p is rounded to a multiple of 2^-16. About a tenth of
    the time of ``torch.bernoulli``, which is a tenth of a training step on CPU.
    """
    if p == 0:
        return None
    count = int(np.prod(shape))
    raw = np.random.SFC64(seed).random_raw(-(-count // 4))
    bits = torch.from_numpy(raw.view(np.int16))[:count].view(shape)
    keep = torch.empty(shape, dtype=torch.uint8)
    return torch.ge(bits, _dropped(p) - 2**15, out=keep)


def keep_scale(p: float) -> float:
    """One over the share of elements that :func:`keep_mask` keeps on average."""
    return 1 / (1 - _dropped(p) / 2**16)


def _dropped(p: float) -> int:
    return min(round(p * 2**16), 2**16 - 1)


class Dropout(torch.autograd.Function):
    """``F.dropout`` with :func:`keep_mask`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        """Any x; p below 1."""
        ctx.keep, ctx.p = keep_mask(tuple(x.shape), p, draw_seed()), p
        return _masked(x, ctx.keep, keep_scale(p))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """The same elements, the same scale."""
        return _masked(grad, ctx.keep, keep_scale(ctx.p)), None


def _masked(x: Tensor, keep: Tensor | None, scale: float = 1.0) -> Tensor:
    """A new tensor: x with the dropped elements zero, times scale. (Casting the mask is 3x faster than torch.where.)"""
    if keep is None:
        return x.clone()
    out = keep.to(x.dtype).mul_(x)
    return out if scale == 1 else out.mul_(scale)


class FastLayer(torch.autograd.Function):
    """``layer(x)`` for the 16 parameters of a stock XLMRobertaLayer; see :func:`run_layer`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, options: LayerOptions, *parameters: Tensor) -> Tensor:
        """Input x (batch, length, hidden) fp32; bias: added to the scores, (batch, 1, 1 or length, length)."""
        device = x.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        ctx.seeds = tuple(draw_seed() if p else 0 for p in (options.p_attention, options.p_hidden, options.p_hidden))
        ctx.options, ctx.bias, ctx.shape = options, bias, x.shape
        with torch.autocast(device, enabled=False):
            y, saved = _forward(x, bias, options, ctx.dtype, ctx.seeds, parameters)
        ctx.kept = None if options.recompute else saved
        ctx.save_for_backward(x if options.recompute else None, *parameters)
        return y.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of the 16 parameters."""
        x, *parameters = ctx.saved_tensors
        saved, ctx.kept = ctx.kept, None
        with torch.autocast(dy.device.type, enabled=False):
            if saved is None:
                _, saved = _forward(x, ctx.bias, ctx.options, ctx.dtype, ctx.seeds, parameters)
            dx, grads = _backward(dy.reshape(-1, dy.shape[-1]), ctx.options, ctx.dtype, saved, parameters)
        return dx.view(ctx.shape), None, None, *grads


def _forward(
    x: Tensor, bias: Tensor | None, options: LayerOptions, dtype: torch.dtype, seeds: tuple[int, ...], parameters: Any
) -> tuple[Tensor, Saved]:
    """The layer's output (N, hidden) in x's type, and what the backward pass needs."""
    batch, length, hidden = x.shape
    size = hidden // options.heads
    wq, bq, wk, bk, wv, bv, wo, bo, g1, b1, wi, bi, wd, bd, g2, b2 = parameters
    x2 = x.reshape(-1, hidden)
    xc = x2.to(dtype)
    q, k, v = (
        _linear(xc, w, b).view(batch, length, options.heads, size).transpose(1, 2).contiguous()
        for w, b in ((wq, bq), (wk, bk), (wv, bv))
    )
    q.mul_(size**-0.5)
    keep = keep_mask((batch, options.heads, length, length), options.p_attention, seeds[0])
    probabilities, context = _attend(q, k, v, bias, keep, keep_scale(options.p_attention))
    context = context.transpose(1, 2).reshape(-1, hidden)

    keep1 = keep_mask(tuple(x2.shape), options.p_hidden, seeds[1])
    h1 = torch.add(x2, _masked(_linear(context, wo, bo).to(x.dtype), keep1), alpha=keep_scale(options.p_hidden))
    y1, *norm1 = torch.native_layer_norm(h1, [hidden], g1, b1, options.eps)
    y1c = y1.to(dtype)
    u = _linear(y1c, wi, bi)
    keep2 = keep_mask(tuple(x2.shape), options.p_hidden, seeds[2])
    out = _linear(nn.functional.gelu(u), wd, bd).to(x.dtype)
    h2 = torch.add(y1, _masked(out, keep2), alpha=keep_scale(options.p_hidden))
    y2, *norm2 = torch.native_layer_norm(h2, [hidden], g2, b2, options.eps)
    masks = (keep, keep1, keep2)
    return y2, Saved(xc, (q, k, v), probabilities, context, h1, norm1, y1c, u, h2, norm2, masks)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias.to(x.dtype), x, weight.to(x.dtype).t())


def _sequences(q: Tensor) -> Iterator[slice]:
    """Slices of the batch whose scores, together, are no more than ``SCORES_AT_ONCE``; one sequence at least."""
    batch, heads, length, _ = q.shape
    n = max(1, SCORES_AT_ONCE // (heads * length * length))
    return (slice(start, start + n) for start in range(0, batch, n))


def _flat(x: Tensor) -> Tensor:
    """(some sequences, heads, ...) as one batch of products; no copy."""
    return x.flatten(0, 1)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, keep: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention probabilities (batch, H, length, length) before dropout and their values (batch, H, length, D).

    A few sequences at a time: their scores stay in the cache through all passes over them.
    """
    batch, heads, length, _ = q.shape
    probabilities = q.new_empty(batch, heads, length, length)
    context = torch.empty_like(q)
    for some in _sequences(q):
        scores = torch.bmm(_flat(q[some]), _flat(k[some]).transpose(1, 2)).view(-1, heads, length, length)
        if bias is not None:
            scores.add_(bias[some])
        p = torch.softmax(scores, -1, out=probabilities[some])
        torch.bmm(_flat(p if keep is None else _masked(p, keep[some])), _flat(v[some]), out=_flat(context[some]))
    if scale != 1:
        context.mul_(scale)
    return probabilities, context


def _backward(
    dy: Tensor, options: LayerOptions, dtype: torch.dtype, saved: Saved, parameters: Any
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of the input (N, hidden) and of the parameters, all in the parameters' type."""
    hidden = dy.shape[1]
    wq, _, wk, _, wv, _, wo, _, g1, b1, wi, _, wd, _, g2, b2 = parameters
    scale = keep_scale(options.p_hidden)
    norm = torch.ops.aten.native_layer_norm_backward
    dh2, dg2, db2 = norm(dy, saved.h2, [hidden], *saved.norm2, g2, b2, [True] * 3)
    da, dwd, dbd = _linear_backward(_masked(dh2, saved.masks[2], scale).to(dtype), nn.functional.gelu(saved.u), wd)
    du = torch.ops.aten.gelu_backward(da, saved.u)
    dy1, dwi, dbi = _linear_backward(du, saved.y1, wi)
    del da, du
    dh1, dg1, db1 = norm(dh2.add_(dy1), saved.h1, [hidden], *saved.norm1, g1, b1, [True] * 3)
    dcontext, dwo, dbo = _linear_backward(_masked(dh1, saved.masks[1], scale).to(dtype), saved.context, wo)

    shape = saved.qkv[0].transpose(1, 2).shape
    dcontext = dcontext.view(shape).transpose(1, 2).contiguous().mul_(keep_scale(options.p_attention))
    grads: list[Tensor] = []
    for d, w in zip(_attend_backward(dcontext, saved), (wq, wk, wv)):
        dx, dw, db = _linear_backward(d.transpose(1, 2).reshape(-1, hidden), saved.x, w)
        dh1.add_(dx)
        grads += [dw, db]
    return dh1, [*grads, dwo, dbo, dg1, db1, dwi, dbi, dwd, dbd, dg2, db2]


def _linear_backward(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input (in dy's type), the weight and the bias (in the weight's type)."""
    dw = torch.mm(dy.t(), x).to(weight.dtype)
    return torch.mm(dy, weight.to(dy.dtype)), dw, dy.sum(0, dtype=weight.dtype)


def _attend_backward(dcontext: Tensor, saved: Saved) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (before its scaling), key and value, each (batch, H, length, D)."""
    q, k, v = saved.qkv
    keep = saved.masks[0]
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    for some in _sequences(q):
        p, d = _flat(saved.probabilities[some]), _flat(dcontext[some])
        dp = torch.bmm(d, _flat(v[some]).transpose(1, 2))
        if keep is None:
            torch.bmm(p.transpose(1, 2), d, out=_flat(dv[some]))
        else:
            mask = _flat(keep[some]).to(p.dtype)
            dp.mul_(mask)
            torch.bmm(mask.mul_(p).transpose(1, 2), d, out=_flat(dv[some]))
        ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
        torch.bmm(ds, _flat(k[some]), out=_flat(dq[some]))
        torch.bmm(ds.transpose(1, 2), _flat(q[some]), out=_flat(dk[some]))
    return dq.mul_(q.shape[-1] ** -0.5), dk, dv
