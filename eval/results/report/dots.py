"""Rows of dots or bars with intervals on one axis, as HTML: they keep their letters at any width of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from langsamp.eval.results.catalog import Metric
from langsamp.eval.results.report.charts import Scale, tag, tick_text
from langsamp.eval.results.stats import Interval


class Row(NamedTuple):
    """A line of a dot or bar chart: label, small print, value with interval, shown text, colour class, hover text.

    `level` 0 starts a block, 1 is a part of it (indented), 2 belongs to the label above and has none of its own.
    """

    label: str
    note: str
    value: float
    low: float | None
    high: float | None
    text: str
    kind: str
    tip: str
    level: int = 0

    @classmethod
    def of(
        cls, metric: Metric, mean: Interval, kind: str, what: str, label: str = "", note: str = "", *,
        signed: bool = False, level: int = 0,
    ) -> Row:  # fmt: skip
        """The row of a mean; hovering tells `what` it is."""
        low, high = (None if bound is None else metric.scaled(bound) for bound in mean[1:])
        text = metric.text(mean, signed)
        return cls(label, note, metric.scaled(mean.value), low, high, text, kind, f"{what}: {text}", level)


def rows(entries: Sequence[Row], axis: Scale, *, unit: str, bars: bool = False) -> Markup:
    """Horizontal bars or dots with intervals, one below the other, and a common axis at the foot."""
    ticks = axis.ticks()
    grid = [tag("i", class_="g zero" if t == 0 else "g", style=f"left:{axis.at(t)}") for t in ticks]
    lines = []
    for entry in entries:
        bar = [tag("i", class_=f"bar {entry.kind}", style=f"width:{axis.at(entry.value)}")] if bars else []
        label = [entry.label, tag("small", entry.note)] if entry.level < 2 else []
        lines.append(
            tag(
                "div",
                tag("span", *label, class_="label"),
                tag(
                    "span", *grid, *bar, *marks_on_track(entry, axis, dot=not bars), class_="track", data_tip=entry.tip
                ),
                tag("span", entry.text, class_="value"),
                class_=("row", "row part", "row more")[entry.level],
            )
        )
    foot = [tag("i", tick_text(t), class_="t", style=f"left:{axis.at(t)}") for t in ticks]
    lines.append(
        tag(
            "div",
            tag("span", class_="label"),
            tag("span", *foot, class_="track foot"),
            tag("span", unit, class_="value unit"),
            class_="row axis",
            aria_hidden="true",
        )
    )
    return tag("div", *lines, class_="rows bars" if bars else "rows")


def marks_on_track(entry: Row, axis: Scale, dot: bool = True) -> list[Markup]:
    """The interval and the dot of a row on its track."""
    found = []
    if entry.low is not None and entry.high is not None:
        left, right = axis.share(entry.low), axis.share(entry.high)
        found.append(tag("i", class_=f"ci {entry.kind}", style=f"left:{left:.2f}%;width:{right - left:.2f}%"))
    if dot:
        found.append(tag("i", class_=f"dot {entry.kind}", style=f"left:{axis.at(entry.value)}"))
    return found
