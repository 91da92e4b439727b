"""The head's loss for CPU training: a block of the vocabulary at a time, straight into ``weight.grad``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from langsamp.train.fast.ends import Owner

BLOCK = 4096  # vocabulary rows at a time: their slices of weight, gradient and logits stay in the cache
ROWS = 16  # rows of logits at a time in the softmax, for the same reason
LOGITS_KEPT = 2**28  # elements of the logits kept from forward to backward: at most 1 GiB in fp32


class HeadLoss(torch.autograd.Function):
    """Summed cross entropy of ``features @ weight.T + bias``, with three matrix products and one buffer in all.

    The logits turn in place into their gradient, which is kept for the backward pass; there, block by block, it gives
    the gradients of features and weight. With autocast the products and the buffer are in its type, the softmax is in
    fp32.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, bias: Tensor, owner: Owner, targets: Tensor) -> Tensor:
        """Of features (N, hidden), bias (vocab), the weight's owner and targets (N,)."""
        weight = owner.weight.detach()
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
        with torch.autocast("cpu", enabled=False):
            x = features.detach().to(dtype)
            logits = x.new_empty(len(x), len(weight))
            for start in range(0, len(weight), BLOCK):
                block = slice(start, start + BLOCK)
                logits[:, block] = torch.mm(x, weight[block].to(dtype).t())
            loss = _to_gradient(logits, bias.detach(), targets)
        ctx.x, ctx.d_logits, ctx.owner, ctx.feature_type = x, logits, owner, features.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        """The gradients of features and bias; that of the weight is added to ``weight.grad``."""
        weight, x, d_logits = ctx.owner.weight, ctx.x, ctx.d_logits
        fresh = ctx.owner.start_gradient() is not None
        d_features = torch.zeros(x.shape, dtype=weight.dtype)
        d_bias = torch.empty(len(weight), dtype=weight.dtype)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            scaled = x * grad
            for start in range(0, len(weight), BLOCK):
                block = slice(start, start + BLOCK)
                d = d_logits[:, block]
                d_bias[block] = d.sum(0, dtype=weight.dtype)
                d_features += torch.mm(d, weight[block].to(d.dtype))
                _add_product(weight.grad[block], d.t(), scaled, fresh)
            d_features.mul_(grad)
            d_bias.mul_(grad)
        ctx.x = ctx.d_logits = None
        return d_features.to(ctx.feature_type), d_bias, None, None


def _add_product(out: Tensor, a: Tensor, b: Tensor, fresh: bool) -> None:
    """Make out a @ b if it is fresh, else add to it; a and b may be of a narrower type than out."""
    if b.dtype != out.dtype:
        product = torch.mm(a, b)
        out.copy_(product) if fresh else out.add_(product)
    elif fresh:
        torch.mm(a, b, out=out)
    else:
        out.addmm_(a, b)


def _to_gradient(logits: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Turn logits (N, vocab) without bias into the gradient of the summed loss, in place; returns that loss."""
    losses = bias.new_empty(len(logits), 1)
    for start in range(0, len(logits), ROWS):
        rows = slice(start, start + ROWS)
        z = logits[rows].to(bias.dtype).add_(bias)  # the buffer itself, but for autocast's narrow logits
        torch.log_softmax(z, -1, out=z)
        target = targets[rows, None]
        losses[rows] = -z.gather(1, target)
        z.exp_().scatter_add_(1, target, torch.full(target.shape, -1.0, dtype=z.dtype))
        if z.dtype != logits.dtype:
            logits[rows] = z
    return losses.sum()
