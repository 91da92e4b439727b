"""One name for the fast step of every device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def accelerate(
    model: Any, *, dtype: torch.dtype = torch.float32, checkpoint_layers: bool = False, tokens: float = math.inf
) -> Iterator[tuple[str, ...]]:
    """Train ``model`` (LangSAMPForMaskedLM) faster inside the block, on the device it is on.

    Args:
        model: the model itself, not wrapped in DDP (wrap it after entering, or let the Trainer do it).
        dtype: what products are computed in: autocast's type, or float32 without it.
        checkpoint_layers: less memory for more time; on a GPU the model's own gradient checkpointing does that.
        tokens: how many this process will train on, about: few are not worth a compiler's time.

    Yields:
        The parts that are on; none on a device that is neither a CPU nor an NVIDIA GPU.
    """
    device = next(model.parameters()).device.type
    if device == "cpu":
        from langsamp.train.fast.cpu import accelerate as faster

        with faster(model, checkpoint_layers=checkpoint_layers) as on:
            yield on
    elif device == "cuda":
        from langsamp.train.fast.gpu import accelerate as faster_gpu

        with faster_gpu(model, dtype=dtype, tokens=tokens) as on:
            yield on
    else:
        yield ()
