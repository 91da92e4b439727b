"""Plots as PNG files for the model card and for papers: records in, pictures out (matplotlib, no display needed).

write_plots("runs/quickstart", "checkpoint/plots")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from langsamp.eval.results import catalog, rundir
from langsamp.eval.results.aggregate import Cell, aggregate
from langsamp.eval.results.compare import Comparison
from langsamp.eval.results.report import heatmap
from langsamp.eval.results.report.page import Page, overall, shown

COLOURS = ("#8a94a3", "#0b62c4", "#d97706", "#0f8f63", "#b0459b", "#6d4bc3")
INK, SOFT, GRID = "#1b1f24", "#59626e", "#e6e9ed"
MOODS = {"better": "#0a7d4f", "worse": "#c2410c"}
NAMED = 40  # most languages named in a picture


def write_plots(
    run_dir: str | Path | Sequence[str | Path], output: str | Path, *, baseline: str | None = None
) -> list[Path]:
    """Draw what the records allow into a folder and return the files.

    `scores.png` (means by group), `differences.png` (paired differences with intervals), `layers.png`,
    `losses.png` (masked-LM loss with right, missing and wrong ids), `neutrality.png` (heat map), `map.png` (rows).
    Raises like `rundir.load` and `Page.of`.
    """
    return draw(Page.of(rundir.load(run_dir), baseline), output)


def draw(page: Page, output: str | Path) -> list[Path]:
    """`write_plots` of records that are gathered already."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    drawn = {
        "scores": scores(page),
        "differences": differences([entry for found in page.comparisons for entry in found if entry.headline]),
        "layers": layers(page),
        "losses": losses(page),
        "neutrality": similarity(page),
        "map": embedding_map(page),
    }
    files = []
    for name, figure in drawn.items():
        if figure is not None:
            files.append(save(figure, output / f"{name}.png"))
    return files


def plot_comparison(found: Sequence[Comparison], path: Path) -> Path:
    """The forest plot of one comparison."""
    figure = differences([entry for entry in found if entry.headline])
    assert figure is not None, "a comparison has a headline"
    return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without the library's version in it, so that equal pictures are equal files."""
    figure.savefig(path, dpi=160, metadata={"Software": None}, facecolor="white", bbox_inches="tight", pad_inches=0.15)
    return path


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` x `columns` panels (inches in all) in the style of all plots, and its panels row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.spines["bottom"].set_color(GRID)
        axis.tick_params(colors=SOFT, labelsize=9, length=0)
        axis.set_axisbelow(True)
    return figure, axes


def set_title(axis: Axes, text: str) -> None:
    """Head a panel; the text is shown as it is."""
    axis.set_title(text.replace("$", r"\$"), loc="left", fontsize=11, color=INK, fontweight="bold", pad=10)


def _plain(text: str) -> str:
    """Names are shown as they are: a dollar sign starts no formula."""
    return text.replace("$", r"\$")


def scores(page: Page) -> Figure | None:
    """Bars of the headline of every task in percent, for all, head and tail languages, with intervals."""
    cells = [page.headline(task) for task in page.tasks]
    cells = [
        cell
        for cell in cells
        if catalog.metric(cell.metric).percent
        and not cell.metric.startswith("dev_")  # a data set that was trained on but has no test part
        and any(e.languages for _, e in page.of_cell(cell))
    ]
    if not cells:
        return None
    figure, axes = new_figure(
        3.1 * min(3, len(cells)) + 0.4, 2.9 * -(-len(cells) // 3), -(-len(cells) // 3), min(3, len(cells))
    )
    for axis, cell in zip(axes, cells):
        _bars(axis, page, cell)
    for axis in axes[len(cells) :]:
        axis.set_visible(False)
    if len(page.systems) > 1:
        handles = [Patch(color=COLOURS[min(i, 5)]) for i in range(len(page.systems))]
        figure.legend(handles, [_plain(page.label(s)) for s in page.systems], loc="outside lower center", frameon=False,
                      ncols=min(4, len(handles)), fontsize=9)  # fmt: skip
    return figure


def _bars(axis: Axes, page: Page, cell: Cell) -> None:
    metric = catalog.metric(cell.metric)
    found = page.of_cell(cell)
    names: dict[str, int] = {}
    for number, (system, entry) in enumerate(found):
        groups = [item for item in aggregate(entry) if item.group in ("all", "head", "tail")]
        width = 0.8 / len(found)
        for item in groups:
            place = names.setdefault(
                f"{item.group}\nn = {item.n}" if not number else _first(names, item.group), len(names)
            )
            value = shown(metric, [item.mean.value])[0]
            x = place + (number - (len(found) - 1) / 2) * width
            axis.bar(x, value, width * 0.92, color=COLOURS[min(page.systems.index(system), 5)])
            if item.mean.low is not None and item.mean.high is not None:
                low, high = shown(metric, [item.mean.low, item.mean.high])
                axis.vlines(x, low, high, color=INK, linewidth=1)
    axis.set_xticks(list(names.values()), list(names), color=SOFT)
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    set_title(axis, fill(f"{catalog.task(cell.task).title}, {metric.label} (%)", 30))


def _first(names: dict[str, int], group: str) -> str:
    return next((name for name in names if name.startswith(f"{group}\n")), group)


def differences(found: Sequence[Comparison]) -> Figure | None:
    """Dots with intervals of the paired differences, all, head and tail; one panel a unit."""
    panels = [[entry for entry in found if entry.metric.percent == percent] for percent in (True, False)]
    panels = [panel for panel in panels if panel]
    if not panels:
        return None
    sizes = [sum(len(_groups(entry)) for entry in panel) for panel in panels]
    figure = Figure(figsize=(7.2, 0.34 * sum(sizes) + 1.1 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=sizes).ravel().tolist()
    several = len({entry.b for entry in found}) > 1
    for axis, panel in zip(axes, panels):
        _forest(axis, panel, several)
    return figure


def _groups(entry: Comparison) -> list[Any]:
    return [group for group in entry.groups if group.name in ("all", "head", "tail")]


def _forest(axis: Axes, panel: Sequence[Comparison], several: bool) -> None:
    names: list[str] = []
    for entry in panel:
        for group in _groups(entry):
            whole, y = group.name == "all", -len(names)
            colour = MOODS.get(entry.verdict, SOFT) if whole else "#a9b1bb"
            value, low, high = group.difference
            if low is not None and high is not None:
                axis.plot(
                    shown(entry.metric, [low, high]), [y, y], color=colour, linewidth=2 if whole else 1.4, zorder=2
                )
            axis.plot(shown(entry.metric, [value]), [y], "o", color=colour, markersize=6.5 if whole else 5, zorder=3)
            title = catalog.task(entry.cell.task).title + (f": {_plain(entry.b)}" if several else "")
            names.append(f"{title}, {entry.metric.label} (n = {group.n})" if whole else f"{group.name} (n = {group.n})")
    axis.axvline(0, color=SOFT, linewidth=1, zorder=1)
    axis.set_yticks([-i for i in range(len(names))], names)
    axis.set_ylim(-len(names) + 0.4, 0.6)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(GRID)
    axis.tick_params(colors=SOFT, labelsize=9, length=0)
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    unit = panel[0].metric.difference_unit
    first = "model" if several else _plain(panel[0].b)
    axis.set_xlabel(f"{first} minus {_plain(panel[0].a)}{f', {unit}' if unit else ''}", color=SOFT, fontsize=9)
    set_title(axis, "Mean differences with 95 % intervals")


def layers(page: Page) -> Figure | None:
    """Curves over layers: the headline of every task that has several, and every neutrality measure."""
    wanted: dict[Cell, list[Cell]] = {}
    for task in page.tasks:
        best = page.headline(task)
        for cell in page.cells(task):
            shown_one = cell.metric == best.metric or task == "neutrality"
            if cell.layer is not None and shown_one and cell[3:] == best[3:]:
                wanted.setdefault(cell._replace(layer=None), []).append(cell)
    wanted = {name: cells for name, cells in wanted.items() if len(cells) > 1}
    if not wanted:
        return None
    columns = min(3, len(wanted))
    figure, axes = new_figure(
        3.2 * columns + 0.3, 2.6 * -(-len(wanted) // columns), -(-len(wanted) // columns), columns
    )
    for axis, (name, cells) in zip(axes, wanted.items()):
        metric = catalog.metric(name.metric)
        for number, system in enumerate(page.systems):
            means = [(c.layer or 0, overall(page.series[system, c])[1]) for c in cells if (system, c) in page.series]
            if means:
                colour = COLOURS[min(number, 5)]
                at = [layer for layer, _ in means]
                axis.plot(at, shown(metric, [mean.value for _, mean in means]), "o-", color=colour, markersize=3.5,
                          label=_plain(page.label(system)))  # fmt: skip
                if all(mean.low is not None for _, mean in means):
                    low, high = (shown(metric, [m[i] or 0.0 for _, m in means]) for i in (1, 2))
                    axis.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.grid(color=GRID, linewidth=0.8)
        axis.set_xlabel("layer", color=SOFT, fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        set_title(axis, f"{catalog.task(name.task).title}, {metric.label}{' (%)' if metric.percent else ''}")
    for axis in axes[len(wanted) :]:
        axis.set_visible(False)
    handles, names = axes[0].get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(handles, names, loc="outside lower center", frameon=False, ncols=min(4, len(names)), fontsize=9)
    return figure


def losses(page: Page) -> Figure | None:
    """Masked-LM loss with right, missing and wrong ids, with intervals."""
    cells = [cell for cell in page.cells("lm") if cell.metric.startswith("loss")]
    rows = [(cell, system, entry) for cell in cells for system, entry in page.of_cell(cell)]
    if not rows:
        return None
    figure, (axis,) = new_figure(6.4, 0.42 * len(rows) + 1.0)
    names: list[str] = []
    for cell, system, entry in rows:
        n, mean = overall(entry)
        y, colour = -len(names), COLOURS[min(page.systems.index(system), 5)]
        if mean.low is not None and mean.high is not None:
            axis.plot([mean.low, mean.high], [y, y], color=colour, linewidth=2)
        axis.plot([mean.value], [y], "o", color=colour, markersize=6.5)
        names.append(f"{_plain(page.label(system))}: {_ids(cell.metric)} (n = {n})")
    axis.set_yticks([-i for i in range(len(names))], names)
    axis.set_ylim(-len(names) + 0.4, 0.6)
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    axis.set_xlabel("nats per masked token, mean over languages with 95 % interval", color=SOFT, fontsize=9)
    set_title(axis, "Masked-LM loss")
    return figure


def _ids(metric: str) -> str:
    return {"loss": "right ids", "loss_missing": "no ids", "loss_wrong": "wrong ids"}.get(
        metric, metric.replace("_", " ")
    )


def similarity(page: Page) -> Figure | None:
    """Heat map of the cosine of translations: the last model's, at the 8th layer or else its last."""
    found = [item for item in page.run.matrices if "cosine" in item.values]
    if not found:
        return None
    own = [item for item in found if item.folder == found[-1].folder]
    item = next((item for item in own if item.layer == catalog.PROTOCOL_LAYER), own[-1])
    matrix = item.values["cosine"]
    turn = heatmap.order(matrix)
    size = max(4.2, min(8.5, 0.16 * len(turn)))
    figure, (axis,) = new_figure(size + 1.8, size + 0.6)
    picture = axis.imshow(np.where(np.eye(len(turn), dtype=bool), np.nan, matrix)[np.ix_(turn, turn)], cmap="viridis")
    step = -(-len(turn) // NAMED)
    places = list(range(0, len(turn), step))
    axis.set_yticks(places, [_plain(catalog.language_name(item.languages[turn[i]])) for i in places], fontsize=7)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    bar = figure.colorbar(picture, ax=axis, shrink=0.6, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=8, colors=SOFT, length=0)
    set_title(axis, f"Mean cosine of translations, {_plain(item.folder)}, layer {item.layer}")
    return figure


def embedding_map(page: Page) -> Figure | None:
    """The PCA of the language rows, coloured by script."""
    at: dict[tuple[str, str | None], dict[str, float]] = {}
    for record in page.run.records:
        if record.task == "embedding-map" and record.metric in ("pca_x", "pca_y") and record.language:
            at.setdefault((record.language, record.script), {})[record.metric[-1]] = record.value
    places = {code: (xy["x"], xy["y"]) for code, xy in sorted(at.items(), key=str) if set(xy) == {"x", "y"}}
    if len(places) < 3:
        return None
    scripts = [script or "none" for _, script in places]
    common = sorted(set(scripts), key=lambda name: (-scripts.count(name), name))[:8]
    figure, (axis,) = new_figure(8, 5.6)
    colours = ("#0b62c4", "#d97706", "#0f8f63", "#b0459b", "#c0392b", "#0e8fb3", "#8a6d1b", "#6d4bc3")
    for name in [*common, None]:
        own = [xy for xy, script in zip(places.values(), scripts) if (script if script in common else None) == name]
        if own:
            label = f"{catalog.script_name(name)} ({len(own)})" if name else f"other scripts ({len(own)})"
            colour = colours[common.index(name)] if name else "#b7bec7"
            axis.scatter([x for x, _ in own], [y for _, y in own], s=16, color=colour, label=label, linewidths=0)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines["bottom"].set_visible(False)
    axis.set_aspect("equal", adjustable="datalim")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=SOFT)
    set_title(axis, f"Language rows, first two principal components ({len(places)} languages)")
    return figure
