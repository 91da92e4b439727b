"""Sentence classification (taxi1500, sib200): trained on one language, measured on every other one.

As the paper does it (notes/paper.md 3.2, 3.3): `<s>` -> dense -> tanh -> linear, chosen by the source's dev macro-F1,
zero-shot macro-F1 of each language. With the option `probe` the encoder stays frozen (engines/probe.py); those records
have a task name of their own (`sib200-probe`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from langsamp.core.record import Record
from langsamp.eval.data.columns import DataError
from langsamp.eval.engines.encoder import load_backend
from langsamp.eval.engines.finetune import Tuned
from langsamp.eval.engines.predict import Feature
from langsamp.eval.engines.probe import probe_records, probe_units
from langsamp.eval.engines.recipe import Job, Recipe, recipe_settings, task_name
from langsamp.eval.labelled import Examples, Source, read_test
from langsamp.eval.metrics import compute
from langsamp.eval.task import Context, Unit
from langsamp.unicode_scripts import valid_unicode


@dataclass(frozen=True)
class Classification:
    """A task. Options: `probe`, and the fields of `Recipe` (`max_steps`, `patience`, ...)."""

    name: str
    recipe: Recipe
    seeds: tuple[int, ...]

    def languages(self, context: Context) -> list[str]:
        """Tags with data; DataError if the source language is not among them."""
        found = context.data.languages(self.name)
        if context.train_language not in found:
            raise DataError(
                f"{self.name} has no data in {context.train_language}, the language to train on; "
                "--train-language names another"
            )
        return found

    def settings(self, context: Context) -> dict[str, Any]:
        """The recipe; the probe has none."""
        return {} if context.options.probe else recipe_settings(self.recipe.changed(context.options))

    def units(self, context: Context, languages: list[str]) -> list[Unit]:
        """For each seed the source's dev score (the training), then all languages of each seed; a probe has no seed."""
        if context.options.probe:
            return probe_units(context, self.name, languages)
        task, source = task_name(self.name, self.recipe.changed(context.options)), context.train_language
        seeds = context.seeds or self.seeds

        def unit(tag: str | None, metric: str, seed: int, **more: Any) -> Unit:
            own = tag or source
            expected = [context.record(task, own, metric, source=source, seed=seed)]
            return Unit(tag, expected, [f"{self.name}/{source}", f"{self.name}/{own}"], **more)

        trained = [unit(None, "dev_macro_f1", seed, trains=True) for seed in seeds]
        return trained + [unit(tag, "macro_f1", seed, stage=1) for seed in seeds for tag in languages]

    def compute(self, context: Context, unit: Unit) -> list[Record]:
        """The dev scores, or one language's numbers."""
        source = context.shared("source", lambda: Source(context, self.name, context.train_language))
        if context.options.probe:
            return probe_records(context, source, unit)
        [wanted] = unit.expected
        recipe, seed = self.recipe.changed(context.options), wanted.seed or 0
        model = context.shared("model", lambda: TunedClassifier(context, source, wanted.task, recipe, seed))
        return [model.dev_record(wanted) if unit.language is None else model.measure(unit.language, wanted)]


class TunedClassifier:
    """A fine-tuned classifier of one seed; trained when its first number is needed."""

    def __init__(self, context: Context, source: Source, task: str, recipe: Recipe, seed: int) -> None:
        self.context, self.source, self.task, self.recipe, self.seed = context, source, task, recipe, seed

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_backend(self.context.source.path, self.recipe.max_length)

    @cached_property
    def _tuned(self) -> Tuned:
        source, context = self.source, self.context
        job = Job(
            context.source, "sequence", self.task, source.tag, self.seed, source.labels, self.recipe, context.dtype
        )

        def score(predicted: np.ndarray, true: np.ndarray) -> float:
            return float(compute("macro_f1", predictions=predicted, references=true)["macro_f1"])

        def data() -> tuple[list[Feature], list[Feature]]:
            return self._features(source.train), self._features(source.dev)

        return Tuned(job, data, score, context.output, context.tell)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with specials, cut at the recipe's length."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast([valid_unicode(text) for text in texts])]

    def _features(self, examples: Examples) -> list[Feature]:
        """Examples whose label is known, as the Trainer wants them."""
        number = {label: index for index, label in enumerate(self.source.labels)}
        pairs = zip(self.tokenize(examples.texts), examples.labels)
        return [{"input_ids": ids, "labels": number[label]} for ids, label in pairs if label in number]

    def dev_record(self, expected: Record) -> Record:
        """Train if need be; the best dev score."""
        known = sum(label in self.source.labels for label in self.source.dev.labels)
        return replace(expected, value=self._tuned.trained[1], n=known)

    def measure(self, tag: str, expected: Record) -> Record:
        """Zero-shot macro-F1 of one language's test sentences."""
        test = read_test(self.context, self.source.folder, tag, self.source.labels)
        logits = self._tuned.predict(self.tokenize(test.texts))
        predicted = [self.source.labels[int(row.argmax())] for row in logits]
        score = compute("macro_f1", predictions=predicted, references=test.labels)["macro_f1"]
        return replace(expected, value=score, n=len(test.texts))


TAXI1500 = Classification(
    "taxi1500", Recipe(learning_rate=1e-5, epochs=40, batch_size=8, accumulation=2, max_length=100), (42, 43, 44, 45)
)
SIB200 = Classification(
    "sib200", Recipe(learning_rate=1e-5, epochs=40, batch_size=8, accumulation=2, max_length=160), (42, 43, 44, 45, 46)
)
