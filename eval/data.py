"""Evaluation data: a folder a task, a file a language, or the Hub data sets; every task reads its rows through here.

* `DIR/bible_retrieval/deu_Latn.parquet` (also `.jsonl`, and for tags `.conllu`),
* `DIR/ner/wikiann/deu_Latn.parquet` (sub-folders: several data sets for one task),
* `DIR/pos/UD_German-GSD/de_gsd-ud-test.conllu` (any release of Universal Dependencies).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from langsamp.core.languages import normalize_tag
from langsamp.eval.rows import SPLITS, DataError, Rows

logger = logging.getLogger(__name__)

# Names that data sets use for the same thing; the first is ours.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "index_id", "sentence_id", "verse_id", "idx"),
    "text": ("text", "sentence", "sentence1"),
    "english": ("english", "translation", "sentence2"),
    "label": ("label", "labels", "category"),
    "tokens": ("tokens", "words"),
    "ner_tags": ("ner_tags", "tags"),
    "upos": ("upos", "pos_tags"),
    "split": ("split",),
}
_EMPTY: dict[str, Any] = {"text": "", "english": "", "tokens": [], "ner_tags": [], "upos": []}  # what a null stands for

_TAG_FILE = re.compile(r"([a-z]{3}_[A-Z][a-z]{3})(?:-(train|dev|test))?\.(parquet|jsonl|conllu)")
_SUFFIXES = (".parquet", ".jsonl", ".conllu")
_UD_FILE = re.compile(r"([a-z]{2,3})_\w+-ud-(train|dev|test)[\w-]*\.conllu")


class EvalData:
    """A folder of evaluation data, or the Hub data sets for `spec` None or "hub".

    Raises FileNotFoundError if `spec` is neither.
    """

    def __init__(self, spec: str | Path | None = None) -> None:
        self.root = None if spec is None or str(spec) == "hub" else Path(spec).expanduser()
        if self.root is not None and not self.root.is_dir():
            raise FileNotFoundError(
                f"there is no data folder {str(self.root)!r}; give a folder with sub-folders like "
                "sib200/deu_Latn.parquet, or `--data hub` for the data sets of the Hub"
            )

    def folders(self, task: str) -> list[str]:
        """The data sets of a task: `["ner/hiner", "ner/wikiann"]`, or `["sib200"]` without sub-folders."""
        if self.root is None:
            return [task] if self._hub(task) else []
        folder = self.root / task
        if not folder.is_dir():
            return []
        sub = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith((".", "UD_"))]
        own = [task] if self._files(task) else []
        return own + [f"{task}/{path.name}" for path in sub if self._files(f"{task}/{path.name}")]

    def languages(self, folder: str) -> list[str]:
        """Sorted tags (`deu_Latn`) of a data set; raises DataError if it has none."""
        if self.root is None:
            hub = self._hub(folder)
            if hub is None:
                raise DataError(f"there is no Hub data set for {folder!r}; give a folder with --data DIR")
            found = hub.languages()
        else:
            found = sorted(self._files(folder))
        if not found:
            raise DataError(
                f"no evaluation data in {str(self.root / folder) if self.root else folder!r}: "
                "files are named like deu_Latn.parquet"
            )
        return found

    def rows(self, folder: str, tag: str, columns: Sequence[str], split: str | None = None) -> Rows:
        """The columns of one language as lists of equal length, under our names (`COLUMNS`).

        A column is found by its candidate names; `id` is the row number where there is none. `split` keeps the rows of
        `train`, `dev` or `test` (`validation` counts as dev); a table without the column is all test.
        Raises DataError for a missing file or column, naming what is there.
        """
        where = f"{folder}/{tag}"
        if self.root is None:
            hub = self._hub(folder)
            if hub is None:
                raise DataError(f"there is no Hub data set for {folder!r}; give a folder with --data DIR")
            table = hub.table(tag)
        else:
            files = self._files(folder).get(tag)
            if not files:
                raise DataError(f"no data for {tag} in {str(self.root / folder)!r}")
            table = _concatenate([_read(path, part) for path, part in files], where)
        rows = _rename(table, [*columns, "split"], where)
        if split is not None:
            if None in rows["split"]:
                raise DataError(f"{where} has rows without a split beside rows with one: name the split of every row")
            keep = [index for index, name in enumerate(rows["split"]) if SPLITS.get(name, name) == split]
            rows = {name: [values[index] for index in keep] for name, values in rows.items()}
        return {name: rows[name] for name in columns}

    @cached_property
    def _listing(self) -> dict[str, dict[str, list[tuple[Path, str | None]]]]:
        return {}

    def _files(self, folder: str) -> dict[str, list[tuple[Path, str | None]]]:
        """Tag -> its files, each with the split its name tells."""
        assert self.root is not None
        if folder not in self._listing:
            found: dict[str, list[tuple[Path, str | None]]] = {}
            strange: list[str] = []
            for path in sorted((self.root / folder).glob("*")):
                if match := _TAG_FILE.fullmatch(path.name):
                    if match[2] in (split for _, split in found.get(match[1], [])):
                        raise DataError(f"{folder} has two files for {match[1]}, one is {path.name}; move one away")
                    found.setdefault(match[1], []).append((path, match[2]))
                elif path.suffix in _SUFFIXES and not path.name.startswith("."):
                    strange.append(path.name)
            for path in sorted((self.root / folder).glob("UD_*/*.conllu")):
                match = _UD_FILE.fullmatch(path.name)
                if match and (tag := _tag_of(match[1])):
                    found.setdefault(tag, []).append((path, match[2]))
                else:
                    strange.append(path.name)
            if strange:
                logger.warning("%s: left out, the name tells no language: %s", folder, ", ".join(strange))
            self._listing[folder] = found
        return self._listing[folder]

    def _hub(self, folder: str) -> Any:
        from langsamp.eval.hub_data import HUB_SETS

        return HUB_SETS.get(folder)


def read_conllu(path: str | Path) -> Rows:
    """Tokens and universal part-of-speech tags of a CoNLL-U file; works with any release.

    Multi-word ranges (`3-4`) and empty nodes (`5.1`) are left out, as their words follow or do not exist in the text;
    so are words without a tag (`_`). Returns columns `id` (`# sent_id`, else the number), `tokens`, `upos`.
    Raises DataError with the line number for a line that has fewer than four columns.
    """
    rows: Rows = {"id": [], "tokens": [], "upos": []}
    for number, (name, lines) in enumerate(_sentences(path)):
        words = []
        for line_number, line in lines:
            cells = line.split("\t")
            if len(cells) < 4:
                raise DataError(f"{path}, line {line_number}: not CoNLL-U (columns are separated by tabs)")
            if cells[0].isdigit() and cells[3] != "_":
                words.append((cells[1], cells[3]))
        if words:
            rows["id"].append(name or str(number))
            rows["tokens"].append([word for word, _ in words])
            rows["upos"].append([tag for _, tag in words])
    return rows


def _sentences(path: str | Path) -> Iterator[tuple[str | None, list[tuple[int, str]]]]:
    """Blocks between blank lines: the sentence's id, and its numbered lines without comments."""
    name: str | None = None
    lines: list[tuple[int, str]] = []
    text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.rstrip("\r")
        if not line.strip():
            if lines:
                yield name, lines
            name, lines = None, []
        elif line.startswith("#"):
            if line[1:].partition("=")[0].strip() == "sent_id":
                name = line.partition("=")[2].strip()
        else:
            lines.append((number, line))


def _read(path: Path, split: str | None) -> Rows:
    """One file as columns; the split in the file's name, if any, becomes a column."""
    try:
        if path.suffix == ".parquet":
            table = pq.ParquetFile(path).read().to_pydict()
        elif path.suffix == ".jsonl":
            table = _read_jsonl(path)
        else:
            table = read_conllu(path)
    except DataError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        raise DataError(f"{path} cannot be read ({error}); write it again") from error
    if split is not None:
        table["split"] = [split] * len(next(iter(table.values()), []))
    return table


def _read_jsonl(path: Path) -> Rows:
    """Columns of a file of JSON objects; a field that an object lacks is None. Raises DataError for anything else."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        row = json.loads(line) if line.strip() else {}
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: a {type(row).__name__}, not an object like {{"text": ...}}')
        found += [row] if row else []
    names = dict.fromkeys(name for row in found for name in row)
    return {name: [row.get(name) for row in found] for name in names}


def _concatenate(tables: list[Rows], where: str) -> Rows:
    """Several files of one language below each other; they must have the same columns."""
    names = set(tables[0])
    if any(set(table) != names for table in tables):
        raise DataError(f"the files of {where} have different columns: {[sorted(table) for table in tables]}")
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}


def _rename(table: Rows, columns: Sequence[str], where: str) -> Rows:
    """The wanted columns under our names; id and split are made up where there are none.

    Raises DataError for a column that is missing or holds something else than texts or lists.
    """
    size = len(next(iter(table.values()), []))
    found: Rows = {}
    for name in columns:
        source = next((other for other in COLUMNS.get(name, (name,)) if other in table), None)
        if source is not None:
            empty = _EMPTY.get(name)
            found[name] = [empty if value is None else value for value in table[source]]
            wrong = [type(value).__name__ for value in found[name] if name in _EMPTY and type(value) is not type(empty)]
            if wrong:
                kind = "texts" if empty == "" else "lists of words or of tags"
                raise DataError(f"{where}: column {source} must hold {kind}, not {wrong[0]}")
        elif name == "id":
            found[name] = list(range(size))
        elif name == "split":
            found[name] = ["test"] * size
        else:
            raise DataError(
                f"{where} has no column {' or '.join(COLUMNS.get(name, (name,)))}; its columns are {', '.join(table)}"
            )
    return found


def _tag_of(code: str) -> str | None:
    """`de` -> `deu_Latn`; None for a code whose script is not known (its files must be renamed to be used)."""
    try:
        return normalize_tag(code)
    except ValueError:
        return None
