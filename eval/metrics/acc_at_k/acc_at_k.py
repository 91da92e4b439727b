"""Acc@k of retrieval: the share of queries whose right candidate is among the first k; a module for `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

TIE = 1e-7  # similarities this close differ by rounding only

_DESCRIPTION = (
    "Acc@k: the share of queries whose right candidate is among the k that score best; a tie counts against it."
)
_INPUTS = """
Args:
    predictions: for each query the score of every candidate, higher is better.
    references: for each query the number of the right candidate.
    k: the cut-offs, by default 1, 5 and 10.
Returns:
    acc@1, acc@5, acc@10: in 0..1.
"""


def ranks(
    scores: ArrayLike, gold: ArrayLike | None = None, right: NDArray[np.bool_] | None = None, tie: float = TIE
) -> NDArray[np.int64]:
    """Rank (1 = best) of each query's right candidate: 1 + the others that score at least as high, less `tie`.

    A tie counts against us, so an encoder that gives every sentence the same vector scores 0, not luck, and the order
    of the file does not matter. A query whose scores hold NaN has the last rank.

    Args:
        scores: (queries, candidates), higher is better.
        gold: (queries,) number of the right candidate; by default query i belongs to candidate i.
        right: (queries, candidates), marks other candidates that are right too and so are no competitors.
        tie: scores this close are equal.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (queries, candidates), got {scores.shape}")
    gold = np.arange(len(scores)) if gold is None else np.asarray(gold, dtype=np.int64)
    if gold.shape != (len(scores),):
        raise ValueError(f"one right candidate a query: {len(scores)} queries but gold has shape {gold.shape}")
    if len(gold) and (gold.min() < 0 or gold.max() >= scores.shape[1]):
        raise ValueError(f"gold must lie in 0..{scores.shape[1] - 1}")
    own = np.take_along_axis(scores, gold[:, None], axis=1)
    better = scores >= own - tie
    np.put_along_axis(better, gold[:, None], False, axis=1)
    if right is not None:
        better &= ~right
    found = 1 + better.sum(axis=1, dtype=np.int64)
    found[np.isnan(scores).any(axis=1)] = scores.shape[1]
    return found


class AccAtK(evaluate.Metric):
    """`compute(predictions=[[0.1, 0.7], [0.9, 0.2]], references=[1, 1], k=[1])` -> `{"acc@1": 0.5}`."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": scores, "references": datasets.Value("int64")}),
        )

    @staticmethod
    def _compute(
        predictions: ArrayLike,
        references: ArrayLike | None = None,
        k: Sequence[int] = (1, 5, 10),
        right: NDArray[np.bool_] | None = None,
    ) -> dict[str, float]:
        """See `ranks`.

        Raises:
            ValueError: there is no query, or k < 1.
        """
        if min(k) < 1:
            raise ValueError(f"k must be at least 1, got {min(k)}")
        if not len(found := ranks(predictions, references, right)):
            raise ValueError("acc@k needs at least one query")
        return {f"acc@{cut}": float(np.mean(found <= cut)) for cut in k}
