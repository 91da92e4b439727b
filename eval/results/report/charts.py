"""Charts of the report as HTML and inline SVG: they need no library, follow the page's colours and any width.

Positions are percentages of the plot, sizes of text and marks are pixels, so a chart stays legible on a phone. Every
text goes through `tag`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

CHAR_WIDTH, LINE_HEIGHT = 6.1, 13  # pixels of a label in the page's small type
WIDE, HALF, NARROW = 700, 330, 270  # least widths of a plot over the page, over half of it, and on a phone, in pixels


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element with escaped children and attributes: `class_` is `class`, `data_tip` `data-tip`; None is left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{shown}>" if name == "img" else f"<{name}{shown}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Escaped concatenation."""
    return Markup("").join(escape(part) for part in parts)


class Scale(NamedTuple):
    """A linear axis from `low` to `high`."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Position of a value in percent of the axis, clipped to it."""
        return 100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def at(self, value: float) -> str:
        """Position of a value for CSS and SVG."""
        return f"{self.share(value):.2f}%"

    def ticks(self, count: int = 5, whole: bool = False) -> list[float]:
        """About `count` round values within the axis; `whole`: no fractions."""
        step = _round_step((self.high - self.low) / count)
        step = max(1.0, round(step)) if whole else step
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale(values: Iterable[float], *, zero: bool = False, margin: float = 0.04) -> Scale:
    """An axis that holds the values with some room, from round to round number; `zero` puts 0 on it."""
    found = [*values, *([0.0] if zero else [])]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    room = (high - low) * margin or max(abs(high) * 0.05, 0.05)
    bottom = low if zero and low == 0 < high else low - room
    top = high if zero and high == 0 > low else high + room
    step = _round_step((top - bottom) / 8)
    return Scale(math.floor(bottom / step + 1e-9) * step, math.ceil(top / step - 1e-9) * step)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)


def tick_text(value: float) -> str:
    """Shortest text of a tick, with a real minus sign."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


class Point(NamedTuple):
    """A mark of a scatter plot: its name (for a label), what hovering shows, and its class for the colour."""

    x: float
    y: float
    name: str
    tip: str
    kind: str
    other: str | None = None  # a second class, shown by the "colour by" switch


def frame(
    marks: Markup,
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    y_label: str,
    about: str,
    ratio: float,
    ticks: bool = True,
    whole: bool = False,
) -> Markup:
    """A plot with axes, grid and labels around marks in percent coordinates; `whole`: no fractions on the x axis."""
    x_ticks, y_ticks = x.ticks(whole=whole), y.ticks()
    lines = [tag("line", x1=x.at(t), x2=x.at(t), y1="0", y2="100%", class_="grid") for t in x_ticks]
    lines += [tag("line", y1=_up(y, t), y2=_up(y, t), x1="0", x2="100%", class_="grid") for t in y_ticks]
    texts = [tag("text", tick_text(t), x=x.at(t), y="100%", dy="18", class_="tick mid") for t in x_ticks]
    texts += [tag("text", tick_text(t), x="0", y=_up(y, t), dx="-8", dy=".32em", class_="tick end") for t in y_ticks]
    svg = tag("svg", *(lines + texts if ticks else []), marks, role="img", aria_label=about)
    return tag(
        "div",
        tag("div", y_label, class_="axis-y") if y_label else "",
        tag("div", svg, class_="area" if ticks else "area bare", style=f"aspect-ratio:{ratio:.3f}"),
        tag("div", x_label, class_="axis-x") if x_label else "",
        class_="plot",
    )


def _up(axis: Scale, value: float) -> str:
    return f"{100 - axis.share(value):.2f}%"


def scatter(
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    about: str,
    ratio: float = 16 / 9,
    diagonal: Scale | None = None,
    equal: bool = False,
    ticks: bool = True,
    named: int = 40,
    width: int = WIDE,
) -> Markup:
    """Points with hover texts and as many names as fit without covering each other.

    Args:
        points: in order of importance: the first ones get their names shown first.
        x_label: below the plot.
        y_label: above the plot, on the left.
        about: what the plot shows, for screen readers.
        ratio: width over height.
        diagonal: the axis of both sides, with the line y = x.
        equal: one unit is equally long on both axes (a map).
        ticks: show numbers on the axes.
        named: most names.
        width: least width on a desktop, in pixels; a phone has `NARROW`.
    """
    x, y = scale([p.x for p in points]), scale([p.y for p in points])
    if diagonal:
        x = y = diagonal
    if equal:
        x, y = _same_unit(points, ratio)
    marks = []
    if diagonal:
        marks.append(tag("line", x1="0", y1="100%", x2="100%", y2="0", class_="diagonal"))
    marks += [
        tag(
            "circle",
            tag("title", p.tip),
            cx=x.at(p.x),
            cy=_up(y, p.y),
            r="4.5",
            class_=f"mark {p.kind}",
            data_other=p.other,
        )
        for p in reversed(points)  # the important ones on top
    ]
    marks += _names(points, x, y, ratio, named, width)
    return frame(join(marks), x, y, x_label=x_label, y_label=y_label, about=about, ratio=ratio, ticks=ticks)


def _same_unit(points: Sequence[Point], ratio: float) -> tuple[Scale, Scale]:
    xs, ys = [p.x for p in points] or [0.0], [p.y for p in points] or [0.0]
    half = max((max(xs) - min(xs)) / 2, (max(ys) - min(ys)) / 2 * ratio, 1e-6) * 1.06
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return Scale(middle_x - half, middle_x + half), Scale(middle_y - half / ratio, middle_y + half / ratio)


def _names(points: Sequence[Point], x: Scale, y: Scale, ratio: float, limit: int, width: int) -> list[Markup]:
    """Names that do not cover anything: the ones that fit on a phone, and more on a wide screen."""
    small = place(points, x, y, NARROW, ratio, limit // 3)
    large = place(points, x, y, width, ratio, limit)
    found = []
    for spots, kind in ((small, "name narrow"), (large, "name wide")):
        for i, (dx, dy, anchor) in spots.items():
            p = points[i]
            found.append(tag("text", p.name, x=x.at(p.x), y=_up(y, p.y), dx=dx, dy=dy, class_=f"{kind} {anchor}"))
    return found


def place(
    points: Sequence[Point], x: Scale, y: Scale, width: float, ratio: float, limit: int
) -> dict[int, tuple[int, float, str]]:
    """Which points get their name in a plot of `width` pixels, and where: `{index: (dx, dy, anchor)}`.

    Greedy, in the order of the points; a name must not touch another one, a mark, or leave the plot.
    """
    height = width / ratio
    centers = [(x.share(p.x) / 100 * width, height - y.share(p.y) / 100 * height) for p in points]
    taken: list[tuple[float, float, float, float]] = []
    found: dict[int, tuple[int, float, str]] = {}
    for i, (point, (px, py)) in enumerate(zip(points, centers)):
        if len(found) == limit:
            break
        long = len(point.name) * CHAR_WIDTH
        for left, dx, dy, anchor in (
            (px + 8, 8, 4, "start"), (px - 8 - long, -8, 4, "end"),
            (px - long / 2, 0, -9, "mid"), (px - long / 2, 0, 17, "mid"),
        ):  # fmt: skip
            box = (left, py + dy - 10, left + long, py + dy - 10 + LINE_HEIGHT)
            inside = box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height
            if inside and not any(_touch(box, other) for other in taken) and not _covers(box, centers, i):
                taken.append(box)
                found[i] = (dx, dy, anchor)
                break
    return found


def _touch(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] + 3 and b[0] < a[2] + 3 and a[1] < b[3] and b[1] < a[3]


def _covers(box: tuple[float, float, float, float], centers: Sequence[tuple[float, float]], own: int) -> bool:
    return any(
        box[0] - 5 < px < box[2] + 5 and box[1] - 5 < py < box[3] + 5 for i, (px, py) in enumerate(centers) if i != own
    )


class Line(NamedTuple):
    """A curve: points (x, y) in order, with optional (x, low, high) as a band, and its class."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: str
    band: Sequence[tuple[float, float, float]] = ()


def curves(
    lines: Sequence[Line], *, x_label: str, y_label: str, about: str, marks: bool = True, whole: bool = False
) -> Markup:
    """Line chart, with intervals as bands; `whole` keeps the x axis from the first to the last point."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [y for line in lines for _, *pair in line.band for y in pair]
    room = 0.0 if whole and len(set(xs)) > 1 else 0.5
    x = Scale(min(xs) - room, max(xs) + room)
    y = scale(ys)
    shapes = []
    for line in lines:
        edge = [(a, low) for a, low, _ in line.band] + [(a, high) for a, _, high in reversed(line.band)]
        if edge:
            shapes.append(tag("polygon", points=_path(edge, x, y), class_=f"band {line.kind}"))
    shapes += [tag("polyline", points=_path(line.points, x, y), class_=f"curve {line.kind}") for line in lines]
    drawing = tag(
        "svg", *shapes, viewBox="0 0 100 100", preserveAspectRatio="none", width="100%", height="100%", class_="shapes"
    )
    dots = [
        tag("circle", tag("title", f"{line.name}: {tick_text(a)}, {b:.4g}"), cx=x.at(a), cy=_up(y, b), r="3.5",
            class_=f"mark {line.kind}")
        for line in lines if marks for a, b in line.points
    ]  # fmt: skip
    return frame(join([drawing, *dots]), x, y, x_label=x_label, y_label=y_label, about=about, ratio=2.0, whole=True)


def _path(points: Iterable[tuple[float, float]], x: Scale, y: Scale) -> str:
    return " ".join(f"{x.share(a):.2f},{100 - y.share(b):.2f}" for a, b in points)
