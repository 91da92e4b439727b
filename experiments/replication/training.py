"""Training: the start that all variants of an experiment share, and one variant, which changes what it says alone."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.core.language.xlmr import is_head
from langsamp.train.blocks.store import BlockStore, data_file
from langsamp.train.pretrain import PretrainResult, pretrain
from langsamp.train.settings import PretrainSettings
from langsamp.train.start import starting_model

from .plan import Experiment
from .variants import VARIANTS


def training_arguments(experiment: Experiment, steps: int, rate: float, seed: int) -> dict[str, Any]:
    """What every training of the experiment has in common: linear schedule, bf16 products, no dropout of ours."""
    return {
        "max_steps": steps,
        "per_device_train_batch_size": experiment.batch,
        "learning_rate": rate,
        "warmup_steps": round(experiment.warmup * steps),
        "lr_scheduler_type": "linear",
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "seed": seed,
        "save_steps": steps,
        "save_total_limit": 1,
        "logging_steps": max(1, steps // 20),
    }


def train(
    name: str, seed: int, experiment: Experiment, first: Path, store: BlockStore, folder: Path, **given: Any
) -> PretrainResult:
    """One model; the seed decides blocks, masks and order alike for all variants.

    Args:
        name: of the variant.
        seed: of everything drawn.
        experiment: steps, batch and learning rates.
        first: folder of the start.
        store: what to train on.
        folder: for the trained model.
        given: training arguments other than the usual ones.
    """
    variant = VARIANTS[name]
    settings = PretrainSettings(
        output=str(folder),
        lang=variant.lang,
        script=variant.script,
        table_lr=experiment.table_learning_rate,
        lang_dropout=variant.lang_dropout,
        lang_dropout_from=variant.dropout_from,
        unknown=variant.unknown,
        fast=True,
    )
    init = 0.02 if variant.frozen else 0.0
    tables = {"lang": variant.lang, "script": variant.script, "table_init": init}
    model, tokenizer = starting_model(first, store.languages, seed=seed, **tables)
    arguments = training_arguments(experiment, experiment.steps, experiment.learning_rate, seed) | given
    return pretrain(settings, arguments, model=variant.prepare(model), tokenizer=tokenizer, store=store)


def settle(first: Path, experiment: Experiment, store: BlockStore, folder: Path, **given: Any) -> None:
    """Train the head, then the whole as a masked LM of the languages of the head, as asked for: `folder/start`.

    `given` are training arguments other than the usual ones.
    """
    if experiment.head_steps:
        _train_head(first, experiment, store, folder / "head", given)
        first = folder / "head"
    if experiment.adapt_steps:
        known = part_of(store, [tag for tag in store.languages if is_head(tag)], folder / "known")
        _adapt(first, experiment, known, folder / "adapted", given)
        first = folder / "adapted"
    made = LangSAMPForMaskedLM.from_pretrained(first, languages=[], scripts=[])
    made.save_pretrained(folder / "start.part")
    LangSAMPTokenizer.from_pretrained(first).save_pretrained(folder / "start.part")
    shutil.rmtree(folder / "start", ignore_errors=True)
    (folder / "start.part").rename(folder / "start")


def part_of(store: BlockStore, languages: Collection[str], folder: Path) -> BlockStore:
    """A store of some of another one's languages; the blocks are the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {tag: entry for tag, entry in store.index.languages.items() if tag in languages}
    for kind, tag in itertools.product(("", "heldout_"), kept):
        if (file := data_file(store.path, tag, kind)).exists():
            (folder / file.name).unlink(missing_ok=True)
            (folder / file.name).symlink_to(file.resolve())
    replace(store.index, languages=kept).write(folder)
    return BlockStore(folder)


def _adapt(first: Path, experiment: Experiment, store: BlockStore, folder: Path, given: dict[str, Any]) -> None:
    """Make the encoder a masked LM of the languages in the store."""
    model, tokenizer = starting_model(first, [], lang=False, script=False)
    settings = PretrainSettings(output=str(folder), base=str(first), lang=False, script=False, fast=True)
    usual = training_arguments(experiment, experiment.adapt_steps, experiment.learning_rate, seed=0)
    pretrain(settings, usual | given, model=model, tokenizer=tokenizer, store=store)


def _train_head(first: Path, experiment: Experiment, store: BlockStore, folder: Path, given: dict[str, Any]) -> None:
    """Train the masked-LM head alone (not the word embeddings that its output shares with the encoder)."""
    model, tokenizer = starting_model(first, [], lang=False, script=False)
    model.requires_grad_(False)
    for part in (model.lm_head.dense, model.lm_head.layer_norm):
        part.requires_grad_(True)
    model.lm_head.bias.requires_grad_(True)
    compiled = torch.cuda.is_available()  # a frozen encoder is a graph of its own, not worth making for so few steps
    settings = PretrainSettings(output=str(folder), base=str(first), lang=False, script=False, fast=not compiled)
    usual = training_arguments(experiment, experiment.head_steps, experiment.head_learning_rate, seed=0)
    pretrain(settings, usual | given, model=model, tokenizer=tokenizer, store=store)
