"""Training one variant of an experiment: the same for all but for what the variant changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from langsamp.train.blocks.store import BlockStore
from langsamp.train.pretrain import PretrainResult, pretrain
from langsamp.train.settings import PretrainSettings
from langsamp.train.start import start

from .plan import Experiment
from .variants import VARIANTS


def training_arguments(experiment: Experiment, steps: int, rate: float, seed: int) -> dict[str, Any]:
    """What every training of the experiment has in common: linear schedule, bf16 products, no dropout of ours."""
    cuda = torch.cuda.is_available()
    return {
        "max_steps": steps,
        "per_device_train_batch_size": experiment.batch,
        "learning_rate": rate,
        "warmup_steps": round(experiment.warmup * steps),
        "lr_scheduler_type": "linear",
        "bf16": True,
        "use_cpu": not cuda,
        "dataloader_num_workers": 4 if cuda else 0,
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
    model, tokenizer = start(first, store.languages, seed=seed, **tables)
    arguments = training_arguments(experiment, experiment.steps, experiment.learning_rate, seed) | given
    return pretrain(settings, arguments, model=variant.prepare(model), tokenizer=tokenizer, store=store)
