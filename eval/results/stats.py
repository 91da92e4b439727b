"""Statistics over languages: bootstrap intervals, the exact Wilcoxon test, Holm's correction, effect sizes.

The unit is the language: the question is whether a result would hold for other languages of the same kind. Everything
is seeded with the raw stream of PCG64, which NumPy guarantees not to change, and values are rounded before ties are
looked for, so that the same records give the same numbers on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
LEVEL = 0.95
_DECIMALS = 10  # differences closer than this are ties: 0.3 - 0.2 is not 0.1 in floating point


class Interval(NamedTuple):
    """A value with the bounds of its interval; bounds are None where a single language leaves nothing to resample."""

    value: float
    low: float | None
    high: float | None


class Wilcoxon(NamedTuple):
    """Sum of the ranks of the positive differences, its two-sided p-value, and the number of differences not zero."""

    statistic: float
    p: float
    n: int


@lru_cache(maxsize=32)
def _draws(n: int, stream: int, resamples: int, seed: int) -> NDArray[Any]:
    """(resamples, n) indices below n, drawn with replacement; streams are independent of each other."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, stream]))
    # A remainder is biased by less than n / 2**64.
    small = np.uint16 if n < 2**16 else np.int64  # a report keeps many of these
    return (bits.random_raw(resamples * n) % np.uint64(n)).astype(small).reshape(resamples, n)


def _matrix(values: ArrayLike) -> NDArray[np.float64]:
    """(languages,) or (languages, seeds) -> (languages, seeds). Raises ValueError for other shapes or NaN."""
    matrix = np.asarray(values, dtype=float)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"values must have shape (languages,) or (languages, seeds), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("values must be finite; leave languages without a value out")
    return matrix


def _resampled_means(matrix: NDArray[np.float64], seed_stream: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples,): means over drawn languages and, independently of them, drawn seeds."""
    languages = _draws(len(matrix), 0, resamples, seed)
    by_seed = np.stack([column[languages].mean(axis=1) for column in matrix.T])  # (seeds, resamples)
    if len(by_seed) == 1:
        return by_seed[0]
    drawn = _draws(len(by_seed), seed_stream, resamples, seed)
    return np.take_along_axis(by_seed.T, drawn, axis=1).mean(axis=1)


def _interval(value: float, means: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, round(float(low), _DECIMALS), round(float(high), _DECIMALS))


def bootstrap_mean(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean over languages with a percentile bootstrap interval.

    Args:
        values: (languages,) or (languages, seeds); seeds are resampled, too, because a fine-tuning seed shifts all
            languages together.
        level: coverage of the interval.
        resamples: number of resamples.
        seed: of the resampling.

    Raises ValueError for no values or values that are not finite.
    """
    matrix = _matrix(values)
    mean = round(float(matrix.mean()), _DECIMALS)
    if len(matrix) < 2:
        return Interval(mean, None, None)
    return _interval(mean, _resampled_means(matrix, 1, resamples, seed), level)


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean difference b - a over the same languages with a percentile bootstrap interval.

    Args:
        a: (languages,) or (languages, seeds of a).
        b: the same languages in the same order; its seeds need not be those of a.
        level: coverage of the interval.
        resamples: number of resamples. Both sides draw the same languages, and each its own seeds.
        seed: of the resampling.

    Raises ValueError for different numbers of languages, no values, or values that are not finite.
    """
    left, right = _matrix(a), _matrix(b)
    if len(left) != len(right):
        raise ValueError(f"paired values need the same languages: {len(left)} and {len(right)}")
    difference = round(float(right.mean() - left.mean()), _DECIMALS)
    if len(left) < 2:
        return Interval(difference, None, None)
    means = _resampled_means(right, 2, resamples, seed) - _resampled_means(left, 1, resamples, seed)
    return _interval(difference, means, level)


def _signed_ranks(differences: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Signs and doubled midranks (whole numbers) of the differences that are not zero."""
    rounded = np.round(np.asarray(differences, dtype=float), _DECIMALS)
    if not np.isfinite(rounded).all():
        raise ValueError("differences must be finite")
    rounded = rounded[rounded != 0]
    if not len(rounded):
        return np.zeros(0, bool), np.zeros(0, np.int64)
    _, group, size = np.unique(np.abs(rounded), return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    return rounded > 0, (2 * last - size + 1)[group]


def wilcoxon(differences: ArrayLike) -> Wilcoxon:
    """Wilcoxon's signed-rank test, two-sided and exact for every n, with ties as midranks and zeros left out.

    The null distribution (each sign + or - with probability 1/2) of the rank sum is computed by adding one rank after
    the other, so that there is no approximation to choose. Without a difference p = 1.
    """
    positive, ranks = _signed_ranks(differences)
    if not len(ranks):
        return Wilcoxon(0.0, 1.0, 0)
    total = int(ranks.sum())
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    reached = 0
    for rank in np.sort(ranks):
        moved = chance[: reached + 1] / 2
        chance[: reached + 1] = moved
        chance[rank : rank + reached + 1] += moved
        reached += int(rank)
    statistic = int(ranks[positive].sum())
    tail = math.fsum(chance[: min(statistic, total - statistic) + 1])
    return Wilcoxon(statistic / 2, float(f"{min(1.0, 2 * tail):.10g}"), len(ranks))


def rank_biserial(differences: ArrayLike) -> float:
    """Effect size of Wilcoxon's test: share of positive minus share of negative rank sum, -1..1; 0 without ranks."""
    positive, ranks = _signed_ranks(differences)
    if not len(ranks):
        return 0.0
    return round(float(ranks[positive].sum() - ranks[~positive].sum()) / float(ranks.sum()), _DECIMALS)


def cohen_d(differences: ArrayLike) -> float | None:
    """Mean difference in units of the differences' standard deviation (n - 1); None if that is 0 or n < 2."""
    rounded = np.round(np.asarray(differences, dtype=float), _DECIMALS)
    if len(rounded) < 2 or len(set(rounded.tolist())) == 1:
        return None
    return round(float(rounded.mean() / rounded.std(ddof=1)), _DECIMALS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - step)))
        adjusted[index] = largest
    return adjusted
