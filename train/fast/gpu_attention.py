"""Attention over padded batches at the speed of full ones: flash attention that knows where each sequence ends.

With a mask torch cannot take flash attention, for the whole batch and though one block in hundreds is padded. Here a
row of the batch is two sequences instead, what is real and what is padding; neither sees the other. Shapes stay as they
are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from langsamp.train.fast.ends import patch

_flash = torch.ops.aten._flash_attention_forward  # torch.nn.attention.varlen would be it, but has no dropout
_NAME = "sequence_ends"  # the keyword under which the ends travel from the encoder's forward to the attention


def sequence_ends(mask: Tensor) -> Tensor:
    """Where the two sequences of each row end, counted through the whole batch.

    Args:
        mask: (batch, length), not 0 for real tokens, which are all at one end of their row.

    Returns:
        int32 (2 * batch + 1,), from 0 to batch * length, never falling.
    """
    batch, length = mask.shape
    real = mask != 0
    first = (real == real[:, :1]).sum(1)  # tokens that are as the row's first
    starts = torch.arange(0, batch * length, length, device=mask.device)
    ends = torch.stack([starts + first, starts + length], 1).flatten()
    return nn.functional.pad(ends, (1, 0)).int()


def attend(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, dropout: float, scaling: float | None) -> Tensor:
    """Attention within sequences.

    Args:
        query, key, value: (batch, heads, length, size), bf16 or fp16, on an NVIDIA GPU.
        ends: see :func:`sequence_ends`.
        dropout: of the probabilities.
        scaling: of the scores; None: one over the root of size.

    Returns:
        (batch, length, heads, size).
    """
    batch, heads, length, size = query.shape
    flat = [t.transpose(1, 2).reshape(batch * length, heads, size) for t in (query, key, value)]
    out = _flash(*flat, ends, ends, length, length, dropout, False, False, scale=scaling)
    return out[0].view(batch, length, heads, size)


def install(model: Any, stack: ExitStack, device: torch.device, dtype: torch.dtype) -> str | None:
    """Let training with a padding mask go through :func:`attend`; else says why not."""
    if model.config._attn_implementation != "sdpa":
        return f"the attention is {model.config._attn_implementation}, not sdpa"
    error = check(device, dtype)
    if not error < 2e-2:
        return f"its error is {error:.1e} of the largest value"
    stock_attention, encoder = ALL_ATTENTION_FUNCTIONS["sdpa"], model.base_model
    stack.callback(ALL_ATTENTION_FUNCTIONS.__setitem__, "sdpa", stock_attention)
    if not _arrive(encoder, stock_attention, device):
        return "the encoder does not hand it what it needs, or limits attention in a way of its own"
    ALL_ATTENTION_FUNCTIONS["sdpa"] = _attention(stock_attention)
    stock = encoder.forward

    def forward(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        trains = encoder.training and torch.is_grad_enabled() and torch.is_autocast_enabled(device.type)
        if trains and attention_mask is not None and attention_mask.dim() == 2:
            kwargs[_NAME], attention_mask = sequence_ends(attention_mask), None
        return stock(*args, attention_mask=attention_mask, **kwargs)

    patch(stack, encoder, "forward", forward)
    return None


def _arrive(encoder: Any, stock: Callable[..., Any], device: torch.device) -> bool:
    """Whether keywords of the encoder's forward reach all attention, which without a mask is over all tokens."""
    calls = []

    def probe(module: nn.Module, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        limits = mask is not None or kwargs.get("sliding_window") or kwargs.get("position_bias") is not None
        calls.append(_NAME in kwargs and not limits and not getattr(module, "is_causal", False))
        return stock(module, query, key, value, mask, **{name: v for name, v in kwargs.items() if name != _NAME})

    ALL_ATTENTION_FUNCTIONS["sdpa"] = probe
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        encoder(
            input_ids=torch.full((1, 4), 5, device=device), **{_NAME: sequence_ends(torch.ones(1, 4, device=device))}
        )
    return bool(calls) and all(calls)


def _attention(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Transformers' attention function: ours where the ends are given."""

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        ends = kwargs.pop(_NAME, None)
        if ends is None:
            return stock(module, query, key, value, attention_mask, **kwargs)
        return attend(query, key, value, ends, kwargs.get("dropout", 0.0), kwargs.get("scaling")), None

    return forward


def check(device: torch.device, dtype: torch.dtype) -> float:
    """The largest error of :func:`attend`, forward and backward, over the largest value, on a small padded batch."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(3, 40, dtype=torch.bool)
    mask[0, 30:] = mask[2, :7] = False
    tensors = [torch.randn(3, 2, 40, 64, generator=generator).to(dtype) for _ in range(4)]

    def run(place: torch.device | str, kind: torch.dtype, ours: bool) -> list[Tensor]:
        q, k, v, d = (t.to(place, kind, copy=True).requires_grad_() for t in tensors)
        real = mask.to(place)
        if ours:
            out = attend(q, k, v, sequence_ends(real), 0.0, None)
        else:
            out = nn.functional.scaled_dot_product_attention(q, k, v, real[:, None, None]).transpose(1, 2)
        out = out * real[:, :, None, None]
        grads = torch.autograd.grad(out, (q, k, v), d.transpose(1, 2))
        return [t.detach().double().cpu() for t in (out, *grads)]

    pairs = zip(run(device, dtype, True), run("cpu", torch.float64, False))
    return max(float((found - exact).abs().max() / exact.abs().max()) for found, exact in pairs)
