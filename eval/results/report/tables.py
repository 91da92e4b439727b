"""The tables of the report: means by group, all measures of a task, and the long table of languages with its dots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from langsamp.core.language.xlmr import is_head
from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import GROUPS, Cell, Series, System
from langsamp.eval.results.gather import Results
from langsamp.eval.results.report import charts
from langsamp.eval.results.report.charts import Scale, tag
from langsamp.eval.results.report.dots import Row, marks_on_track
from langsamp.eval.results.report.parts import NOTHING, Data, Head, Table, kind
from langsamp.eval.results.stats import Interval


def means_table(results: Results) -> Table:
    """The headline of every task and model, over groups of languages, with intervals below the means."""
    table = Table([Head("Task", "text"), Head("Model", "text"), Head("n", tip="languages")])
    table.heads += [Head(name) for name in GROUPS]
    for number, task in enumerate(results.tasks):
        cell = results.headline(task)
        metric = catalog.metric(cell.metric)
        for system, found in results.groups(cell):
            means = {item.group: item.mean for item in found}
            row = [
                Data(catalog.task(task).title, f"{number:03}", ", ".join([metric.titled, *catalog.setting(cell)])),
                _model(results.label(system), kind(results, system)),
                Data(f"{found[0].n:,}", found[0].n),
            ]
            table.rows.append(row + [_mean(metric, means.get(name)) for name in GROUPS])
    return table


def _model(label: str, colour: str) -> Data:
    return Data(label, label, drawing=tag("span", tag("i", class_=f"key {colour}"), label, class_="model"))


def _mean(metric: catalog.Metric, interval: Interval | None) -> Data:
    if interval is None:
        return NOTHING
    return Data(metric.show(interval.value), interval.value, metric.bounds(interval))


def measures_table(results: Results, task: str) -> Table:
    """Every cell of a task, with the mean of each model."""
    table = Table([Head("Measure", "text"), Head("Direction", "text"), Head("Layer"), Head("Source", "text")])
    table.heads += [Head(results.label(system)) for system in results.systems]
    for number, cell in enumerate(results.cells(task)):
        metric = catalog.metric(cell.metric)
        row = [
            Data(metric.titled, f"{number:05}"),
            Data((cell.direction or "").replace("->", "→"), cell.direction or ""),
            Data("" if cell.layer is None else str(cell.layer), "" if cell.layer is None else cell.layer),
            Data(cell.source or "", cell.source or ""),
        ]
        means = {system: found.mean for system, found in results.means(cell)}
        table.rows.append(row + [_mean(metric, means.get(system)) for system in results.systems])
    used = [i for i in range(len(table.heads)) if i == 0 or any(row[i].text for row in table.rows)]
    return Table(
        [table.heads[i] for i in used], [[row[i] for i in used] for row in table.rows], long=len(table.rows) > 30
    )


def donor_table(sources: Mapping[str, Mapping[str, float]], measured: Mapping[str, float]) -> Table:
    """Sources by similarity: one column a ranker, and the measured transfer (macro-F1) where there is one."""
    rankers = catalog.rankers({name for row in sources.values() for name in row})
    table = Table([Head("Source", "text"), *(Head(name.replace("-", " ")) for name in rankers)], long=len(sources) > 12)
    if measured:
        table.heads.append(Head(f"Measured {catalog.metric('macro_f1').titled}"))
    for code in sorted(sources, key=lambda code: (-sources[code].get(rankers[0], -math.inf), code)):
        row = [Data(catalog.language_name(code), catalog.language_name(code), code)]
        values = [sources[code].get(name) for name in rankers]
        row += [NOTHING if value is None else Data(catalog.metric("similarity").show(value), value) for value in values]
        if measured:
            score = measured.get(code)
            row.append(NOTHING if score is None else Data(catalog.metric("macro_f1").show(score), score))
        table.rows.append(row)
    return table


def language_table(results: Results, cell: Cell) -> Table:
    """One row a language: values of every model, their difference where there are two, and a track with the dots."""
    metric = catalog.metric(cell.metric)
    found = results.of_cell(cell)
    codes = sorted({code for _, entry in found for code in entry.languages})
    unit = f" ({metric.unit})" if metric.unit else ""
    table = Table([Head("Language", "text"), Head("Script", "text aside")], long=len(codes) > 12)
    table.heads += [Head("Group", "text aside", "head: seen by XLM-R"), Head("n", "number aside")]
    table.heads += [Head(results.label(system) + unit) for system, _ in found]
    if len(found) == 2:
        names = [results.label(system) for system, _ in found]
        table.heads.append(Head("Difference", tip=f"{names[1]} minus {names[0]}"))
    axis = value_axis(metric, [metric.scaled(entry.mean(code)) for _, entry in found for code in entry.languages])
    table.heads.append(Head(charts.tick_text(axis.low), "track", charts.tick_text(axis.high)))
    table.rows = [_language_row(results, found, code, metric, axis) for code in codes]
    last, sign = found[-1][1], -1 if metric.better >= 0 else 1  # best first, languages without a value last
    table.rows.sort(key=lambda row: _place(last, row[0].note, sign))
    return table


def _place(entry: Series, code: str, sign: int) -> tuple[bool, float, str]:
    known = code in entry.values
    return not known, sign * entry.mean(code) if known else 0.0, code


def value_axis(metric: catalog.Metric, values: Sequence[float], zero: bool = False) -> Scale:
    """An axis for values in their unit; that of a share does not go beyond 0 and 100."""
    axis = charts.scale(values, zero=zero, margin=0.03)
    if metric.percent and values and 0 <= min(values) <= max(values) <= 100:
        return Scale(max(0.0, axis.low), min(100.0, axis.high))
    return axis


def _language_row(
    results: Results, found: Sequence[tuple[System, Series]], code: str, metric: catalog.Metric, axis: Scale
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
            row.append(NOTHING)
            continue
        mean = Interval(entry.mean(code), *(entry.interval(code) or (None, None)))
        means.append(mean.value)
        row.append(Data(metric.show(mean.value), mean.value))
        marks += marks_on_track(Row.of(metric, mean, kind(results, system), f"{results.label(system)}, {name}"), axis)
    if len(found) == 2:
        row.append(NOTHING if len(means) < 2 else _gain(metric, round(means[1] - means[0], 10)))
    row.append(Data(drawing=tag("span", *_link([metric.scaled(m) for m in means], axis), *marks, class_="track"),
                    kind="track"))  # fmt: skip
    return row


def _link(values: list[float], axis: Scale) -> list[Markup]:
    """A thin line between the lowest and the highest dot."""
    if len(values) < 2:
        return []
    left, right = axis.share(min(values)), axis.share(max(values))
    return [tag("i", class_="link", style=f"left:{left:.2f}%;width:{right - left:.2f}%")]


def _gain(metric: catalog.Metric, gain: float) -> Data:
    side = "" if not gain or not metric.better else "up" if (gain > 0) == (metric.better > 0) else "down"
    return Data(metric.show(gain, True), gain, kind=side)
