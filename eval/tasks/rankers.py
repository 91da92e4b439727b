"""Similarities between languages to rank source languages by: learned rows, centroids of sentences, any table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from langsamp.core.language.languages import normalize_tag
from langsamp.eval.data.columns import DataError
from langsamp.eval.labelled import read_texts
from langsamp.eval.task import Context
from langsamp.eval.tasks.table_rows import likely_tag, read_rows
from langsamp.language_codes import match_script, parse_tag

FOLDER = "sib200"
Table = dict[tuple[str, str], float]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors; 0 if one of them is zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


class Rankers:
    """Every way to rank sources that this model and data allow, by name; higher scores are closer.

    - `language+script-row`: cosine of what the model adds for a language in a script (paper, section 3);
    - `language-row`: cosine of the language rows alone; for both, rows never trained are left out;
    - `centroid`: cosine of the mean sentence vectors of `FOLDER` at `layer`, less their mean over the `centre` (as
      they are, all point one way); needs the encoder, no labels;
    - `table`: the similarities of a file (the option `similarity`), as they are.

    Args:
        context: model, data and options.
        tags: the languages that are compared.
        layer: of the centroids.
        centre: languages with text; a study's are its sources, lest its numbers depend on the targets asked for.
            None: all `tags`.
    """

    def __init__(self, context: Context, tags: Sequence[str], layer: int, centre: Sequence[str] | None = None) -> None:
        self.context, self.layer, self.centre = context, layer, centre
        self._rows = row_vectors(context, tags)
        path = context.options.similarity
        self._table = read_table(path) if path else None
        data = context.data.languages(FOLDER) if context.data.folders(FOLDER) else []
        self._with_text = [tag for tag in tags if tag in data]

    @property
    def places(self) -> list[str]:
        """The data that is read for the languages."""
        return [f"{FOLDER}/{tag}" for tag in self._with_text]

    @property
    def names(self) -> list[str]:
        """The rankers there are; the first is the one to trust before anything was measured."""
        found = [name for name, vectors in self._rows.items() if vectors]
        return found + ["centroid"] * bool(self._with_text) + ["table"] * (self._table is not None)

    def known(self, name: str, target: str, sources: Sequence[str]) -> list[str]:
        """The sources that a ranker can compare with `target`; costs nothing."""
        if name == "table":
            return [source for source in sources if self._look_up(target, source) is not None]
        tags = self._with_text if name == "centroid" else self._rows[name]
        return [source for source in sources if source in tags] if target in tags else []

    def scores(self, name: str, target: str, sources: Sequence[str]) -> dict[str, float]:
        """Similarity of `target` with each source that is known."""
        known = self.known(name, target, sources)
        if name == "table":
            return {source: self._look_up(target, source) or 0.0 for source in known}
        vectors = self._centroids if name == "centroid" else self._rows[name]
        return {source: cosine(vectors[target], vectors[source]) for source in known}

    def _look_up(self, a: str, b: str) -> float | None:
        table = self._table or {}
        return table.get((a, b), table.get((b, a)))

    @cached_property
    def _centroids(self) -> dict[str, np.ndarray]:
        texts = {tag: read_texts(self.context, FOLDER, tag) for tag in self._with_text}
        flat = self.context.encoder((self.layer,)).encode([text for part in texts.values() for text in part])[0]
        ends = np.cumsum([len(part) for part in texts.values()])[:-1]
        means = {tag: part.mean(0) for tag, part in zip(texts, np.split(flat, ends))}
        middle = np.mean([mean for tag, mean in means.items() if self.centre is None or tag in self.centre], axis=0)
        return {tag: mean - middle for tag, mean in means.items()}


def row_vectors(context: Context, tags: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Ranker name -> tag -> vector, from the rows that training has touched."""
    tables = [read_rows(context.source.path, kind) for kind in ("languages", "scripts")]
    languages, scripts = (table.trained if table else None for table in tables)
    both: dict[str, np.ndarray] = {}
    alone: dict[str, np.ndarray] = {}
    for tag in tags if languages else ():
        language, script = parse_tag(tag)
        row = languages.row(context.row_code(language, languages.names)) if languages else None
        if row is not None:
            alone[tag] = row
            if scripts and (extra := scripts.row(match_script(script, scripts.names))) is not None:
                both[tag] = row + extra
    return {"language+script-row": both, "language-row": alone}


def row_tags(context: Context) -> list[str]:
    """The languages whose row was trained, with their likely script."""
    rows = read_rows(context.source.path, "languages")
    return sorted(likely_tag(name) for name in rows.trained.names) if rows else []


def read_table(path: str | Path) -> Table:
    """A table of similarities: languages in the first row and the first column; an empty cell is unknown.

    `.tsv` is separated by tabs, everything else by commas.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is no table; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no table of similarities {str(path)!r}")
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",") if line]
    if len(lines) < 2:
        raise DataError(f"{path} is no table: languages belong into its first row and its first column")
    table: Table = {}
    head: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            if number == 1:
                head = [normalize_tag(cell.strip()) for cell in line[1:]]
            else:
                table.update(_cells(line, head))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    return table


def _cells(line: Sequence[str], head: Sequence[str]) -> Table:
    """One line of the table; a ValueError for a cell that is no finite number."""
    if len(line) != len(head) + 1:
        raise ValueError(f"{len(line) - 1} values for {len(head)} languages")
    row = normalize_tag(line[0].strip())
    found = {(row, column): float(cell) for column, cell in zip(head, line[1:]) if cell.strip()}
    if not all(np.isfinite(value) for value in found.values()):
        raise ValueError("a similarity is not finite")
    return found
