"""Sections of the report beside the tasks: map of the languages, training curves, coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from langsamp.eval import catalog, rundir
from langsamp.eval.report import charts
from langsamp.eval.report.charts import Line, Point
from langsamp.eval.report.page import Page
from langsamp.eval.report.parts import Figure, Section, count

_COLOURS = 9  # categories with a colour of their own; the others share one


def map_sections(page: Page) -> list[Section]:
    """The embedding maps: a point a language, coloured by script or family."""
    figures = [_map(folder, content) for folder, content in page.run.sides.get(rundir.MAP, [])]
    if not figures:
        return []
    about = "Rows of the language table, projected to a plane: languages that lie close were treated alike in training."
    return [Section("map", "Map of the languages", about, figures=figures)]


def _map(folder: str, content: Any) -> Figure:
    given = content if isinstance(content, list) else content.get("points", [])
    try:
        places = [(str(p["code"]), float(p["x"]), float(p["y"]), p.get("script"), p.get("family")) for p in given]
        if not all(np.isfinite([x, y]).all() for _, x, y, *_ in places):
            raise ValueError("a coordinate is not finite")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{rundir.MAP} of {folder} is malformed ({error!r})") from None
    scripts = _kinds(script for *_, script, _ in places)
    families = _kinds(family for *_, family in places)
    points = [
        Point(x, y, catalog.language_name(code),
              " · ".join(filter(None, [f"{catalog.language_name(code)} ({code})",
                                       catalog.script_name(script) if script else "", str(family or "")])),
              scripts[script], families[family])
        for code, x, y, script, family in sorted(places, key=lambda p: (scripts[p[3]] == "none", p[0]))
    ]  # fmt: skip
    extra = content if isinstance(content, dict) else {}
    xs, ys = [p.x for p in points] or [0.0], [p.y for p in points] or [0.0]
    ratio = min(2.2, max(1.1, (max(xs) - min(xs) + 1e-9) / (max(ys) - min(ys) + 1e-9)))
    chart = charts.scatter(
        _spread(points),
        x_label=str(extra.get("x_label", "")),
        y_label=str(extra.get("y_label", "")),
        about=f"Map of {len(points)} languages",
        ratio=ratio,
        equal=True,
        ticks=False,
        named=60,
    )
    note = str(extra.get("note", "")) or f"{len(points)} languages. Point at a mark for its name."
    names = [(kind, catalog.script_name(script) if script else "no script") for script, kind in scripts.items()]
    others = [(kind, str(family or "no family known")) for family, kind in families.items()]
    several = len({family for *_, family in places if family}) > 1
    return Figure(
        str(extra.get("title", folder)), chart, note, _legend(names), _legend(others) if several else [], wide=True
    )


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
    """Loss curves of training.json: `loss_history` or `log_history`, a list of [step, loss] or {"step", "loss"}."""
    lines = []
    for number, (folder, content) in enumerate(page.run.sides.get(rundir.TRAINING, [])):
        history = content.get("loss_history") or content.get("log_history") or [] if isinstance(content, dict) else []
        points = [pair for entry in history for pair in _step_and_loss(entry)]
        if len(points) > 1:
            kinds = [page.kind(system) for system in page.systems if page.label(system) == folder]
            lines.append(Line(folder, points, kinds[0] if kinds else f"s{min(number, 5)}"))
    if not lines:
        return []
    chart = charts.curves(lines, x_label="step", y_label="loss (nats per masked token)", about="Training loss by step",
                          marks=False, whole=True)  # fmt: skip
    figure = Figure("Training loss", chart, "", [(line.kind, line.name) for line in lines], wide=True)
    return [Section("training", "Training", "Masked-language-model loss on the training stream.", figures=[figure])]


def _step_and_loss(entry: Any) -> list[tuple[float, float]]:
    pair = (entry.get("step"), entry.get("loss")) if isinstance(entry, dict) else tuple(entry)[:2]
    if len(pair) != 2 or not all(isinstance(value, (int, float)) and np.isfinite(value) for value in pair):
        return []
    return [(float(pair[0]), float(pair[1]))]


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
