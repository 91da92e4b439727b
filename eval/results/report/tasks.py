"""A section of the report for every task: by language, by group of languages, by measure, by layer."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import Cell, Series, System, aggregate, is_head
from langsamp.eval.results.report import charts, heatmap
from langsamp.eval.results.report.charts import Line, Point, Scale
from langsamp.eval.results.report.page import Page, interval_text, overall, shown
from langsamp.eval.results.report.parts import Figure, Section
from langsamp.eval.results.report.rows import Row, rows
from langsamp.eval.results.report.tables import GROUPS, language_table, measures_table
from langsamp.eval.results.stats import Interval


def task_sections(page: Page) -> list[Section]:
    """One section a task, with its headline by language, by group and by layer."""
    return [_task_section(page, task) for task in page.tasks if task != "embedding-map"]


def _task_section(page: Page, task: str) -> Section:
    cell = page.headline(task)
    found = page.of_cell(cell)
    section = Section(f"task-{task}", catalog.task(task).title, catalog.task(task).about)
    section.sentences = [entry.sentence for entry in page.compared(cell)]
    if not section.sentences:
        section.notes.append(f"Shown: {catalog.describe(cell)}.")
    legend = [(page.kind(system), page.label(system)) for system, _ in found]
    if any(entry.languages for _, entry in found):
        if len(page.systems) == 2 and page.compared(cell) and page.compared(cell)[0].n >= 3:
            section.figures.append(_scatter(page, cell))
        section.figures.append(_by_group(page, found, legend))
    variants = [other for other in page.cells(task) if other[2:] == cell[2:]]
    if len(variants) > 1 and task != "neutrality":
        section.figures += _by_measure(page, variants, legend)
    section.figures += _by_layer(page, cell, legend, every=task == "neutrality")
    section.figures += _heatmaps(page, cell) if task == "neutrality" else []
    if any(entry.languages for _, entry in found):
        section.tables.append((f"By language: {catalog.describe(cell)}", language_table(page, cell), True))
    if len(page.cells(task)) > 1:
        section.tables.append(("All measures", measures_table(page, task), False))
    return section


def _scatter(page: Page, cell: Cell) -> Figure:
    """Each language once: baseline to the right, the other model upwards; above the diagonal the other is higher."""
    entry = page.compared(cell)[0]
    metric = entry.metric
    order = sorted(entry.rows, key=lambda row: (-abs(row[3]), row[0]))
    points = []
    for code, a, b, gain in order:
        name, (x, y) = catalog.language_name(code), shown(metric, (a, b))
        tip = f"{name} ({code}): {metric.show(a)} → {metric.show(b)} ({metric.show(gain, True)})"
        points.append(Point(x, y, name, tip, "head" if is_head(code) else "tail"))
    unit = f" ({metric.unit})" if metric.unit else ""
    higher = {1: "better", -1: "worse", 0: "higher"}[metric.better]
    chart = charts.scatter(
        points,
        x_label=f"{entry.a}{unit}",
        y_label=f"{entry.b}{unit}",
        about=f"{catalog.describe(cell)}: {entry.b} against {entry.a}, a point a language",
        ratio=1.0,
        diagonal=True,
        named=14,
        width=charts.HALF,
    )
    kinds = [("head", "head: seen by XLM-R"), ("tail", "tail: not seen")]
    legend = [(kind, text) for kind, text in kinds if any(point.kind == kind for point in points)]
    note = f"A point a language, n = {entry.n}. Points above the line: {higher} with {entry.b}."
    return Figure("Language by language", chart, note, legend)


def _by_group(page: Page, found: Sequence[tuple[System, Series]], legend: list[tuple[str, str]]) -> Figure:
    metric = catalog.metric(found[0][1].cell.metric)
    means = {system: {item.group: item for item in aggregate(entry, scripts=True)} for system, entry in found}
    sizes: dict[str, int] = {}
    for name, item in (pair for groups in means.values() for pair in groups.items()):
        sizes[name] = max(item.n, sizes.get(name, 0))
    fixed = [name for name in GROUPS if name in sizes and (name == "all" or sizes[name] < sizes["all"])]
    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    scripts = [name for name in by_size if sizes[name] >= 2 and name not in (*GROUPS, "Latn")]
    lines = []
    for name in [*fixed, *(scripts[:6] if len(scripts) > 1 else [])]:
        have = [(system, means[system][name]) for system, _ in found if name in means[system]]
        label = name if name in fixed else catalog.script_name(name)
        note = "n = " + " / ".join(str(n) for n in dict.fromkeys(item.n for _, item in have))
        for number, (system, item) in enumerate(have):
            lines.append(_mean_row(page, system, metric, item.mean, label, note, level=2 if number else 0))
    chart, unit = _row_chart(lines, metric)
    note = f"Unweighted means over languages{unit}, with 95 % intervals."
    return Figure("By group of languages", chart, note, legend)


def _by_measure(page: Page, cells: Sequence[Cell], legend: list[tuple[str, str]]) -> list[Figure]:
    """The measures beside each other, a chart for each unit and better side."""
    figures = []
    sides = dict.fromkeys((catalog.metric(cell.metric).percent, catalog.metric(cell.metric).better) for cell in cells)
    for side in sides:
        own = [
            cell for cell in cells if (catalog.metric(cell.metric).percent, catalog.metric(cell.metric).better) == side
        ]
        metric = catalog.metric(own[0].metric)
        lines = []
        for cell in sorted(own, key=lambda cell: catalog.metric_order(cell.metric)):
            label = catalog.metric(cell.metric).label
            means = [(system, *overall(entry)) for system, entry in page.of_cell(cell)]
            note = "n = " + " / ".join(str(n) for n in dict.fromkeys(n for _, n, _ in means))
            for number, (system, _, mean) in enumerate(means):
                lines.append(_mean_row(page, system, metric, mean, label, note, level=2 if number else 0))
        chart, unit = _row_chart(lines, metric)
        better = {1: " Higher is better.", -1: " Lower is better."}.get(metric.better, "")
        figures.append(Figure("By measure", chart, f"Means over languages{unit} with 95 % intervals.{better}", legend))
    return figures


def _mean_row(
    page: Page, system: System, metric: catalog.Metric, mean: Interval, label: str, note: str, level: int
) -> Row:
    bounds = (None, None) if mean.low is None or mean.high is None else shown(metric, [mean.low, mean.high])
    text = interval_text(metric, mean)
    return Row(label, note, shown(metric, [mean.value])[0], bounds[0], bounds[1], text, page.kind(system),
               f"{page.label(system)}, {label}: {text}, {note}", level)  # fmt: skip


def _row_chart(lines: Sequence[Row], metric: catalog.Metric) -> tuple[Markup, str]:
    values = [value for row in lines for value in (row.value, row.low, row.high) if value is not None]
    bars = metric.percent and min(values) >= 0
    axis = charts.scale(values, zero=bars, margin=0.02)
    axis = Scale(axis.low, min(axis.high, 100.0)) if metric.percent and max(values) <= 100 else axis
    return rows(lines, axis, unit=metric.unit, bars=bars), f" in {metric.unit}" if metric.unit else ""


def _by_layer(page: Page, cell: Cell, legend: list[tuple[str, str]], every: bool) -> list[Figure]:
    """Curves over layers of the headline (or of every metric) where several layers were measured."""
    names = {other.metric for other in page.cells(cell.task)} if every else {cell.metric}
    figures = []
    for name in sorted(names, key=catalog.metric_order):
        cells = [c for c in page.cells(cell.task) if c._replace(layer=None) == cell._replace(layer=None, metric=name)]
        if len({c.layer for c in cells}) < 2 or any(c.layer is None for c in cells):
            continue
        metric = catalog.metric(name)
        lines = []
        for system in page.systems:
            means = [(c.layer or 0, overall(page.series[system, c])[1]) for c in cells if (system, c) in page.series]
            points = [(float(layer), shown(metric, [mean.value])[0]) for layer, mean in means]
            band = [
                (float(layer), shown(metric, [m.low])[0], shown(metric, [m.high])[0])
                for layer, m in means
                if m.low is not None and m.high is not None
            ]
            if points:
                lines.append(
                    Line(page.label(system), points, page.kind(system), band if len(band) == len(points) else ())
                )
        unit = f" ({metric.unit})" if metric.unit else ""
        chart = charts.curves(lines, x_label="layer (0 = embeddings)", y_label=metric.label + unit,
                              about=f"{catalog.task(cell.task).title}, {metric.label} by layer")  # fmt: skip
        better = {1: " Higher is better.", -1: " Lower is better."}.get(metric.better, "")
        figures.append(Figure(f"{metric.label} by layer", chart, f"Means with 95 % intervals.{better}", legend))
    return figures


def _heatmaps(page: Page, cell: Cell) -> list[Figure]:
    """One matrix a run folder at the headline's layer (or the folder's last)."""
    figures = []
    for folder in dict.fromkeys(item.folder for item in page.run.matrices):
        items = [item for item in page.run.matrices if item.folder == folder]
        item = next((item for item in items if item.layer == cell.layer), items[-1])
        for name in ("cosine", "cosine_centred"):
            if name in item.values:
                title = f"{catalog.metric(name).label}: {folder}, layer {item.layer}"
                names = [catalog.language_name(code) for code in item.languages]
                names = [c if names.count(n) > 1 else n for c, n in zip(item.languages, names)]
                chart = heatmap.heatmap(names, item.values[name], title)
                note = f"{len(names)} languages, similar ones side by side. Point at a cell for its value."
                figures.append(Figure(title, chart, note, wide=len(names) > 24))
    return figures
