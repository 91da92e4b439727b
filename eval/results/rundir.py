"""A run directory read as a whole: records, coverage and the optional side files that compare and report show.

results.jsonl             records; also of several models, or one such folder a model inside the run directory
run.json                  settings and coverage of each task, written by `langsamp eval`
neutrality_matrix.json    {"languages": [...], "values": [[...]], "title": ..., "layer": ...} or a list of such
embedding_map.json        [{"code", "x", "y", "script", "family"}, ...] or {"points": [...], "title", "note"}
training.json             {"loss_history": [[step, loss], ...], ...}
"""

from __future__ import annotations

import json
import logging
import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsamp.eval.results.records import RESULTS, Record, read

logger = logging.getLogger(__name__)

SETTINGS = "run.json"
TRAINING = "training.json"


@dataclass(frozen=True)
class TaskCoverage:
    """Languages asked for in a task, and the reasons for the missing ones, `{code: reason}`."""

    task: str
    asked: tuple[str, ...]
    missing: dict[str, str]


@dataclass(frozen=True)
class Matrices:
    """Similarities of languages at one layer, by name; `folder` tells the runs apart."""

    folder: str
    layer: int
    languages: list[str]
    values: dict[str, NDArray[np.float64]]


@dataclass
class Run:
    """What was found; `losses` holds (folder name, [(step, loss), ...])."""

    records: list[Record]
    coverage: list[TaskCoverage] = field(default_factory=list)
    matrices: list[Matrices] = field(default_factory=list)
    losses: list[tuple[str, list[tuple[float, float]]]] = field(default_factory=list)


def load(paths: str | Path | Sequence[str | Path]) -> Run:
    """Read run directories (or `.jsonl` files) together.

    A directory without results.jsonl stands for its sub-directories that have one. Raises FileNotFoundError if there is
    none, and ValueError for a file that is not what it should be.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    run = Run([])
    for path in (folder for given in paths for folder in _folders(Path(given))):
        run.records += read(path)
        if path.is_dir():
            _read_sides(path, run)
    for given in map(Path, paths):
        if given.is_dir() and not (given / RESULTS).is_file():
            _read_sides(given, run)
    return run


def _folders(path: Path) -> list[Path]:
    if path.suffix == ".jsonl" or (path / RESULTS).is_file():
        return [path]
    found = sorted(folder.parent for folder in path.glob(f"*/{RESULTS}"))
    if not found:
        raise FileNotFoundError(f"no {RESULTS} in {path} or its sub-folders: run `langsamp eval` first")
    return found


def _read_sides(folder: Path, run: Run) -> None:
    if (folder / TRAINING).is_file():
        run.losses.append((folder.name, _losses(folder / TRAINING)))
    for path in sorted(folder.glob("neutrality/layer*.npz")):
        run.matrices.append(_matrices(path, folder.name))
    if (folder / SETTINGS).is_file():
        run.coverage += _coverage(_json(folder / SETTINGS), folder / SETTINGS)


def _losses(path: Path) -> list[tuple[float, float]]:
    content = _json(path)
    try:
        points = [(float(step), float(loss)) for step, loss in content.get("loss_curve", [])]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: loss_curve is not a list of [step, loss] ({error})") from None
    return [point for point in points if all(map(math.isfinite, point))]


def _matrices(path: Path, folder: str) -> Matrices:
    try:
        with np.load(path, allow_pickle=False) as file:
            languages = [str(code) for code in file["languages"]]
            values = {name: np.asarray(file[name], dtype=float) for name in file.files if name != "languages"}
        layer = int(path.stem.removeprefix("layer"))
        if any(matrix.shape != (len(languages), len(languages)) for matrix in values.values()):
            raise ValueError("a matrix is not languages x languages")
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no similarities of languages ({error})") from None
    return Matrices(folder, layer, languages, values)


def _coverage(content: Any, path: Path) -> Iterable[TaskCoverage]:
    try:
        for task, found in content.get("coverage", {}).items():
            yield TaskCoverage(task, tuple(found["asked"]), dict(found["missing"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the coverage is malformed ({error!r})") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
