"""Which block comes when: language shares p ~ n^alpha, and a draw that is a pure function of (seed, index).

Between :mod:`langsamp.train.blocks.store` and the training loop. There is no iterator and so no state to save: sample
``index = step * global_batch + position`` is always the same block, and ranks simply ask for their own positions.

How a draw is computed. Samples come in rounds of about 4,096. After ``c`` rounds language ``l`` has been drawn
``N_l(c) = floor(E_l(c) + u_l)`` times, where ``E_l`` is the expected number and ``u_l`` a fixed random offset in
[0, 1): within one draw of what the shares say, at every round, so no language starves and none comes in clumps. Inside
a round the order is a seeded shuffle. Draw ``k`` of a language takes block ``pi_e(k mod n)`` in epoch ``e = k // n``,
where ``pi_e`` is a computed permutation: no block repeats before all others were seen. Against independent draws this
only removes variance (a chi-square test of the counts passes, from below).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from langsamp.core.files import atomic_write
from langsamp.core.hashing import bits, permuted, uniform
from langsamp.core.language.xlmr import HEAD

_ROUND = 4096  # draws in a round, on average; a multiple of it if there are very many languages


class Draw(NamedTuple):
    """One sample: its number in the stream, its language, and which block of that language it is."""

    sample: int
    language: str
    block: int


class _Round(NamedTuple):
    """The samples of one round: the index of the first, then for each its language (a number) and its block."""

    first: int
    language: np.ndarray
    block: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """How languages share the draws.

    Attributes:
        alpha: p ~ n^alpha with n in blocks: 1 is proportional, 0 uniform, 0.3 the paper's.
        schedule: later values, as (first sample index, alpha), in order; mmBERT anneals 0.7 -> 0.5 -> 0.3.
        min_share, max_share: bounds on every p_l.
        flat: languages that get the weight of the smallest of the others whatever their size; Glot500 does so with
            the languages that XLM-R has already seen.
        max_epochs: upper bound on how often a language's blocks are seen in ``total`` samples.
        total: samples of the whole run; needed for ``max_epochs`` and for the expected epochs in the table.
    """

    alpha: float = 0.3
    schedule: Sequence[tuple[int, float]] = ()
    min_share: float = 0.0
    max_share: float = 1.0
    flat: Sequence[str] = ()
    max_epochs: float | None = None
    total: int | None = None

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.schedule]
        if starts != sorted(set(starts)) or any(start <= 0 for start in starts):
            raise ValueError(f"schedule {self.schedule} must begin after sample 0 and go up.")
        if any(not 0 <= alpha <= 2 for alpha in (self.alpha, *(alpha for _, alpha in self.schedule))):
            raise ValueError(f"alpha {self.alpha} (schedule {self.schedule}) must be between 0 and 2.")
        if not 0 <= self.min_share <= self.max_share <= 1:
            raise ValueError(f"0 <= min_share {self.min_share} <= max_share {self.max_share} <= 1 does not hold.")
        if self.max_epochs is not None and (self.max_epochs <= 0 or not self.total):
            raise ValueError(f"max_epochs {self.max_epochs} must be above 0 and needs the total number of samples.")


def glot500(languages: Sequence[str], **options: Any) -> Sampling:
    """Glot500's setting (paper.md section 2): p ~ n^0.3, and languages of XLM-R flat at the weight of the smallest."""
    return Sampling(alpha=0.3, flat=[language for language in languages if language in HEAD], **options)


def shares(counts: np.ndarray, alpha: float, flat: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Probabilities ~ n^alpha within bounds.

    Args:
        counts: blocks a language, (L,), at least 1.
        alpha: the exponent.
        flat: (L,) bool, languages with the weight of the smallest of the others.
        low: (L,) lower bounds.
        high: (L,) upper bounds.

    Returns:
        (L,) float64, sum 1: the weights scaled by one factor and clipped (the factor found by bisection).

    Raises:
        ValueError: the bounds leave no room for a sum of 1.
    """
    if low.sum() > 1 + 1e-9 or high.sum() < 1 - 1e-9:
        raise ValueError(
            f"the bounds on language shares cannot be met: lower bounds sum to {low.sum():.3f}, upper to "
            f"{high.sum():.3f}; relax min_share, max_share or max_epochs."
        )
    weights = counts.astype(np.float64) ** alpha
    if flat.any() and not flat.all():
        weights[flat] = weights[~flat].min()
    elif flat.any():
        weights[:] = 1.0
    small, large = 0.0, 1.0 / weights.min()
    for _ in range(200):
        middle = (small + large) / 2
        if np.clip(weights * middle, low, high).sum() < 1:
            small = middle
        else:
            large = middle
    found = np.clip(weights * large, low, high)
    return found / found.sum()


class Plan:
    """The stream of blocks of a run.

    Args:
        counts: blocks a language (``BlockStore.counts``).
        sampling: the rule, or just alpha.
        seed: of the stream.

    Attributes:
        languages: sorted; ``draw_arrays`` gives indices into it.

    Raises:
        ValueError: no language, a language without a block, or bounds that cannot be met.
    """

    def __init__(self, counts: Mapping[str, int], sampling: Sampling | float = 0.3, seed: int = 42) -> None:
        self.sampling = sampling if isinstance(sampling, Sampling) else Sampling(alpha=sampling)
        self.seed = seed
        self.languages = sorted(counts)
        empty = [language for language in self.languages if counts[language] < 1]
        if not counts or empty:
            raise ValueError(f"nothing to draw from: {', '.join(empty) or 'no languages'} without blocks.")
        self._counts = np.array([counts[language] for language in self.languages], np.int64)
        self._size = _ROUND * math.ceil(4 * len(counts) / _ROUND)
        self._starts, self._p = self._phases()
        # expected draws before each phase: (phases, L)
        lengths = np.diff(self._starts)[:, None] * self._size
        self._before = np.concatenate([np.zeros((1, len(counts))), np.cumsum(lengths * self._p[:-1], axis=0)])
        self._offset = uniform(seed, 1, np.arange(len(counts)))
        self._latest: _Round | None = None

    def _phases(self) -> tuple[np.ndarray, np.ndarray]:
        """First round and shares of each stretch of the alpha schedule: (phases,), (phases, L)."""
        rule, counts = self.sampling, self._counts
        unknown = sorted(set(rule.flat) - set(self.languages))
        if unknown:
            raise ValueError(f"flat names languages that are not there: {', '.join(unknown)}.")
        flat = np.isin(self.languages, list(rule.flat))
        high = np.full(len(counts), rule.max_share)
        if rule.max_epochs is not None and rule.total:
            high = np.minimum(high, rule.max_epochs * counts / rule.total)
        low = np.minimum(rule.min_share, high)
        stretches = [(0, rule.alpha), *((round(start / self._size), alpha) for start, alpha in rule.schedule)]
        return (
            np.array([start for start, _ in stretches], np.int64),
            np.stack([shares(counts, alpha, flat, low, high) for _, alpha in stretches]),
        )

    def probabilities(self, index: int = 0) -> dict[str, float]:
        """Share of each language around a sample index."""
        phase = int(np.searchsorted(self._starts, index // self._size, side="right")) - 1
        return dict(zip(self.languages, self._p[phase].tolist()))

    def _expected(self, rounds: float) -> np.ndarray:
        """Expected draws of each language in the first ``rounds`` rounds: (L,)."""
        phase = int(np.searchsorted(self._starts, rounds, side="right")) - 1
        expected: np.ndarray = self._before[phase] + (rounds - self._starts[phase]) * self._size * self._p[phase]
        return expected

    def _drawn(self, rounds: int) -> np.ndarray:
        """Draws of each language in the first ``rounds`` rounds: (L,) int64."""
        return np.floor(self._expected(rounds) + self._offset).astype(np.int64)

    def _make_round(self, number: int) -> _Round:
        before, after = self._drawn(number), self._drawn(number + 1)
        many = after - before
        sequence = np.repeat(np.arange(len(many)), many)
        language = sequence[np.argsort(bits(self.seed, 2, number, np.arange(len(sequence))), kind="stable")]
        nth = np.empty_like(language)  # which draw of its language each sample is, counted from the run's start
        nth[np.argsort(language, kind="stable")] = np.arange(len(sequence)) + np.repeat(
            before - (np.cumsum(many) - many), many
        )
        size = self._counts[language]
        return _Round(int(before.sum()), language, permuted(nth % size, size, self.seed, 3, language, nth // size))

    def _round_with(self, index: int) -> _Round:
        """The round that holds a sample; asking for neighbours again is cheap."""
        found = self._latest
        if found is None or not 0 <= index - found.first < len(found.language):
            number = index // self._size  # off by one at most: rounds differ from the mean by less than a quarter
            while int(self._drawn(number).sum()) > index:
                number -= 1
            while int(self._drawn(number + 1).sum()) <= index:
                number += 1
            found = self._latest = self._make_round(number)
        return found

    def draw_arrays(self, samples: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples by their numbers, (n,), in any order: indices into ``languages`` and block numbers, both (n,) int64.

        Raises:
            ValueError: a negative number.
        """
        numbers = np.asarray(samples, np.int64)
        if (numbers < 0).any():
            raise ValueError(f"there is no sample {numbers.min()}: numbers start at 0.")
        language, block = np.full_like(numbers, -1), np.empty_like(numbers)
        while (left := np.flatnonzero(language < 0)).size:
            found = self._round_with(int(numbers[left[0]]))
            place = numbers - found.first
            here = (place >= 0) & (place < len(found.language))
            language[here], block[here] = found.language[place[here]], found.block[place[here]]
        return language, block

    def draws(self, samples: Sequence[int] | np.ndarray) -> list[Draw]:
        """Samples by their numbers, in any order."""
        language, block = self.draw_arrays(samples)
        return [Draw(*row) for row in zip(samples, (self.languages[i] for i in language.tolist()), block.tolist())]

    def __reduce__(self) -> tuple[Any, ...]:
        """Worker processes build their own plan: it is a function of these three."""
        return (Plan, (dict(zip(self.languages, self._counts.tolist())), self.sampling, self.seed))

    def table(self, total: int | None = None) -> list[dict[str, Any]]:
        """One row a language: blocks, probability (at the start), and with a total the expected draws and epochs."""
        total = total or self.sampling.total
        columns = {"language": self.languages, "blocks": self._counts.tolist(), "probability": self._p[0].tolist()}
        if total is not None:
            draws = self._expected(total / self._size)
            columns |= {"draws": draws.tolist(), "epochs": (draws / self._counts).tolist()}
        rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
        return sorted(rows, key=lambda row: (-row["probability"], row["language"]))

    def save(self, path: str | Path, total: int | None = None) -> None:
        """Write the rule, the seed and the table as JSON; equal files mean equal streams."""
        rule = {**vars(self.sampling), "schedule": [list(row) for row in self.sampling.schedule]}
        rule["flat"] = sorted(self.sampling.flat)
        content = {"seed": self.seed, **rule, "languages": self.table(total)}
        atomic_write(path, json.dumps(content, indent=1) + "\n")


def format_table(rows: Sequence[Mapping[str, Any]], most: int = 20) -> str:
    """The table of :meth:`Plan.table` for people: the first and last rows if there are many."""
    lines = [f"{'language':<10} {'blocks':>10} {'probability':>11} {'epochs':>9}"]
    shown = list(rows) if len(rows) <= most else [*rows[: most // 2], None, *rows[-(most // 2) :]]
    for row in shown:
        if row is None:
            lines.append(f"{'...':<10} {len(rows) - most} more")
            continue
        epochs = f"{row['epochs']:9.2f}" if "epochs" in row else f"{'':9}"
        lines.append(f"{row['language']:<10} {row['blocks']:>10,} {row['probability']:>11.5f} {epochs}")
    return "\n".join(lines)
