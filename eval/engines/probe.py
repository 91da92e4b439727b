"""The probe: a logistic regression on frozen sentence vectors, which says in seconds what fine-tuning says in hours.

Trained on one language, its strength chosen on that language's dev set, measured on the test set of every language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langsamp.core.record import Record
from langsamp.eval.engines.encoder import Pool
from langsamp.eval.labelled import Examples, Source, read_test
from langsamp.eval.metrics import compute
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
    dimension is left as it is. Deterministic.

    Raises:
        ValueError: there is a single class (scikit-learn's).
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


def probe_units(context: Context, task: str, languages: Sequence[str]) -> list[Unit]:
    """The source's dev scores, then for each language one record a layer."""
    source = context.train_language

    def unit(tag: str | None, metric: str) -> Unit:
        name, own = f"{task}-probe", tag or source
        expected = [context.record(name, own, metric, source=source, layer=layer) for layer in context.layer_list()]
        return Unit(tag, expected, [f"{task}/{source}", f"{task}/{own}"])

    return [unit(None, "dev_macro_f1"), *(unit(tag, "macro_f1") for tag in languages)]


def probe_records(context: Context, source: Source, unit: Unit) -> list[Record]:
    """The source's dev scores, or the zero-shot macro-F1 of one language, one record a layer."""

    def encode(texts: Sequence[str]) -> np.ndarray:
        """(layers, texts, hidden)."""
        return context.encoder(context.layer_list()).encode(texts)

    def fitted() -> list[Probe]:
        """One a layer."""
        train, dev = source.train, source.dev
        vectors = zip(encode(train.texts), encode(dev.texts))
        return [fit_probe(x, train.labels, y, dev.labels) for x, y in vectors]

    def read(context: Context, unit: Unit) -> tuple[Examples, Pool] | None:
        """The test sentences of a language, tokenised."""
        if unit.language is None:
            return None
        test = read_test(context, source.folder, unit.language, source.labels)
        return test, Pool(context.encoder(context.layer_list()), test.texts)

    probes = context.shared("probes", fitted)
    found = context.ready(unit, read)
    if found is None:
        scores, size = [probe.dev_score for probe in probes], len(source.dev.texts)
    else:
        test, pool = found
        pairs = zip(probes, pool.vectors(test.texts))
        scores, size = [_macro_f1(probe.predict(x), test.labels) for probe, x in pairs], len(test.texts)
    return [replace(record, value=score, n=size) for record, score in zip(unit.expected, scores)]
