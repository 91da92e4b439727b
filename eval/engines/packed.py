"""XLM-R's forward pass without padding: linear layers see real tokens only, attention runs per group of equal length.

Used by the encoder for sentence vectors and usable wherever hidden states of many short texts are wanted. The numbers
are those of the stock model (largest difference about 1e-6 in fp32); source: notes on performance, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from langsamp.core.runtime import fast_matmul

STEP = 64  # packed tokens are filled up to a multiple: few different shapes for the kernels to prepare


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


def groups_of(lengths: Sequence[int]) -> list[Group]:
    """Runs of equal lengths; texts without tokens have no group."""
    groups: list[Group] = []
    start = 0
    for length in lengths:
        if groups and groups[-1].length == length:
            groups[-1] = Group(groups[-1].start, groups[-1].count + 1, length)
        elif length:
            groups.append(Group(start, 1, length))
        start += length
    return groups


@torch.inference_mode()
def packed_hidden_states(model: Any, ids: Sequence[np.ndarray]) -> Iterator[tuple[Tensor, list[Group]]]:
    """Hidden states of texts, layer by layer: first the embeddings' output, then each block's.

    `ids` are the token ids of each text, sorted by length; `model` is an XLMRobertaModel (or a subclass) in eval mode.
    Yields (tokens, hidden) in the model's dtype with the groups that say where each text is; stop iterating and the
    layers above are never run.
    """
    groups = groups_of([len(text) for text in ids])
    total = sum(len(text) for text in ids)
    device, pad = model.embeddings.word_embeddings.weight.device, model.config.pad_token_id
    flat = torch.full((-(-total // STEP) * STEP,), pad)
    flat[:total] = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    positions = torch.full_like(flat, pad)
    positions[:total] = torch.from_numpy(np.concatenate([_positions(text, pad) for text in ids]))
    flat, positions = flat.to(device), positions.to(device)
    hidden = model.embeddings(
        input_ids=flat[None], position_ids=positions[None], token_type_ids=torch.zeros_like(flat)[None]
    )[0]
    yield hidden[:total], groups
    for block in model.encoder.layer:
        hidden = _block(block, hidden, groups)
        yield hidden[:total], groups


def _positions(ids: np.ndarray, pad: int) -> np.ndarray:
    """XLM-R's positions: counted from pad + 1, not counting pad tokens (a text can contain the word "<pad>")."""
    real = (ids != pad).astype(np.int64)
    return np.cumsum(real) * real + pad


def _block(block: Any, hidden: Tensor, groups: list[Group]) -> Tensor:
    """One layer. The fast kernels only see the linear layers: they keep memory for every shape they meet."""
    attention = block.attention
    with fast_matmul():
        query, key, value = (part(hidden) for part in (attention.self.query, attention.self.key, attention.self.value))
    mixed = _attention(attention.self, query, key, value, groups)
    with fast_matmul():
        mixed = attention.output.LayerNorm(attention.output.dense(mixed) + hidden)
        inner = block.intermediate.intermediate_act_fn(block.intermediate.dense(mixed))
        return block.output.LayerNorm(block.output.dense(inner) + mixed)


def _attention(attention: Any, query: Tensor, key: Tensor, value: Tensor, groups: list[Group]) -> Tensor:
    """Multi-head self-attention within each text: (tokens, hidden) -> (tokens, hidden)."""
    heads, size = attention.num_attention_heads, attention.attention_head_size
    mixed = torch.zeros_like(query).view(-1, heads, size)
    for group in groups:
        # (count, heads, length, size)
        q, k, v = (group.of(part.view(-1, heads, size)).transpose(1, 2) for part in (query, key, value))
        if query.device.type == "cpu":  # SDPA has no advantage there (performance notes, finding 4)
            weights = torch.matmul(q, k.transpose(-1, -2)).mul_(size**-0.5).softmax(dim=-1)
            result = torch.matmul(weights, v)
        else:
            result = F.scaled_dot_product_attention(q, k, v)
        group.of(mixed).copy_(result.transpose(1, 2))
    return mixed.view(query.shape)
