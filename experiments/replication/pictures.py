"""The two plots of an experiment, from records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from langsamp.eval.results import catalog, plots

from .contrasts import Part


def draw(part: Part, stem: Path) -> None:
    """Write `<stem>-layers.png` (retrieval at every layer) and `<stem>-differences.png`.

    Args:
        part: the languages to show; the second plot has the differences from the baseline.
        stem: folder and beginning of the files' names.
    """
    figure, axes = plots.new_figure(9, 3.8, 1, 2)
    for axis, task in zip(axes, ("sr-bible", "sr-tatoeba")):
        for number, (name, found) in enumerate(part.runs.items()):
            kept = [r for r in found if (r.task, r.metric, r.direction) == (task, "acc@10", "en->x")]
            at = sorted({r.layer for r in kept if r.layer})
            heights = [100 * np.mean([r.value for r in kept if r.layer == k]) for k in at]
            style = ("--" if name == "start" else "-") if number < len(plots.COLOURS) else ":"
            if at:
                axis.plot(at, heights, style, color=plots.COLOURS[number % 6], linewidth=1.6, label=name)
        axis.set_xlabel("layer", color=plots.SOFT, fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(color=plots.GRID, linewidth=0.8)
        plots.set_title(axis, f"{catalog.task(task).title}, Acc@10 (%)")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", frameon=False, ncols=5, fontsize=9)
    plots.save(figure, stem.with_name(f"{stem.name}-layers.png"))
    shown = {cell for cell, name in part.columns.items() if name in ("SR-Bible Acc@10", "SR-Tatoeba Acc@10")}
    against = [entry for entry in part.comparisons if entry.a == "baseline" and entry.cell in shown]
    if forest := plots.differences(against):
        plots.save(forest, stem.with_name(f"{stem.name}-differences.png"))
