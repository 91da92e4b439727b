"""Gradient clipping inside the fused AdamW update instead of in a pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def fold_clip(optimizer: Any, max_norm: float) -> Tensor:
    """Clip as ``clip_grad_norm_`` would, but let the optimizer's next ``step`` apply the factor.

    With the Trainer: call it where ``accelerator.clip_grad_norm_`` would be called. Gradients are only read; if their
    norm is not finite, the next step changes nothing. Not for FSDP, where the norm is a sum over ranks.

    Args:
        optimizer: a ``torch.optim`` Adam or AdamW with ``fused=True`` (the Trainer's default), or a wrapper of one with
            an attribute ``optimizer``. Any other gets the ordinary clipping.
        max_norm: the limit of the total 2-norm; positive.

    Returns:
        The total norm before clipping, a scalar.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    fused = isinstance(optimizer, torch.optim.Adam) and all(group["fused"] for group in optimizer.param_groups)
    if not (fused and parameters):
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    # the fused kernel divides by grad_scale and skips its update where found_inf is 1: both are made for loss scaling
    optimizer.grad_scale = ((norm + 1e-6) / max_norm).clamp(min=1.0)
    optimizer.found_inf = (~norm.isfinite()).to(norm.dtype)
    return norm
