"""What all variants of an experiment start from: a model folder with an encoder and a masked-LM head.

`e5`-like: a pretrained encoder with a vocabulary trimmed to the pieces in use. Such an encoder has no masked-LM head; a
random one would shake it for the first hundred steps. So the head starts as the identity and is trained alone first,
which gives all variants an encoder and a head that fit. With `adapt_steps` it is trained on as a masked LM, on the
languages of the head only: XLM-R, from which the paper starts, is such a model. `scratch`: random weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from langsamp import LangSAMPTokenizer
from langsamp.core.model.vocabulary import trim
from langsamp.core.runtime import resolve_model
from langsamp.train.blocks.prepare import open_tokenizer, prepare
from langsamp.train.blocks.store import BlockStore, open_store
from langsamp.train.start import starting_model
from langsamp.train.text.open import open_corpus
from langsamp.train.vocab.new import new_tokenizer

from .data import texts_of
from .plan import Experiment, Sizes
from .training import settle

HELDOUT_BLOCKS = 8


def make_start(base: str | None, experiment: Experiment, sizes: Sizes, cut: Path, folder: Path) -> BlockStore:
    """Write `folder/start` (model and tokenizer) and `folder/store` (blocks of the corpus); done once.

    Args:
        base: the pretrained encoder; None for a model from scratch.
        experiment, sizes: what to make.
        cut: folder of :func:`data.cut`.
        folder: of the experiment.
    """
    if (folder / "start" / "model.safetensors").exists():
        return open_store(folder / "store")
    first = folder / "first"
    shutil.rmtree(first, ignore_errors=True)
    if base is None:
        _from_scratch(experiment, cut, first)
    else:
        from_encoder(base, cut, first, sizes.least)
    corpus = open_corpus(cut / "corpus")
    store = prepare(corpus, open_tokenizer(first), folder / "store", sizes.block, num_proc=1, heldout=HELDOUT_BLOCKS)
    settle(first, experiment, store, folder)
    return store


def _from_scratch(experiment: Experiment, cut: Path, folder: Path) -> None:
    """A small XLM-R with random weights and a vocabulary of its own."""
    shape = experiment.shape
    texts = {path.stem: texts_of(path) for path in sorted((cut / "corpus").glob("*.parquet"))}
    new_tokenizer(texts, shape["vocabulary"], folder)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=open_tokenizer(folder).facts.vocab_size,
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["hidden"] // 32,
        intermediate_size=4 * shape["hidden"],
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    XLMRobertaForMaskedLM(config).save_pretrained(folder)


def from_encoder(base: str, cut: Path, folder: Path, least: int = 1) -> None:
    """The encoder with only the pieces that the corpus and the verses use, and a head that is the identity.

    Of pieces of more than one character those stay that come `least` times.
    """
    source = resolve_model(base).path
    tokenizer = LangSAMPTokenizer.from_pretrained(source)
    counts = np.zeros(len(tokenizer), np.int64)
    for place in ("corpus", "test/bible_retrieval"):
        for texts in _batches(texts_of(cut / place)):
            for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                np.add.at(counts, encoding.ids, 1)
    letters = [number for piece, number in tokenizer.get_vocab().items() if len(piece) == 1 and counts[number]]
    used = {*np.flatnonzero(counts >= least).tolist(), *letters}
    model, tokenizer = starting_model(source, [], trim(tokenizer, used), lang=False, script=False)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    with torch.no_grad():
        torch.nn.init.eye_(model.lm_head.dense.weight)
        torch.nn.init.zeros_(model.lm_head.dense.bias)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batches(texts: list[str], size: int = 10_000) -> Iterator[list[str]]:
    """The texts, some at a time."""
    return (texts[i : i + size] for i in range(0, len(texts), size))
