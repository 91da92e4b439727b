"""The heat map of the report: a square matrix of languages as an indexed PNG, similar languages side by side.

The picture is one pixel a cell and is enlarged by the browser, so 300 languages cost 90 KB and not 90,000 elements.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from langsamp.eval.results.report.charts import tag, tick_text

LABELLED = 48  # with more languages every k-th one is named; hovering names all
_OPTIMAL = 150  # optimal leaf ordering is cubic
_COLOURS = 200
_GREY = np.array([[128, 128, 128]], dtype=np.uint8)


def palette(count: int = _COLOURS) -> NDArray[np.uint8]:
    """(count, 3) colours from dark to bright, even in lightness and safe for colour-blind readers (viridis)."""
    from matplotlib import colormaps

    return np.round(colormaps["viridis"](np.linspace(0, 1, count))[:, :3] * 255).astype(np.uint8)


def order(matrix: NDArray[np.float64]) -> list[int]:
    """Rows ordered by average-link clustering of their profiles; the same matrix always gives the same order."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(matrix) < 3:
        return list(range(len(matrix)))
    known = np.where(np.isnan(matrix), np.nanmean(matrix) if np.isfinite(matrix).any() else 0.0, matrix)
    tree = linkage(np.round(known, 6), method="average", optimal_ordering=len(matrix) <= _OPTIMAL)
    return [int(i) for i in leaves_list(tree)]


def png(indices: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """A picture with one byte a pixel, not compressed: so its bytes do not depend on the zlib at hand."""
    from PIL import Image

    picture, file = Image.fromarray(indices), io.BytesIO()
    picture.putpalette(colours.tobytes())
    picture.save(file, "PNG", compress_level=0)
    return file.getvalue()


def ends(matrices: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Lowest and highest value off the diagonals (a language with itself does not stretch the colours)."""
    rest = [matrix[~np.eye(len(matrix), dtype=bool) & np.isfinite(matrix)] for matrix in matrices]
    values = np.concatenate([*rest, np.zeros(0)])
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def heatmap(
    names: Sequence[str],
    matrix: NDArray[np.float64],
    about: str,
    scale: tuple[float, float] | None = None,
    ordered: Sequence[int] | None = None,
) -> Markup:
    """Picture, names on the left, and a colour bar; hovering shows two names and the value (from `data-rows`).

    `scale` is where the colours begin and end, by default at the matrix's own `ends`; `ordered` the rows, in order, by
    default the matrix's own; NaN is grey.

    Raises:
        ValueError: the matrix is not square with one name a row, or has infinite values.
    """
    if matrix.shape != (len(names), len(names)) or np.isinf(matrix).any():
        raise ValueError(f"a heat map needs a finite square matrix with {len(names)} rows, got shape {matrix.shape}")
    ordered = order(matrix) if ordered is None else ordered
    names, matrix = [names[i] for i in ordered], matrix[np.ix_(ordered, ordered)]
    low, high = scale or ends([matrix])
    shares = np.clip((matrix - low) / max(high - low, 1e-9), 0, 1)
    indices = np.where(np.isnan(shares), _COLOURS, np.round(np.nan_to_num(shares) * (_COLOURS - 1))).astype(np.uint8)
    picture = png(indices, np.vstack([palette(), _GREY]))
    step = -(-len(names) // LABELLED)
    labels = [_label(i, name, len(names)) for i, name in enumerate(names) if i % step == 0]
    image = tag(
        "img",
        src="data:image/png;base64," + base64.b64encode(picture).decode(),
        alt=about,
        class_="heat",
        data_names="|".join(name.replace("|", "/") for name in names),
        data_rows=";".join(
            " ".join("" if value != value else f"{value:.3f}" for value in row) for row in matrix.tolist()
        ),
    )
    side = max(280, min(720, 15 * min(len(names), LABELLED)))
    return tag(
        "div",
        tag("div", *labels, class_="heat-left"),
        image,
        _colour_bar(low, high),
        class_="heatmap",
        style=f"--side:{side}px;--least:{min(side, 11.5 * len(labels)):.0f}px",
    )


def _label(i: int, name: str, count: int) -> Markup:
    return tag("span", name, style=f"top:{100 * (i + 0.5) / count:.3f}%")


def _colour_bar(low: float, high: float) -> Markup:
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in palette(9).tolist())
    bar = tag("i", style=f"background:linear-gradient(to right, {stops})")
    return tag("div", tick_text(round(low, 2)), bar, tick_text(round(high, 2)), class_="colour-bar")
