"""The formats a file of text can have, as streams of its texts: lines, JSON, tables, Parquet, Arrow, wikiextractor.

Whatever the format, memory is bounded: files are read in blocks of about a megabyte, endless lines are cut or refused.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from langsamp.core.files import is_url
from langsamp.core.plain import one_line
from langsamp.core.reading import CHUNK, binary, not_utf8, without_mark
from langsamp.train.text.corpus import LONGEST, Report, Selection

COLUMNS = ("text", "content", "raw_content", "document", "sentence")  # what data sets call the text; the first there is
_CUT = 4 * LONGEST  # bytes after which a line of text is cut
_REFUSED = 4 * _CUT  # bytes after which a line, or an object, of JSON is refused
_NO_VALUE = re.compile(r"[\s,\[\]]*")  # between objects, inside an array or not
_RANGE = "<range>"  # a verse that is part of the one before, in the texts of eBible


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


@dataclass(frozen=True)
class Source:
    """A file to be read, and how.

    Attributes:
        where: its name in messages.
        language: whose texts they are, for the report.
        column: what the text is called; None: the first of `COLUMNS`.
        on_invalid: ``replace`` or ``skip``.
        selection: which splits are wanted where a table tells the split of a row.
        report: what is met.
    """

    where: str
    language: str
    column: str | None
    on_invalid: str
    selection: Selection
    report: Report


def blocks(stream: Readable, where: str, may_cut: bool = True) -> Iterator[bytes]:
    """A file in pieces of whole lines (without the last line's end), about 1 MB each; no byte order mark.

    Raises:
        ValueError: UTF-16, or a line of more than 64 MB that must not be cut.
    """
    rest: list[bytes] = []
    held = 0
    first = True
    while block := stream.read(CHUNK):
        if first:
            block, first = without_mark(block, where), False
        head, newline, tail = block.rpartition(b"\n")
        if newline:
            yield b"".join((*rest, head))
            rest, held = [tail], len(tail)
            continue
        rest.append(tail)
        held += len(tail)
        if may_cut and held > _CUT:
            line = b"".join(rest)
            end = _place_to_cut(line)
            yield line[:end]
            rest, held = [line[end:]], len(line) - end
        elif held > _REFUSED:
            raise ValueError(f"{where} has a line of more than {_REFUSED:,} bytes; write an object a line.")
    if any(rest):
        yield b"".join(rest)


def _place_to_cut(line: bytes) -> int:
    """A space near the end, else the end of the last whole character."""
    if (space := line.rfind(b" ", len(line) - CHUNK)) > 0:
        return space
    end = len(line)
    while end and line[end - 1] & 0xC0 == 0x80:  # inside a character
        end -= 1
    return end - 1 if end and line[end - 1] >= 0xC0 else len(line)


class Decoder:
    """Lines of bytes to text; those that are not UTF-8 are repaired or skipped, counted, and too many are an error."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = self._invalid = 0
        self._most = 0.25 if source.on_invalid == "replace" else 0.9

    def lines(self, block: bytes) -> list[str]:
        """The lines of a block; only one with bad bytes is gone through line by line.

        Raises:
            ValueError: so much is invalid that the file must be in another encoding.
        """
        try:
            found = block.decode("utf-8").split("\n")
            self._lines += len(found)
        except UnicodeDecodeError:
            found = list(self.each(block.split(b"\n")))
        return found

    def each(self, lines: Iterable[bytes]) -> Iterator[str]:
        """As :meth:`lines`, one by one; a skipped line is blank, so that the others keep their numbers."""
        for line in lines:
            self._lines += 1
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                self._invalid += 1
                self._source.report.invalid[self._source.language] += 1
                text = line.decode("utf-8", "replace") if self._source.on_invalid == "replace" else ""
            yield text
        if self._invalid >= 10 and self._invalid > self._most * self._lines:
            raise not_utf8(self._source.where, self._invalid, self._lines)


def choose(names: Sequence[str], source: Source, what: str = "column", place: str = "") -> str:
    """The name of the column or field that holds the text.

    Raises:
        ValueError: there is none; those there are are named.
    """
    wanted = (source.column,) if source.column else COLUMNS
    found = next((name for name in wanted if name in names), None)
    if found is None:
        there = one_line(", ".join(map(str, names[:20]))) or f"no {what}s"
        raise ValueError(f"{source.where}{place} has no {what} {wanted[0]!r}; it has {there}. Name it with --column.")
    return found


def read_lines(stream: Readable, source: Source) -> Iterator[str]:
    """One text a line."""
    decoder = Decoder(source)
    for block in blocks(stream, source.where):
        for line in decoder.lines(block):
            yield line[:-1] if line.endswith("\r") else line


def read_verses(stream: Readable, source: Source) -> Iterator[str]:
    """Lines without the marks of joined verses."""
    return (line for line in read_lines(stream, source) if line != _RANGE)


def read_numbered(stream: Readable, source: Source) -> Iterator[str]:
    """The sentences of Leipzig: a number, a tab, a sentence."""
    for line in read_lines(stream, source):
        number, tab, sentence = line.partition("\t")
        yield sentence if tab and number.strip().isdigit() else line


def read_jsonl(stream: Readable, source: Source) -> Iterator[Any]:
    """The text field of each JSON line."""
    return _texts_of(_json_lines(stream, source), source)


def _json_lines(stream: Readable, source: Source) -> Iterator[tuple[str, Any]]:
    decoder, number = Decoder(source), 0
    for block in blocks(stream, source.where, may_cut=False):
        for line in decoder.lines(block):
            number += 1
            if line and not line.isspace():
                try:
                    yield f", line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{source.where}, line {number} is not JSON ({error}).") from error


def read_json(stream: Readable, source: Source) -> Iterator[Any]:
    """A file named ``.json``: JSON lines, or an array of objects, or objects over several lines."""
    head = stream.read(CHUNK)
    start = without_mark(head, source.where).lstrip()
    line, newline, _ = start.partition(b"\n")
    again = _Prefixed(head, stream)
    if start.startswith(b"{") and (not newline or _is_json(line)):
        return read_jsonl(again, source)
    return _texts_of(_json_values(again, source), source)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _json_values(stream: Readable, source: Source) -> Iterator[tuple[str, Any]]:
    """The objects of an array, or one after the other, a few in memory at a time."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    parser = json.JSONDecoder()
    text, start, number, enough = "", 0, 0, 0
    while True:
        block = stream.read(CHUNK)
        try:
            text, start = text[start:] + decoder.decode(block, final=not block), 0
        except UnicodeDecodeError as error:
            raise ValueError(f"{source.where} is not UTF-8 after object {number} ({error}); convert it.") from error
        while len(text) >= enough or not block:
            start = _NO_VALUE.match(text, start).end()  # type: ignore[union-attr]
            if start == len(text):
                break
            try:
                value, start = parser.raw_decode(text, start)
            except (ValueError, RecursionError) as error:
                if not block or isinstance(error, RecursionError) or len(text) - start > _REFUSED:
                    raise ValueError(f"{source.where}, object {number + 1} is not JSON ({error}).") from error
                enough = 2 * (len(text) - start)  # it goes on; try again with twice as much
                break
            number, enough = number + 1, 0
            yield f", object {number}", value
        if not block:
            return


def _texts_of(rows: Iterable[tuple[str, Any]], source: Source) -> Iterator[Any]:
    """The texts of the rows whose split is wanted."""
    name = ""
    for place, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f'{source.where}{place} is a {type(row).__name__}, not an object like {{"text": ...}}.')
        if name not in row:
            name = choose(list(row), source, "field", place)
        if "split" in row and not source.selection.wants(row["split"]):
            source.report.other_splits[source.language] += 1
        else:
            yield row[name]


def read_table(stream: Readable, source: Source, delimiter: str) -> Iterator[Any]:
    """A text column of a table with a header; commas are quoted as in spreadsheets, tabs never are."""
    lines = read_lines(stream, source)
    rows: Iterator[list[str]]
    if delimiter == ",":
        csv.field_size_limit(_CUT)
        rows = csv.reader((f"{line}\n" for line in lines), strict=True)
    else:
        rows = (line.split(delimiter) for line in lines if line)
    try:
        header = next(rows, None)
        if header is None:
            return
        at = header.index(choose(header, source))
        split = header.index("split") if "split" in header else None
        for number, row in enumerate(rows, 2):
            if row and len(row) != len(header):
                raise ValueError(f"{source.where}, row {number} has {len(row)} cells, the header {len(header)}.")
            if row and (split is None or source.selection.wants(row[split])):
                yield row[at]
            elif row:
                source.report.other_splits[source.language] += 1
    except csv.Error as error:
        raise ValueError(f"{source.where} is not CSV ({error}).") from error


def read_wiki(stream: Readable, source: Source) -> Iterator[Any]:
    """What wikiextractor writes, articles as JSON lines or between ``<doc ...>`` and ``</doc>``."""
    head = stream.read(CHUNK)
    inner = _Prefixed(head, stream)
    if without_mark(head, source.where).lstrip().startswith(b"{"):
        yield from read_jsonl(inner, source)
        return
    article: list[str] = []
    size = 0
    for line in read_lines(inner, source):
        if line.startswith("<doc ") or line == "</doc>" or size > LONGEST:
            yield "\n".join(article).strip()
            article, size = [], 0
        if not line.startswith("<doc ") and line != "</doc>":
            article.append(line)
            size += len(line) + 1
    yield "\n".join(article).strip()


class _Prefixed:
    """A stream with bytes put back at its front."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int, /) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head or self._stream.read(size)


def read_parquet(place: str, source: Source) -> Iterator[Any]:
    """The text column of a Parquet file, a few thousand rows in memory at a time."""
    try:
        file = pq.ParquetFile(binary(place) if is_url(place) else place)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{source.where} is not a Parquet file ({one_line(error)}).") from error
    with file:
        names = file.schema_arrow.names
        columns = [choose(names, source), *(["split"] if "split" in names else [])]
        yield from _batches(file.iter_batches(batch_size=4096, columns=columns), columns, source)


def read_arrow(place: str, source: Source) -> Iterator[Any]:
    """The text column of an Arrow file, as ``datasets`` saves it."""
    with pa.PythonFile(binary(place), "r") if is_url(place) else pa.memory_map(place) as mapped:
        try:
            batches = pa.ipc.open_stream(mapped)
        except pa.ArrowInvalid:
            try:
                file = pa.ipc.open_file(mapped)
            except pa.ArrowInvalid as error:
                raise ValueError(f"{source.where} is not an Arrow file ({one_line(error)}).") from error
            batches = (file.get_batch(i) for i in range(file.num_record_batches))
            names = file.schema.names
        else:
            names = batches.schema.names
        columns = [choose(names, source), *(["split"] if "split" in names else [])]
        yield from _batches((batch.select(columns) for batch in batches), columns, source)


def _batches(batches: Iterable[pa.RecordBatch], columns: list[str], source: Source) -> Iterator[Any]:
    decoder = Decoder(source)
    for batch in batches:
        column = batch.column(columns[0])
        try:
            rows = column.to_pylist()
        except UnicodeDecodeError:  # Arrow does not look at what is called a string
            raw = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
            rows = list(decoder.each(value or b"" for value in raw))
        if len(columns) > 1:
            keep = [source.selection.wants(split) for split in batch.column("split").to_pylist()]
            source.report.other_splits[source.language] += len(rows) - sum(keep)
            rows = [text for text, wanted in zip(rows, keep) if wanted]
        yield from rows


# how a file is read, by what its name ends in; the first two need a place on the disk to jump about in
FILES: dict[str, Callable[[str, Source], Iterator[Any]]] = {".parquet": read_parquet, ".arrow": read_arrow}
STREAMS: dict[str, Callable[[Readable, Source], Iterator[Any]]] = {
    ".txt": read_verses,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".tsv": partial(read_table, delimiter="\t"),
    ".csv": partial(read_table, delimiter=","),
    "-sentences.txt": read_numbered,
    "wiki": read_wiki,
}
