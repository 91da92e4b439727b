"""The probe: a logistic regression on frozen sentence vectors, which says in seconds what fine-tuning says in hours.

Trained on one language, its strength chosen on that language's dev set, measured on the test set of every language.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langsamp.eval.labelled import Source, read_test
from langsamp.eval.metrics import compute
from langsamp.eval.results.records import Record
from langsamp.eval.task import Context, Unit

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # C of the logistic regression on standardised vectors


@dataclass(frozen=True)
class Probe:
    """A logistic regression on standardised vectors, and what the dev set said of it."""

    mean: np.ndarray
    scale: np.ndarray
    model: Any
    strength: float
    dev_score: float

    def predict(self, vectors: np.ndarray) -> list[str]:
        """Labels of (n, hidden) vectors."""
        return [str(label) for label in self.model.predict((vectors - self.mean) / self.scale)]


def fit_probe(
    train: np.ndarray,
    labels: Sequence[str],
    dev: np.ndarray,
    dev_labels: Sequence[str],
    strengths: Sequence[float] = STRENGTHS,
) -> Probe:
    """Fit a multinomial logistic regression for each strength; the best macro-F1 on dev wins, the smallest if equal.

    `train` (n, hidden), `dev` (m, hidden). Vectors are standardised with the mean and deviation of `train`; a constant
    dimension is left as it is. Deterministic. Raises ValueError (scikit-learn's) for a single class.
    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = train.mean(0), train.std(0)
    scale = np.where(scale > 0, scale, 1).astype(train.dtype)
    candidates = []
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=2000).fit((train - mean) / scale, list(labels))
        probe = Probe(mean, scale, model, strength, 0.0)
        candidates.append(replace(probe, dev_score=_macro_f1(probe.predict(dev), dev_labels)))
    return max(candidates, key=lambda probe: probe.dev_score)  # the first of equals


def _macro_f1(predictions: Sequence[str], references: Sequence[str]) -> float:
    return float(compute("macro_f1", predictions=predictions, references=references)["macro_f1"])


class Probes:
    """One probe a layer for a source language, fitted when first needed."""

    def __init__(self, context: Context, source: Source, layers: tuple[int, ...]) -> None:
        self.context, self.source, self.layers = context, source, layers
        self._fitted: list[Probe] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(layers, texts, hidden)."""
        return self.context.encoder(self.layers).encode(texts)

    def fitted(self) -> list[Probe]:
        """The probes in the order of the layers."""
        if not self._fitted:
            train, dev = self.encode(self.source.train.texts), self.encode(self.source.dev.texts)
            self._fitted = [
                fit_probe(train[i], self.source.train.labels, dev[i], self.source.dev.labels)
                for i in range(len(self.layers))
            ]
        return self._fitted

    def dev_records(self, expected: Sequence[Record]) -> list[Record]:
        """The source's dev scores, one a layer."""
        size = len(self.source.dev.texts)
        return [replace(record, value=probe.dev_score, n=size) for record, probe in zip(expected, self.fitted())]

    def measure(self, tag: str, expected: Sequence[Record]) -> list[Record]:
        """Zero-shot macro-F1 of one language, one record a layer."""
        test = read_test(self.context, self.source.folder, tag, self.source.labels)
        probes, vectors = self.fitted(), self.encode(test.texts)
        scores = [_macro_f1(probe.predict(part), test.labels) for probe, part in zip(probes, vectors)]
        return [replace(record, value=score, n=len(test.texts)) for record, score in zip(expected, scores)]


def probe_units(context: Context, task: str, source: Source, languages: Sequence[str]) -> Iterator[Unit]:
    """The source's dev scores, then for each language one record a layer."""
    layers = context.layer_list()
    probes = Probes(context, source, layers)

    def expected(tag: str, metric: str) -> list[Record]:
        return [context.record(task, tag, metric, source=source.tag, layer=layer) for layer in layers]

    dev = expected(source.tag, "dev_macro_f1")
    yield Unit(None, dev, lambda: probes.dev_records(dev))
    for tag in languages:
        wanted = expected(tag, "macro_f1")
        yield Unit(tag, wanted, lambda tag=tag, wanted=wanted: probes.measure(tag, wanted))  # type: ignore[misc]
