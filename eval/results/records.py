"""Records: every number of an evaluation is one JSON line of `results.jsonl`.

Tasks append records; statistics, plots, the report and the model card read them and nothing else. The file is only ever
appended to, so a killed run keeps its work and the next run computes what is missing (DESIGN.md, section 2, point 4).

    record = Record(task="sr-tatoeba", language="fra", script="Latn", metric="acc@1", value=0.92, n=1000, layer=8,
                    direction="en->x", model="runs/langsamp")
    if record not in Done(path):  # or: Done(path).has(task=..., metric=..., ...) before the value is known
        append(path, [record])

An interval is two more records, with `_lo` and `_hi` after the metric's name (see `with_interval`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from langsamp.core.plain import one_line
from langsamp.core.record import SCHEMA, Key, Record, key

try:
    import fcntl
except ImportError:  # Windows: one writer at a time
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

RESULTS = "results.jsonl"
_decode = json.JSONDecoder().decode


def read(path: str | Path) -> list[Record]:
    """Records of a `.jsonl` file, or of the `results.jsonl` in a folder, in file order; the last of equal keys wins.

    A last line without a line break that is not a whole record is the trace of a killed writer and is left out, and so
    is a line with zeros in it, as a power cut leaves them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: any other line is not a record; names it.
    """
    path = _file(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}: run `langsamp eval` first")
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()  # b"" when the file ends as it should
    found: dict[Key, Record] = {}
    for number, line in enumerate(lines, 1):
        if b"\0" in line:
            logger.warning("%s, line %d: a half-written record is left out", path, number)
        elif line.strip():
            try:
                record = _parse(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not a record ({one_line(error)})") from None
            found[key(record)] = record
    if torn.strip():
        try:
            record = _parse(torn)
            found[key(record)] = record
        except ValueError:
            logger.warning("%s ends in a half-written record, which is left out", path)
    return list(found.values())


def append(path: str | Path, records: Iterable[Record], wait: bool = True) -> None:
    """Append records and wait until they are on disk; a half-written last line is removed first.

    Several processes may append to one file at the same time: the file is locked, and all records of one call
    are written together. Without `wait` they outlive this process, but not a loss of power in the next seconds.
    """
    data = "".join(record.to_json() + "\n" for record in records).encode()
    if not data:
        return
    path = _file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file, _locked(file):
        _repair(file, path)
        file.write(data)
        file.flush()
        if wait:
            os.fsync(file.fileno())


class Done:
    """The keys of the records that a file already holds, so that nothing is computed twice.

    `record in done` asks for a record; `done.has(task=..., metric=..., model=..., ...)` asks before the value is known
    (fields not given are None). A missing file is an empty one.
    """

    def __init__(self, path: str | Path) -> None:
        path = _file(path)
        self._keys = {key(record) for record in read(path)} if path.is_file() else set()

    def __contains__(self, record: Record) -> bool:
        return key(record) in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def has(self, **known: Any) -> bool:
        """True if a record with exactly these fields (all others None) exists.

        Raises:
            TypeError: a record has no such field.
        """
        return key(Record(value=0.0, **known)) in self._keys

    def add(self, records: Iterable[Record]) -> None:
        """Count these records as done, too."""
        self._keys.update(key(record) for record in records)


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".jsonl" else path / RESULTS


def _parse(line: bytes) -> Record:
    """The record of a line, or a ValueError that says why it is none."""
    try:
        found = _decode(line.decode("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        if found.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(
                f"schema {found['schema']} is not {SCHEMA}, the one this version of langsamp reads: upgrade it"
            )
        return Record(**found)
    except RecursionError:
        raise ValueError("nested without end") from None
    except TypeError as error:  # a field too many or too few
        raise ValueError(str(error)) from None


def _repair(file: IO[bytes], path: Path) -> None:
    """Make the file end in a line break: complete a whole last record, cut off a half-written one."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    try:
        _parse(content[start:])
        file.write(b"\n")
    except ValueError:
        logger.warning("%s ends in a half-written record, which is removed", path)
        file.truncate(start)


@contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
    yield
