"""A section of the report for every task: by language, by group of languages, by measure, by layer."""

from __future__ import annotations

from collections.abc import Sequence

from langsamp.core.language.xlmr import is_head
from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import GROUPS, Aggregate, Cell, System
from langsamp.eval.results.gather import Results
from langsamp.eval.results.report import charts, heatmap
from langsamp.eval.results.report.charts import Line, Point, Scale
from langsamp.eval.results.report.dots import Row, rows
from langsamp.eval.results.report.parts import Figure, Section, kind, legend
from langsamp.eval.results.report.tables import language_table, measures_table, value_axis

SCRIPTS = 6  # most scripts with a row of their own


def task_sections(results: Results) -> list[Section]:
    """One section a task, with its headline by language, by group and by layer."""
    return [_task_section(results, task) for task in results.tasks if task != "embedding-map"]


def _task_section(results: Results, task: str) -> Section:
    cell, cells = results.headline(task), results.cells(task)
    section = Section(f"task-{task}", catalog.task(task).title, catalog.task(task).about)
    compared = results.compared(cell)
    section.sentences = [entry.sentence for entry in compared]
    section.notes += [entry.caution for entry in compared if entry.caution]
    if not section.sentences:
        section.notes.append(f"Shown: {catalog.describe(cell)}.")
    by_language = any(entry.languages for _, entry in results.of_cell(cell))
    if by_language:
        if len(results.systems) == 2 and compared and compared[0].n >= 3:
            section.figures.append(_scatter(results, cell))
        section.figures.append(_by_group(results, cell))
    variants = [other for other in cells if other[2:] == cell[2:]]
    if len(variants) > 1 and task != "neutrality":
        section.figures += _by_measure(results, variants)
    section.figures += _by_layer(results, cell, every=task == "neutrality")
    section.figures += _heatmaps(results, cell) if task == "neutrality" else []
    if by_language:
        section.tables.append((f"By language: {catalog.describe(cell)}", language_table(results, cell), True))
    if len(cells) > 1:
        section.tables.append(("All measures", measures_table(results, task), False))
    return section


def _scatter(results: Results, cell: Cell) -> Figure:
    """Each language once: baseline to the right, the other model upwards; above the diagonal the other is higher."""
    entry = results.compared(cell)[0]
    metric = entry.metric
    points = []
    for code, a, b, gain in sorted(entry.rows, key=lambda row: (-abs(row[3]), row[0])):
        name = catalog.language_name(code)
        tip = f"{name} ({code}): {metric.show(a)} → {metric.show(b)} ({metric.show(gain, True)})"
        points.append(Point(metric.scaled(a), metric.scaled(b), name, tip, "head" if is_head(code) else "tail"))
    values = [value for point in points for value in (point.x, point.y)]
    unit = f" ({metric.unit})" if metric.unit else ""
    higher = {1: "better", -1: "worse", 0: "higher"}[metric.better]
    chart = charts.scatter(
        points,
        x_label=f"{entry.a}{unit}",
        y_label=f"{entry.b}{unit}",
        about=f"{catalog.describe(cell)}: {entry.b} against {entry.a}, a point a language",
        ratio=1.0,
        diagonal=_diagonal(metric, values),
        named=14,
        width=charts.HALF,
    )
    kinds = [("head", "head: seen by XLM-R"), ("tail", "tail: not seen")]
    colours = [(colour, text) for colour, text in kinds if any(point.kind == colour for point in points)]
    note = f"A point a language, n = {entry.n}. Points above the line: {higher} with {entry.b}."
    return Figure("Language by language", chart, note, colours)


def _diagonal(metric: catalog.Metric, values: Sequence[float]) -> Scale:
    """The axis of both sides: that of a share runs from 0 to 100, or nearer where all lie in the lowest fifth."""
    if not metric.percent or min(values) < 0:
        return charts.scale(values)
    return Scale(0.0, 100.0) if max(values) > 20 else value_axis(metric, values, zero=True)


def _by_group(results: Results, cell: Cell) -> Figure:
    """The means of the groups that are more than all again, and of the largest scripts."""
    means = [(system, {item.group: item for item in found}) for system, found in results.groups(cell)]
    sizes = {name: max(found[name].n for _, found in means if name in found) for _, found in means for name in found}
    fixed = [name for name in GROUPS if name in sizes and (name == "all" or sizes[name] < sizes["all"])]
    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    scripts = [name for name in by_size if sizes[name] >= 2 and name not in (*GROUPS, "Latn")]
    names = {name: name for name in fixed}
    if len(scripts) > 1:
        names |= {name: f"{catalog.script_name(name)} script" for name in scripts[:SCRIPTS]}
    lines: list[Row] = []
    for name, label in names.items():
        lines += _mean_rows(results, cell, label, [(system, found[name]) for system, found in means if name in found])
    return _row_chart(results, "By group of languages", [cell], lines, "Unweighted means over languages")


def _by_measure(results: Results, cells: Sequence[Cell]) -> list[Figure]:
    """The measures beside each other, a chart for each unit and better side."""
    by_side: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        metric = catalog.metric(cell.metric)
        by_side.setdefault((metric.unit, metric.better), []).append(cell)
    figures = []
    for own in by_side.values():
        lines: list[Row] = []
        for cell in own:
            lines += _mean_rows(results, cell, catalog.metric(cell.metric).label, results.means(cell))
        figures.append(_row_chart(results, "By measure", own, lines, "Means over languages"))
    return figures


def _mean_rows(results: Results, cell: Cell, label: str, means: Sequence[tuple[System, Aggregate]]) -> list[Row]:
    """The rows of one label, a model each."""
    metric, note = catalog.metric(cell.metric), "n = " + " / ".join(str(n) for n in {item.n: 0 for _, item in means})
    return [
        Row.of(metric, item.mean, kind(results, system), f"{results.label(system)}, {label}, {note}", label, note,
               level=2 if number else 0)
        for number, (system, item) in enumerate(means)
    ]  # fmt: skip


def _row_chart(results: Results, title: str, cells: Sequence[Cell], lines: Sequence[Row], what: str) -> Figure:
    """Rows of bars (of shares) or dots with their common axis."""
    metric = catalog.metric(cells[0].metric)
    values = [value for row in lines for value in (row.value, row.low, row.high) if value is not None]
    bars = metric.percent and min(values) >= 0
    chart = rows(lines, value_axis(metric, values, zero=bars), unit=metric.unit, bars=bars)
    note = [f"{what}{f' in {metric.unit}' if metric.unit else ''}, with 95 % intervals from four languages on."]
    systems = dict.fromkeys(system for cell in cells for system, _ in results.of_cell(cell))
    return Figure(title, chart, " ".join(note + [metric.side] * (len(cells) > 1 and bool(metric.side))),
                  legend(results, systems))  # fmt: skip


def _by_layer(results: Results, headline: Cell, every: bool) -> list[Figure]:
    """Curves over layers of the headline (or of every metric) where several layers were measured."""
    figures = []
    for name, cells in results.over_layers(headline, every).items():
        metric = catalog.metric(name)
        curves = [(system, *results.curve(system, cells)) for system in results.systems]
        lines = [Line(results.label(who), points, kind(results, who), band) for who, points, band in curves if points]
        first = " (0 = embeddings)" if any(c.layer == 0 for c in cells) else ""
        chart = charts.curves(lines, x_label=f"layer{first}", y_label=metric.titled,
                              about=f"{catalog.task(headline.task).title}, {metric.label} by layer")  # fmt: skip
        note = "Means with 95 % intervals." if any(line.band for line in lines) else "Means."
        figures.append(Figure(f"{metric.label} by layer", chart, f"{note} {metric.side}".rstrip(),
                              legend(results, results.systems)))  # fmt: skip
    return figures


def _heatmaps(results: Results, cell: Cell) -> list[Figure]:
    """One matrix a run folder at the headline's layer (or the folder's last); a measure's share scale and order."""
    chosen = []
    for folder in dict.fromkeys(item.folder for item in results.run.matrices):
        items = [item for item in results.run.matrices if item.folder == folder]
        chosen.append(next((item for item in items if item.layer == cell.layer), items[-1]))
    figures = []
    for name in ("cosine", "cosine_centred"):
        shown = [item for item in chosen if name in item.values]
        ends = heatmap.ends([item.values[name] for item in shown])
        for item in shown:
            title = f"{catalog.metric(name).label}: {item.folder}, layer {item.layer}"
            names = [catalog.language_name(code) for code in item.languages]
            names = [c if names.count(n) > 1 else n for c, n in zip(item.languages, names)]
            ordered = heatmap.order(shown[0].values[name]) if item.languages == shown[0].languages else None
            chart = heatmap.heatmap(names, item.values[name], title, ends, ordered)
            note = f"{len(names)} languages, similar ones side by side. Point at a cell for its value."
            figures.append(Figure(title, chart, note, wide=len(names) > 24))
    return figures
