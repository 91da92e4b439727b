"""The short tables of `docs/replication.md`: what an experiment says of the claims, filled in between marks.

<!-- table: e5 against the baseline -->
...
<!-- end of table -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import Cell
from langsamp.eval.results.compare import Comparison
from langsamp.eval.results.stats import Interval

from . import donors
from .contrasts import TAIL, TRAINED, UNTRAINED, Group, Part, Runs, clear, paired
from .variants import ZERO, about

MARK = re.compile(r"(<!-- table: ([^\n]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
EMPTY = "–"


@dataclass(frozen=True)
class Column:
    """A measure over a group of languages."""

    name: str
    group: Group
    measure: str

    def part(self, parts: Sequence[Part]) -> Part | None:
        """The part of the group, if it has the measure."""
        found = (part for part in parts if part.group is self.group and self.measure in part.columns.values())
        return next(found, None)


BIBLE = "SR-Bible Acc@10"
CLAIMS = (
    Column(BIBLE, TRAINED, BIBLE),
    Column("in the tail", TAIL, BIBLE),
    Column("not trained on", UNTRAINED, BIBLE),
    Column("SR-Tatoeba Acc@10", TRAINED, "SR-Tatoeba Acc@10"),
    Column("centred cosine", TRAINED, "centred cosine"),
    Column("SIB-200 probe F1", TRAINED, "SIB-200 probe F1"),
    Column("SIB-200 fine-tuned F1", TRAINED, "SIB-200 fine-tuned F1"),
    Column("LM loss", TRAINED, "LM loss"),
)
BACK = (
    Column("SR-Bible, x→en", TRAINED, "SR-Bible Acc@10, x→en"),
    Column("SR-Tatoeba, x→en", TRAINED, "SR-Tatoeba Acc@10, x→en"),
)
MORE = (
    *BACK,
    Column("SR-Tatoeba, not trained on", UNTRAINED, "SR-Tatoeba Acc@10"),
    Column("language guessed", TRAINED, "language guessed"),
    Column("Taxi1500 probe F1", TRAINED, "Taxi1500 probe F1"),
    Column("Taxi1500 fine-tuned F1", TRAINED, "Taxi1500 fine-tuned F1"),
    Column("NER F1", TRAINED, "NER F1"),
    Column("POS accuracy", TRAINED, "POS accuracy"),
)
RETRIEVAL = (Column(BIBLE, TRAINED, BIBLE), BACK[0], Column("SR-Tatoeba Acc@10", TRAINED, "SR-Tatoeba Acc@10"), BACK[1])
PROBES = (
    Column("SIB-200 probe F1", TRAINED, "SIB-200 probe F1"),
    Column("SIB-200 probe F1, not trained on", UNTRAINED, "SIB-200 probe F1"),
    Column("Taxi1500 probe F1", TRAINED, "Taxi1500 probe F1"),
)
UNKNOWN = (
    Column("LM loss without ids, trained on", TRAINED, "LM loss without ids"),
    Column("LM loss, not trained on", UNTRAINED, "LM loss"),
    Column("LM loss with ids", TRAINED, "LM loss"),
    Column(BIBLE, TRAINED, BIBLE),
)


def tables(parts: Sequence[Part], runs: Runs) -> dict[str, list[str]]:
    """Every table of an experiment by its name, as lines of Markdown; a table without rows is left out."""
    others = [name for name in runs if name not in ("start", "baseline", ZERO)]
    found = {
        "means": _means(parts, [name for name in runs if name != ZERO]),
        "against the baseline": _against("baseline", others, CLAIMS, parts),
        "against the start": _against("start", ["baseline", *others], CLAIMS, parts),
        "the other direction": _against("baseline", ["both", "bias"], BACK, parts),
        "unknown rows": _against("baseline", [ZERO, "both", "fitted", "late", "dropout"], UNKNOWN, parts),
        "claims": _claims(parts),
        "probes by layer": by_layer(parts, PROBES),
        "retrieval with CSLS": by_layer(parts, RETRIEVAL, "_csls"),
        "map": _map(runs),
        "donors": donors.table(runs),
    }
    return {name: lines for name, lines in found.items() if lines}


def fill(document: str, found: Mapping[str, list[str]]) -> str:
    """The document with the tables between its marks replaced; a table of an experiment that was not run stays.

    Raises:
        ValueError: an experiment that was run has no such table.
    """
    experiments = {name.partition(" ")[0] for name in found}

    def filled(match: re.Match[str]) -> str:
        """The marks with their table."""
        head, name, end = match.groups()
        if name in found:
            return "\n".join([head, *found[name], "", end])
        if name.partition(" ")[0] in experiments:
            raise ValueError(f"there is no table {name!r}; there are: {', '.join(found)}.")
        return match[0]

    return MARK.sub(filled, document)


def seeds(runs: Runs) -> str:
    """How many models of each variant were measured."""
    return ", ".join(f"{name} {len({r.model for r in found})}" for name, found in runs.items())


def _means(parts: Sequence[Part], names: Iterable[str]) -> list[str]:
    """Means over languages and seeds, one row a variant."""
    shown = {column: part for column in CLAIMS if (part := column.part(parts))}
    rows = []
    for name in names:
        values = [_mean(part, name, _cell(part, column.measure)) for column, part in shown.items()]
        rows.append(f"| {about(name)} | " + " | ".join(values) + " |")
    return [*_head("layer " + _layer(parts), shown, "--:"), *rows] if shown else []


def _mean(part: Part, variant: str, cell: Cell) -> str:
    records = part.values.get(variant, {}).get(cell, [])
    return catalog.metric(cell.metric).show(float(np.mean([r.value for r in records]))) if records else EMPTY


def _cell(part: Part, measure: str) -> Cell:
    return next(cell for cell, name in part.columns.items() if name == measure)


def _layer(parts: Sequence[Part]) -> str:
    return str(next(cell.layer for part in parts for cell in part.columns if cell.layer))


def _against(first: str, names: Iterable[str], columns: Sequence[Column], parts: Sequence[Part]) -> list[str]:
    """Differences from one variant, with intervals; bold where they are clear."""
    shown = {column: part for column in columns if (part := column.part(parts))}
    rows = []
    for name in names:
        values = [_difference(part.comparisons, first, name, _cell(part, c.measure)) for c, part in shown.items()]
        if set(values) != {EMPTY}:
            rows.append(f"| {about(name)} | " + " | ".join(values) + " |")
    return [*_head(f"minus {first}", shown, "---"), *rows] if rows else []


def _claims(parts: Sequence[Part]) -> list[str]:
    """One row a claim: LangSAMP against the baseline, what a control gains there, and the verdict."""
    rows = []
    for column in (*CLAIMS, *MORE):
        part = column.part(parts)
        cell = _cell(part, column.measure) if part else None
        entry = _entry(part.comparisons, "baseline", "both", cell) if part and cell else None
        if part and cell and entry:
            means = [_mean(part, name, cell) for name in ("start", "baseline", "both")]
            against = [_difference(part.comparisons, "baseline", name, cell) for name in ("both", "bias")]
            row = [column.name, str(entry.n), *means, *against, _verdict(entry)]
            rows.append("| " + " | ".join(row) + " |")
    head = [
        "",
        "languages",
        "start",
        "baseline",
        "LangSAMP",
        "LangSAMP − baseline",
        "one row for all − baseline",
        "better?",
    ]
    return ["| " + " | ".join(head) + " |", "|---|--:|--:|--:|--:|---|---|---|", *rows] if rows else []


def by_layer(parts: Sequence[Part], columns: Sequence[Column], ending: str = "") -> list[str]:
    """Measures at every layer that all three have, not the protocol's alone; a search: no difference is corrected.

    `ending` is that of the metrics' names, of a measure that is taken otherwise than in the protocol.
    """
    rows = []
    for column in columns:
        if (part := column.part(parts)) is None:
            continue
        protocol = _cell(part, column.measure)
        protocol = protocol._replace(metric=protocol.metric + ending)
        layers = {cell.layer for cell in part.values.get("both", {}) if cell == protocol._replace(layer=cell.layer)}
        for cell in (protocol._replace(layer=layer) for layer in sorted(filter(None, layers))):
            means = [_mean(part, name, cell) for name in ("start", "baseline", "both")]
            if EMPTY in means:
                continue
            pairs = (("baseline", "both"), ("baseline", "bias"), ("start", "both"))
            found = [paired(cell, part.runs.get(a, []), part.runs.get(b, [])) for a, b in pairs]
            row = [column.name, str(cell.layer), *means, *(_interval(cell, one and one.mean) for one in found)]
            rows.append("| " + " | ".join(row) + " |")
    head = [
        "| | layer | start | baseline | LangSAMP | LangSAMP − baseline | one row for all − baseline "
        "| LangSAMP − start |",
        "|---|--:|--:|--:|--:|---|---|---|",
    ]
    return [*head, *rows] if rows else []


def _verdict(entry: Comparison) -> str:
    """Whether the claim is seen in these languages, and how surely."""
    if not clear(entry):
        return "not seen"
    return "**seen**" if (entry.difference.value > 0) == (entry.metric.better > 0) else "**reversed**"


def _map(runs: Runs) -> list[str]:
    """How often the nearest rows share a script or a family, beside chance: means over seeds."""
    rows = []
    for name, found in runs.items():
        values: dict[str, list[float]] = {}
        for record in found:
            if record.task == "embedding-map" and record.metric.startswith("purity_"):
                values.setdefault(record.metric, []).append(100 * record.value)
        if values:
            cells = [
                f"{np.mean(values[f'purity_{kind}@5']):.1f} ({np.mean(values[f'purity_{kind}@5_chance']):.1f})"
                for kind in ("script", "family")
            ]
            rows.append(f"| {about(name)} | " + " | ".join(cells) + " |")
    head = ["| 5 nearest rows, % (by chance) | same script | same family |", "|---|--:|--:|"]
    return [*head, *rows] if rows else []


def _head(title: str, shown: Mapping[Column, Part], rule: str) -> list[str]:
    names = [f"{column.name} (n={_languages(part, column.measure)})" for column, part in shown.items()]
    return [f"| {title} | " + " | ".join(names) + " |", "|---|" + f"{rule}|" * len(shown)]


def _languages(part: Part, measure: str) -> int:
    cell = _cell(part, measure)
    return len({r.code for by_cell in part.values.values() for r in by_cell.get(cell, [])})


def _difference(found: Sequence[Comparison], a: str, b: str, cell: Cell) -> str:
    if (entry := _entry(found, a, b, cell)) is None:
        return EMPTY
    return _interval(cell, entry.difference, "**" if clear(entry) else "")


def _interval(cell: Cell, difference: Interval | None, mark: str = "") -> str:
    """A difference with its interval, in the measure's units."""
    if difference is None:
        return EMPTY
    show = catalog.metric(cell.metric).show
    value, low, high = (None if v is None else show(v, True) for v in difference)
    return f"{mark}{value}{mark}" + (f" [{low}, {high}]" if low and high else "")


def _entry(found: Sequence[Comparison], a: str, b: str, cell: Cell) -> Comparison | None:
    return next((entry for entry in found if (entry.a, entry.b, entry.cell) == (a, b, cell)), None)
