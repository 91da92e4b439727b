"""Fine-tuning on one language with the Trainer: what taxi1500, sib200, ner and pos share.

The best model of each (task, source, seed) is kept in the run directory, so a killed run goes on where it was.
What the official scripts do wrong is not copied (paper notes, B6-B15): gradients really accumulate and the rest of an
epoch is flushed, the schedule counts optimizer steps and ends at zero, gradients are clipped at 1.0, the seed is set
before the head is made, and models are saved as safetensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from langsamp.core.runtime import ModelSource, atomic_write, fast_matmul, pick_device
from langsamp.eval.engines.encoder import load_quietly
from langsamp.eval.engines.predict import IGNORED, Feature, pad_batch, predict
from langsamp.modeling_langsamp import LangSAMPForSequenceClassification, LangSAMPForTokenClassification

logger = logging.getLogger(__name__)

SETTINGS = "finetune.json"
MODELS = {"sequence": LangSAMPForSequenceClassification, "token": LangSAMPForTokenClassification}


@dataclass(frozen=True)
class Recipe:
    """How a task is fine-tuned (paper notes, 3.2-3.4). `accumulation` micro-batches make one update.

    `eval_steps` None evaluates on the source's dev set after every epoch; the last model is always a candidate.
    `patience` evaluations without a better score end the training; None, as the paper, trains to the end.
    `max_steps` updates at most, whatever `epochs` says; the schedule then ends there.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    accumulation: int
    max_length: int
    eval_steps: int | None = None
    patience: int | None = None
    max_steps: int | None = None

    def changed(self, options: Any) -> Recipe:
        """The recipe with the settings of the command line (`max_steps`, `patience`, `epochs`, ...) that are given."""
        given = {name: options[name] for name in asdict(self) if options.get(name) is not None}
        return replace(self, **given)


@dataclass(frozen=True)
class Job:
    """One fine-tuning: everything that decides its result."""

    source: ModelSource
    kind: str  # "sequence" or "token"
    task: str
    language: str
    seed: int
    labels: tuple[str, ...]
    recipe: Recipe
    dtype: str = "float32"

    def settings(self) -> dict[str, Any]:
        """What a kept model must agree with to be used again."""
        known = asdict(self)
        known["source"] = [self.source.name, self.source.revision]
        known["labels"] = list(self.labels)
        return known

    def folder(self, output: Path) -> Path:
        """Where the best model is kept; other settings, another folder."""
        digest = hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()[:8]
        return output / "finetuned" / f"{self.task}-{self.language}-seed{self.seed}-{digest}"


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """What one run directory may hold one value of; `max_steps` is in the task's name instead."""
    return {name: value for name, value in asdict(recipe).items() if name != "max_steps"}


def task_name(name: str, recipe: Recipe) -> str:
    """The name in records: a run cut short by `max_steps` is not the protocol and says so (`pos-200steps`)."""
    return name if recipe.max_steps is None else f"{name}-{recipe.max_steps}steps"


class _Trainer(Trainer):
    """The Trainer with the fast matrix products around computation only, and the fast prediction for the dev set."""

    dev_score: Callable[[np.ndarray, np.ndarray], float]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        with fast_matmul(self.args.device.type == "cpu"):
            return super().training_step(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The dev score, by the same prediction that the test sets get."""
        dev: Any = self.eval_dataset
        logits = predict(cast(PreTrainedModel, self.model), [feature["input_ids"] for feature in dev])
        score = self.dev_score(*_aligned([row.argmax(-1) for row in logits], [feature["labels"] for feature in dev]))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, {"eval_score": score})
        return {"eval_score": score}


def _aligned(predicted: list[np.ndarray], labels: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels as arrays: (n,), or (n, longest) with -100 where nothing is predicted."""
    if isinstance(labels[0], int):
        return np.array(predicted), np.array(labels)
    shape = (len(labels), max(map(len, labels)))
    both = np.zeros(shape, dtype=int), np.full(shape, IGNORED)
    for array, rows in zip(both, (predicted, labels)):
        for index, row in enumerate(rows):
            array[index, : len(row)] = row
    return both


class _EvaluateAtTheEnd(TrainerCallback):
    """Makes the last model a candidate, also when the steps are no multiple of `eval_steps`."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
        return control


def _arguments(job: Job, folder: Path, progress: bool) -> TrainingArguments:
    recipe = job.recipe
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps or -1,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        eval_strategy="steps" if recipe.eval_steps else "epoch",
        eval_steps=recipe.eval_steps,
        save_strategy="best",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
        seed=job.seed,
        bf16=job.dtype == "bfloat16",
        use_cpu=pick_device().type == "cpu",
        report_to="none",
        logging_strategy="no",
        disable_tqdm=not progress,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
    )


def _new_model(job: Job) -> PreTrainedModel:
    """The encoder with a new head; the seed is set first, so that the head is the seed's, too (B8).

    Raises RuntimeError if the checkpoint lacks anything but the head.
    """
    set_seed(job.seed)
    names = dict(enumerate(job.labels))
    settings = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    settings["dtype"] = torch.float32  # whatever the file holds: the optimizer works in fp32, bfloat16 is autocast
    model, info = load_quietly(MODELS[job.kind], job.source.path, num_labels=len(names), **settings)
    lacking = sorted(
        key for key in info["missing_keys"] if not key.startswith("classifier.") and "position_ids" not in key
    )
    if lacking:
        raise RuntimeError(f"the weights in {job.source.path} lack {len(lacking)} tensors, the first is {lacking[0]}")
    if job.kind == "sequence":
        model.config.problem_type = "single_label_classification"
    return model


def finetune(
    job: Job,
    train: Sequence[Feature],
    dev: Sequence[Feature],
    score: Callable[[np.ndarray, np.ndarray], float],
    output: Path,
    progress: bool = True,
) -> tuple[Path, float]:
    """Fine-tune once and keep the model that is best on dev; nothing is done if that model is already there.

    `score(predictions, labels)` gets class numbers, (n,) or (n, longest) with -100 where nothing is predicted, and is
    maximised. Returns the model's folder and its dev score. Raises ValueError without training or dev data.
    """
    folder = job.folder(output)
    if kept := _kept(folder, job):
        return folder, kept["score"]
    if not train or not dev:
        raise ValueError(f"{job.task}: no {'train' if not train else 'dev'} data in {job.language} to fine-tune on")
    work = folder.with_name(folder.name + ".work")
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    model = _new_model(job)
    trainer = _Trainer(
        model=model,
        args=_arguments(job, work, progress),
        train_dataset=list(train),
        eval_dataset=list(dev),
        data_collator=lambda features: pad_batch(features, model.config.pad_token_id),
        callbacks=[_EvaluateAtTheEnd()] + ([EarlyStoppingCallback(job.recipe.patience)] if job.recipe.patience else []),
    )
    trainer.dev_score = score
    trainer.remove_callback(PrinterCallback)  # with the progress bar off it would print every evaluation
    trainer.train()
    best = trainer.state.best_metric
    if best is None:
        raise RuntimeError(f"{job.task}: fine-tuning on {job.language} with seed {job.seed} gave no dev score")
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
    """A fine-tuned model that is trained, or read back, when it is first asked for; `release` frees its memory."""

    job: Job
    data: Callable[[], tuple[Sequence[Feature], Sequence[Feature]]]
    score: Callable[[np.ndarray, np.ndarray], float]
    output: Path
    progress: bool = True

    @cached_property
    def trained(self) -> tuple[Path, float]:
        """The folder of the best model and its dev score."""
        if kept := _kept(self.job.folder(self.output), self.job):
            return self.job.folder(self.output), kept["score"]
        logger.info("%s: fine-tuning on %s, seed %d", self.job.task, self.job.language, self.job.seed)
        return finetune(self.job, *self.data(), self.score, self.output, self.progress)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The best model in the job's dtype on the device."""
        dtype = torch.bfloat16 if self.job.dtype == "bfloat16" else torch.float32
        model: PreTrainedModel = load_quietly(MODELS[self.job.kind], self.trained[0], dtype=dtype)[0]
        return model.to(pick_device())  # type: ignore[arg-type]

    def predict(self, inputs: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """See `predict`."""
        return predict(self.model, inputs)

    def release(self) -> None:
        """Forget the model."""
        self.__dict__.pop("model", None)
