"""Records gathered into series (one metric of one model, by language) and averaged over groups of languages.

Groups: all, head and tail (seen or not seen by XLM-R in its pretraining, as the paper has it), Latin and other scripts,
and every script. Means are unweighted over languages; a language's value is the mean over its seeds.
Every mean and interval that is shown anywhere is made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from langsamp.core.language.xlmr import is_head
from langsamp.core.record import Record, base_metric
from langsamp.eval.results.stats import Interval, bootstrap_mean


class Cell(NamedTuple):
    """What is measured, whoever was measured: the fields that must agree for two numbers to be compared."""

    task: str
    metric: str
    layer: int | None = None
    direction: str | None = None
    source: str | None = None

    def sort_key(self) -> tuple[str, str, int, str, str]:
        """None sorts first."""
        layer = -1 if self.layer is None else self.layer
        return (self.task, self.metric, layer, self.direction or "", self.source or "")


class System(NamedTuple):
    """Who was measured: a model at a revision."""

    model: str
    revision: str | None = None


@dataclass
class Series:
    """One metric of one model: `values[code][seed]`, the code None for numbers over several languages."""

    system: System
    cell: Cell
    values: dict[str | None, dict[int | None, float]] = field(default_factory=dict)
    bounds: dict[str | None, dict[str, float]] = field(default_factory=dict)
    n: dict[str | None, int] = field(default_factory=dict)

    @property
    def languages(self) -> list[str]:
        """The codes with a value, sorted."""
        return sorted(code for code in self.values if code is not None)

    @property
    def seeds(self) -> list[int | None]:
        """All seeds of any language, None first."""
        found = {seed for by_seed in self.values.values() for seed in by_seed}
        return sorted(found, key=lambda seed: (seed is not None, seed or 0))

    def mean(self, code: str | None) -> float:
        """Mean over the seeds of a language (of None: of the number over several languages)."""
        by_seed = self.values[code]
        return sum(by_seed[seed] for seed in sorted(by_seed, key=str)) / len(by_seed)

    def interval(self, code: str | None) -> tuple[float, float] | None:
        """The recorded `_lo` and `_hi` of one language (of one seed only: intervals of several are not averaged)."""
        found = self.bounds.get(code, {})
        if len(self.values.get(code, {})) != 1 or set(found) != {"lo", "hi"}:
            return None
        return found["lo"], found["hi"]

    def matrix(self, languages: Sequence[str], among: Sequence[str] | None = None) -> list[list[float]]:
        """(languages, seeds) with the seeds that all of these (or of `among`) have; the means if there is none."""
        common = [seed for seed in self.seeds if all(seed in self.values[code] for code in among or languages)]
        if not common:
            return [[self.mean(code)] for code in languages]
        return [[self.values[code][seed] for seed in common] for code in languages]


def systems(records: Iterable[Record]) -> list[System]:
    """The models in order of first appearance."""
    return list(dict.fromkeys(System(record.model, record.revision) for record in records))


def labels(found: Iterable[System]) -> dict[System, str]:
    """Short, distinct names: the folder's name of a path, a Hub id as it is; told apart by revision, then by number."""
    found = list(dict.fromkeys(found))
    names = [_short(system.model) for system in found]
    names = [
        f"{name}@{system.revision[:7]}" if names.count(name) > 1 and system.revision else name
        for name, system in zip(names, found)
    ]
    return {
        system: f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name
        for i, (name, system) in enumerate(zip(names, found))
    }


def _short(model: str) -> str:
    parts = [part for part in model.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    is_hub_id = len(parts) == 2 and model == "/".join(parts)
    return model if is_hub_id or not parts else parts[-1]


def series(records: Iterable[Record]) -> dict[tuple[System, Cell], Series]:
    """Records gathered by model and cell, in the order of `systems` and then of the cells."""
    found: dict[tuple[System, Cell], Series] = {}
    order: dict[System, int] = {}
    for record in records:
        metric, bound = base_metric(record.metric)
        system = System(record.model, record.revision)
        cell = Cell(record.task, metric, record.layer, record.direction, record.source)
        order.setdefault(system, len(order))
        entry = found.get((system, cell)) or found.setdefault((system, cell), Series(system, cell))
        code = record.code
        if bound:
            entry.bounds.setdefault(code, {})[bound] = record.value
        else:
            entry.values.setdefault(code, {})[record.seed] = record.value
            if record.n is not None:
                entry.n[code] = record.n
    ordered = sorted(found, key=lambda pair: (order[pair[0]], pair[1].sort_key()))
    return {pair: found[pair] for pair in ordered if found[pair].values}


GROUPS = ("all", "head", "tail", "Latin script", "other scripts")


def groups(codes: Iterable[str], scripts: bool = False) -> dict[str, list[str]]:
    """Names of groups -> their languages; groups without a language are left out.

    Those of `GROUPS`; with `scripts` also one group a script (`Cyrl`), largest first.
    """
    codes = sorted(codes)
    head = [code for code in codes if is_head(code)]
    latin = [code for code in codes if code.endswith("_Latn")]
    tail, others = ([code for code in codes if code not in part] for part in (set(head), set(latin)))
    found = dict(zip(GROUPS, (codes, head, tail, latin, others)))
    if scripts:
        by_script: dict[str, list[str]] = {}
        for code in codes:
            by_script.setdefault(code.partition("_")[2] or "no script", []).append(code)
        found.update(sorted(by_script.items(), key=lambda item: (-len(item[1]), item[0])))
    return {name: members for name, members in found.items() if members}


class Aggregate(NamedTuple):
    """The mean of a series over a group of languages."""

    group: str
    n: int
    mean: Interval


def overall(entry: Series, codes: Sequence[str] | None = None, among: Sequence[str] | None = None) -> Aggregate:
    """The number over all languages (or over `codes`), with its 95 % interval.

    The recorded number over all languages if there is one and it is asked for; else the mean over languages and seeds
    with the bootstrap over both (seeds that all of `codes`, or of `among`, have); a single language has the interval
    that was recorded with it.
    """
    codes = entry.languages if codes is None else sorted(codes)
    if None in entry.values and codes == entry.languages:
        low, high = entry.interval(None) or (None, None)
        return Aggregate("all", entry.n.get(None, len(codes)), Interval(entry.mean(None), low, high))
    mean = bootstrap_mean(entry.matrix(codes, among))
    if len(codes) == 1 and (bounds := entry.interval(codes[0])):
        mean = Interval(mean.value, *bounds)
    return Aggregate("all", len(codes), mean)


def aggregate(entry: Series, codes: Sequence[str] | None = None, scripts: bool = False) -> list[Aggregate]:
    """Means of a series over the groups of its languages (or of `codes`), with 95 % intervals; `all` is `overall`."""
    whole = entry.languages if codes is None else codes
    chosen = groups(whole, scripts)
    parts = [overall(entry, members, whole)._replace(group=name) for name, members in chosen.items() if name != "all"]
    return [overall(entry, codes), *parts]
