"""Evaluation data: a folder a task, a file a language, or the Hub data sets; every task reads its rows through here.

* `DIR/bible_retrieval/deu_Latn.parquet` (also `.jsonl`, `.tsv`, `.csv`, lines of text; for tags `.conllu`, ...),
* `DIR/ner/wikiann/deu_Latn.parquet` (sub-folders: several data sets for one task),
* sets as they are handed out, in those folders: `DIR/pos/UD_German-GSD/...`, `DIR/sib200/ace_Arab/test.tsv`, ...
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from langsamp.core.language.languages import scripts_agree
from langsamp.core.language.names import SPLITS
from langsamp.core.manifest import measure
from langsamp.core.plain import one_line
from langsamp.eval.data import formats, layouts
from langsamp.eval.data.columns import COLUMNS, Columns, DataError, columns_of, shape
from langsamp.unicode_scripts import script_of

logger = logging.getLogger(__name__)

_EMPTY: dict[str, Any] = {"text": "", "english": "", "tokens": [], "ner_tags": [], "upos": []}  # what a null stands for


class EvalData:
    """A folder of evaluation data, or the Hub data sets for `spec` None or "hub".

    Raises:
        FileNotFoundError: `spec` is neither.
    """

    def __init__(self, spec: str | Path | None = None) -> None:
        self.root = None if spec is None or str(spec) == "hub" else Path(spec).expanduser()
        if self.root is not None and not self.root.is_dir():
            raise FileNotFoundError(
                f"there is no data folder {str(self.root)!r}; give a folder with sub-folders like "
                "sib200/deu_Latn.parquet, or `--data hub` for the data sets of the Hub"
            )
        self.commits: dict[str, str | None] = {}  # of the Hub's data sets; those that are not here are looked up

    def elsewhere(self) -> EvalData:
        """The same data as another process finds them, nothing read yet."""
        found = EvalData(self.root.absolute() if self.root else None)
        found.commits = self.commits
        return found

    def pin(self, known: Mapping[str, str]) -> None:
        """Read data sets of the Hub as they were when these `fingerprint`s were taken, whatever was pushed since."""
        if self.root is None:
            self.commits.update({name.rpartition("/")[0]: commit for name, commit in known.items()})

    def fingerprint(self, name: str) -> str | None:
        """What changes with the data of a language, `sib200/deu_Latn`: a hash of names and contents, or the commit.

        None of a data set of the Hub that is out of reach.
        """
        if self.root is None:
            return self.commits.get(name.rpartition("/")[0])
        known = [f"{path.relative_to(self.root).as_posix()} {measure(path).sha256}" for path in self._paths(name)]
        return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]

    def place(self, name: str) -> str:
        """Where the data of a language are, for people."""
        return ", ".join(map(str, self._paths(name))) or name

    def folders(self, task: str) -> list[str]:
        """The data sets of a task: `["ner/hiner", "ner/wikiann"]`, or `["sib200"]` without sub-folders."""
        if self.root is None:
            return [task] if task in self._hub_sets else []
        own = [task] if self._files(task) else []
        sets = [f"{task}/{name}" for name in layouts.data_sets(self.root, task)]
        return own + [folder for folder in sets if self._files(folder)]

    def languages(self, folder: str) -> list[str]:
        """Sorted tags (`deu_Latn`) of a data set; a DataError if it has none."""
        if self.root is None:
            found = self._hub(folder).languages()
        else:
            found = sorted(self._files(folder))
        if not found:
            raise DataError(
                f"no evaluation data in {str(self.root / folder) if self.root else folder!r}: "
                f"files are named like deu_Latn.parquet; {shape(*columns_of(folder))}"
            )
        return found

    def rows(self, folder: str, tag: str, columns: Sequence[str], split: str | None = None) -> Columns:
        """The columns of one language as lists of equal length, under our names (`COLUMNS`).

        A column is found by its candidate names; `id` is the row number where there is none. `split` keeps the rows of
        `train`, `dev` or `test` (`validation` counts as dev); a table without the column is all test.

        Raises:
            DataError: a file or column is missing; names what is there.
        """
        where = f"{folder}/{tag}"
        if self.root is None:
            table = self._hub(folder).table(tag)
        else:
            files = self._files(folder).get(tag)
            if not files:
                raise DataError(f"no data for {tag} in {str(self.root / folder)!r}")
            table = _concatenate([_read(file, columns) for file in files], where)
        rows = _rename(table, [*columns, "split"], where)
        self._check_script(where, tag, rows)
        if split is not None:
            if None in rows["split"]:
                raise DataError(f"{where} has rows without a split beside rows with one: name the split of every row")
            keep = [index for index, name in enumerate(rows["split"]) if SPLITS.get(name, name) == split]
            rows = {name: [values[index] for index in keep] for name, values in rows.items()}
        return {name: rows[name] for name in columns}

    def by_id(self, folder: str, tag: str, split: str | None = None) -> dict[str, str]:
        """Text by id; the same line twice is one.

        Raises:
            DataError: as `rows`, or an id stands for two texts.
        """
        rows = self.rows(folder, tag, ["id", "text"], split)
        found: dict[str, str] = {}
        for name, text in zip(map(str, rows["id"]), rows["text"]):
            if found.setdefault(name, text) != text:
                raise DataError(f"{folder}/{tag}: id {name} stands for two different sentences; make the ids unique")
        return found

    def first(self, folders: Sequence[str]) -> str:
        """The first of these data sets that there is; without any the first, for the error."""
        return next((name for name in folders if self.folders(name)), folders[0])

    def _check_script(self, where: str, tag: str, rows: Columns) -> None:
        """Say so, once, if the text is in another script than its tag."""
        texts = rows.get("text") or [" ".join(map(str, words)) for words in rows.get("tokens", [])[:50]]
        found, script = script_of("\n".join(texts[:50])[:2000]), tag.partition("_")[2]
        if not scripts_agree(script, found) and where not in self._told:
            self._told.add(where)
            logger.warning("%s: the text is in %s, not in %s; is the tag right?", where, found, script)

    @cached_property
    def _told(self) -> set[str]:
        return set()

    def _paths(self, name: str) -> list[Path]:
        """The files of a language; none on the Hub."""
        folder, _, tag = name.rpartition("/")
        files = self._files(folder).get(tag, []) if self.root else []
        return [path for file in files for path in (file.path, file.english) if path]

    @cached_property
    def _listing(self) -> dict[str, dict[str, list[layouts.File]]]:
        return {}

    def _files(self, folder: str) -> dict[str, list[layouts.File]]:
        """Tag -> its files."""
        assert self.root is not None
        if folder not in self._listing:
            self._listing[folder] = layouts.find(self.root, folder)
        return self._listing[folder]

    @property
    def _hub_sets(self) -> dict[str, Any]:
        from langsamp.eval.data.hub import HUB_SETS

        return HUB_SETS

    def _hub(self, folder: str) -> Any:
        if folder not in self._hub_sets:
            raise DataError(f"there is no Hub data set for {folder!r}; give a folder with --data DIR")
        if folder not in self._connected:
            found = self._hub_sets[folder]
            if folder not in self.commits:
                self.commits[folder] = found.newest()
            self._connected[folder] = replace(found, commit=self.commits[folder])
        return self._connected[folder]

    @cached_property
    def _connected(self) -> dict[str, Any]:
        return {}


def _read(file: layouts.File, columns: Sequence[str]) -> Columns:
    """One file as columns; the split in its name, if any, becomes a column, and part of ids that are line numbers."""
    table = formats.without_blanked(file.path, formats.read(file.path, columns, file.english))
    if file.split is not None:
        table["split"] = [file.split] * len(next(iter(table.values()), []))
        if file.path.suffix in (".txt", *formats.LINES):
            table["id"] = [f"{file.split} {number}" for number in table["id"]]
    return table


def _concatenate(tables: list[Columns], where: str) -> Columns:
    """Several files of one language below each other; they must have the same columns."""
    names = set(tables[0])
    if any(set(table) != names for table in tables):
        raise DataError(f"the files of {where} need the same columns, and have {[sorted(table) for table in tables]}")
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}


def _rename(table: Columns, columns: Sequence[str], where: str) -> Columns:
    """The wanted columns under our names; id and split are made up where there are none.

    Raises:
        DataError: a column is missing or holds something else than texts or lists.
    """
    size = len(next(iter(table.values()), []))
    found: Columns = {}
    for name in columns:
        source = next((other for other in COLUMNS.get(name, (name,)) if other in table), None)
        if source is not None:
            empty = _EMPTY.get(name)
            found[name] = [empty if value is None else value for value in table[source]]
            kinds = (type(empty),) if name in _EMPTY else (str, int, float)  # of the others, as they come
            wrong = [type(value).__name__ for value in found[name] if not isinstance(value, (*kinds, type(empty)))]
            if wrong:
                kind = "lists of words or of tags" if empty == [] else "texts"
                raise DataError(f"{where}: column {source} must hold {kind}, not {wrong[0]}")
        elif name == "id":
            found[name] = list(range(size))
        elif name == "split":
            found[name] = ["test"] * size
        else:
            names, there = " or ".join(COLUMNS.get(name, (name,))), one_line(", ".join(table))
            raise DataError(f"{where} has no column {names}; its columns are {there}; {shape(*columns)}")
    return found
