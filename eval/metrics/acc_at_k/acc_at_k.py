"""Acc@k of retrieval as a module for `evaluate`; the numbers come from langsamp.eval.metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from langsamp.eval import metrics as truth

_DESCRIPTION = "Acc@k: the share of queries whose right candidate is among the first k."
_INPUTS = """
Args:
    predictions: for each query the ids of the candidates, best first (at least the first max(k)).
    references: for each query the id of the right candidate.
    k: the cut-offs, by default 1, 5 and 10.
Returns:
    acc@1, acc@5, acc@10: in 0..1. A right candidate missing from the list counts as not found.
"""


class AccAtK(evaluate.Metric):
    """`compute(predictions=[[3, 7], [1, 0]], references=[3, 0], k=[1])` -> `{"acc@1": 0.5}`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("int64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: Sequence[Sequence[int]], references: Sequence[int], k: Sequence[int] = (1, 5, 10)
    ) -> dict[str, Any]:
        ranks = [
            list(row).index(gold) + 1 if gold in list(row) else max(*k, len(row)) + 1
            for row, gold in zip(predictions, references)
        ]
        return {f"acc@{cut}": truth.acc_at_k(ranks, cut) for cut in k}
