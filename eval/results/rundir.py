"""A run directory read as a whole: what `langsamp eval` leaves in it, for compare, report, plots and card.

results.jsonl           the records, of one model or several; or one such folder a model inside the run directory
run.json                settings of the run and coverage of each task (`RunInfo`)
neutrality/layer08.npz  similarities of the languages at a layer (`Matrices`)
training.json           facts of the training (`core.facts`), where somebody has put them beside the records
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsamp.core.facts import FACTS, TrainingFacts
from langsamp.core.files import atomic_write
from langsamp.core.plain import one_line
from langsamp.core.record import Key, Record, key
from langsamp.core.typed import from_json
from langsamp.eval.results.aggregate import System, labels
from langsamp.eval.results.records import RESULTS, read
from langsamp.safe_files import read_json

RUN = "run.json"
_APART = "give one of these runs only, or `langsamp compare` one with the other"


@dataclass
class Coverage:
    """Which of the languages asked for were measured in a task, and why the others were not."""

    task: str
    asked: list[str]
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> list[str]:
        """Those asked for that are not missing; a missing source language need not have been asked for."""
        return [tag for tag in self.asked if tag not in self.missing]

    def line(self) -> str:
        """`sib200: 2 of 4 languages; missing: abc_Latn, xyz_Latn (no data)`."""
        text = f"{self.task}: {len(self.measured)} of {len(self.asked)} languages"
        return f"{text}; missing: {reasons(self.missing)}" if self.missing else text


def reasons(missing: dict[str, str]) -> str:
    """`abc_Latn, xyz_Latn (no data); uvw_Latn`: the languages, each reason once."""
    found: dict[str, list[str]] = {}
    for tag, why in missing.items():
        found.setdefault(why, []).append(tag)
    return "; ".join(", ".join(tags) + (f" ({why})" if why else "") for why, tags in found.items())


@dataclass
class RunInfo:
    """`run.json`: under which settings the records were made and on which data, and the coverage of each task.

    `data` has a hash (or the commit on the Hub) of what was measured, `sib200/deu_Latn`; older runs have none.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    coverage: dict[str, Coverage] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> RunInfo:
        """That of a folder, empty for a new one; a ValueError if the file is not what it should be."""
        path = folder / RUN
        return from_json(cls, read_json(path), path) if path.is_file() else cls()

    def write(self, folder: Path) -> None:
        """Write it into the folder, whole or not at all."""
        atomic_write(folder / RUN, json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True)
class Matrices:
    """Similarities of languages at one layer, by name, NaN on the diagonal; `folder` tells the runs apart."""

    folder: str
    layer: int
    languages: list[str]
    values: dict[str, NDArray[np.float64]]

    @staticmethod
    def file(layer: int) -> str:
        """Where in its folder a run keeps those of a layer."""
        return f"neutrality/layer{layer:02d}.npz"

    @classmethod
    def read(cls, path: Path) -> Matrices:
        """Those of one file; a ValueError if it is not what `langsamp eval` writes."""
        try:
            with np.load(path, allow_pickle=False) as file:
                languages = [str(code) for code in file["languages"]]
                values = {name: np.asarray(file[name], dtype=float) for name in file.files if name != "languages"}
            layer = int(path.stem.removeprefix("layer"))
            if any(matrix.shape != (len(languages), len(languages)) for matrix in values.values()):
                raise ValueError("a matrix is not languages x languages")
        except (ValueError, KeyError, OSError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} holds no similarities of languages ({one_line(error)})") from None
        return cls(path.parents[1].resolve().name, layer, languages, values)


@dataclass
class Run:
    """What was found; `losses` holds (folder name, [(step, loss), ...]), `cautions` are for whoever reads it."""

    records: list[Record]
    coverage: list[Coverage] = field(default_factory=list)
    matrices: list[Matrices] = field(default_factory=list)
    losses: list[tuple[str, list[tuple[float, float]]]] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)


def load(paths: str | Path | Sequence[str | Path]) -> Run:
    """Read run directories (or `.jsonl` files) together.

    A directory without results.jsonl stands for its sub-directories that have one.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is not what it should be, or two runs tell different values of one model.
    """
    given = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    folders = [folder for path in given for folder in _folders(path)]
    known: dict[Key, Record] = {}
    weights: dict[tuple[Any, Any], Any] = {}
    for folder in folders:
        told = RunInfo.read(folder).settings if folder.is_dir() else {}
        model = told.get("model"), told.get("revision")
        if "weights" in told and weights.setdefault(model, told["weights"]) != told["weights"]:
            raise ValueError(f"{folder} is about another {model[0]} than a run before it (other weights); {_APART}")
        for record in read(folder):
            if known.setdefault(key(record), record).value != record.value:
                raise ValueError(
                    f"{folder} has other values of {record.model} than a run before it ({record.task}, "
                    f"{record.metric}); {_APART}"
                )
    run = Run(list(known.values()), cautions=other_data(given))
    sides = {System(str(path.resolve())): path for path in [*folders, *given] if path.is_dir()}
    for system, name in labels(sides).items():
        _read_sides(sides[system], name, run)
    return run


def other_data(runs: Sequence[Path]) -> list[str]:
    """A sentence if not all of these runs were measured on the same data, where they say on which."""
    first: dict[str, tuple[Path, str]] = {}
    others: dict[str, str] = {}
    for folder in (folder for run in runs for folder in _folders(run) if folder.is_dir()):
        for name, value in RunInfo.read(folder).data.items():
            place, before = first.setdefault(name, (folder, value))
            if before != value:
                others.setdefault(name, f"{place} and {folder}")
    if not others:
        return []
    name, places = next(iter(others.items()))
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return [f"{places} were measured on different data of {name}{more}: measure both on the same to compare them."]


def _folders(path: Path) -> list[Path]:
    if path.suffix == ".jsonl" or (path / RESULTS).is_file():
        return [path]
    found = sorted(folder.parent for folder in path.glob(f"*/{RESULTS}"))
    if not found:
        raise FileNotFoundError(f"no {RESULTS} in {path} or its sub-folders: run `langsamp eval` first")
    return found


def _read_sides(folder: Path, name: str, run: Run) -> None:
    if (folder / FACTS).is_file():
        run.losses.append((name, TrainingFacts.read(folder).curve))
    run.matrices += [replace(Matrices.read(path), folder=name) for path in sorted(folder.glob("neutrality/layer*.npz"))]
    run.coverage += RunInfo.read(folder).coverage.values()
