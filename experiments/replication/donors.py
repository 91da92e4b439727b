"""How well a model's ways to rank source languages find good ones, as a table made from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langsamp.eval.results import stats
from langsamp.eval.results.records import Record

RANKERS = ("language+script-row", "language-row", "centroid", "english", "random")
Values = dict[tuple[str, str], float]  # (target, seed of the model) -> value


def table(runs: Mapping[str, Sequence[Record]]) -> list[str]:
    """Lines of Markdown; none if no model has records of donors.

    Every ranking is judged by the transfer of its own model. "english" always takes English, "random" is the mean over
    all orders. Means over targets and seeds; the interval is that of the regret (in points of macro-F1) against always
    taking English, paired by target and seed.
    """
    rows = [row for name, found in runs.items() for ranker in RANKERS if (row := _row(name, ranker, found))]
    head = ["| model | ranker | targets | NDCG@3 | regret | regret − English's |", "|---|---|--:|--:|--:|---|"]
    return [*head, *rows] if rows else []


def _row(model: str, ranker: str, found: Sequence[Record]) -> str:
    quality, regret = _values(found, f"ndcg@3_{ranker}"), _values(found, f"regret_{ranker}")
    if not regret:
        return ""
    targets, _ = matrix(regret, regret)
    means = " | ".join(f"{100 * np.mean([*values.values()]):.1f}" if values else "" for values in (quality, regret))
    gain = "" if ranker == "english" else _interval(matrix(regret, _values(found, "regret_english"))[1])
    return f"| {model} | {ranker} | {len(targets)} | {means} | {gain} |"


def _values(found: Sequence[Record], metric: str) -> Values:
    seed = {record.model: record.model.rpartition("-")[2] for record in found}
    return {(r.code, seed[r.model]): r.value for r in found if r.task == "donors" and r.metric == metric and r.code}


def matrix(a: Values, b: Values) -> tuple[list[str], list[list[float]]]:
    """The targets that both have for every seed that both have, and for each the differences a - b, one a seed."""
    shared = a.keys() & b.keys()
    seeds = sorted({seed for _, seed in shared})
    targets = sorted({target for target, _ in shared})
    targets = [target for target in targets if all((target, seed) in shared for seed in seeds)]
    return targets, [[a[target, seed] - b[target, seed] for seed in seeds] for target in targets]


def _interval(differences: list[list[float]]) -> str:
    if not differences:
        return ""
    value, *ends = (None if n is None else f"{100 * n:+.1f}" for n in stats.bootstrap_mean(differences))
    return f"{value} [{ends[0]}, {ends[1]}]".replace("-", "−") if ends[0] else f"{value}".replace("-", "−")
