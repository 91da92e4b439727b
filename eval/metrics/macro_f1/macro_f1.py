"""Macro-F1 and accuracy of classification, from scikit-learn, as a module for `evaluate`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score

_DESCRIPTION = "Macro-F1: the unweighted mean of the F1 of every label in the references or the predictions."
_INPUTS = """
Args:
    predictions: predicted label ids.
    references: true label ids.
Returns:
    macro_f1 and accuracy, in 0..1.
"""


class MacroF1(evaluate.Metric):
    """`compute(predictions=[0, 1, 1], references=[0, 0, 1])` -> `{"macro_f1": 0.667, "accuracy": 0.667}`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    @staticmethod
    def _compute(predictions: Sequence[Hashable], references: Sequence[Hashable]) -> dict[str, float]:
        """A label that is predicted but never true has F1 0; a label that occurs nowhere does not count.

        Raises:
            ValueError: empty input, or different lengths.
        """
        if not len(references):
            raise ValueError("a score needs at least one item")
        if len(references) != len(predictions):
            raise ValueError(f"{len(references)} references but {len(predictions)} predictions")
        true, guessed = list(references), list(predictions)
        return {
            "macro_f1": float(f1_score(true, guessed, average="macro", zero_division=0)),
            "accuracy": float(accuracy_score(true, guessed)),
        }
