"""The map of the languages from its records: where each row of the tables lies, and which rows stand apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from langsamp.core.language.families import family_name, family_of
from langsamp.core.record import Record
from langsamp.eval.results import catalog

TASK = "embedding-map"


class Place(NamedTuple):
    """A row of a table on the map; `language` is None for a row that is a script."""

    name: str
    code: str
    x: float
    y: float
    language: str | None
    script: str | None
    family: str | None


def places(records: Iterable[Record]) -> dict[str, list[Place]]:
    """Method of projection (`pca`, `umap`) -> its places, sorted by name; one without both coordinates is left out."""
    at: dict[str, dict[tuple[str | None, str | None], dict[str, float]]] = {}
    for record in records:
        metric = catalog.metric(record.metric)
        if record.task == TASK and metric.kind in ("pca", "umap"):
            at.setdefault(metric.kind, {}).setdefault((record.language, record.script), {})[metric.of] = record.value
    found = {}
    for method, rows in at.items():
        whole = ((key, xy["x"], xy["y"]) for key, xy in rows.items() if set(xy) == {"x", "y"})
        found[method] = sorted(_place(language, script, x, y) for (language, script), x, y in whole)
    return found


def _place(language: str | None, script: str | None, x: float, y: float) -> Place:
    code = "_".join(filter(None, [language, script]))
    name = catalog.language_name(code) if language else catalog.script_name(code)
    try:
        family = family_of(language) if language else None
    except ValueError:  # the code is no code
        family = None
    return Place(name, code, x, y, language, script, family_name(family) if family else None)


def apart(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points farthest from their neighbours first: these are named, where there is room."""
    if len(points) < 3:
        return list(range(len(points)))
    xy = np.array(points)
    gaps = ((xy[:, None] - xy[None]) ** 2).sum(-1)
    np.fill_diagonal(gaps, np.inf)
    room = np.round(gaps.min(axis=1), 9)
    return sorted(range(len(points)), key=lambda i: (-room[i], i))
