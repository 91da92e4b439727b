"""Sections of the report beside the tasks: map of the languages, training curves, coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from langsamp.core.language_families import family_name, family_of
from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import System
from langsamp.eval.results.report import charts
from langsamp.eval.results.report.charts import Line, Point
from langsamp.eval.results.report.page import Page
from langsamp.eval.results.report.parts import Figure, Section, count
from langsamp.eval.results.report.tables import donor_table

_COLOURS = 9  # categories with a colour of their own; the others share one


class Place(NamedTuple):
    """A row of a table on the map."""

    name: str
    tip: str
    x: float
    y: float
    script: str | None
    family: str | None


def map_sections(page: Page) -> list[Section]:
    """The maps of the language rows and of the script rows of every model, and how pure their neighbourhoods are."""
    section = Section("task-embedding-map", *catalog.task("embedding-map")[::2])
    for system in page.systems:
        coordinates: dict[str, dict[tuple[str | None, str | None], dict[str, float]]] = {}
        untrained = []
        for record in page.records(system):
            method, _, axis = record.metric.rpartition("_")
            if record.task == "embedding-map" and method in ("pca", "umap"):
                coordinates.setdefault(method, {}).setdefault((record.language, record.script), {})[axis] = record.value
            elif record.task == "embedding-map" and record.metric == "untrained":
                untrained.append(record.code or str(record.script))
        for method, rows in coordinates.items():
            section.figures += _maps(f"{page.label(system)}: {method.upper()} of", rows)
        if untrained:
            section.notes.append(f"{page.label(system)}: {count(len(untrained), 'row')} never trained, left out: "
                                 + ", ".join(sorted(untrained)))  # fmt: skip
        section.sentences += _purity(page, system)
    return [section] if section.figures or section.sentences else []


def _maps(title: str, rows: Mapping[tuple[str | None, str | None], Mapping[str, float]]) -> Iterable[Figure]:
    """One map of the rows with a language, one of the rows that are scripts."""
    for kind in ("languages", "scripts"):
        places = []
        for (language, script), at in rows.items():
            if set(at) != {"x", "y"} or (kind == "languages") != (language is not None):
                continue
            code = "_".join(filter(None, [language, script]))
            name = catalog.language_name(code) if language else catalog.script_name(script or "")
            places.append(Place(name, f"{name} ({code})", at["x"], at["y"], script, _family(language)))
        if places:
            yield _map(f"{title} {kind}", sorted(places, key=lambda place: place.tip))


def _family(language: str | None) -> str | None:
    """The name of the family, None where it is not known (or the code is no code)."""
    try:
        family = family_of(language) if language else None
    except ValueError:
        return None
    return family_name(family) if family else None


def _purity(page: Page, system: System) -> Iterable[str]:
    """How often neighbours agree, beside chance."""
    found = {r.metric: r.value for r in page.records(system) if r.task == "embedding-map" and r.language is None}
    for metric, value in found.items():
        what, _, k = metric.removeprefix("purity_").partition("@")
        if metric.startswith("purity_") and k.isdigit() and f"{metric}_chance" in found:
            yield (
                f"{page.label(system)}: of the {k} nearest rows of a language {value:.0%} share its {what}; "
                f"by chance it would be {found[f'{metric}_chance']:.0%}."
            )


def _map(title: str, places: Sequence[Place]) -> Figure:
    scripts, families = _kinds(p.script for p in places), _kinds(p.family for p in places)
    points = []
    for p in places:
        tip = " · ".join(filter(None, [p.tip, p.script and catalog.script_name(p.script), p.family]))
        points.append(Point(p.x, p.y, p.name, tip, scripts[p.script], families[p.family]))
    names = [(kind, catalog.script_name(script) if script else "no script") for script, kind in scripts.items()]
    others = [(kind, family or "no family known") for family, kind in families.items()]
    several = len({p.family for p in places if p.family}) > 1
    if len(scripts) == len(places):  # every mark a category of its own: colours would say nothing
        points, names = [point._replace(kind="s1") for point in points], []
    xs, ys = [p.x for p in places], [p.y for p in places]
    ratio = min(2.2, max(1.1, (max(xs) - min(xs) + 1e-9) / (max(ys) - min(ys) + 1e-9))) if places else 1.5
    chart = charts.scatter(
        _spread(points), x_label="", y_label="", about=f"{title}, {len(points)} points", ratio=ratio, equal=True,
        ticks=False, named=60,
    )  # fmt: skip
    note = f"{len(points)} rows. Point at a mark for its name."
    return Figure(title, chart, note, _legend(names), _legend(others) if several else [], wide=True)


def donor_sections(page: Page) -> list[Section]:
    """For every target asked about: sources ranked by similarity, beside the measured transfer if there is one."""
    tables = []
    for system in page.systems:
        found: dict[str, dict[str, dict[str, float]]] = {}
        measured = {}
        for record in page.records(system):
            if record.task == "donors" and record.metric.startswith("similarity_") and record.code and record.source:
                ranker = record.metric.removeprefix("similarity_")
                found.setdefault(record.code, {}).setdefault(record.source, {})[ranker] = record.value
            elif record.task == "donors-transfer" and record.metric == "macro_f1":
                measured[record.code, record.source] = record.value
        for target, sources in sorted(found.items()):
            title = f"{page.label(system)}: sources for {catalog.language_name(target)} ({target})"
            own = {source: measured[target, source] for source in sources if (target, source) in measured}
            tables.append((title, donor_table(sources, own), True))
    about = (
        "Languages to annotate or to train on for a target, the most similar first; a click on a column ranks by it."
    )
    return [Section("donor-ranking", "Sources for a language", about, tables=tables)] if tables else []


def _kinds(values: Iterable[str | None]) -> dict[str | None, str]:
    """Category -> colour class: the most frequent ones get one of their own; None has none."""
    counts = Counter(values)
    ranked = sorted((value for value in counts if value), key=lambda value: (-counts[value], value))
    found: dict[str | None, str] = {value: f"c{i}" if i < _COLOURS else "rest" for i, value in enumerate(ranked)}
    return {**found, None: "none"} if None in counts else found


def _legend(entries: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """One entry for all categories without a colour of their own."""
    rest = [name for kind, name in entries if kind == "rest"]
    shown_ones = [(kind, name) for kind, name in entries if kind != "rest"]
    return [*shown_ones, ("rest", f"{len(rest)} others" if len(rest) > 1 else rest[0])] if rest else shown_ones


def _spread(points: Sequence[Point]) -> list[Point]:
    """The points farthest from their neighbours first, so that names go where there is room."""
    if len(points) < 3:
        return list(points)
    xy = np.array([[point.x, point.y] for point in points])
    gaps = ((xy[:, None] - xy[None]) ** 2).sum(-1)
    np.fill_diagonal(gaps, np.inf)
    room = np.round(gaps.min(axis=1), 9)
    return [points[i] for i in sorted(range(len(points)), key=lambda i: (-room[i], points[i].name))]


def training_section(page: Page) -> list[Section]:
    """Loss curves: `loss_curve`, a list of [step, loss], of every training.json."""
    lines = []
    for number, (folder, points) in enumerate(page.run.losses):
        kinds = [page.kind(system) for system in page.systems if page.label(system) == folder]
        if len(points) > 1:
            lines.append(Line(folder, points, kinds[0] if kinds else f"s{min(number, 5)}"))
    if not lines:
        return []
    chart = charts.curves(
        lines,
        x_label="step",
        y_label="loss (nats per masked token)",
        about="Training loss by step",
        marks=False,
        whole=True,
    )
    figure = Figure("Training loss", chart, "", [(line.kind, line.name) for line in lines], wide=True)
    return [Section("training", "Training", "Masked-language-model loss on the training stream.", figures=[figure])]


def coverage_section(page: Page) -> list[Section]:
    """Languages of each task and the missing ones: of those asked for, or of those that any model has."""
    lines = []
    for task in page.tasks:
        asked = {code for item in page.run.coverage if item.task == task for code in item.asked}
        why = {code: text for item in page.run.coverage if item.task == task for code, text in item.missing.items()}
        have = {
            system: {code for (who, cell), entry in page.series.items() if who == system and cell.task == task
                     for code in entry.languages}
            for system in page.systems
        }  # fmt: skip
        whole = asked | set().union(*have.values())
        for system, codes in have.items():
            missing = sorted(whole - codes)
            names = ", ".join(f"{code} ({why[code]})" if code in why else code for code in missing)
            if whole:
                lines.append(
                    f"{catalog.task(task).title}, {page.label(system)}: {len(codes)} of {count(len(whole), 'language')}"
                    + (f"; missing: {names}" if missing else "")
                )
    about = "Languages with a number, of those asked for (where the run says so) or of those that any model has."
    return [Section("coverage", "Coverage", about, notes=lines)] if lines else []
