"""Statistics over languages: bootstrap intervals, the exact Wilcoxon test, Holm's correction, effect sizes.

The unit is the language: the question is whether a result would hold for other languages of the same kind. Everything
is seeded with the raw stream of PCG64, which NumPy guarantees not to change, and values are rounded before ties are
looked for, so that the same records give the same numbers on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST = 4  # languages: resamples of two or three say nothing about others
_DECIMALS = 10  # differences closer than this are ties: 0.3 - 0.2 is not 0.1 in floating point


class Interval(NamedTuple):
    """A value with the bounds of its interval; bounds are None with fewer than `FEWEST` languages."""

    value: float
    low: float | None
    high: float | None


class Wilcoxon(NamedTuple):
    """Sum of the ranks of the positive differences, its two-sided p-value, and the number of differences not zero."""

    statistic: float
    p: float
    n: int


@lru_cache(maxsize=32)
def _times(n: int, stream: int, seed: int, first: int, last: int) -> NDArray[np.float64]:
    """(last - first, n): how often each of `n` is drawn, with replacement, in these resamples; streams are independent.

    A remainder is biased by less than n / 2**64.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, stream])).advance(first * n)
    rows = last - first
    drawn = (bits.random_raw(rows * n) % np.uint64(n)).astype(np.int64).reshape(rows, n)
    places = drawn + n * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * n).reshape(rows, n).astype(float)


def _resampled(
    n: int, stream: int, resamples: int, seed: int, statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """A statistic of (rows, n) counts, for all resamples; a block of 16 MB at a time, kept for the next call."""
    rows = max(1, 2**21 // n)
    blocks = ((first, min(first + rows, resamples)) for first in range(0, resamples, rows))
    return np.concatenate([statistic(_times(n, stream, seed, *block)) for block in blocks])


def _matrix(values: ArrayLike) -> NDArray[np.float64]:
    """(languages,) or (languages, seeds) -> (languages, seeds); a ValueError for other shapes or NaN."""
    matrix = np.asarray(values, dtype=float)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"values must have shape (languages,) or (languages, seeds), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("values must be finite; leave languages without a value out")
    return matrix


def _resampled_means(matrix: NDArray[np.float64], seed_stream: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples,): means over drawn languages and, independently of them, drawn seeds."""
    languages, seeds = matrix.shape
    by_seed = _resampled(languages, 0, resamples, seed, lambda times: times @ matrix / languages)
    if seeds == 1:
        return by_seed[:, 0]
    return np.asarray((by_seed * _resampled(seeds, seed_stream, resamples, seed, lambda times: times)).sum(1) / seeds)


def _interval(value: float, n: int, means: Callable[[], NDArray[np.float64]], level: float) -> Interval:
    """The value with the percentiles of its resamples, which may be NaN, if there are languages enough."""
    value = round(value, _DECIMALS)
    if n < FEWEST:
        return Interval(value, None, None)
    low, high = np.nanquantile(means(), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, round(float(low), _DECIMALS), round(float(high), _DECIMALS))


def bootstrap_mean(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean over languages with a percentile bootstrap interval.

    Args:
        values: (languages,) or (languages, seeds); seeds are resampled, too, because a fine-tuning seed shifts all
            languages together.
        level: coverage of the interval.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: there are no values, or some are not finite.
    """
    matrix = _matrix(values)
    return _interval(float(matrix.mean()), len(matrix), lambda: _resampled_means(matrix, 1, resamples, seed), level)


def bootstrap_pairs(
    matrix: NDArray[np.float64], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean over pairs of different languages with a percentile bootstrap interval over the languages.

    Args:
        matrix: (languages, languages), NaN where a pair has no value; the diagonal does not count, so a language drawn
            twice makes no pair with itself.
        level: coverage of the interval.
        resamples: number of resamples.
        seed: of the resampling.
    """
    n = len(matrix)
    known = np.isfinite(matrix) & ~np.eye(n, dtype=bool)
    values, pairs = np.where(known, matrix, 0.0), known.astype(float)

    def statistic(times: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # only one language drawn: no pair
            return np.asarray(((times @ values) * times).sum(1) / ((times @ pairs) * times).sum(1))

    mean = float(values.sum() / pairs.sum())
    return _interval(mean, n, lambda: _resampled(n, 0, resamples, seed, statistic), level)


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

    Raises:
        ValueError: different numbers of languages, no values, or some that are not finite.
    """
    left, right = _matrix(a), _matrix(b)
    if len(left) != len(right):
        raise ValueError(f"paired values need the same languages: {len(left)} and {len(right)}")

    def means() -> NDArray[np.float64]:
        if left.shape[1] == right.shape[1] == 1:  # no seeds to draw: the same in half the time
            return _resampled_means(right - left, 1, resamples, seed)
        return _resampled_means(right, 2, resamples, seed) - _resampled_means(left, 1, resamples, seed)

    return _interval(float(right.mean() - left.mean()), len(left), means, level)


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
    total, statistic = int(ranks.sum()), int(ranks[positive].sum())
    tail = _tail(np.sort(ranks), min(statistic, total - statistic))
    return Wilcoxon(statistic / 2, float(f"{min(1.0, 2 * tail):.10g}"), len(ranks))


def _tail(ranks: NDArray[np.int64], edge: int) -> float:
    """Chance that the ranks that get a plus, each with probability 1/2, have a sum of at most `edge` (half of all)."""
    step = int(np.gcd.reduce(ranks))  # 2 where no ranks are tied: half the sums cannot occur
    ranks, edge = ranks // step, edge // step
    most = int(ranks.sum()) // 2 if step == 2 else edge
    return float(_chances(tuple(ranks.tolist()), most)[: edge + 1].sum())


@lru_cache(maxsize=4)  # without ties the ranks are always 1 to n
def _chances(ranks: tuple[int, ...], most: int) -> NDArray[np.float64]:
    """Chance of each sum from 0 to `most`, by adding one rank (ascending) after the other."""
    old, new = np.zeros((2, most + 1))
    old[0] = 1.0  # the number of ways to make a sum, divided by a power of two now and then, which is exact
    reached = 0  # sums above it cannot be made yet
    for done, rank in enumerate(ranks, 1):
        reached = min(reached + rank, len(old) - 1)
        new[:rank] = old[:rank]
        np.add(old[rank : reached + 1], old[: max(0, reached + 1 - rank)], out=new[rank : reached + 1])
        old, new = new, old
        if done % 512 == 0:
            old *= 2.0**-512
    return np.asarray(old * 2.0 ** -(len(ranks) % 512))


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
