"""An encoder's forward pass without padding: all tokens of a batch one behind the other, attention within each text.

Used for sentence vectors, prediction and wherever hidden states of many texts are wanted. The numbers are those of the
stock model (largest difference about 1e-6 in fp32); source: notes on performance, section 4. On a CPU attention runs
once for each length; on a GPU once for the batch, by PyTorch's kernels for texts of different lengths where they agree.
An architecture that is not known here (`WALKS`) takes the stock forward pass over a padded batch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from langsamp.core.compute.kernels import fast_matmul, send

logger = logging.getLogger(__name__)

STEP = 64  # packed tokens are filled up to a multiple: few different shapes for the kernels to prepare
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}  # of an attention kernel, values near 1


@dataclass(frozen=True)
class Group:
    """`count` texts of `length` tokens each, from row `start` of the packed tokens."""

    start: int
    count: int
    length: int

    def of(self, packed: Tensor) -> Tensor:
        """The rows of this group (tokens, *) as a view (count, length, *)."""
        rows = packed[self.start : self.start + self.count * self.length]
        return rows.view(self.count, self.length, *packed.shape[1:])


class Texts:
    """Token ids of a batch of texts, one behind the other.

    Args:
        ids: the token ids of each text, none empty; sorted by length, or the CPU's groups are many.
    """

    def __init__(self, ids: Sequence[np.ndarray], device: torch.device) -> None:
        self.device = device
        self.lengths = np.array([len(text) for text in ids], dtype=np.int64)
        self.ends = np.cumsum(self.lengths)
        self.starts = self.ends - self.lengths
        self.flat = np.concatenate(ids).astype(np.int64)

    @cached_property
    def groups(self) -> list[Group]:
        """Runs of equal lengths."""
        first = np.flatnonzero(np.diff(self.lengths, prepend=-1))
        counts = np.diff(first, append=len(self.lengths))
        return [Group(int(self.starts[i]), int(n), int(self.lengths[i])) for i, n in zip(first, counts)]

    def send(self, array: np.ndarray) -> Tensor:
        """An array on the device; the copy does not hold up the host."""
        return send(torch.from_numpy(array), self.device)

    def padded(self, pad: int) -> tuple[Tensor, Tensor]:
        """Ids, and which of them are real, as (texts, longest) on the device."""
        inside = np.arange(self.longest) < self.lengths[:, None]
        ids = np.full(inside.shape, pad)
        ids[inside] = self.flat
        return self.send(ids), self.send(inside)

    @cached_property
    def offsets(self) -> Tensor:
        """(texts + 1,) int32 on the device: where each text starts, and where the last one ends."""
        return self.send(np.append(0, self.ends).astype(np.int32))

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self.lengths.max())

    def means(self, hidden: Tensor, special: int = 0) -> Tensor:
        """The mean (texts, hidden) of each text's rows of `hidden` (tokens, hidden), in fp32.

        `special` tokens at either end do not count; a text without others gets zeros.
        """
        if self.device.type == "cuda":
            return self._means_at_once(hidden, special)
        parts = []
        for group in self.groups:
            rows = group.of(hidden)[:, special : group.length - special]
            parts.append(rows.sum(dim=1, dtype=torch.float32) / max(1, rows.shape[1]))
        return torch.cat(parts)

    def _means_at_once(self, hidden: Tensor, special: int) -> Tensor:
        """The same in one kernel instead of one for each length."""
        rows = hidden.float()
        if special:
            inside = np.ones(len(self.flat), dtype=np.float32)
            inside[self.starts] = inside[self.ends - 1] = 0
            rows = rows * self.send(inside)[:, None]
        sums = torch.segment_reduce(rows, "sum", offsets=self.offsets.long(), axis=0, unsafe=True, initial=0)
        return sums / self.send(np.maximum(self.lengths - 2 * special, 1))[:, None]

    def first(self, hidden: Tensor) -> Tensor:
        """Each text's first row of `hidden` (tokens, hidden) -> (texts, hidden)."""
        return hidden[self.send(self.starts)]


def plan_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Positions in batches of at most `max_tokens` tokens (one text at least), in the order given: sort before."""
    batches: list[list[int]] = []
    tokens = max_tokens + 1
    for position, length in enumerate(lengths):
        if tokens + length > max_tokens:
            batches.append([])
            tokens = 0
        batches[-1].append(position)
        tokens += length
    return batches


def halved(compute: Callable[[Sequence[np.ndarray]], Any], ids: Sequence[np.ndarray], join: Callable[..., Any]) -> Any:
    """What is computed of a batch of texts; one that does not fit into the card's memory is halved, its parts joined.

    Raises:
        torch.OutOfMemoryError: one text alone does not fit.
    """
    try:
        return compute(ids)
    except torch.OutOfMemoryError:
        if len(ids) < 2:
            raise
    torch.cuda.empty_cache()
    half = len(ids) // 2
    return join(*(halved(compute, part, join) for part in (ids[:half], ids[half:])))


@torch.inference_mode()
def hidden_states(model: Any, texts: Texts) -> Iterator[Tensor]:
    """Hidden states of texts, layer by layer: first the embeddings' output, then each block's.

    `model` is an encoder in eval mode on the device of `texts`. Stop iterating and the layers above are never run
    (those of an unknown architecture are). Where an encoder normalises before its blocks, layer k is what it would give
    if it ended there: its last norm after block k.

    Yields:
        (tokens, hidden) in the model's dtype.
    """
    name = model.config.family.norm
    norm = model.get_submodule(name) if name else lambda hidden: hidden
    for hidden in WALKS.get(model.config.model_type, _stock)(model, texts):
        yield norm(hidden[: len(texts.flat)])


def last_hidden_state(model: Any, texts: Texts) -> Tensor:
    """The encoder's output (tokens, hidden)."""
    return deque(hidden_states(model, texts), maxlen=1).pop()


def _bert(model: Any, texts: Texts) -> Iterator[Tensor]:
    """XLM-R and BERT: positions are learnt, each block normalises what it gives."""
    if getattr(model.config, "position_embedding_type", "absolute") != "absolute":
        yield from _stock(model, texts)
        return
    pad = model.config.pad_token_id
    ids = _filled(texts, texts.flat, pad)
    places = _positions(texts, pad) if model.config.family.after_padding else _places(texts)
    hidden = model.embeddings(
        input_ids=ids, position_ids=_filled(texts, places, pad), token_type_ids=torch.zeros_like(ids)
    )[0]
    yield hidden
    for block in model.encoder.layer:
        hidden = _block(block, hidden, texts)
        yield hidden


def _filled(texts: Texts, values: np.ndarray, filler: int) -> Tensor:
    """One number a token as (1, tokens) on the device; on a CPU filled up to a multiple of `STEP`."""
    total = len(values)
    filled = np.full(-(-total // STEP) * STEP if texts.device.type == "cpu" else total, filler)
    filled[:total] = values
    return texts.send(filled)[None]


def _places(texts: Texts) -> np.ndarray:
    """The place of each token in its text, from 0."""
    return np.arange(len(texts.flat)) - np.repeat(texts.starts, texts.lengths)


def _positions(texts: Texts, pad: int) -> np.ndarray:
    """XLM-R's positions: counted from pad + 1, not counting pad tokens (a text can contain the word "<pad>")."""
    real = (texts.flat != pad).astype(np.int64)
    count = np.cumsum(real)
    before = np.repeat(count[texts.starts] - real[texts.starts], texts.lengths)
    return (count - before) * real + pad


def _modernbert(model: Any, texts: Texts) -> Iterator[Tensor]:
    """ModernBERT: positions are turned into query and key; most blocks look at a window around each token only."""
    if not hasattr(model, "rotary_emb"):  # transformers 4 keeps it in each block
        yield from _stock(model, texts)
        return
    from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

    hidden = model.embeddings(input_ids=_filled(texts, texts.flat, model.config.pad_token_id))[0]
    yield hidden
    places = _filled(texts, _places(texts), 0)
    turns = {kind: model.rotary_emb(hidden, places, kind) for kind in set(model.config.layer_types)}
    for block in model.layers:
        attention = block.attn
        with fast_matmul():
            parts = attention.Wqkv(block.attn_norm(hidden)).view(len(hidden), 3, -1, attention.head_dim).unbind(1)
        cos, sin = (turn[0] for turn in turns[block.attention_type])
        query, key = apply_rotary_pos_emb(parts[0], parts[1], cos, sin)
        local = block.attention_type == "sliding_attention"
        mixed = _attention([query, key, parts[2]], texts, model.config.sliding_window if local else None)
        with fast_matmul():
            hidden = hidden + attention.Wo(mixed.flatten(1))
            hidden = hidden + block.mlp(block.mlp_norm(hidden))
        yield hidden


def _stock(model: Any, texts: Texts) -> Iterator[Tensor]:
    """The same from the model's own forward pass over a padded batch; its last norm is left to the caller."""
    ids, where = texts.padded(model.config.pad_token_id or 0)
    last: list[Tensor] = []
    name = model.config.family.norm
    hook = name and model.get_submodule(name).register_forward_pre_hook(lambda _, args: last.append(args[0]))
    with fast_matmul():
        found = model(input_ids=ids, attention_mask=where.long(), output_hidden_states=True)
    if hook:
        hook.remove()
    *below, top = found.hidden_states
    for states in (*below, last[-1] if last else top):
        yield states[where]


WALKS = {"xlm-roberta": _bert, "bert": _bert, "modernbert": _modernbert}


def _block(block: Any, hidden: Tensor, texts: Texts) -> Tensor:
    """One layer. The fast kernels only see the linear layers: they keep memory for every shape they meet."""
    attention = block.attention
    with fast_matmul():
        query, key, value = (part(hidden) for part in (attention.self.query, attention.self.key, attention.self.value))
    heads, size = attention.self.num_attention_heads, attention.self.attention_head_size
    mixed = _attention([part.view(-1, heads, size) for part in (query, key, value)], texts).reshape(query.shape)
    with fast_matmul():
        mixed = attention.output.LayerNorm(attention.output.dense(mixed) + hidden)
        inner = block.intermediate.intermediate_act_fn(block.intermediate.dense(mixed))
        return block.output.LayerNorm(block.output.dense(inner) + mixed)


def _attention(parts: Sequence[Tensor], texts: Texts, window: int | None = None) -> Tensor:
    """Attention within each text: query, key, value (tokens, heads, size) -> the same shape.

    `window`: a token sees no others that are further away; None: it sees its whole text.
    """
    query = parts[0]
    if varlen_works(query.device, query.dtype, query.shape[-1], window is not None):
        return _varlen(parts, texts, window)
    return _grouped(parts, texts.groups, window)


def _grouped(parts: Sequence[Tensor], groups: Sequence[Group], window: int | None = None) -> Tensor:
    """As `_attention`, once for each length."""
    mixed = torch.zeros_like(parts[0])
    for group in groups:
        q, k, v = (group.of(part).transpose(1, 2) for part in parts)  # (count, heads, length, size)
        result = _whole(q, k, v) if window is None else _within(q, k, v, window)
        group.of(mixed).copy_(result.transpose(1, 2))
    return mixed


def _whole(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of (..., length, size); `mask` is added to the scores."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = torch.matmul(q, k.transpose(-1, -2)).mul_(q.shape[-1] ** -0.5)  # SDPA has no advantage there (finding 4)
    return torch.matmul((scores if mask is None else scores.add_(mask)).softmax(dim=-1), v)


def _within(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The same where a token sees `window` others on either side: a piece of the text at a time, its surroundings."""
    length, size = q.shape[-2], 2 * window
    places, parts = torch.arange(length, device=q.device), []
    for start in range(0, length, size):
        mine = slice(start, min(start + size, length))
        seen = slice(max(0, start - window), min(start + size + window, length))
        far = (places[mine, None] - places[None, seen]).abs() > window
        mask = torch.zeros(far.shape, dtype=q.dtype, device=q.device).masked_fill_(far, float("-inf"))
        parts.append(_whole(q[..., mine, :], k[..., seen, :], v[..., seen, :], mask))
    return torch.cat(parts, dim=-2)


def _varlen(parts: Sequence[Tensor], texts: Texts, window: int | None = None) -> Tensor:
    """The same in one call of a CUDA kernel, the one that PyTorch's nested tensors use for this dtype."""
    ends = texts.offsets, texts.offsets, texts.longest, texts.longest
    if parts[0].dtype == torch.float32:
        batch = [part[None] for part in parts]
        found: Tensor = torch.ops.aten._efficient_attention_forward(*batch, None, *ends, 0.0, 0, False)[0]
        return found[0]
    sides = {} if window is None else {"window_size_left": window, "window_size_right": window}
    flash: Tensor = torch.ops.aten._flash_attention_forward(*parts, *ends, 0.0, False, False, **sides)[0]
    return flash


@cache
def varlen_works(device: torch.device, dtype: torch.dtype, size: int, windowed: bool = False) -> bool:
    """Whether the kernel for texts of different lengths is there and right: tried once on a small batch."""
    if device.type != "cuda" or (windowed and dtype == torch.float32):
        return False
    generator = torch.Generator().manual_seed(0)
    lengths, window = [1, 7, 7, 70], 16 if windowed else None
    draw = [torch.randn(sum(lengths), 2, size, generator=generator).to(dtype) for _ in range(3)]
    texts = Texts([np.zeros(length) for length in lengths], device)
    exact = _grouped([part.double() for part in draw], texts.groups, window)
    try:
        found = _varlen([part.to(device) for part in draw], texts, window)
        error = float((found.cpu().double() - exact).abs().max())
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as problem:
        logger.info("attention runs once for each length: no kernel for %s on %s (%s)", dtype, device, problem)
        return False
    if not error < TOLERANCE.get(dtype, 0.0):
        logger.warning(
            "attention runs once for each length: the kernel for %s on %s errs by %.1g", dtype, device, error
        )
        return False
    return True
