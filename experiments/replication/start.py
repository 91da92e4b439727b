"""What all variants of an experiment start from: a model folder with an encoder and a masked-LM head.

`e5`-like: a pretrained encoder with a vocabulary trimmed to the pieces in use. Such an encoder has no masked-LM head; a
random one would shake it for the first hundred steps. So the head starts as the identity and is trained alone first,
which gives all variants an encoder and a head that fit. With `adapt_steps` it is trained on as a masked LM, on the
languages of the head only: XLM-R, from which the paper starts, is such a model. `scratch`: random weights.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.core.runtime import resolve_model
from langsamp.core.vocabulary import trim
from langsamp.core.xlmr_languages import is_head
from langsamp.train.blocks.prepare import load_tokenizer, prepare
from langsamp.train.blocks.store import BlockStore, open_store
from langsamp.train.pretrain import pretrain
from langsamp.train.settings import PretrainSettings
from langsamp.train.start import start
from langsamp.train.text.open import open_corpus
from langsamp.train.vocab.new import new_tokenizer

from .data import texts_of
from .plan import Experiment, Sizes

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
        _from_encoder(base, cut, first)
    corpus = open_corpus(cut / "corpus")
    store = prepare(corpus, load_tokenizer(first), folder / "store", sizes.block, num_proc=1, heldout=HELDOUT_BLOCKS)
    if experiment.head_steps:
        _train_head(first, experiment, store, folder / "head")
        first = folder / "head"
    if experiment.adapt_steps:
        known = open_corpus(cut / "corpus", only=[tag for tag in store.languages if is_head(tag)])
        blocks = prepare(known, load_tokenizer(first), folder / "known", sizes.block, num_proc=1)
        _adapt(first, experiment, blocks, folder / "adapted")
        first = folder / "adapted"
    made = LangSAMPForMaskedLM.from_pretrained(first, languages=[], scripts=[])
    made.save_pretrained(folder / "start.part")
    LangSAMPTokenizer.from_pretrained(first).save_pretrained(folder / "start.part")
    shutil.rmtree(folder / "start", ignore_errors=True)
    (folder / "start.part").rename(folder / "start")
    return store


def training_arguments(experiment: Experiment, steps: int, rate: float, seed: int) -> dict[str, Any]:
    """What every training of the experiment has in common: linear schedule, bf16 products, no dropout of ours."""
    return {
        "max_steps": steps,
        "per_device_train_batch_size": experiment.batch,
        "learning_rate": rate,
        "warmup_steps": round(experiment.warmup * steps),
        "lr_scheduler_type": "linear",
        "bf16": True,
        "use_cpu": True,
        "seed": seed,
        "save_steps": steps,
        "save_total_limit": 1,
        "logging_steps": max(1, steps // 20),
    }


def _from_scratch(experiment: Experiment, cut: Path, folder: Path) -> None:
    """A small XLM-R with random weights and a vocabulary of its own."""
    shape = experiment.shape
    texts = {path.stem: texts_of(path) for path in sorted((cut / "corpus").glob("*.parquet"))}
    new_tokenizer(texts, shape["vocabulary"], folder)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=load_tokenizer(folder).about["vocab_size"],
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


def _from_encoder(base: str, cut: Path, folder: Path) -> None:
    """The encoder with only the pieces that the corpus and the verses use, and a head that is the identity."""
    source = resolve_model(base).path
    tokenizer = LangSAMPTokenizer.from_pretrained(source)
    used: set[int] = set()
    for place in ("corpus", "test/bible_retrieval"):
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts_of(cut / place), add_special_tokens=False):
            used.update(encoding.ids)
    model, tokenizer = start(source, [], trim(tokenizer, used), lang=False, script=False)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    with torch.no_grad():
        torch.nn.init.eye_(model.lm_head.dense.weight)
        torch.nn.init.zeros_(model.lm_head.dense.bias)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _adapt(first: Path, experiment: Experiment, store: BlockStore, folder: Path) -> None:
    """Make the encoder a masked LM of the languages in the store."""
    model, tokenizer = start(first, [], lang=False, script=False)
    settings = PretrainSettings(output=str(folder), base=str(first), lang=False, script=False, fast=True)
    given = training_arguments(experiment, experiment.adapt_steps, experiment.learning_rate, seed=0)
    pretrain(settings, given, model=model, tokenizer=tokenizer, store=store)


def _train_head(first: Path, experiment: Experiment, store: BlockStore, folder: Path) -> None:
    """Train the masked-LM head alone (not the word embeddings that its output shares with the encoder)."""
    model, tokenizer = start(first, [], lang=False, script=False)
    model.requires_grad_(False)
    for part in (model.lm_head.dense, model.lm_head.layer_norm):
        part.requires_grad_(True)
    model.lm_head.bias.requires_grad_(True)
    settings = PretrainSettings(output=str(folder), base=str(first), lang=False, script=False, fast=True)
    given = training_arguments(experiment, experiment.head_steps, experiment.head_learning_rate, seed=0)
    pretrain(settings, given, model=model, tokenizer=tokenizer, store=store)
