"""A corpus in a local folder: ``deu_Latn.txt``, ``.jsonl`` or ``.parquet``, text files also ``.gz`` or ``.zst``.

A name is a language up to its first dot, so ``deu_Latn.wiki.txt`` and ``deu_Latn.bible.jsonl.zst`` are two parts of
one language; a subfolder named ``deu_Latn`` holds parts too. Hidden files and files of other types are left out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from langsamp.train.text.corpus import Corpus, Part, clean, sort_by_language

log = logging.getLogger(__name__)

_FORMATS = (".txt", ".jsonl", ".parquet")
_PACKED = (".gz", ".zst")
_CHUNK = 1 << 20  # bytes read at once
_BOM = b"\xef\xbb\xbf"


class FolderCorpus(Corpus):
    """Local files.

    Text files hold one document or sentence a line; lines end with LF or CRLF; a byte order mark is dropped. JSON
    lines and Parquet files hold the text in ``column``.
    """

    def __init__(
        self,
        folder: str | Path,
        only: Iterable[str] | None = None,
        column: str = "text",
        on_invalid: str = "replace",
    ) -> None:
        super().__init__(only)
        self.folder = Path(folder).expanduser()
        self.name = str(folder)
        self._column = column
        self._on_invalid = on_invalid

    def _find(self) -> dict[str, list[Part]]:
        candidates: list[tuple[str, Part]] = []
        ignored: list[str] = []
        for path in sorted(self.folder.glob("*")) + sorted(self.folder.glob("*/*")):
            inside = path.relative_to(self.folder)
            if any(piece.startswith(".") for piece in inside.parts) or not path.is_file():
                continue
            if _format(path) is None:
                ignored.append(str(inside))
                continue
            tag = inside.parts[0] if len(inside.parts) > 1 else path.name.split(".")[0]
            candidates.append((tag, Part("", inside.as_posix(), path.stat().st_size, str(path))))
        if ignored:
            log.info("left out, not .txt, .jsonl or .parquet: %s", ", ".join(ignored))
        return sort_by_language(candidates, "file", strict=self._only is None)

    def fingerprint(self, part: Part) -> str:
        """Sha256 of the file's bytes and of the way they are read."""
        digest = hashlib.sha256(f"{_format(Path(part.detail))} {self._column} {self._on_invalid}\n".encode())
        with open(part.detail, "rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
        return digest.hexdigest()

    def documents(self, part: Part) -> Iterator[str]:
        """The file's documents.

        Raises:
            ValueError: a damaged file, a line that is not JSON, or no such column; the file (and line) is named.
        """
        path = Path(part.detail)
        kind = _format(path)
        try:
            if kind == ".txt":
                yield from self._lines(path, part.language)
            else:
                rows = (self._json if kind == ".jsonl" else self._parquet)(path, part.language)
                yield from clean(rows, self.counts, part.language, self._on_invalid, str(path))
        except (EOFError, OSError, zlib.error) as error:
            if getattr(error, "errno", None):  # the disk's or the system's trouble, not the content's
                raise
            raise ValueError(f"{path} is damaged or truncated ({error}); copy it again.") from error

    def _lines(self, path: Path, language: str) -> Iterator[str]:
        """Lines of a text file, decoded a block at a time; only a block with bad bytes is gone through line by line."""
        for block in _blocks(path):
            try:
                lines = block.decode("utf-8").split("\n")
            except UnicodeDecodeError:
                lines = list(self._repair(block.split(b"\n"), language))
            for line in lines:
                text = line[:-1] if line.endswith("\r") else line
                if text and not text.isspace():
                    yield text

    def _repair(self, lines: Iterable[bytes | None], language: str) -> Iterator[str]:
        """Decode lines one by one, replacing or leaving out those that are not UTF-8, and count them."""
        for line in lines:
            if line is None:
                continue
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError:
                self.counts[language] += 1
                if self._on_invalid == "replace":
                    yield line.decode("utf-8", "replace")

    def _json(self, path: Path, language: str) -> Iterator[Any]:
        """The text field of each JSON line."""
        number = 0
        for block in _blocks(path):
            for line in block.split(b"\n"):
                number += 1
                if not line.strip():
                    continue
                text = next(self._repair([line], language), None)
                if text is None:  # not UTF-8, and such lines are to be skipped
                    continue
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number} is not JSON ({error}).") from error
                if not isinstance(row, dict) or self._column not in row:
                    fields = ", ".join(row) if isinstance(row, dict) else "no fields"
                    raise ValueError(f"{path}, line {number} has no field {self._column!r}; it has {fields}.")
                yield row[self._column]

    def _parquet(self, path: Path, language: str) -> Iterator[Any]:
        """The text column of a Parquet file, a few thousand rows in memory at a time."""
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is not a Parquet file ({error}).") from error
        if self._column not in file.schema_arrow.names:
            raise ValueError(f"{path} has no column {self._column!r}; it has {', '.join(file.schema_arrow.names)}.")
        for batch in file.iter_batches(batch_size=4096, columns=[self._column]):
            column = batch.column(0)
            try:
                rows = column.to_pylist()
            except UnicodeDecodeError:  # Arrow does not look at what is called a string
                rows = list(self._repair(column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist(), language))
            yield from rows


def _format(path: Path) -> str | None:
    """``.txt``, ``.jsonl`` or ``.parquet``; None for any other file.

    Raises:
        ValueError: a packed Parquet file.
    """
    suffixes = path.suffixes
    packed = bool(suffixes) and suffixes[-1] in _PACKED
    kind = suffixes[-2] if packed and len(suffixes) > 1 else path.suffix
    if kind == ".parquet" and packed:
        raise ValueError(f"{path}: Parquet files are compressed inside; unpack it to {path.with_suffix('').name}.")
    return kind if kind in _FORMATS else None


def _open(path: Path) -> BinaryIO:
    """The file's content as bytes, unpacked on the fly."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        # zstandard's reader takes a file that was cut off for a shorter one; Arrow's refuses it
        return cast(BinaryIO, pa.input_stream(str(path), compression="zstd"))
    return open(path, "rb")


def _blocks(path: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines (without the last line's end), about 1 MB each; no byte order mark."""
    with _open(path) as file:
        rest = b""
        first = True
        while block := file.read(_CHUNK):
            if first:
                block = block.removeprefix(_BOM)
                first = False
            head, newline, tail = block.rpartition(b"\n")
            if newline:
                yield rest + head
                rest = tail
            else:  # a line longer than a block
                rest += tail
        if rest:
            yield rest
