from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from langsamp.eval.results import stats


@pytest.mark.parametrize(
    ("differences", "statistic", "p"),
    [
        ([1, 2, 3], 6, 2 / 8),  # the only rank sum as extreme is 0 or 6
        ([1, -2, 3, 4], 8, 2 * 3 / 16),  # negative sum 2: {}, {1}, {2} of 16
        ([1, 1, -1], 4, 1),  # ties share rank 2
        ([0, 1, 2], 3, 2 / 4),  # the zero is left out
        ([-5], 0, 1),
        ([0, 0], 0, 1),
        ([], 0, 1),
    ],
)
def test_wilcoxon_by_hand(differences, statistic, p):
    result = stats.wilcoxon(differences)
    assert result.statistic == statistic
    assert result.p == pytest.approx(p)
    assert result.n == sum(d != 0 for d in differences)


def test_wilcoxon_equals_enumeration_of_all_signs_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes = rng.integers(1, 4, size=9)
        ranks = [np.mean([r for r, s in enumerate(sorted(sizes), 1) if s == size]) for size in sizes]
        signs = rng.choice([-1, 1], size=9)
        observed = sum(r for r, s in zip(ranks, signs) if s > 0)
        sums = [sum(r for r, s in zip(ranks, draw) if s) for draw in itertools.product([0, 1], repeat=9)]
        low = min(observed, sum(ranks) - observed)
        expected = min(1, 2 * np.mean([value <= low + 1e-9 for value in sums]))
        assert stats.wilcoxon(sizes * signs).p == pytest.approx(expected)


def test_wilcoxon_equals_scipy_without_ties():
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    for n in (6, 25, 50):
        values = rng.normal(0.3, 1, n)
        assert stats.wilcoxon(values).p == pytest.approx(scipy_stats.wilcoxon(values, method="exact").pvalue)


def test_wilcoxon_of_300_languages_is_exact_and_close_to_the_normal_approximation():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(2).normal(0.1, 1, 300)
    assert stats.wilcoxon(values).p == pytest.approx(scipy_stats.wilcoxon(values).pvalue, rel=0.02)
    everything_better = stats.wilcoxon(np.arange(1, 301))
    assert 0 < everything_better.p == pytest.approx(2 / 2.0**300)


def test_wilcoxon_of_more_languages_than_powers_of_two_fit_a_number():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.round(np.random.default_rng(3).normal(0.05, 1, 1300), 2)  # with ties
    assert stats.wilcoxon(values).p == pytest.approx(scipy_stats.wilcoxon(values).pvalue, rel=0.02)


def test_rounding_noise_is_a_tie():
    assert stats.wilcoxon([0.3 - 0.2, 0.1, -0.1]).p == 1
    assert stats.wilcoxon([0.1 + 0.2 - 0.3, 1, 2]).n == 2


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0]
    assert stats.holm([0.04]) == [0.04]
    assert stats.holm([]) == []


def test_effect_sizes_by_hand():
    assert stats.rank_biserial([1, -2, 3, 4]) == pytest.approx((8 - 2) / 10)
    assert stats.rank_biserial([1, 1]) == 1
    assert stats.rank_biserial([0, 0]) == 0
    assert stats.cohen_d([1, 3]) == pytest.approx(2 / math.sqrt(2))
    assert stats.cohen_d([2, 2, 2]) is None
    assert stats.cohen_d([0.3 - 0.2, 0.1]) is None  # equal but for rounding
    assert stats.cohen_d([1]) is None


def test_bootstrap_by_hand():
    # resamples of {0, 0, 1, 1} have the means 0 and 1 with chances 1/16 each
    assert stats.bootstrap_mean([0, 0, 1, 1]) == (0.5, 0, 1)
    assert stats.paired_bootstrap([1, 5, 9, 2], [1.5, 5.5, 9.5, 2.5]) == (0.5, 0.5, 0.5)  # a constant gain is certain


def test_three_languages_say_nothing_about_others():
    for values in ([3.0], [3.0, 4.0], [3.0, 4.0, 8.0]):
        mean = pytest.approx(sum(values) / len(values))
        assert stats.bootstrap_mean(values) == (mean, None, None)
        assert stats.paired_bootstrap([0.0] * len(values), values) == (mean, None, None)
    matrix = np.array([[np.nan, 1.0, 2.0], [1.0, np.nan, 6.0], [2.0, 6.0, np.nan]])
    assert stats.bootstrap_pairs(matrix) == (3, None, None)


def test_a_bootstrap_over_pairs_equals_plain_loops():
    rng = np.random.default_rng(6)
    matrix = rng.random((6, 6))
    np.fill_diagonal(matrix, np.nan)
    matrix[1, 2] = matrix[2, 1] = np.nan  # languages without a common sentence
    means = []
    for times in stats._times(6, 0, 9, 0, 500):
        drawn = np.repeat(np.arange(6), times.astype(int))
        part = matrix[np.ix_(drawn, drawn)]  # one that is drawn twice makes no pair with itself
        means.append(np.nanmean(part) if np.isfinite(part).any() else np.nan)
    got = stats.bootstrap_pairs(matrix, resamples=500, seed=9)
    assert got == pytest.approx((np.nanmean(matrix), *np.nanquantile(means, [0.025, 0.975])))


def test_the_draws_and_an_interval_never_change():
    assert stats._times(5, 0, 0, 0, 3).tolist() == [[0, 2, 1, 1, 1], [0, 1, 2, 1, 1], [1, 0, 1, 1, 2]]
    assert stats._times(5, 0, 0, 1, 3).tolist() == stats._times(5, 0, 0, 0, 3)[1:].tolist()  # a block is a part
    assert stats.paired_bootstrap([0.1, 0.2, 0.3, 0.4], [0.15, 0.2, 0.4, 0.45]) == (0.05, 0.0125, 0.0875)


def test_draws_are_uniform_and_streams_differ():
    times, other_stream, other_seed = (stats._times(7, *which, 0, 10_000) for which in ((0, 0), (1, 0), (0, 1)))
    assert times.sum(0) == pytest.approx(np.full(7, 10_000), rel=0.05)
    assert set(times.sum(1)) == {7}
    for other in (other_stream, other_seed):
        assert abs(np.corrcoef(times[:, 0], other[:, 0])[0, 1]) < 0.05


def test_bootstrap_equals_plain_loops():
    a, b = np.random.default_rng(3).random((2, 6, 3))
    times = (stats._times(n, s, 9, 0, 500).astype(int) for n, s in ((6, 0), (3, 1), (3, 2)))
    languages, seeds_a, seeds_b = ([np.repeat(np.arange(len(row)), row) for row in part] for part in times)
    means = []
    for r in range(500):
        total = 0.0
        for i in languages[r]:
            total += sum(b[i, s] for s in seeds_b[r]) / 3 - sum(a[i, s] for s in seeds_a[r]) / 3
        means.append(total / 6)
    got = stats.paired_bootstrap(a, b, resamples=500, seed=9)
    assert got == pytest.approx((b.mean() - a.mean(), *np.quantile(means, [0.025, 0.975])))


def test_the_interval_holds_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(300):
        interval = stats.bootstrap_mean(rng.normal(1, 1, 40), resamples=1000)
        hits += interval.low <= 1 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_seeds_that_shift_all_languages_widen_the_interval():
    languages = np.linspace(0.4, 0.6, 50)
    quiet = stats.bootstrap_mean(np.stack([languages] * 4, axis=1))
    shifted = stats.bootstrap_mean(languages[:, None] + np.array([-0.1, 0.1, -0.1, 0.1]))
    assert shifted.value == pytest.approx(quiet.value)
    assert shifted.high - shifted.low > 3 * (quiet.high - quiet.low)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.bootstrap_mean([]), "shape"),
        (lambda: stats.bootstrap_mean([1, float("nan")]), "finite"),
        (lambda: stats.paired_bootstrap([1, 2], [1, 2, 3]), "same languages: 2 and 3"),
        (lambda: stats.wilcoxon([1, float("nan")]), "finite"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
