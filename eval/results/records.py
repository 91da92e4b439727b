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
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: one writer at a time
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

SCHEMA = 1
RESULTS = "results.jsonl"
_TEXT = ("task", "language", "script", "metric", "direction", "source", "model", "revision")
_REQUIRED = ("task", "metric", "model")
_VALUES = ("value", "n")

Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measured number. `None` means "does not apply".

    `language` is ISO 639-3 (`cym`), `script` ISO 15924 (`Latn`); both None for a number over several languages.
    `metric` is `acc@1`, `macro_f1`, `f1`, `accuracy`, `loss` ...; `direction` is `en->x` or `x->en`; `source` is the
    language trained on (`eng_Latn`); `n` counts what the value is a mean of (sentences, tokens, seeds' test items).

    Raises ValueError if the value is not finite, a name is empty, or a code is not split into language and script.
    """

    schema: int = SCHEMA
    task: str
    language: str | None = None
    script: str | None = None
    metric: str
    value: float
    n: int | None = None
    layer: int | None = None
    direction: str | None = None
    source: str | None = None
    seed: int | None = None
    model: str
    revision: str | None = None

    def __post_init__(self) -> None:
        for name in _TEXT:
            _check_text(name, getattr(self, name))
        if self.language and "_" in self.language:
            raise ValueError(f"record language {self.language!r} must be split: language='cym', script='Latn'")
        value = _number(self, "value")
        if not math.isfinite(value):
            raise ValueError(
                f"record {self.task}/{self.metric} of {self.code or 'all languages'} is {value}: only "
                "finite values are recorded; leave the record out and report the language as missing"
            )
        object.__setattr__(self, "value", value)
        for name in ("schema", "n", "layer", "seed"):
            if getattr(self, name) is not None:
                number = _number(self, name)
                if not math.isfinite(number) or number != int(number):
                    raise ValueError(f"record field {name} must be a whole number, got {number}")
                object.__setattr__(self, name, int(number))
        if self.n is not None and self.n < 0:
            raise ValueError(f"record field n must not be negative, got {self.n}")

    @property
    def code(self) -> str | None:
        """`cym_Latn`, or `cym` without a script, or None without a language."""
        return "_".join(part for part in (self.language, self.script) if part) if self.language else None

    def to_json(self) -> str:
        """The record as one line of JSON without the line break; ASCII only, fields in order."""
        return json.dumps(asdict(self), allow_nan=False)


FIELDS = tuple(field.name for field in fields(Record))


def key(record: Record) -> Key:
    """What identifies a record: every field but `value` and `n`."""
    return tuple(getattr(record, name) for name in FIELDS if name not in _VALUES)


def split_code(code: str) -> tuple[str, str | None]:
    """`cym_Latn` -> ("cym", "Latn"); `cym` -> ("cym", None)."""
    language, _, script = code.partition("_")
    return language, script or None


def with_interval(record: Record, low: float, high: float) -> list[Record]:
    """The record followed by its interval as two records, `<metric>_lo` and `<metric>_hi`."""
    bounds = (("lo", low), ("hi", high))
    return [record, *(replace(record, metric=f"{record.metric}_{name}", value=value) for name, value in bounds)]


def base_metric(metric: str) -> tuple[str, str | None]:
    """`acc@1_lo` -> ("acc@1", "lo"); `acc@1` -> ("acc@1", None)."""
    base, _, bound = metric.rpartition("_")
    return (base, bound) if base and bound in ("lo", "hi") else (metric, None)


def read(path: str | Path) -> list[Record]:
    """Records of a `.jsonl` file, or of the `results.jsonl` in a folder, in file order; the last of equal keys wins.

    A last line without a line break that is not a whole record is the trace of a killed writer and is left out.
    Raises FileNotFoundError, and ValueError with the line number for any other line that is not a record.
    """
    path = _file(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}: run `langsamp eval` first")
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()  # b"" when the file ends as it should
    found: dict[Key, Record] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            record = _parse(line, f"{path}, line {number}")
            found[key(record)] = record
    if torn.strip():
        try:
            record = _parse(torn, str(path))
            found[key(record)] = record
        except ValueError:
            logger.warning("%s ends in a half-written record, which is left out", path)
    return list(found.values())


def append(path: str | Path, records: Iterable[Record]) -> None:
    """Append records and wait until they are on disk; a half-written last line is removed first.

    Several processes may append to one file at the same time: the file is locked, and all records of one call
    are written together.
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
        """True if a record with exactly these fields (all others None) exists. Raises TypeError for unknown fields."""
        return key(Record(value=0.0, **known)) in self._keys

    def add(self, records: Iterable[Record]) -> None:
        """Count these records as done, too."""
        self._keys.update(key(record) for record in records)


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".jsonl" else path / RESULTS


def _check_text(name: str, value: Any) -> None:
    if value is None and name not in _REQUIRED:
        return
    if not isinstance(value, str) or not value:
        raise ValueError(f"record field {name} must be a text that is not empty, got {value!r}")


def _number(record: Record, name: str) -> float:
    value = getattr(record, name)
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)
    except (TypeError, OverflowError):
        raise ValueError(f"record field {name} must be a number, got {value!r}") from None


def _parse(line: bytes, where: str) -> Record:
    try:
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        if found.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(f"schema {found['schema']} is not {SCHEMA}, the one this version of langsamp reads")
        return Record(**found)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: not a record ({error})") from None


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
        _parse(content[start:], str(path))
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
