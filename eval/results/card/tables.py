"""Numbers of a model card: records to an evaluation table with intervals, training facts to a language table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langsamp.eval.results.card.metadata import language_name
from langsamp.eval.results.records import Record, base_metric

PAPER_LAYER = 8  # the layer of the paper's retrieval protocol; shown alone where many layers were measured
RESAMPLES = 2000

TASKS = {
    "sr-bible": "Sentence retrieval, Bible",
    "sr-tatoeba": "Sentence retrieval, Tatoeba",
    "taxi1500": "Topic classification, Taxi1500",
    "sib200": "Topic classification, SIB-200",
    "ner": "Named entities",
    "pos": "Parts of speech",
    "sr-cldr": "Sentence retrieval, CLDR phrases",
    "lm": "Masked language modelling",
    "neutrality": "Language neutrality",
    "embedding-map": "Map of the language vectors",
    "donors": "Choice of the source language",
}

DRAWN = ("pca_x", "pca_y", "row_norm")  # what the map of the languages is drawn from: no scores, so no mean of them
HEADLINES = ("acc@10", "macro_f1", "f1", "loss")  # shown first in the table of all languages

Group = tuple[str, str, str, int, str, str]  # task, metric, direction, layer, source, model


@dataclass(frozen=True)
class Score:
    """One row of the evaluation table: the mean over languages, its interval, and the languages at both ends."""

    task: str
    metric: str
    setting: str
    model: str
    languages: int
    mean: float
    low: float | None
    high: float | None
    worst: str
    best: str

    def show(self, value: float | None) -> str:
        """A value as the table prints it: shares in percent, everything else (losses) as it is."""
        return "" if value is None else format_value(self.metric, value)


def format_value(metric: str, value: float) -> str:
    """``acc@10`` 0.4512 -> ``45.1``; ``loss`` 2.13456 -> ``2.135``."""
    share = metric.startswith(("acc", "macro_f1", "f1", "accuracy")) and 0 <= value <= 1
    return f"{100 * value:.1f}" if share else f"{value:.3f}"


def scores(records: Iterable[Record]) -> tuple[list[Score], int]:
    """The evaluation table, and how many rows were left out because other layers stand for them.

    Seeds are averaged within a language first, then languages are averaged with equal weight, as in the paper. The 95 %
    interval is the percentile bootstrap over languages; a number over several languages keeps its own interval. Where
    several models have a row, it is over the languages that all of them have.
    """
    groups: dict[Group, list[Record]] = defaultdict(list)
    for record in records:
        metric, _ = base_metric(record.metric)
        if metric in DRAWN or "_pca_variance_" in metric:
            continue
        groups[_group(record, metric)].append(record)
    kept = _one_layer(sorted(groups, key=_order))
    return [_score(group, _common(group, groups)) for group in kept], len(groups) - len(kept)


def by_language(records: Iterable[Record], limit: int = 8) -> tuple[list[str], dict[str, list[str]]]:
    """Every language's value in up to ``limit`` columns: (column titles, language -> cells)."""
    values: dict[str, dict[Group, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.code and base_metric(record.metric)[1] is None and record.metric not in DRAWN:
            values[record.code][_group(record, record.metric)].append(record.value)
    columns = _one_layer(sorted({group for row in values.values() for group in row}, key=_order))
    columns = sorted(columns, key=lambda group: group[1] not in HEADLINES)[:limit]
    several = len({group[5] for group in columns}) > 1
    titles = [
        " ".join(part for part in (task, metric, arrow(direction), model if several else "") if part)
        for task, metric, direction, _, _, model in columns
    ]
    table = {
        code: [format_value(group[1], float(np.mean(row[group]))) if group in row else "" for group in columns]
        for code, row in sorted(values.items())
    }
    return titles, table


def language_rows(sampling: Sequence[Mapping[str, Any]], languages: Sequence[str]) -> list[dict[str, str]]:
    """The table of languages: name, code, blocks in the corpus, share of the blocks drawn in training, in percent."""
    if not sampling:
        return [{"name": language_name(code), "code": code, "blocks": "", "share": ""} for code in languages]
    total = sum(float(row.get("probability") or 0) for row in sampling) or 1.0
    rows = sorted(sampling, key=lambda row: (-float(row.get("probability") or 0), str(row["language"])))
    return [
        {
            "name": language_name(str(row["language"])),
            "code": str(row["language"]),
            "blocks": f"{int(row['blocks']):,}" if row.get("blocks") is not None else "",
            "share": f"{100 * float(row.get('probability') or 0) / total:.2f}",
        }
        for row in rows
    ]


def _group(record: Record, metric: str) -> Group:
    layer = -1 if record.layer is None else record.layer
    return record.task, metric, record.direction or "", layer, record.source or "", record.model


def arrow(direction: str) -> str:
    """``en->x`` with a real arrow."""
    return direction.replace("->", "→")


def _order(group: Group) -> tuple[Any, ...]:
    """Sorts by task, measure (``acc@5`` before ``acc@10``), setting, model."""
    task, metric, direction, layer, source, model = group
    name, _, number = metric.partition("@")
    return task, name, int(number) if number.isdigit() else 0, metric, direction, layer, source, model


def _common(group: Group, groups: Mapping[Group, list[Record]]) -> list[Record]:
    """The records of a group, of those languages only that every model with this row has."""
    rivals = [records for other, records in groups.items() if other[:5] == group[:5]]
    shared = set.intersection(*({record.code for record in records} for records in rivals))
    return [record for record in groups[group] if record.code in shared] if shared else groups[group]


def _one_layer(groups: list[Group]) -> list[Group]:
    """Where more than two layers were measured, keep the paper's layer, or the last one."""
    layers: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for task, metric, direction, layer, source, model in groups:
        layers[task, metric, direction, source, model].append(layer)
    kept = []
    for group in groups:
        measured = layers[group[0], group[1], group[2], group[4], group[5]]
        chosen = measured if len(measured) <= 2 else [PAPER_LAYER if PAPER_LAYER in measured else max(measured)]
        if group[3] in chosen:
            kept.append(group)
    return kept


def _score(group: Group, records: list[Record]) -> Score:
    task, metric, direction, layer, source, model = group
    setting = ", ".join(
        part
        for part in (arrow(direction), f"layer {layer}" if layer >= 0 else "", f"from {source}" if source else "")
        if part
    )
    seeds: dict[str, list[float]] = defaultdict(list)
    bounds: dict[str, list[float]] = defaultdict(list)
    for record in records:
        bound = base_metric(record.metric)[1]
        if bound:
            bounds[f"{record.code}/{bound}"].append(record.value)
        else:
            seeds[record.code or ""].append(record.value)
    overall = seeds.pop("", None)
    means = {code: float(np.mean(values)) for code, values in sorted(seeds.items())}
    if not means:  # a number over several languages only
        mean = float(np.mean(overall or [np.nan]))
        low, high = (_mean(bounds.get(f"None/{bound}")) for bound in ("lo", "hi"))
        return Score(task, metric, setting, model, 0, mean, low, high, "", "")
    if len(means) == 1:
        code = next(iter(means))
        low, high = (_mean(bounds.get(f"{code}/{bound}")) for bound in ("lo", "hi"))
    else:
        low, high = _bootstrap(np.array(list(means.values())))
    order = sorted(means, key=lambda code: (means[code], code))
    if "loss" in metric or "perplexity" in metric:
        order.reverse()
    ends = [f"{code} {format_value(metric, means[code])}" for code in (order[0], order[-1])]
    return Score(task, metric, setting, model, len(means), float(np.mean(list(means.values()))), low, high, *ends)


def _bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over languages; seeded, so a card is reproducible."""
    picks = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _mean(values: list[float] | None) -> float | None:
    return float(np.mean(values)) if values else None
