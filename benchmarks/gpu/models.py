"""Models and batches of the GPU benchmark: base size, random weights, random or learnable tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .measure import Bench

LENGTH = 512
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LANGUAGES = [a + b + c for a in LETTERS[:8] for b in LETTERS[:10] for c in LETTERS[:8]][:600]
TABLES: dict[str, Any] = {"languages": LANGUAGES, "scripts": ["Latn", "Cyrl", "Arab"], "table_initializer_range": 0.02}


def make_config(bench: Bench, vocab: int, dropout: float = 0.1) -> Any:
    """XLM-R base with 600 languages and three scripts (tiny: two layers of 128)."""
    from langsamp import LangSAMPConfig

    size = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    base = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    return LangSAMPConfig(
        vocab_size=vocab, max_position_embeddings=LENGTH + 2, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **TABLES, **(size if bench.tiny else base),
    )  # fmt: skip


def make_model(bench: Bench, vocab: int, kind: str = "ours", attention: str = "sdpa", dropout: float = 0.1) -> Any:
    """A model in training mode on the device; ``stock``: XLMRobertaForMaskedLM; ``official``: plain cross entropy."""
    from transformers import XLMRobertaForMaskedLM

    from langsamp import LangSAMPForMaskedLM

    torch.manual_seed(0)
    config = make_config(bench, vocab, dropout)
    with bench.device:
        if kind == "stock":
            model = XLMRobertaForMaskedLM._from_config(config, attn_implementation=attention)
        else:
            model = LangSAMPForMaskedLM._from_config(config, attn_implementation=attention)
    model = model.to(bench.device).train()
    if kind == "official":
        model.summed_loss = plain_loss
    if kind != "stock":
        model.check_ids = False  # as in a run, whose collator knows them
    return model


def make_modernbert(bench: Bench, vocab: int, stock: bool = False) -> Any:
    """A ModernBERT of mmBERT-base's size in training mode on the device (tiny: three layers of 128).

    The stock one is ModernBertForMaskedLM, its head on masked positions only (``sparse_prediction``).
    """
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    from langsamp import LangSAMPConfig, LangSAMPForMaskedLM

    torch.manual_seed(0)
    size = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 192}
    base = {"hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1152}
    config = ModernBertConfig(
        vocab_size=vocab, max_position_embeddings=8192, pad_token_id=0, bos_token_id=2, eos_token_id=1, cls_token_id=2,
        sep_token_id=1, sparse_prediction=True, local_attention=16 if bench.tiny else 128,
        **(size if bench.tiny else base),
    )  # fmt: skip
    with bench.device:
        if stock:
            model = ModernBertForMaskedLM._from_config(config, attn_implementation="sdpa")
        else:
            ours = LangSAMPConfig.from_backbone(config, **TABLES)
            model = LangSAMPForMaskedLM._from_config(ours, attn_implementation="sdpa")
            model.check_ids = False
    return model.to(bench.device).train()


def plain_loss(features: Any, weight: Any, bias: Any, targets: Any) -> Any:
    """The head and its loss as one writes them first."""
    return functional.cross_entropy(functional.linear(features, weight, bias), targets, reduction="sum")


def make_batches(
    bench: Bench, blocks: int, vocab: int, count: int = 3, padded: int = 0, learnable: bool = False,
    length: int = LENGTH,
) -> Any:  # fmt: skip
    """Batches in pinned memory, as the collator makes them for a GPU.

    Args:
        bench: the run.
        blocks: rows a batch.
        vocab: pieces.
        count: batches.
        padded: rows of which the last third is padding.
        learnable: every second token says what the next one is, and few tokens are frequent.
        length: tokens a row.
    """
    random = np.random.default_rng(blocks)
    batches = []
    for _ in range(count):
        shape = blocks, length
        ids = 4 + (_zipf(random, shape, vocab) if learnable else random.integers(vocab - 5, size=shape))
        real = np.ones_like(ids, bool)
        real[:padded, -length // 3 :] = False
        chosen = (random.random(ids.shape) < 0.15) & real
        labels = np.where(chosen, ids, -100)
        masked = np.where(real, np.where(chosen, vocab - 1, ids), 1)
        places = np.flatnonzero(chosen)
        batch = {
            "input_ids": masked, "labels": labels, "attention_mask": real.astype(np.int64),
            "masked_positions": np.concatenate([places, np.full(-len(places) % 128, -1)]),
            "lang_ids": random.integers(1, 600, blocks), "script_ids": random.integers(1, 3, blocks),
        }  # fmt: skip
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}
        batches.append({name: t.pin_memory() if bench.cuda else t for name, t in tensors.items()})
    return batches


def _zipf(random: np.random.Generator, shape: tuple[int, int], vocab: int) -> np.ndarray:
    """Token ids less 4: p ~ 1 / rank, and after each even position the one that belongs to it."""
    most = min(vocab - 5, 20_000)
    ids = np.floor(np.exp(random.random(shape) * np.log(most))).astype(np.int64) - 1
    ids[:, 1::2] = (ids[:, ::2] * 7 + 3) % most
    return ids
