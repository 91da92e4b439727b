"""The facts of a finished run (`langsamp.core.facts`), gathered from its settings, its store and its log."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainingArguments

import langsamp
from langsamp.core.facts import Share, TrainingFacts
from langsamp.core.manifest import MANIFEST_NAME
from langsamp.train.blocks.store import BlockStore
from langsamp.train.settings import PretrainSettings

_REPORTED = (
    "learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "lr_scheduler_type",
    "warmup_steps",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "bf16",
    "fp16",
    "optim",
    "gradient_checkpointing",
)


def training_facts(
    settings: PretrainSettings,
    args: TrainingArguments,
    store: BlockStore,
    history: list[dict[str, Any]],
    *,
    steps: int,
    batch: int,
    parameters: int,
    license: str | None,
    started: datetime,
    identity: Mapping[str, Any],
    sampling: list[dict[str, Any]],
) -> TrainingFacts:
    """The facts of a finished run.

    Args:
        settings, args, store: what the run was told.
        history: entries of ``train.jsonl``, over all resumes.
        steps: optimizer steps made.
        batch: blocks in a step over all processes.
        parameters: of the model.
        license: of the base model.
        started: when this process began.
        identity: what a checkpoint must share with the run.
        sampling: the table of ``Plan.table``.
    """
    spent = history[-1]["seconds"] if history else 0.0
    tokens = steps * batch * store.block_size
    curve = [(entry["step"], _finite(entry["loss"])) for entry in history if "loss" in entry]
    heldout = [evaluation(entry) for entry in history if "eval_loss" in entry]
    losses = {"first": curve[0][1], "last": curve[-1][1]} if curve else {}
    for name, value in heldout[-1].items() if heldout else ():
        losses[name.replace("eval_", "heldout_")] = _finite(value)
    return TrainingFacts(
        base_model=settings.base,
        license=license,
        datasets=store.index.source,
        steps=steps,
        tokens=tokens,
        tokens_per_step=batch * store.block_size,
        seconds=round(spent, 1),
        tokens_per_second=round(tokens / spent, 1) if spent else None,
        parameters=parameters,
        device=str(args.device),
        processes=args.world_size,
        seed=args.seed,
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        losses=losses,
        loss_curve=curve,
        settings=run_settings(settings, args),
        versions={
            "langsamp": langsamp.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        identity=dict(identity),
        sampling=[Share(**row) for row in sampling],
    )


def _finite(loss: float) -> float | None:
    """A loss that is no number (the run diverged) is none."""
    return loss if math.isfinite(loss) else None


def is_finished(settings: PretrainSettings, args: TrainingArguments, identity: Mapping[str, Any]) -> bool:
    """Whether the output folder holds the finished model of just this run (``identity``: what a resume must share).

    Raises:
        ValueError: it holds one that was trained with other settings.
    """
    run = Path(settings.output)
    facts = TrainingFacts.read(run)
    if not (run / MANIFEST_NAME).is_file() or (facts.identity, facts.steps) != (identity, args.max_steps):
        return False
    now = json.loads(json.dumps(run_settings(settings, args), default=str))
    changed = [name for name, value in facts.settings.items() if value != now.get(name, value)]
    if changed:
        what = ", ".join(f"{name} {facts.settings[name]} then, {now[name]} now" for name in changed)
        raise ValueError(f"{run} holds a finished run with other settings ({what}); choose another --output.")
    return True


def evaluation(entry: Mapping[str, Any]) -> dict[str, float]:
    """The held-out losses of a log entry."""
    return {name: value for name, value in entry.items() if name.startswith("eval_loss")}


def run_settings(settings: PretrainSettings, args: TrainingArguments) -> dict[str, Any]:
    """What decides the result, ours and the Trainer's; not the places of this machine."""
    given = args.to_dict()
    places = ("output", "store", "base", "tokenizer", "resume", "allow_changed", "hub_every")
    ours = {name: value for name, value in asdict(settings).items() if name not in places}
    return {**{name: given[name] for name in _REPORTED if name in given}, **ours}
