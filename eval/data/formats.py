"""The formats of evaluation data: tables, tagged words, lines of text; a path and columns wanted in, columns out."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from langsamp.core.plain import one_line
from langsamp.core.reading import DAMAGE, read_text, unpacked_name
from langsamp.eval.data.columns import COLUMNS, Columns, DataError, shape

logger = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".tsv", ".csv", ".txt", ".conllu", ".conll", ".iob2", ".bio")
LINES = (".dev", ".devtest")  # FLORES-200: a sentence a line
_WORD = re.compile(r"[a-z][a-z-]*:(.+)")  # WikiANN writes the language before each word
_COMMENT = re.compile(r"#\s*(newdoc|newpar|[\w.:-]+\s*=)")  # as Universal Dependencies have them
_NAMES = {name for names in COLUMNS.values() for name in names}


def read(path: Path, columns: Sequence[str], english: Path | None = None) -> Columns:
    """One file as columns; which there are depends on its format, and for text on what is wanted.

    Args:
        path: the file.
        columns: names of ours (`COLUMNS`) that are wanted.
        english: the file with the translations, line by line.

    Raises:
        DataError: it cannot be read; names the file (and line) and what it should look like.
    """
    inner = unpacked_name(path.name)
    suffix = Path(inner).suffix.lower()
    try:
        if suffix == ".parquet":
            return pq.ParquetFile(path).read().to_pydict()
        text = read_text(path)
        if suffix in (".jsonl", ".ndjson", ".json"):
            return read_json(path, text)
        if suffix == ".conllu":
            return read_conllu(path, text)
        if "tokens" in columns:
            return read_words(path, text, "upos" if "upos" in columns else "ner_tags")
        if english is not None:
            return read_pairs(path, text, english)
        if suffix == ".csv" or (suffix in (".tsv", ".txt") and "\t" in text.partition("\n")[0]):
            return read_table(path, text, columns, "," if suffix == ".csv" else "\t")
        return read_lines(path, text, columns)
    except DataError:
        raise
    except (*DAMAGE, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({one_line(error)}); write it again") from error


def sample(path: Path, tagged: bool) -> str:
    """Some text of a file, to see its script by; empty if there is none that can be read."""
    try:
        if path.suffix == ".parquet":
            batch = next(pq.ParquetFile(path).iter_batches(batch_size=50), None)
            table = batch.to_pydict() if batch is not None else {}
        else:
            table = read(path, ["tokens"] if tagged else ["text"])
    except (DataError, *DAMAGE):
        return ""
    for name in (*COLUMNS["tokens"], *COLUMNS["text"]):
        if name in table:
            return "\n".join(" ".join(row) if isinstance(row, list) else str(row) for row in table[name][:50])
    return ""


def read_conllu(path: str | Path, text: str | None = None) -> Columns:
    """Tokens and universal part-of-speech tags of a CoNLL-U file; works with any release.

    Multi-word ranges (`3-4`) and empty nodes (`5.1`) are left out, as their words follow or do not exist in the text;
    so are words without a tag (`_`).

    Returns:
        Columns `id` (`# sent_id`, else the number), `tokens`, `upos`.

    Raises:
        DataError: a line has fewer than four columns; names it.
    """
    rows: Columns = {"id": [], "tokens": [], "upos": []}
    for number, (name, lines) in enumerate(_sentences(read_text(Path(path)) if text is None else text)):
        words = []
        for line_number, line in lines:
            if line.startswith("#"):
                continue
            cells = line.split("\t")
            if len(cells) < 4:
                raise DataError(f"{path}, line {line_number}: not CoNLL-U (columns are separated by tabs)")
            if cells[0].isdigit() and cells[3] != "_":
                words.append((cells[1], cells[3]))
        if words:
            _add(rows, name or str(number), words, "upos")
    return rows


def read_words(path: Path, text: str, column: str) -> Columns:
    """Tagged words, one a line, sentences between blank lines: the word first, its tag last; or UNER's numbered words.

    Cells are separated by tabs, or by spaces where a line has no tab.

    Raises:
        DataError: a line has one cell.
    """
    rows: Columns = {"id": [], "tokens": [], column: []}
    sentences: list[tuple[str | None, list[list[str]]]] = []
    for name, lines in _sentences(text):
        sentences.append((name, []))
        for line_number, line in lines:
            comment = "\t" not in line and line.startswith("#") and ("\t" in text or _COMMENT.match(line))
            if comment or line.startswith("-DOCSTART-"):
                continue
            cells = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))  # words hold other spaces
            if len(cells) < 2:
                raise DataError(f"{path}, line {line_number}: {line[:40]!r} is no word with its tag; {shape(column)}")
            sentences[-1][1].append(cells)
    numbered = path.suffix == ".iob2" or all(  # some sentences begin with the word 1
        len(cells) > 2 and cells[0] == str(place) for _, words in sentences for place, cells in enumerate(words, 1)
    )
    first, last = (1, 2) if numbered else (0, -1)
    for number, (name, words) in enumerate(sentences):
        if words:
            _add(rows, name or str(number), [(cells[first], cells[last].strip()) for cells in words], column)
    prefixed = rows["tokens"] and all(_WORD.fullmatch(word) for words in rows["tokens"] for word in words)
    if prefixed:
        rows["tokens"] = [[_WORD.sub(r"\1", word) for word in words] for words in rows["tokens"]]
    return rows


def _add(rows: Columns, name: str, words: list[tuple[str, str]], column: str) -> None:
    rows["id"].append(name)
    rows["tokens"].append([word for word, _ in words])
    rows[column].append([tag for _, tag in words])


def _sentences(text: str) -> Iterator[tuple[str | None, list[tuple[int, str]]]]:
    """Blocks between blank lines: the sentence's id, and its numbered lines."""
    name: str | None = None
    lines: list[tuple[int, str]] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.rstrip("\r")
        if not line.strip():
            if lines:
                yield name, lines
            name, lines = None, []
            continue
        if line.startswith("#") and line[1:].partition("=")[0].strip() == "sent_id":
            name = line.partition("=")[2].strip()
        lines.append((number, line))


def without_blanked(path: Path, table: Columns) -> Columns:
    """The sentences whose words are there: a licence keeps the text of some treebanks, and most words are `_`."""
    source = next((name for name in COLUMNS["tokens"] if name in table), None)
    texts = table[source] if source else []
    kept = [not (isinstance(words, list) and words and 2 * words.count("_") >= len(words)) for words in texts]
    if all(kept):
        return table
    logger.warning("%s: %d sentences are left out, their words are not in this release (_)", path, kept.count(False))
    return {name: [value for value, keep in zip(values, kept) if keep] for name, values in table.items()}


def read_json(path: Path, text: str) -> Columns:
    """Columns of a file of JSON objects, a line each or in an array; a field that an object lacks is None."""
    found = []
    values = [(0, json.loads(text))] if text.lstrip().startswith("[") else _json_lines(text)
    for number, value in values:
        for row in value if isinstance(value, list) and not number else [value]:
            if not isinstance(row, dict):
                place = f", line {number}" if number else ""
                raise DataError(f'{path}{place}: a {type(row).__name__}, not an object like {{"text": ...}}')
            found.append(row)
    names = dict.fromkeys(name for row in found for name in row)
    return {name: [row.get(name) for row in found] for name in names}


def _json_lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, json.loads(line)


def read_table(path: Path, text: str, columns: Sequence[str], delimiter: str) -> Columns:
    """A table: with a header that names columns we know, or without one Taxi1500's (id, label, verse).

    Raises:
        DataError: a row is not as long as the first, or nothing tells what the columns are.
    """
    lines = text.split("\n")
    if delimiter == ",":
        table = [row for row in csv.reader(lines, strict=True) if row]
    else:
        table = [line.rstrip("\r").split(delimiter) for line in lines if line.strip()]
    if not table:
        return {name: [] for name in columns}
    head = [cell.strip() for cell in table[0]]
    if _NAMES & set(head):
        table = table[1:]
    elif len(head) == 3 and all(row[0].strip().isdigit() for row in table):
        head = ["id", "label", "text"]
    else:
        there = ", ".join(head[:5])
        raise DataError(f"{path}: its first line names no column that is known ({there}); {shape(*columns)}")
    for number, row in enumerate(table, 2):
        if len(row) != len(head):
            raise DataError(f"{path}, row {number} has {len(row)} cells, the first {len(head)}; {shape(*columns)}")
    return {name: [row[i] for row in table] for i, name in enumerate(head)}


def read_lines(path: Path, text: str, columns: Sequence[str]) -> Columns:
    """A sentence a line; its id is the number of the line, so that files of one split are parallel."""
    if unknown := set(columns) - {"id", "text", "split"}:
        raise DataError(f"{path} holds lines of text without {' or '.join(sorted(unknown))}; {shape(*columns)}")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    lines = lines[:-1] if lines and not lines[-1] else lines
    return {"id": [str(number) for number in range(len(lines))], "text": lines}


def read_pairs(path: Path, text: str, english: Path) -> Columns:
    """Two files of parallel lines, as in Tatoeba's test set of LASER."""
    rows, other = read_lines(path, text, ["text"]), read_lines(english, read_text(english), ["text"])
    if len(rows["text"]) != len(other["text"]):
        raise DataError(
            f"{path} has {len(rows['text'])} lines, {english.name} {len(other['text'])}: they are not parallel; take "
            "both from one release"
        )
    return {**rows, "english": other["text"]}
