"""Attention without masks: flash attention that knows where each sequence ends and how far each layer looks.

With a mask torch cannot take flash attention, for the whole batch and though one block in hundreds is padded. Here a
row of the batch is two sequences instead, what is real and what is padding; neither sees the other. Shapes stay as they
are. Where layers look no further than a window (ModernBERT's local ones), its mask is as large as the square of the
length, and most of what is computed under it is thrown away; the kernel skips what is outside of the window.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from langsamp.core.compute.kernels import patch

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


def attend(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, dropout: float, scaling: float | None,
    window: int | None = None,
) -> Tensor:  # fmt: skip
    """Attention within sequences.

    Args:
        query, key, value: (batch, heads, length, size), bf16 or fp16, on an NVIDIA GPU; key and value may have fewer
            heads, each of which serves several of the query's.
        ends: see :func:`sequence_ends`.
        dropout: of the probabilities.
        scaling: of the scores; None: one over the root of size.
        window: tokens are seen that are nearer than this; None: all of the sequence.

    Returns:
        (batch, length, heads, size).
    """
    batch, heads, length, size = query.shape
    flat = [t.transpose(1, 2).reshape(batch * length, -1, size) for t in (query, key, value)]
    sides = {f"window_size_{side}": window - 1 for side in ("left", "right")} if window else {}
    out = _flash(*flat, ends, ends, length, length, dropout, False, False, scale=scaling, **sides)
    return out[0].view(batch, length, heads, size)


def install(model: Any, stack: ExitStack, device: torch.device, dtype: torch.dtype) -> str | None:
    """Let training go through :func:`attend` where it would need a mask; else says why not."""
    if model.config._attn_implementation != "sdpa":
        return f"the attention is {model.config._attn_implementation}, not sdpa"
    stock_attention, encoder = ALL_ATTENTION_FUNCTIONS["sdpa"], model.base_model
    windows = any(found := _windows(encoder, stock_attention, device))
    none = dict.fromkeys(model.config.layer_types) if windows else None  # else the encoder would make them
    if not found or (windows and _windows(encoder, stock_attention, device, none) != found):
        return "the encoder does not hand it what it needs, or limits attention in a way of its own"
    error = max(check(device, dtype, window, *_heads(model.config)) for window in ((None, 6) if windows else (None,)))
    if not error < 2e-2:
        return f"its error is {error:.1e} of the largest value"
    stack.callback(ALL_ATTENTION_FUNCTIONS.__setitem__, "sdpa", stock_attention)
    ALL_ATTENTION_FUNCTIONS["sdpa"] = _attention(stock_attention)
    stock = encoder.forward

    def forward(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if encoder.training and torch.is_grad_enabled() and torch.is_autocast_enabled(device.type):
            if windows and attention_mask is None and kwargs.get("input_ids") is not None:
                attention_mask = torch.ones_like(kwargs["input_ids"])
            if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
                kwargs[_NAME], attention_mask = sequence_ends(attention_mask), none
        return stock(*args, attention_mask=attention_mask, **kwargs)

    stack.enter_context(patch(encoder, "forward", forward))
    return None


def _windows(encoder: Any, stock: Callable[..., Any], device: torch.device, mask: Any = None) -> list[int | None]:
    """The window of every attention, None where it is over all tokens.

    Returns:
        Nothing if keywords of the encoder's forward do not reach all attention, or if one is limited by more than its
        window (as its mask shows; with a ``mask`` given to the encoder, the attention must get None).
    """
    windows: list[int | None] = []
    right = []
    length = 4 + (getattr(encoder.config, "sliding_window", None) or 0)
    at = torch.arange(length, device=device)

    def probe(module: nn.Module, query: Any, key: Any, value: Any, limits: Any, **kwargs: Any) -> Any:
        windows.append(kwargs.get("sliding_window") or None)
        near = (at[:, None] - at).abs() < (windows[-1] or length)
        if limits is None:
            same = mask is not None or bool(near.all())
        else:
            same = mask is None and limits.dtype == torch.bool and bool((limits == near).all())
        more = kwargs.get("position_bias") is not None or getattr(module, "is_causal", False)
        right.append(_NAME in kwargs and same and not more)
        return stock(module, query, key, value, limits, **{name: v for name, v in kwargs.items() if name != _NAME})

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        stack.callback(ALL_ATTENTION_FUNCTIONS.__setitem__, "sdpa", stock)
        ALL_ATTENTION_FUNCTIONS["sdpa"] = probe
        ids = torch.full((1, length), 5, device=device)
        encoder(input_ids=ids, attention_mask=mask, **{_NAME: sequence_ends(torch.ones_like(ids))})
    return windows if all(right) else []


def _attention(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Transformers' attention function: ours where the ends are given."""

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        ends = kwargs.pop(_NAME, None)
        if ends is None:
            return stock(module, query, key, value, attention_mask, **kwargs)
        dropout, scaling, window = kwargs.get("dropout", 0.0), kwargs.get("scaling"), kwargs.get("sliding_window")
        return attend(query, key, value, ends, dropout, scaling, window), None

    return forward


def _heads(config: Any) -> tuple[int, int, int]:
    """Heads of the query, heads of key and value, and the size of one."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads, getattr(config, "num_key_value_heads", None) or heads, size


def check(
    device: torch.device, dtype: torch.dtype, window: int | None = None, heads: int = 2, shared: int = 2, size: int = 64
) -> float:
    """The largest error of :func:`attend`, forward and backward, over the largest value, on a small padded batch."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(3, 40, dtype=torch.bool)
    mask[0, 30:] = mask[2, :7] = False
    shapes = [(3, count, 40, size) for count in (heads, shared, shared, heads)]
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    at = torch.arange(40)
    near = (at[:, None] - at).abs() < (window or 40)
    seen = near & mask[:, None, None] | torch.eye(40, dtype=torch.bool)  # without itself padding might see nothing

    def run(place: torch.device | str, kind: torch.dtype, ours: bool) -> list[Tensor]:
        q, k, v, d = (t.to(place, kind, copy=True).requires_grad_() for t in tensors)
        real = mask.to(place)
        if ours:
            out = attend(q, k, v, sequence_ends(real), 0.0, None, window)
        else:
            each_k, each_v = (t.repeat_interleave(heads // shared, 1) for t in (k, v))
            out = nn.functional.scaled_dot_product_attention(q, each_k, each_v, seen.to(place)).transpose(1, 2)
        out = out * real[:, :, None, None]
        grads = torch.autograd.grad(out, (q, k, v), d.transpose(1, 2))
        return [t.detach().double().cpu() for t in (out, *grads)]

    pairs = zip(run(device, dtype, True), run("cpu", torch.float64, False))
    return max(float((found - exact).abs().max() / exact.abs().max()) for found, exact in pairs)
