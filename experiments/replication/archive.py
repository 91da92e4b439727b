"""Records of many runs in one small file, so that they can be kept beside the document that is made from them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from langsamp.core.files import atomic_write
from langsamp.eval.results.records import RESULTS, Record, append, read

FINISHED = "finished"  # an empty file in the record folder of a model that was measured whole


def finished(folder: Path) -> list[Path]:
    """The record folders of an experiment whose models were measured whole, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{FINISHED}"))


def pack(folder: Path, file: Path) -> None:
    """All finished models of an experiment into a gzipped `results.jsonl`; equal records give equal bytes."""
    lines = [_line(record) for run in finished(folder) for record in read(run)]
    atomic_write(file, gzip.compress("".join(lines).encode(), mtime=0))


def unpack(file: Path, folder: Path) -> None:
    """Give each model of a packed file its record folder back; folders that are there already stay as they are."""
    runs: dict[str, list[Record]] = {}
    for record in records(file):
        runs.setdefault(record.model, []).append(record)
    for name, found in runs.items():
        if not (folder / name / FINISHED).exists():
            (folder / name / RESULTS).unlink(missing_ok=True)
            append(folder / name, found)
            (folder / name / FINISHED).touch()


def records(file: Path) -> Iterator[Record]:
    """The records of a packed file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield Record(**json.loads(line))


def _line(record: Record) -> str:
    """One record without the fields that say nothing; six digits are more than the intervals know."""
    kept = {name: value for name, value in asdict(record).items() if value is not None}
    return json.dumps({**kept, "value": round(record.value, 6)}) + "\n"
