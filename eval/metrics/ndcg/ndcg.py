"""NDCG and regret of a ranking of donor languages as a module for `evaluate`, from langsamp.eval.metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from langsamp.eval import metrics as truth

_DESCRIPTION = "How well scores rank candidates by their true gains: NDCG, and the regret of the first choice."
_INPUTS = """
Args:
    predictions: for each list of candidates the scores to rank by.
    references: for each list of candidates the true gains, not negative.
    k: count the first k ranks only (default: all).
Returns:
    ndcg (0..1) and regret (in units of the gains), means over the lists.
"""


class NDCG(evaluate.Metric):
    """`compute(predictions=[[0.9, 0.1]], references=[[1.0, 0.0]])` -> `{"ndcg": 1.0, "regret": 0.0}`."""

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": numbers, "references": numbers}),
        )

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[Sequence[float]], k: int | None = None
    ) -> dict[str, Any]:
        pairs = list(zip(references, predictions))
        return {
            "ndcg": sum(truth.ndcg(gains, scores, k) for gains, scores in pairs) / len(pairs),
            "regret": sum(truth.regret(gains, scores) for gains, scores in pairs) / len(pairs),
        }
