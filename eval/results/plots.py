"""Plots as PNG files for the model card and for papers: records in, pictures out (matplotlib, no display needed).

write_plots("runs/quickstart", "checkpoint/plots")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from langsamp.core.plain import printable
from langsamp.core.record import protocol_layer
from langsamp.eval.results import catalog, rowmap, rundir
from langsamp.eval.results.aggregate import GROUPS, Aggregate, Cell, System
from langsamp.eval.results.compare import Comparison
from langsamp.eval.results.gather import Results
from langsamp.eval.results.report import heatmap
from langsamp.eval.results.stats import Interval

COLOURS = ("#8a94a3", "#0b62c4", "#d97706", "#0f8f63", "#b0459b", "#6d4bc3")
CATEGORIES = ("#0b62c4", "#d97706", "#0f8f63", "#b0459b", "#0e8fb3", "#8a6d1b", "#6d4bc3", "#4d7c0f")
INK, SOFT, GRID, PALE = "#1b1f24", "#59626e", "#e6e9ed", "#b7bec7"
MOODS = {"better": "#0a7d4f", "worse": "#c2410c"}
NAMED = 40  # most languages named in a picture


def write_plots(
    run_dir: str | Path | Sequence[str | Path], output: str | Path, *, baseline: str | None = None
) -> list[Path]:
    """Draw what the records allow into a folder and return the files.

    `scores.png` (means by group), `differences.png` (paired differences with intervals), `layers.png`,
    `losses.png` (masked-LM loss with right, missing and wrong ids), `neutrality.png` (heat map), `map.png` (rows).

    Raises:
        FileNotFoundError, ValueError: as `rundir.load` and `Results.of`.
    """
    return draw(Results.of(rundir.load(run_dir), baseline), output)


def draw(results: Results, output: str | Path) -> list[Path]:
    """`write_plots` of records that are gathered already."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    drawn = {
        "scores": scores(results),
        "differences": differences([entry for found in results.comparisons for entry in found if entry.headline]),
        "layers": layers(results),
        "losses": losses(results),
        "neutrality": similarity(results),
        "map": embedding_map(results),
    }
    return [save(figure, output / f"{name}.png") for name in catalog.PICTURES if (figure := drawn[name]) is not None]


def plot_comparison(found: Sequence[Comparison], path: Path) -> Path:
    """The forest plot of one comparison."""
    figure = differences([entry for entry in found if entry.headline])
    assert figure is not None, "a comparison has a headline"
    return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without the library's version in it, so that equal pictures are equal files."""
    figure.savefig(path, dpi=160, metadata={"Software": None}, facecolor="white", bbox_inches="tight", pad_inches=0.15)
    return path


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, shares: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` x `columns` panels (inches in all) in the style of all plots, and its panels row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=shares).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.spines["bottom"].set_color(GRID)
        axis.tick_params(colors=SOFT, labelsize=9, length=0)
        axis.set_axisbelow(True)
    return figure, axes


def _grid(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Panels of this size, up to three beside each other; what is left over in the last row is not seen."""
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure, axes = new_figure(width * columns + 0.4, height * rows, rows, columns)
    for axis in axes[panels:]:
        axis.set_visible(False)
    return figure, axes


def set_title(axis: Axes, text: str, width: int = 60) -> None:
    """Head a panel, in lines of so many characters; the text is shown as it is."""
    axis.set_title(_plain(fill(text, width)), loc="left", fontsize=11, color=INK, fontweight="bold", pad=10)


def _plain(text: str) -> str:
    """Names are shown as they are: a dollar sign starts no formula."""
    return printable(text).replace("$", r"\$")


def _colour(results: Results, system: System) -> str:
    return COLOURS[min(results.systems.index(system), len(COLOURS) - 1)]


def _legend(figure: Figure, results: Results, systems: Iterable[System]) -> None:
    """The colours of the models below the panels, if there are several."""
    systems = list(systems)
    if len(systems) > 1:
        handles = [Patch(color=_colour(results, system)) for system in systems]
        figure.legend(handles, [_plain(results.label(system)) for system in systems], loc="outside lower center",
                      frameon=False, ncols=min(4, len(handles)), fontsize=9)  # fmt: skip


def scores(results: Results) -> Figure | None:
    """Bars of the headline of every task in percent, for all, head and tail languages, with intervals."""
    cells = [results.headline(task) for task in results.tasks]
    cells = [
        cell
        for cell in cells
        if catalog.metric(cell.metric).percent
        and catalog.metric(cell.metric).of != "dev"  # a data set that was trained on but has no test part
        and any(entry.languages for _, entry in results.of_cell(cell))
    ]
    if not cells:
        return None
    figure, axes = _grid(len(cells), 3.1, 2.9)
    for axis, cell in zip(axes, cells):
        _bars(axis, results, cell)
    _legend(figure, results, results.systems)
    return figure


def _bars(axis: Axes, results: Results, cell: Cell) -> None:
    metric = catalog.metric(cell.metric)
    found = [(system, {item.group: item for item in groups}) for system, groups in results.groups(cell)]
    sizes = {name: max((means[name].n for _, means in found if name in means), default=0) for name in GROUPS[:3]}
    names = [name for name, n in sizes.items() if name == "all" or 0 < n < sizes["all"]]
    width = 0.8 / len(found)
    for number, (system, means) in enumerate(found):
        for place, name in enumerate(names):
            if name in means:
                x = place + (number - (len(found) - 1) / 2) * width
                mean = means[name].mean
                axis.bar(x, metric.scaled(mean.value), width * 0.92, color=_colour(results, system))
                if mean.low is not None and mean.high is not None:
                    axis.vlines(x, metric.scaled(mean.low), metric.scaled(mean.high), color=INK, linewidth=1)
    axis.set_xticks(range(len(names)), [f"{name}\nn = {sizes[name]}" for name in names], color=SOFT)
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    set_title(axis, f"{catalog.task(cell.task).title}, {metric.titled}", 30)


def differences(found: Sequence[Comparison]) -> Figure | None:
    """Dots with intervals of the paired differences, all, head and tail; a panel with an axis of its own a unit."""
    units = dict.fromkeys(entry.metric.difference_unit for entry in found)
    panels = [[entry for entry in found if entry.metric.difference_unit == unit] for unit in units]
    if not panels:
        return None
    sizes = [sum(len(_groups(entry)) for entry in panel) for panel in panels]
    figure, axes = new_figure(7.2, 0.34 * sum(sizes) + 1.2 * len(panels), len(panels), 1, [size + 1 for size in sizes])
    for axis, panel in zip(axes, panels):
        _forest(axis, panel)
    return figure


def _groups(entry: Comparison) -> list[Aggregate]:
    return [entry.groups[0], *(g for g in entry.groups if g.group in ("head", "tail") and g.n < entry.n)]


def _forest(axis: Axes, panel: Sequence[Comparison]) -> None:
    names: list[str] = []
    models = list(dict.fromkeys(entry.b for entry in panel))
    for entry in panel:
        for name, n, mean in _groups(entry):
            whole = name == "all"
            colour = MOODS.get(entry.verdict, SOFT) if whole else "#a9b1bb"
            _dot(axis, -len(names), mean, entry.metric, colour, 1.0 if whole else 0.75)
            title = catalog.task(entry.cell.task).title + (f": {entry.b}" if len(models) > 1 else "")
            names.append(f"{title}, {entry.metric.label} (n = {n})" if whole else f"{name} (n = {n})")
    axis.axvline(0, color=SOFT, linewidth=1, zorder=1)
    unit = panel[0].metric.difference_unit
    _name_rows(axis, names, f"mean difference with 95 % interval{f', {unit}' if unit else ''}")
    side = {1: "right is better", -1: "left is better"}
    better = {entry.metric.better for entry in panel}
    told = f" ({side[better.pop()]})" if len(better) == 1 and better <= set(side) else ""
    set_title(axis, f"{' / '.join(models)} minus {panel[0].a}{told}", 70)


def _dot(axis: Axes, y: float, mean: Interval, metric: catalog.Metric, colour: str, size: float = 1.0) -> None:
    """A mean with its interval in a row of its own."""
    if mean.low is not None and mean.high is not None:
        ends = [metric.scaled(mean.low), metric.scaled(mean.high)]
        axis.plot(ends, [y, y], color=colour, linewidth=2 * size, zorder=2)
    axis.plot([metric.scaled(mean.value)], [y], "o", color=colour, markersize=6.5 * size, zorder=3)


def _name_rows(axis: Axes, names: Sequence[str], label: str) -> None:
    """Names of the rows from the top, and what their common axis shows."""
    axis.set_yticks([-i for i in range(len(names))], [_plain(name) for name in names])
    axis.set_ylim(-len(names) + 0.4, 0.6)
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    axis.set_xlabel(label, color=SOFT, fontsize=9)


def layers(results: Results) -> Figure | None:
    """Curves over layers: the headline of every task that has several, and every neutrality measure."""
    wanted: list[tuple[str, str, list[Cell]]] = []
    for task in results.tasks:
        found = results.over_layers(results.headline(task), every=task == "neutrality")
        wanted += [(task, name, cells) for name, cells in found.items()]
    if not wanted:
        return None
    figure, axes = _grid(len(wanted), 3.3, 2.8)
    for axis, (task, name, cells) in zip(axes, wanted):
        metric = catalog.metric(name)
        for system in results.systems:
            points, band = results.curve(system, cells)
            colour = _colour(results, system)
            axis.plot([at for at, _ in points], [value for _, value in points], "o-", color=colour, markersize=3.5)
            axis.fill_between([at for at, *_ in band], [low for _, low, _ in band], [high for *_, high in band],
                              color=colour, alpha=0.25, linewidth=0)  # fmt: skip
        axis.grid(color=GRID, linewidth=0.8)
        axis.set_xlabel("layer", color=SOFT, fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        set_title(axis, f"{catalog.task(task).title}, {metric.titled}", 30)
    _legend(figure, results, results.systems)
    return figure


def losses(results: Results) -> Figure | None:
    """Masked-LM loss with right, missing and wrong ids, with intervals."""
    cells = [cell for cell in results.cells("lm") if catalog.metric(cell.metric).kind == "loss"]
    rows = [(cell, system, mean) for cell in cells for system, mean in results.means(cell)]
    if not rows:
        return None
    figure, (axis,) = new_figure(6.4, 0.42 * len(rows) + 1.0)
    names: list[str] = []
    for cell, system, mean in rows:
        metric = catalog.metric(cell.metric)
        _dot(axis, -len(names), mean.mean, metric, _colour(results, system))
        names.append(f"{results.label(system)}: {metric.label} (n = {mean.n})")
    _name_rows(axis, names, "nats per masked token, mean over languages with 95 % interval")
    set_title(axis, "Masked-LM loss")
    return figure


def similarity(results: Results) -> Figure | None:
    """Heat map of the cosine of translations: the last model's, at the protocol's layer or else its last."""
    found = [item for item in results.run.matrices if "cosine" in item.values]
    if not found:
        return None
    own = [item for item in found if item.folder == found[-1].folder]
    layer = protocol_layer(max(item.layer for item in own))
    item = next((item for item in own if item.layer == layer), own[-1])
    matrix = item.values["cosine"]
    ordered = heatmap.order(matrix)
    size = max(4.2, min(8.5, 0.16 * len(ordered)))
    figure, (axis,) = new_figure(size + 1.8, size + 0.6)
    picture = axis.imshow(
        np.where(np.eye(len(ordered), dtype=bool), np.nan, matrix)[np.ix_(ordered, ordered)], cmap="viridis"
    )
    step = -(-len(ordered) // NAMED)
    places = list(range(0, len(ordered), step))
    axis.set_yticks(places, [_plain(catalog.language_name(item.languages[ordered[i]])) for i in places], fontsize=7)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    bar = figure.colorbar(picture, ax=axis, shrink=0.6, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=8, colors=SOFT, length=0)
    set_title(axis, f"{catalog.metric('cosine').label}, {item.folder}, layer {item.layer}")
    return figure


def embedding_map(results: Results) -> Figure | None:
    """The PCA of the last model's language rows, coloured by script; the languages that stand apart are named."""
    maps = {system: rowmap.places(records).get("pca", []) for system, records in results.by_system.items()}
    maps = {system: [place for place in found if place.language is not None] for system, found in maps.items()}
    drawn = [system for system, found in maps.items() if len(found) >= 3]
    if not drawn:
        return None
    found = maps[drawn[-1]]
    scripts = [place.script for place in found]
    common = [name for name, count in Counter(filter(None, sorted(scripts, key=str))).most_common(8) if count > 1]
    figure, (axis,) = new_figure(8, 5.6)
    for name in [*common, None]:
        own = [place for place in found if (place.script if place.script in common else None) == name]
        if own:
            label = _plain(catalog.script_name(name)) if name else "other scripts"
            colour = CATEGORIES[common.index(name)] if name else PALE
            axis.scatter([place.x for place in own], [place.y for place in own], s=16, color=colour, linewidths=0,
                         label=f"{label} ({len(own)})")  # fmt: skip
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines["bottom"].set_visible(False)
    axis.set_aspect("equal", adjustable="datalim")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=SOFT)
    whose = f", {results.label(drawn[-1])}" if len(drawn) > 1 else ""
    set_title(axis, f"Language rows{whose}, first two principal components ({len(found)} languages)")
    figure.draw_without_rendering()  # the places are known only now
    _name_apart(axis, found)
    return figure


def _name_apart(axis: Axes, found: Sequence[rowmap.Place]) -> None:
    """Names beside the marks that have room, the loneliest first, none over another or over a mark."""
    marks = axis.transData.transform([(place.x, place.y) for place in found])
    frame, taken = axis.get_window_extent(), list[Bbox]()
    for i in rowmap.apart([(place.x, place.y) for place in found]):
        text = axis.annotate(_plain(found[i].name), marks[i], (5, -3), "figure pixels", "offset points", fontsize=7,
                             color=INK, annotation_clip=False)  # fmt: skip
        box = text.get_window_extent().expanded(1.1, 1.2)
        covers = any(box.contains(*mark) for number, mark in enumerate(marks) if number != i)
        if covers or any(box.overlaps(other) for other in taken) or box.x1 > frame.x1 or len(taken) == NAMED:
            text.remove()
        else:
            taken.append(box)
            text.xy, text.xycoords = (found[i].x, found[i].y), "data"
