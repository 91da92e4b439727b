"""The tables of the report: means by group, all measures of a task, and the long table of languages with its dots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import Cell, Series, aggregate, is_head
from langsamp.eval.results.report import charts
from langsamp.eval.results.report.charts import Scale, tag
from langsamp.eval.results.report.page import Page, interval_text, overall, shown
from langsamp.eval.results.report.rows import Row, marks_on_track
from langsamp.eval.results.stats import Interval

DONOR_RANKERS = ("language+script-row", "language-row", "centroid", "table")
GROUPS = ("all", "head", "tail", "Latin script", "other scripts")


@dataclass
class Head:
    """A column: title, classes (`number`, `text`, `aside`), hover text; a `track` has its two ends instead."""

    title: str
    kind: str = "number"
    tip: str = ""


@dataclass
class Data:
    """A cell: what is shown, what it sorts by, small print below, a class, and a drawing instead of text."""

    text: str = ""
    sort: float | str = ""
    note: str = ""
    kind: str = ""
    drawing: Markup | None = None


@dataclass
class Table:
    """Columns and rows; `long` tables get a search box and scroll by themselves."""

    heads: list[Head]
    rows: list[list[Data]] = field(default_factory=list)
    long: bool = False


def means_table(page: Page) -> Table:
    """The headline of every task and model, over groups of languages, with intervals below the means."""
    table = Table([Head("Task", "text"), Head("Model", "text"), Head("n", tip="languages")])
    table.heads += [Head(name) for name in GROUPS]
    for number, task in enumerate(page.tasks):
        cell = page.headline(task)
        metric = catalog.metric(cell.metric)
        for system, entry in page.of_cell(cell):
            n, mean = overall(entry)
            groups = {item.group: item.mean for item in aggregate(entry)} if entry.languages else {}
            groups["all"] = mean
            row = [
                Data(catalog.task(task).title, f"{number:03}", _measure(cell)),
                _model(page.label(system), page.kind(system)),
            ]
            row.append(Data(f"{n:,}", n))
            row += [_mean(metric, groups.get(name)) for name in GROUPS]
            table.rows.append(row)
    return table


def _measure(cell: Cell) -> str:
    parts = catalog.describe(cell).split(", ")[1:]
    metric = catalog.metric(cell.metric)
    return ", ".join(parts) + (f" ({metric.unit})" if metric.unit else "")


def _model(label: str, kind: str) -> Data:
    return Data(label, label, drawing=tag("span", tag("i", class_=f"key {kind}"), label, class_="model"))


def _mean(metric: catalog.Metric, interval: Interval | None) -> Data:
    if interval is None:
        return Data("–", "", kind="none")
    spread = "" if interval.low is None or interval.high is None else (
        f"{metric.show(interval.low)} to {metric.show(interval.high)}"
    )  # fmt: skip
    return Data(metric.show(interval.value), interval.value, spread)


def measures_table(page: Page, task: str) -> Table:
    """Every cell of a task, with the mean of each model."""
    table = Table([Head("Measure", "text"), Head("Direction", "text"), Head("Layer"), Head("Source", "text")])
    table.heads += [Head(page.label(system)) for system in page.systems]
    for cell in page.cells(task):
        metric = catalog.metric(cell.metric)
        row = [
            Data(metric.label, cell.metric),
            Data((cell.direction or "").replace("->", "→"), cell.direction or ""),
            Data("" if cell.layer is None else str(cell.layer), "" if cell.layer is None else cell.layer),
            Data(cell.source or "", cell.source or ""),
        ]
        for system in page.systems:
            entry = page.series.get((system, cell))
            row.append(_mean(metric, overall(entry)[1] if entry else None))
        table.rows.append(row)
    used = [i for i in range(len(table.heads)) if i == 0 or any(row[i].text for row in table.rows)]
    return Table(
        [table.heads[i] for i in used], [[row[i] for i in used] for row in table.rows], long=len(table.rows) > 30
    )


def donor_table(sources: Mapping[str, Mapping[str, float]], measured: Mapping[str, float]) -> Table:
    """Sources by similarity: one column a ranker, and the measured transfer (macro-F1) where there is one."""
    rankers = [name for name in DONOR_RANKERS if any(name in row for row in sources.values())]
    rankers += sorted({name for row in sources.values() for name in row} - set(rankers))
    table = Table([Head("Source", "text"), *(Head(name.replace("-", " ")) for name in rankers)], long=len(sources) > 12)
    if measured:
        table.heads.append(Head("Measured macro-F1 (%)"))
    for code in sorted(sources, key=lambda code: (-sources[code].get(rankers[0], -math.inf), code)):
        row = [Data(catalog.language_name(code), catalog.language_name(code), code)]
        values = [sources[code].get(name) for name in rankers]
        row += [
            Data("–", "", kind="none") if value is None else Data(f"{value:.3f}".replace("-", "\N{MINUS SIGN}"), value)
            for value in values
        ]
        if measured:
            score = measured.get(code)
            row.append(Data("–", "", kind="none") if score is None else Data(f"{100 * score:.1f}", score))
        table.rows.append(row)
    return table


def language_table(page: Page, cell: Cell) -> Table:
    """One row a language: values of every model, their difference where there are two, and a track with the dots."""
    metric = catalog.metric(cell.metric)
    found = page.of_cell(cell)
    codes = sorted({code for _, entry in found for code in entry.languages})
    paired = len(found) == 2
    unit = f" ({metric.unit})" if metric.unit else ""
    table = Table(
        [
            Head("Language", "text"),
            Head("Script", "text aside"),
            Head("Group", "text aside", "head: seen by XLM-R"),
            Head("n", "number aside"),
        ]
    )
    table.heads += [Head(page.label(system) + unit) for system, _ in found]
    if paired:
        table.heads.append(Head("Difference", tip=f"{page.label(found[1][0])} minus {page.label(found[0][0])}"))
    values = shown(metric, [entry.mean(code) for _, entry in found for code in entry.languages])
    axis = _track_axis(values, metric.percent)
    table.heads.append(Head(charts.tick_text(axis.low), "track", charts.tick_text(axis.high)))
    table.long = len(codes) > 12
    for code in codes:
        table.rows.append(_language_row(page, found, code, metric, axis, paired))
    last, sign = found[-1][1], -1 if metric.better >= 0 else 1  # best first, languages without a value last
    table.rows.sort(key=lambda row: _place(last, row[0].note, sign))
    return table


def _place(entry: Series, code: str, sign: int) -> tuple[bool, float, str]:
    known = code in entry.values
    return not known, sign * entry.mean(code) if known else 0.0, code


def _track_axis(values: list[float], percent: bool) -> Scale:
    axis = charts.scale(values, margin=0.03)
    return (
        Scale(max(0.0, axis.low), min(100.0, axis.high)) if percent and 0 <= min(values) <= max(values) <= 100 else axis
    )


def _language_row(
    page: Page, found: Sequence[tuple[object, Series]], code: str, metric: catalog.Metric, axis: Scale, paired: bool
) -> list[Data]:
    """The cells of one language; a model without it shows a dash."""
    name, script = catalog.language_name(code), code.partition("_")[2]
    counts = [entry.n[code] for _, entry in found if code in entry.n]
    row = [
        Data(name, name, code),
        Data(catalog.script_name(script) if script else "", script),
        Data("head" if is_head(code) else "tail", "head" if is_head(code) else "tail"),
        Data(f"{counts[0]:,}" if counts else "", counts[0] if counts else ""),
    ]
    marks: list[Markup] = []
    means = []
    for system, entry in found:
        if code not in entry.values:
            row.append(Data("–", "", kind="none"))
            continue
        mean = entry.mean(code)
        means.append(mean)
        low, high = entry.interval(code) or (None, None)
        row.append(Data(metric.show(mean), mean))
        ends = [None, None] if low is None or high is None else shown(metric, [low, high])
        label = f"{page.label(system)}, {name}: {interval_text(metric, Interval(mean, low, high))}"  # type: ignore[arg-type]
        mark = Row("", "", shown(metric, [mean])[0], ends[0], ends[1], "", page.kind(system), label)  # type: ignore[arg-type]
        marks += marks_on_track(mark, axis)
    if paired:
        gain = round(means[1] - means[0], 10) if len(means) == 2 else None
        row.append(
            Data("–", "", kind="none")
            if gain is None
            else Data(metric.show(gain, True), gain, kind=_side(metric, gain))
        )
    row.append(Data(drawing=tag("span", *_link(means, metric, axis), *marks, class_="track"), kind="track"))
    return row


def _link(means: list[float], metric: catalog.Metric, axis: Scale) -> list[Markup]:
    """A thin line between the lowest and the highest dot."""
    if len(means) < 2:
        return []
    low, high = shown(metric, [min(means), max(means)])
    left, right = float(axis.at(low)[:-1]), float(axis.at(high)[:-1])
    return [tag("i", class_="link", style=f"left:{left:.2f}%;width:{right - left:.2f}%")]


def _side(metric: catalog.Metric, gain: float) -> str:
    if not gain or not metric.better:
        return ""
    return "up" if (gain > 0) == (metric.better > 0) else "down"
