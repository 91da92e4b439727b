"""The map of languages: the learned rows in two dimensions, and how well their neighbours agree in script and family.

The paper shows such a map (notes/paper.md, section 5); its exact recipe is unknown. Here: PCA of the centred rows that
training has touched, UMAP too if the package umap-learn is installed, and as a number the kNN purity: how often one of
the 5 nearest rows (cosine of centred rows) shares the script or family, beside what chance would give.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from langsamp.core.language.families import family_of
from langsamp.core.record import Record
from langsamp.eval.data.columns import DataError
from langsamp.eval.task import Context, Unit
from langsamp.eval.tasks.table_rows import TableRows, likely_tag, read_rows

logger = logging.getLogger(__name__)

NEIGHBOURS = 5


def pca(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n, 2) on the two main axes and the share of the variance of each (2,).

    Signs are fixed: the largest coordinate of each axis is positive. With fewer than two dimensions the rest is 0.
    """
    centred = (vectors - vectors.mean(0)).astype(np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points, share = np.zeros((len(vectors), 2)), np.zeros(2)
    used = min(2, len(sizes))
    points[:, :used] = left[:, :used] * sizes[:used]
    points *= np.sign(points[np.abs(points).argmax(0), np.arange(2)]) + (points == 0).all(0)
    if (sizes > 0).any():
        share[:used] = sizes[:used] ** 2 / (sizes**2).sum()
    return points, share


def umap_points(vectors: np.ndarray) -> np.ndarray | None:
    """Coordinates (n, 2) by UMAP (cosine, seed 42), or None without umap-learn or with fewer than 5 rows."""
    if importlib.util.find_spec("umap") is None or len(vectors) < 5:
        return None
    from umap import UMAP

    mapper = UMAP(n_neighbors=min(15, len(vectors) - 1), metric="cosine", random_state=42, init="pca")
    return np.asarray(mapper.fit_transform(vectors - vectors.mean(0)), dtype=np.float64)


def knn_purity(
    vectors: np.ndarray, labels: Sequence[str | None], k: int = NEIGHBOURS
) -> tuple[float, float, int] | None:
    """(purity, chance, rows): the mean share of a row's k nearest that have its label, and what random labels give.

    Only rows with a label take part. Nearest by cosine of the centred rows; equal distances share the last places.
    None with fewer than two rows with a label.
    """
    keep = [index for index, label in enumerate(labels) if label is not None]
    if len(keep) < 2:
        return None
    centred = (vectors - vectors.mean(0)).astype(np.float64)[keep]
    units = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-30)
    similarity = units @ units.T
    np.fill_diagonal(similarity, -np.inf)
    names = np.array([labels[index] for index in keep])
    same = names[:, None] == names[None, :]
    k = min(k, len(keep) - 1)
    shares = []
    for row, agree in zip(similarity, same):
        edge = np.sort(row)[-k]
        inside, tied = row > edge + 1e-12, np.abs(row - edge) <= 1e-12
        shares.append((agree[inside].sum() + agree[tied].mean() * (k - inside.sum())) / k)
    chance = (same.sum(1) - 1).mean() / (len(keep) - 1)
    return float(np.mean(shares)), float(chance), len(keep)


class EmbeddingMap:
    """Records: `pca_x`, `pca_y` (and `umap_x`, `umap_y`) a row; `row_norm` a row; `untrained` 1 for rows left out;

    over all languages `purity_script@5`, `purity_family@5` with `..._chance`, and `language_pca_variance_1`, `_2` (the
    shares of the variance; the same for `script`).
    A language row has the language and its likely script; a script row the script alone.
    """

    name = "embedding-map"

    def languages(self, context: Context) -> list[str]:
        """The languages with a row.

        Raises:
            DataError: the model has no tables.
        """
        tables = [read_rows(context.source.path, kind) for kind in ("languages", "scripts")]
        if not any(tables):
            raise DataError(
                f"model {context.source.name!r} has no language and no script rows (a stock XLM-R, or the "
                "baseline), so there is nothing to map"
            )
        return sorted(likely_tag(name) for name in tables[0].names) if tables[0] else []

    def units(self, context: Context, languages: list[str]) -> list[Unit]:
        """One unit: the map is made in a moment, of all rows at once, so that a later run adds to the same one."""
        tables = {kind: read_rows(context.source.path, kind) for kind in ("languages", "scripts")}
        found = [record for kind, rows in tables.items() if rows for record in map_records(context, kind, rows)]
        return [Unit(None, [record for record in found if record.code is None or record.code in languages])]

    def compute(self, context: Context, unit: Unit) -> Sequence[Record]:
        """What `units` has found."""
        return unit.expected


def map_records(context: Context, kind: str, rows: TableRows) -> list[Record]:
    """All records of one table."""
    norms = np.linalg.norm(rows.vectors.astype(np.float64), axis=1)
    found = [_row_record(context, kind, name, "row_norm", value) for name, value in zip(rows.names, norms)]
    left_out = [name for name, out in zip(rows.names, rows.untrained) if out]
    if left_out:
        logger.warning(
            "embedding map: %d of %d %s were never trained and are left out: %s",
            len(left_out), len(rows.names), kind, ", ".join(left_out),
        )  # fmt: skip
    found += [_row_record(context, kind, name, "untrained", 1.0) for name in left_out]
    trained = rows.trained
    if len(trained.names) < 3:
        logger.warning("embedding map: only %d trained %s, too few for a map", len(trained.names), kind)
        return found
    points, share = pca(trained.vectors)
    maps = {"pca": points, "umap": umap_points(trained.vectors)}
    for method, where in maps.items():
        if where is not None:
            for name, (x, y) in zip(trained.names, where):
                found.append(_row_record(context, kind, name, f"{method}_x", x))
                found.append(_row_record(context, kind, name, f"{method}_y", y))
    singular = kind.removesuffix("s")
    for axis, value in enumerate(share, 1):
        metric = f"{singular}_pca_variance_{axis}"
        found.append(context.record(EmbeddingMap.name, None, metric, value, n=len(trained.names)))
    return found + (_purity_records(context, trained) if kind == "languages" else [])


def _row_record(context: Context, kind: str, name: str, metric: str, value: float) -> Record:
    """A number of one row."""
    if kind == "languages":
        return context.record(EmbeddingMap.name, likely_tag(name), metric, float(value))
    return replace(context.record(EmbeddingMap.name, None, metric, float(value)), script=name)


def _purity_records(context: Context, rows: TableRows) -> list[Record]:
    labels = {
        "script": [likely_tag(name).partition("_")[2] or None for name in rows.names],
        "family": [family_of(name) for name in rows.names],
    }
    found = []
    for label, values in labels.items():
        if result := knn_purity(rows.vectors, values):
            purity, chance, n = result
            metric = f"purity_{label}@{NEIGHBOURS}"
            found.append(context.record(EmbeddingMap.name, None, metric, purity, n=n))
            found.append(context.record(EmbeddingMap.name, None, f"{metric}_chance", chance, n=n))
    return found


EMBEDDING_MAP = EmbeddingMap()
