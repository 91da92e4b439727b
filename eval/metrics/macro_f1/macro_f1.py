"""Macro-F1 of classification as a module for `evaluate`; the numbers come from langsamp.eval.metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from langsamp.eval import metrics as truth

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

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, Any]:
        references, predictions = list(references), list(predictions)
        return {
            "macro_f1": truth.macro_f1(references, predictions),
            "accuracy": truth.accuracy(references, predictions),
        }
