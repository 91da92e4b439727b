"""NDCG (from scikit-learn) and regret of a ranking, here of donor languages, as a module for `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import ndcg_score

_DESCRIPTION = "How well scores rank candidates by their true gains: NDCG, and the regret of the first choice."
_INPUTS = """
Args:
    predictions: for each list of candidates the scores to rank by.
    references: for each list of candidates the true gains, not negative.
    k: count the first k ranks only (default: all).
Returns:
    ndcg (0..1) and regret (in units of the gains), means over the lists.
"""


def ndcg(gains: NDArray[np.float64], scores: NDArray[np.float64], k: int | None = None) -> float:
    """Normalised discounted cumulative gain of ranking (candidates,) by `scores`, best first, up to rank k.

    Candidates with equal scores share the mean of their gains. 0 if all gains are 0; one candidate with a gain has 1.
    """
    if not gains.any():
        return 0.0
    return float(ndcg_score([gains], [scores], k=k)) if len(gains) > 1 else 1.0


def regret(gains: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """What choosing the candidate with the highest score costs: best gain minus the gain of the choice.

    If several share the highest score, the mean of their gains counts.
    """
    return float(gains.max() - gains[scores == scores.max()].mean())


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

    @staticmethod
    def _compute(
        predictions: Sequence[ArrayLike], references: Sequence[ArrayLike], k: int | None = None
    ) -> dict[str, float]:
        """Means of `ndcg` and `regret` over the lists.

        Raises:
            ValueError: lists of different lengths, negative gains, or numbers that are not finite.
        """
        pairs = [_checked(*pair) for pair in zip(references, predictions, strict=True)]
        return {
            "ndcg": float(np.mean([ndcg(gains, scores, k) for gains, scores in pairs])),
            "regret": float(np.mean([regret(gains, scores) for gains, scores in pairs])),
        }


def _checked(gains: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gains, scores = np.asarray(gains, dtype=float), np.asarray(scores, dtype=float)
    if gains.shape != scores.shape or gains.ndim != 1 or not len(gains):
        raise ValueError(f"gains and scores must be two lists of one length, got shapes {gains.shape}, {scores.shape}")
    if not (np.isfinite(gains).all() and np.isfinite(scores).all()) or (gains < 0).any():
        raise ValueError("gains must be finite and not negative, scores finite")
    return gains, scores
