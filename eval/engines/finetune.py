"""Fine-tuning on one language with the Trainer: what taxi1500, sib200, ner and pos share.

The best model of each (task, source, seed) is kept in the run directory, so a killed run goes on where it was.
What the official scripts do wrong is not copied (paper notes, B6-B15): gradients really accumulate and the rest of an
epoch is flushed, the schedule counts optimizer steps and ends at zero, gradients are clipped at 1.0, the seed is set
before the head is made, and models are saved as safetensors.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    set_seed,
)

from langsamp.core.compute.kernels import products
from langsamp.core.files import atomic_write
from langsamp.core.runtime import pick_device
from langsamp.eval.engines.encoder import DTYPES, load_quietly
from langsamp.eval.engines.predict import Feature, pad_batch, predict
from langsamp.eval.engines.recipe import Job
from langsamp.eval.engines.training import FineTuner, PieceTable, Steps, arguments, compile_layers, micro_batch
from langsamp.modeling_langsamp import LangSAMPForSequenceClassification, LangSAMPForTokenClassification

logger = logging.getLogger(__name__)

SETTINGS = "finetune.json"
MODELS = {"sequence": LangSAMPForSequenceClassification, "token": LangSAMPForTokenClassification}


def _new_model(job: Job) -> PreTrainedModel:
    """The encoder with a new head; the seed is set first, so that the head is the seed's, too (B8).

    Raises:
        RuntimeError: the checkpoint lacks anything but the head.
    """
    set_seed(job.seed)
    names = dict(enumerate(job.labels))
    settings = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    # fp32 whatever the file holds: the optimizer works in it, bfloat16 is autocast
    kind, dtype = MODELS[job.kind], torch.float32
    model, info = load_quietly(kind, job.source.path, num_labels=len(names), dtype=dtype, **settings)
    encoder = model.base_model_prefix + "."  # the rest is the task's head, new to a masked LM
    lacking = [key for key in model.config.family.lacking(info["missing_keys"]) if key.startswith(encoder)]
    lacking = [key for key in lacking if ".pooler." not in key]
    if lacking:
        raise RuntimeError(
            f"the weights in {job.source.path} lack {len(lacking)} tensors, the first is {lacking[0]}: save it again"
        )
    if job.kind == "sequence":
        model.config.problem_type = "single_label_classification"
    return model


def finetune(
    job: Job,
    train: Sequence[Feature],
    dev: Sequence[Feature],
    score: Callable[[np.ndarray, np.ndarray], float],
    output: Path,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[Path, float]:
    """Fine-tune once and keep the model that is best on dev; nothing is done if that model is already there.

    `score(predictions, labels)` gets class numbers, (n,) or (n, longest) with -100 where nothing is predicted, and is
    maximised.

    Returns:
        The model's folder and its dev score.

    Raises:
        ValueError: there is no train or no dev data.
    """
    folder = job.folder(output)
    if kept := _kept(folder, job):
        return folder, kept["score"]
    if not train or not dev:
        raise ValueError(f"{job.task}: no {'train' if not train else 'dev'} data in {job.language} to fine-tune on")
    work = folder.with_name(folder.name + ".work")
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    model = _new_model(job)
    table = PieceTable(model, [*train, *dev])
    settings = arguments(job, work, micro_batch(job.recipe, model.config, pick_device()))
    multiple = 1 if settings.device.type == "cpu" else 8
    trainer = FineTuner(
        job,
        score,
        model=model,
        args=settings,
        train_dataset=table.renumbered(train),
        eval_dataset=table.renumbered(dev),
        data_collator=lambda features: pad_batch(features, model.config.pad_token_id, multiple),
        callbacks=[Steps(tell)],
    )
    trainer.remove_callback(PrinterCallback)  # with the progress bar off it would print every evaluation
    compile_layers(model, job, len(train), settings.device)
    trainer.train()
    if trainer.best is None:
        raise RuntimeError(f"{job.task}: fine-tuning on {job.language} with seed {job.seed} gave no dev score")
    best, weights = trainer.best
    model.load_state_dict(weights)
    table.restore()
    _keep(model, work, folder, {**job.settings(), "score": float(best), "steps": trainer.state.global_step})
    return folder, float(best)


def _keep(model: PreTrainedModel, work: Path, folder: Path, facts: dict[str, Any]) -> None:
    """Put the best model in its place in one move; what the training left behind goes."""
    best = work / "best"
    model.save_pretrained(best)  # not the Trainer's save_model, which adds a pickle
    atomic_write(best / SETTINGS, json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(best, folder)
    shutil.rmtree(work, ignore_errors=True)


def _kept(folder: Path, job: Job) -> dict[str, Any] | None:
    """What is known of a model that was kept by a run with these settings, else None."""
    try:
        facts: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = all(facts.get(name) == value for name, value in job.settings().items())
    return facts if same and isinstance(facts.get("score"), float) else None


@dataclass
class Tuned:
    """A fine-tuned model that is trained, or read back, when it is first asked for."""

    job: Job
    data: Callable[[], tuple[Sequence[Feature], Sequence[Feature]]]
    score: Callable[[np.ndarray, np.ndarray], float]
    output: Path
    tell: Callable[[str], None] = lambda text: None

    @cached_property
    def trained(self) -> tuple[Path, float]:
        """The folder of the best model and its dev score."""
        if kept := _kept(self.job.folder(self.output), self.job):
            return self.job.folder(self.output), kept["score"]
        logger.info("%s: fine-tuning on %s, seed %d", self.job.task, self.job.language, self.job.seed)
        return finetune(self.job, *self.data(), self.score, self.output, self.tell)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The best model in the job's dtype on the device."""
        folder, dtype = self.trained[0], DTYPES[self.job.dtype]
        model: PreTrainedModel = load_quietly(MODELS[self.job.kind], folder, dtype=dtype)[0]
        return model.to(pick_device())  # type: ignore[arg-type]

    def predict(self, inputs: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """See `predict`."""
        with products(self.job.dtype):
            return predict(self.model, inputs)
