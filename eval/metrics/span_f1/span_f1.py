"""F1 of whole spans (named entities) as a module for `evaluate`; the numbers come from langsamp.eval.metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from langsamp.eval import metrics as truth

_DESCRIPTION = "Precision, recall and F1 of whole BIO spans (seqeval), and the accuracy of the tags."
_INPUTS = """
Args:
    predictions: for each sentence the predicted tags, e.g. ["B-PER", "I-PER", "O"].
    references: for each sentence the true tags.
Returns:
    precision, recall, f1, token_accuracy in 0..1, and n_spans, the number of true spans.
"""


class SpanF1(evaluate.Metric):
    """`compute(predictions=[["B-PER", "O"]], references=[["B-PER", "O"]])["f1"]` -> 1.0."""

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        return {
            **truth.span_f1(references, predictions),
            "token_accuracy": truth.token_accuracy(references, predictions),
        }
