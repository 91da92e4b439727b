"""How a task is fine-tuned: the recipe, and everything else that decides the result of one fine-tuning."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from langsamp.core.runtime import ModelSource
from langsamp.eval.task import TaskOptions


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

    def changed(self, options: TaskOptions) -> Recipe:
        """The recipe with the options (`max_steps`, `patience`, `epochs`, ...) that are given."""
        given = {name: getattr(options, name) for name in asdict(self)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


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
