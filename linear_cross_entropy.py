"""The cross entropy of a linear layer, never holding all of its logits: a masked LM's loss in little memory."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOGITS_AT_ONCE = 2**26  # elements of the one logits buffer of the loss: 256 MiB in fp32, whatever batch and vocabulary


class LinearCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of ``features @ weight.T + bias``, a slice of rows at a time.

    All logits at a large vocabulary need gigabytes, several times over; here one slice exists at once and turns in
    place from logits into probabilities into their gradient. Gradients are made in the forward pass, nothing twice.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, rows: int, with_grad: bool
    ) -> Tensor:
        """Features (N, hidden), weight (vocab, hidden), bias (vocab), targets (N,) -> the summed loss, a scalar."""
        device_type = features.device.type
        dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else weight.dtype
        with torch.autocast(device_type, enabled=False):
            total, grads = _slices(features.to(dtype), weight.to(dtype), bias, targets, rows, with_grad)
        if grads is not None:
            ctx.save_for_backward(grads[0].to(features.dtype), grads[1].to(weight.dtype), grads[2].to(bias.dtype))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        """Scale what the forward pass has made."""
        features, weight, bias = ctx.saved_tensors
        return features * grad_output, weight.mul_(grad_output), bias * grad_output, None, None, None


def _slices(
    features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, rows: int, with_grad: bool
) -> "tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]":
    """The loss over all slices and, if asked for, the gradients of features, weight (fp32) and bias (fp32)."""
    total = torch.zeros((), dtype=torch.float32, device=features.device)
    if with_grad:
        d_features = torch.empty_like(features)
        d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        d_bias = torch.zeros(bias.shape, dtype=torch.float32, device=bias.device)
    for start in range(0, len(targets), rows):
        x, y = features[start : start + rows], targets[start : start + rows, None]
        counts = (y >= 0).float()  # 0 for a row that fills up
        y = y.clamp(min=0)
        logits = torch.mm(x, weight.t()).float().add_(bias)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        at_target = logits.gather(1, y)
        norm = logits.exp_().sum(dim=1, keepdim=True)
        total += ((norm.log() - at_target) * counts).sum()
        if with_grad:
            d_logits = logits.div_(norm / counts).scatter_add_(1, y, -counts)  # x / inf = 0 where nothing counts
            d_bias += d_logits.sum(dim=0)
            d_logits = d_logits.to(x.dtype)
            torch.mm(d_logits, weight, out=d_features[start : start + rows])
            if x.dtype == torch.float32:
                d_weight.addmm_(d_logits.t(), x)
            else:
                d_weight += torch.mm(d_logits.t(), x)
    return total, (d_features, d_weight, d_bias) if with_grad else None


def linear_cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, rows: int = 0) -> Tensor:
    """Summed cross entropy of a linear layer, never holding more than ``rows`` rows of logits.

    Args:
        features: (N, hidden). N may be 0: the loss is 0 and has zero gradients.
        weight: (vocab, hidden); bias: (vocab).
        targets: (N,) int64, classes; a row whose target is negative adds nothing and gets no gradient.
        rows: rows of logits at once; 0 chooses ``LOGITS_AT_ONCE`` elements.

    Returns:
        The sum over the N rows in nats, fp32; value and gradients equal those of ``F.cross_entropy``.
    """
    with_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (features, weight, bias))
    rows = rows or max(1, LOGITS_AT_ONCE // weight.shape[0])
    return LinearCrossEntropy.apply(features, weight, bias, targets, rows, with_grad)


def token_losses(features: Tensor, weight: Tensor, bias: "Tensor | None", targets: Tensor) -> Tensor:
    """The cross entropy of each row by itself, for measuring: (N,) in nats, fp32, a slice of the logits at a time.

    Args:
        features: (N, hidden); weight: (vocab, hidden); bias: (vocab) or None; targets: (N,) int64, classes.
    """
    rows = max(1, LOGITS_AT_ONCE // len(weight))
    parts = [
        functional.cross_entropy(functional.linear(some, weight, bias).float(), wanted, reduction="none")
        for some, wanted in zip(features.split(rows), targets.split(rows))
    ]
    return torch.cat(parts)
