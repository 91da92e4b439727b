"""What the numbers mean: every metric of the tasks as a plain numpy function, with ties and empty cases defined.

These functions are the truth. The sub-folders wrap some of them as modules for the `evaluate` library:
`evaluate.load(metric_path("acc_at_k"))`.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MODULES = ("acc_at_k", "macro_f1", "span_f1", "ndcg")


def metric_path(name: str) -> str:
    """The folder of a metric of `MODULES`, for `evaluate.load`. Raises ValueError for other names."""
    if name not in MODULES:
        raise ValueError(f"no metric {name!r}; there are {', '.join(MODULES)}")
    return str(Path(__file__).parent / name)


def gold_ranks(scores: ArrayLike, gold: ArrayLike | None = None) -> NDArray[np.int64]:
    """Rank (1 = best) of the right candidate of every query.

    Args:
        scores: (queries, candidates), higher is better.
        gold: (queries,) index of the right candidate; by default query i belongs to candidate i.

    A tie counts against us: the rank is the number of candidates that score at least as high. So an encoder that gives
    every sentence the same vector scores 0, not 1, and the order of the file does not matter. A query whose scores hold
    NaN has the last rank.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (queries, candidates), got {scores.shape}")
    gold = np.arange(len(scores)) if gold is None else np.asarray(gold)
    if gold.shape != (len(scores),):
        raise ValueError(f"one right candidate a query: {len(scores)} queries but gold has shape {gold.shape}")
    if len(gold) and (gold.min() < 0 or gold.max() >= scores.shape[1]):
        raise ValueError(f"gold must lie in 0..{scores.shape[1] - 1}")
    right = np.take_along_axis(scores, gold[:, None].astype(np.int64), axis=1)
    ranks = (scores >= right).sum(axis=1)
    ranks[np.isnan(scores).any(axis=1)] = scores.shape[1]
    return ranks.astype(np.int64)


def acc_at_k(ranks: ArrayLike, k: int) -> float:
    """Share of queries whose right candidate has rank k or better. Raises ValueError without queries or for k < 1."""
    ranks = np.asarray(ranks)
    if not len(ranks):
        raise ValueError("acc@k needs at least one query")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return float(np.mean(ranks <= k))


def accuracy(references: Sequence[Hashable], predictions: Sequence[Hashable]) -> float:
    """Share of equal entries. Raises ValueError for empty input or different lengths."""
    _check_lengths(references, predictions)
    return sum(a == b for a, b in zip(references, predictions)) / len(references)


def macro_f1(references: Sequence[Hashable], predictions: Sequence[Hashable]) -> float:
    """Unweighted mean of the F1 of every label that occurs in the references or the predictions.

    F1 = 2 TP / (2 TP + FP + FN). So a label that is predicted but absent from the references counts as 0, and a label
    that occurs nowhere does not count (as scikit-learn has it, and the official code of Taxi1500).
    """
    _check_lengths(references, predictions)
    scores = []
    for label in {*references, *predictions}:
        hits = sum(a == b == label for a, b in zip(references, predictions))
        marked = sum(a == label for a in references) + sum(b == label for b in predictions)
        scores.append(2 * hits / marked)
    return float(np.mean(sorted(scores)))


def token_accuracy(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> float:
    """Share of right tags over the tokens of all sentences. Raises ValueError if sentences differ in length."""
    _check_sentences(references, predictions)
    return accuracy([tag for row in references for tag in row], [tag for row in predictions for tag in row])


def span_f1(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of whole spans over all sentences, and the number of true spans, by seqeval.

    Tags are BIO; an `I-X` without a `B-X` starts a span (the CoNLL convention). Without any span in the references and
    the predictions all three are 0. Tags without `B-`/`I-` (POS) become chunks of equal neighbours, as in the paper's
    POS score: this is not token accuracy (notes/paper.md, section 3.4).
    """
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    _check_sentences(references, predictions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns of POS tags without B-/I- and of divisions by zero
        precision, recall, f1, support = precision_recall_fscore_support(
            [list(row) for row in references], [list(row) for row in predictions], average="micro", zero_division=0
        )
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "n_spans": int(support)}


def ndcg(gains: ArrayLike, scores: ArrayLike, k: int | None = None) -> float:
    """Normalised discounted cumulative gain of ranking candidates by `scores`, best first.

    DCG = sum over ranks r of gain / log2(r + 1), up to rank k; divided by the DCG of the best order. Candidates with
    equal scores share the mean of their gains, so their order in the input does not matter. 0 if all gains are 0.

    Args:
        gains: (candidates,) what each is really worth, not negative.
        scores: (candidates,) what we rank by.
        k: count the first k ranks only; None: all.
    """
    gains, scores = _gains_and_scores(gains, scores)
    if not (np.isfinite(gains).all() and np.isfinite(scores).all()) or (gains < 0).any():
        raise ValueError("gains must be finite and not negative, scores finite")
    discounts = 1 / np.log2(np.arange(len(gains)) + 2)
    discounts[len(gains) if k is None else k :] = 0
    best = float(np.sort(gains)[::-1] @ discounts)
    if not best:
        return 0.0
    _, group = np.unique(-scores, return_inverse=True)
    shared = (np.bincount(group, weights=gains) / np.bincount(group))[np.sort(group)]
    return float(shared @ discounts) / best


def regret(gains: ArrayLike, scores: ArrayLike) -> float:
    """What choosing the candidate with the highest score costs: best gain minus the gain of the choice.

    If several share the highest score, the mean of their gains counts.
    """
    gains, scores = _gains_and_scores(gains, scores)
    return float(gains.max() - gains[scores == scores.max()].mean())


def _gains_and_scores(gains: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gains, scores = np.asarray(gains, dtype=float), np.asarray(scores, dtype=float)
    if gains.shape != scores.shape or gains.ndim != 1 or not len(gains):
        raise ValueError(f"gains and scores must be two lists of one length, got shapes {gains.shape}, {scores.shape}")
    return gains, scores


def _check_lengths(references: Sequence[Any], predictions: Sequence[Any]) -> None:
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} references but {len(predictions)} predictions")
    if not len(references):
        raise ValueError("a score needs at least one item")


def _check_sentences(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> None:
    _check_lengths(references, predictions)
    for number, (a, b) in enumerate(zip(references, predictions)):
        if len(a) != len(b):
            raise ValueError(f"sentence {number}: {len(a)} reference tags but {len(b)} predicted tags")
