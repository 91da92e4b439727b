"""The masked-LM head's loss on a GPU: three matrix products, one buffer, no second gradient of the vocabulary matrix.

The products have even sizes whatever the vocabulary (250,002 is not even a multiple of 4, and the matrix units read 16
bytes at a time): weight, logits and gradient are padded to :data:`~langsamp.train.fast.gpu_kernels.MULTIPLE` columns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from langsamp.train.fast.ends import Owner, writable
from langsamp.train.fast.gpu_kernels import MULTIPLE, log_sum_exp, to_gradient

logger = logging.getLogger(__name__)
TYPES = (torch.float32, torch.bfloat16, torch.float16)
Loss = Callable[[Tensor, Tensor, "Tensor | None", Tensor], Tensor]  # of features, weight, bias and targets


class HeadLoss(torch.autograd.Function):
    """Summed cross entropy of ``features @ weight.T + bias``; the logits turn in place into their gradient.

    With autocast products and logits are in its type; the bias, the softmax, and the gradients of bias and weight are
    in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, bias: Tensor | None, seen: Tensor | None, owner: Owner, targets: Tensor
    ) -> Tensor:
        """The loss, a scalar in fp32.

        Args:
            ctx: the node.
            features: (N, hidden).
            bias: (vocab,) or None.
            seen: the weight (vocab, hidden) as autograd shall see it; None adds to ``weight.grad`` behind its back.
            owner: of the weight, padded to MULTIPLE.
            targets: (N,) int64, negative where nothing is to be predicted.
        """
        losses, ctx.kept = _losses(features, bias, owner, targets)
        ctx.owner, ctx.seen, ctx.feature_type = owner, seen is not None, features.dtype
        ctx.bias_type = None if bias is None else bias.dtype
        return losses.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The gradients of features, bias and, if autograd sees it, weight."""
        x, w, added, logits, log_sums, targets = ctx.kept
        ctx.kept = None
        owner, vocab, d_weight = ctx.owner, len(ctx.owner.weight), None
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            d_bias = to_gradient(logits, added, targets, log_sums, grad)[:vocab]
            d_features = product(logits, w)
            if ctx.seen:
                memory = w.new_empty(w.shape, dtype=owner.weight.dtype)
                d_weight = memory[:vocab]
            else:
                memory = owner.start_gradient()
            if memory is not None:
                product(logits.t(), x, memory)
            else:
                product(logits[:, :vocab].t(), x, owner.weight.grad, add=True)
        return d_features.to(ctx.feature_type), ctx.bias_type and d_bias.to(ctx.bias_type), d_weight, None, None


def _losses(features: Tensor, bias: Tensor | None, owner: Owner, targets: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss (N,) of each row, 0 where nothing is to be predicted, and what the backward pass needs."""
    weight = owner.weight.detach()
    dtype = _compute_type(weight)
    with torch.autocast(weight.device.type, enabled=False):
        x = features.detach().to(dtype)
        w = weight.new_empty(owner.rows, weight.shape[1], dtype=dtype)
        w[: len(weight)].copy_(weight)
        w[len(weight) :].zero_()
        added = weight.new_full((owner.rows,), float("-inf"), dtype=torch.float32)
        added[: len(weight)] = 0 if bias is None else bias.detach()
        logits = torch.mm(x, w.t())
        log_sums = log_sum_exp(logits, added)
        at = targets.clamp(min=0)
        losses = log_sums - logits.gather(1, at[:, None])[:, 0].float() - added[at]
    return losses.masked_fill(targets < 0, 0), (x, w, added, logits, log_sums, targets)


def _compute_type(weight: Tensor) -> torch.dtype:
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def product(a: Tensor, b: Tensor, out: Tensor | None = None, add: bool = False) -> Tensor:
    """The product of two matrices of one type, in fp32 (never rounded to a narrower type on its way, where torch can).

    Args:
        a: (n, k).
        b: (k, m).
        out: (n, m) where to write it.
        add: to what is in ``out``.
    """
    if out is None:
        out = a.new_empty(a.shape[0], b.shape[1], dtype=torch.float32)
    if a.dtype == out.dtype:
        return out.addmm_(a, b) if add else torch.mm(a, b, out=out)
    if add:
        return out.add_(product(a, b))
    if a.is_cuda and hasattr(torch.ops.aten.mm, "dtype_out"):  # torch 2.8
        return torch.ops.aten.mm.dtype_out(a, b, out.dtype, out=out)
    return out.copy_(torch.mm(a, b))


def fast_loss(stock: Loss, owner: Owner) -> Loss:
    """A stand-in for ``model.summed_loss``: :class:`HeadLoss` where it applies, else the stock one."""

    def fast(features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        found: Tensor = HeadLoss.apply(features, bias, None if writable(weight) else weight, owner, targets)
        return found

    return _where_it_fits(fast, stock, owner, lambda features: features.requires_grad and owner.weight.requires_grad)


def fast_rows(stock: Loss, owner: Owner) -> Loss:
    """A stand-in for ``model.row_losses``, with which the held-out loss is measured: its forward pass alone."""

    def fast(features: Tensor, _: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        return _losses(features, bias, owner, targets)[0]

    return _where_it_fits(fast, stock, owner, lambda features: not torch.is_grad_enabled())


def _where_it_fits(fast: Loss, stock: Loss, owner: Owner, applies: Callable[[Tensor], bool]) -> Loss:
    """The fast loss where it applies, else the stock one.

    Once the card's memory has not sufficed for so many rows of logits, such batches take the stock loss, which needs
    them a slice at a time.
    """
    limit = float("inf")
    owner.pad_to(MULTIPLE)

    def loss(features: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        nonlocal limit
        known = weight is owner.weight and _compute_type(weight) in TYPES
        if not (known and 0 < len(features) < limit and applies(features)):
            return stock(features, weight, bias, targets)
        try:
            return fast(features, weight, bias, targets)
        except torch.OutOfMemoryError:
            limit = len(features)
            logger.warning("no memory for %d rows of logits: the head's loss goes a slice at a time, slower", limit)
        return stock(features, weight, bias, targets)

    return loss


def disagreement(device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with the fused loss here, in words; None if its errors are those of the stock one's rounding."""
    for name, (ours, theirs) in check(device, dtype).items():
        if not ours <= 1.5 * theirs + 2e-6:
            return f"its {name} is off by {ours:.1e} of the largest value, the stock one's by {theirs:.1e}"
    return None


def check(device: torch.device, dtype: torch.dtype) -> dict[str, tuple[float, float]]:
    """Errors of :class:`HeadLoss` and of the stock way on a small random problem, against fp64.

    Returns:
        For ``loss``, ``features``, ``bias`` and ``weight`` (two backward passes added up) our error and the stock one,
        each over the tensor's largest value; not finite if a number is not.
    """
    generator = torch.Generator().manual_seed(0)
    rows, vocab, hidden = 150, 3001, 64
    weight = torch.randn(vocab, hidden, generator=generator, dtype=torch.float64).mul_(0.3)
    bias = torch.randn(vocab, generator=generator, dtype=torch.float64)
    features = torch.randn(rows, hidden, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocab, (rows,), generator=generator)
    targets[::7] = -100

    def run(place: torch.device | str, kind: torch.dtype, ours: bool) -> dict[str, Tensor]:
        w, b, x = (p.to(place, kind, copy=True).requires_grad_() for p in (weight, bias, features))
        owner, y = Owner(w).pad_to(MULTIPLE), targets.to(place)
        for factor in (0.25, 0.5):
            with torch.autocast(w.device.type, dtype, enabled=kind != torch.float64 and dtype != torch.float32):
                if ours:
                    loss = HeadLoss.apply(x, b, None, owner, y)
                else:
                    loss = nn.functional.cross_entropy(nn.functional.linear(x, w, b), y, reduction="sum")
            (loss * factor).backward()
        found = {"loss": loss, "features": x.grad, "bias": b.grad, "weight": w.grad}
        return {name: value.detach().double().cpu() for name, value in found.items() if value is not None}

    exact = run("cpu", torch.float64, False)
    ways = [run(device, torch.float32, ours) for ours in (True, False)]
    errors = [{name: float((way[name] - e).abs().max() / e.abs().max()) for name, e in exact.items()} for way in ways]
    return {name: (errors[0][name], errors[1][name]) for name in exact}
