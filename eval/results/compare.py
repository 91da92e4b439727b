"""Two models compared, language by language: records in, differences with intervals and corrected p-values out.

    comparison(read("runs/baseline"), read("runs/langsamp")) -> [Comparison, ...]

Only the languages that both have are compared, and the others are named. A result counts as better only if the
interval of the mean difference excludes zero and the corrected p-value is below 0.05.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from langsamp.core.record import Record
from langsamp.eval.results import catalog, stats
from langsamp.eval.results.aggregate import Aggregate, Cell, Series, System, groups, labels, series
from langsamp.eval.results.stats import Interval

Side = dict[Cell, Series]  # what one of two models has
ALPHA = 0.05
FEW = 6  # with fewer differences no two-sided signed-rank test reaches 0.05


@dataclass(frozen=True)
class Comparison:
    """One cell of two models, paired over the languages that both have. All differences are b minus a."""

    cell: Cell
    a: str
    b: str
    values_a: dict[str, float]
    values_b: dict[str, float]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unequal: dict[str, tuple[int, int]]  # n of both, of the languages where they differ
    seeds: tuple[int, int]
    groups: tuple[Aggregate, ...]  # of the differences
    wilcoxon: stats.Wilcoxon
    rank_biserial: float
    cohen_d: float | None
    headline: bool = False
    p_holm: float = 1.0

    @property
    def metric(self) -> catalog.Metric:
        """How the values are shown and which way is better."""
        return catalog.metric(self.cell.metric)

    @property
    def n(self) -> int:
        """Number of languages that both have."""
        return len(self.values_a)

    @property
    def mean_a(self) -> float:
        """Mean of a over the shared languages."""
        return sum(self.values_a.values()) / self.n

    @property
    def mean_b(self) -> float:
        """Mean of b over the shared languages."""
        return sum(self.values_b.values()) / self.n

    @property
    def difference(self) -> Interval:
        """Mean difference over all shared languages with its 95 % interval."""
        return self.groups[0].mean

    @cached_property
    def rows(self) -> list[tuple[str, float, float, float]]:
        """(language, a, b, b - a), rounded so that equal values differ by 0."""
        return [(code, a, self.values_b[code], round(self.values_b[code] - a, 10)) for code, a in self.values_a.items()]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Languages where b is higher, equal, lower."""
        gains = [gain for *_, gain in self.rows]
        return sum(g > 0 for g in gains), sum(g == 0 for g in gains), sum(g < 0 for g in gains)

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `higher`, `lower` (of b), `no clear difference` or `too few languages`."""
        if self.n < FEW:
            return "too few languages"
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or low <= 0 <= high or self.p_holm >= ALPHA:
            return "no clear difference"
        up = self.difference.value > 0
        if not self.metric.better:
            return "higher" if up else "lower"
        return "better" if up == (self.metric.better > 0) else "worse"

    @property
    def sentence(self) -> str:
        """The result in words, computed from the interval and the corrected p-value."""
        where = f"{catalog.describe(self.cell)}:"
        shown = (self.metric.show(self.difference.value, signed=True), self.metric.difference_unit,
                 self.metric.bounds(self.difference, signed=True))  # fmt: skip
        over = f"mean difference {' '.join(filter(None, shown))} over {self.n} language{'s' * (self.n != 1)}"
        if self.verdict == "too few languages":
            return f"{where} too few languages to tell {self.b} from {self.a} ({over})."
        ending = f"({over}, p {p_sign(self.p_holm)} after Holm's correction)."
        if self.verdict == "no clear difference":
            return f"{where} no clear difference between {self.b} and {self.a} {ending}"
        return f"{where} {self.b} is {self.verdict} than {self.a} {ending}"

    @property
    def caution(self) -> str:
        """That the two were not measured on as many sentences (tokens, ...), if so; else empty."""
        if not self.unequal:
            return ""
        named = [f"{code} ({a:,} and {b:,})" for code, (a, b) in self.unequal.items()]
        shown = ", ".join(named[:5]) + ", ..." * (len(named) > 5)
        return (
            f"{catalog.describe(self.cell)}: n differs in {len(named)} of {self.n} languages, {shown}; are data and "
            "tokenizers the same?"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            **self.cell._asdict(),
            "a": self.a,
            "b": self.b,
            "headline": self.headline,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "n": self.n,
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "unequal_n": self.unequal,
            "seeds_a": self.seeds[0],
            "seeds_b": self.seeds[1],
            "mean_a": round(self.mean_a, 10),
            "mean_b": round(self.mean_b, 10),
            "groups": [{"name": group.group, "n": group.n, **group.mean._asdict()} for group in self.groups],
            "higher_equal_lower": list(self.counts),
            "p": self.wilcoxon.p,
            "p_holm": self.p_holm,
            "rank_biserial": self.rank_biserial,
            "cohen_d": self.cohen_d,
            "languages": [{"language": code, "a": a, "b": b, "difference": gain} for code, a, b, gain in self.rows],
        }


def comparison(
    records_a: Iterable[Record], records_b: Iterable[Record], names: tuple[str, str] | None = None
) -> list[Comparison]:
    """Compare two models in every cell that both have, headlines first.

    Args:
        records_a: records of the first model (the baseline). Several models are taken for replicates of one (the same
            training with other seeds): each model is one seed.
        records_b: records of the second one.
        names: what to call them; by default the models' names.

    p-values are corrected by Holm's method over the headlines of the tasks, and apart from them over all other cells.

    Raises:
        ValueError: there is nothing that both have.
    """
    side_a, side_b = _side(records_a), _side(records_b)
    names = names or _names(side_a, side_b)
    if found := compared(side_a, side_b, names):
        return found
    raise ValueError(f"{names[0]} and {names[1]} have no task, metric and language in common: measure both on one")


def compared(side_a: Side, side_b: Side, names: tuple[str, str]) -> list[Comparison]:
    """`comparison` of records that are gathered already; empty if there is nothing that both have.

    A model without language rows has one loss only, which is also its loss without ids (`Metric.stands_in`).
    """
    side_a, side_b = _with_stand_ins(side_a, side_b), _with_stand_ins(side_b, side_a)
    shared = [
        cell for cell in side_a if cell in side_b and side_a[cell].values.keys() & side_b[cell].values.keys() - {None}
    ]
    best = {task: catalog.headline(c for c in shared if c.task == task) for task in {cell.task for cell in shared}}
    found = [
        _compare(side_a[cell], side_b[cell], names, cell, headline=cell == best[cell.task])
        for cell in sorted(shared, key=catalog.cell_order)
    ]
    return [*_corrected([c for c in found if c.headline]), *_corrected([c for c in found if not c.headline])]


def contrary(found: Iterable[Comparison]) -> list[Comparison]:
    """What speaks against the second model beside the headlines: where it is worse, in the headlines' setting."""
    found = list(found)
    settings = {entry.cell[:1] + entry.cell[2:] for entry in found if entry.headline}
    return [
        entry
        for entry in found
        if not entry.headline and entry.verdict == "worse" and entry.cell[:1] + entry.cell[2:] in settings
    ]


def _with_stand_ins(side: Side, other: Side) -> Side:
    """The side, with what stands for the measures that only the other one has."""
    found = dict(side)
    for cell in other:
        stand_in = cell._replace(metric=catalog.metric(cell.metric).stands_in)
        if cell not in side and stand_in in side:
            found[cell] = side[stand_in]
    return found


def _corrected(family: list[Comparison]) -> list[Comparison]:
    adjusted = stats.holm([entry.wilcoxon.p for entry in family])
    return [replace(entry, p_holm=p) for entry, p in zip(family, adjusted)]


def _side(records: Iterable[Record]) -> Side:
    """Series by cell; several models become the seeds of one."""
    by_system = series(record for record in records if catalog.metric(record.metric).score)
    numbers = {system: number for number, system in enumerate(dict.fromkeys(system for system, _ in by_system))}
    if len(numbers) == 1:
        return {cell: entry for (_, cell), entry in by_system.items()}
    merged: Side = {}
    for (system, cell), entry in by_system.items():
        target = merged.setdefault(cell, Series(System("several"), cell))
        for code in entry.values:
            target.values.setdefault(code, {})[numbers[system]] = entry.mean(code)
    return merged


def _names(side_a: Side, side_b: Side) -> tuple[str, str]:
    found = [next(iter(side.values())).system if side else System("nothing") for side in (side_a, side_b)]
    if found[0] == found[1]:
        return "a", "b"
    known = labels(found)
    return known[found[0]], known[found[1]]


def _compare(a: Series, b: Series, names: tuple[str, str], cell: Cell, headline: bool) -> Comparison:
    """Groups of languages are compared for headlines only; every number is over the same seeds."""
    shared = sorted(set(a.languages) & set(b.languages))
    left, right = dict(zip(shared, a.matrix(shared))), dict(zip(shared, b.matrix(shared)))
    values_a, values_b = ({code: sum(row) / len(row) for code, row in side.items()} for side in (left, right))
    gains = [values_b[code] - values_a[code] for code in shared]
    return Comparison(
        cell=cell,
        a=names[0],
        b=names[1],
        values_a=values_a,
        values_b=values_b,
        only_a=tuple(sorted(set(a.languages) - set(shared))),
        only_b=tuple(sorted(set(b.languages) - set(shared))),
        unequal={c: (a.n[c], b.n[c]) for c in shared if c in a.n and c in b.n and a.n[c] != b.n[c]},
        seeds=(len(left[shared[0]]), len(right[shared[0]])),
        groups=tuple(
            Aggregate(name, len(codes), stats.paired_bootstrap([left[c] for c in codes], [right[c] for c in codes]))
            for name, codes in groups(shared).items()
            if headline or name == "all"
        ),
        wilcoxon=stats.wilcoxon(gains),
        rank_biserial=stats.rank_biserial(gains),
        cohen_d=stats.cohen_d(gains),
        headline=headline,
    )


def show_p(p: float) -> str:
    """A p-value for people: `0.03`, `0.004`, `<0.001`."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


def p_sign(p: float) -> str:
    """With its sign: `= 0.03`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {show_p(p)}"
