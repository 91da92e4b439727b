"""`run.json` of a run directory: under which settings its records were made, and which languages they cover.

A rerun that would silently mix other numbers into the same records is refused; adding tasks, languages, layers or seeds
is what reruns are for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from langsamp.core.manifest import measure
from langsamp.eval.results.records import Done
from langsamp.eval.results.rundir import RUN, Coverage, RunInfo
from langsamp.eval.task import Context, Task, Unit

LOCK = ".lock"
_SAMPLES, _SAMPLE_BYTES = 64, 4096


def check_settings(context: Context, tasks: Iterable[Task]) -> None:
    """Compare what would change a number with the run that the folder holds, if any, and write it down.

    A folder without any results yet takes new settings. A task may have settings of its own: a method
    `settings(context)` that gives a dictionary.

    Raises:
        ValueError: a setting differs; names the first.
    """
    known = RunInfo.read(context.output)
    if {path.name for path in context.output.glob("*")} <= {RUN, LOCK}:
        known = RunInfo()  # a run that failed before its first number binds nobody
    context.data.pin(known.data)
    settings = {
        "model": context.source.name,
        "revision": context.source.revision,
        "weights": fingerprint(context.source.path),
        "data": context.data.root.resolve().name if context.data.root else "hub",
        "prefix": context.prefix,
        "dtype": context.dtype,
        "special_tokens": context.special_tokens,
    }
    if context.source.revision is None:  # else the commit says it
        settings["files"] = contents(context.source.path)
    for task in tasks:
        own = task.settings(context) if hasattr(task, "settings") else {}
        settings.update({f"{task.name}: {name}": value for name, value in own.items()})
    for name, value in settings.items():
        if (before := known.settings.get(name, value)) != value:
            raise ValueError(
                f"{context.output} holds a run with {name} {before!r}, not {value!r}; choose another --output"
            )
    known.settings.update(settings)
    known.write(context.output)


def check_data(context: Context, units: Sequence[Unit], done: Done) -> None:
    """Compare the data of the units with those that the folder's records were measured on.

    What was measured before such things were written down counts as measured on the data of now.

    Raises:
        ValueError: some have changed since; names the files.
    """
    known = RunInfo.read(context.output)
    for name in dict.fromkeys(name for unit in units for name in unit.data if name in known.data):
        if context.data.fingerprint(name) != known.data[name]:
            raise ValueError(
                f"{context.output} holds numbers of {name} from before its data changed "
                f"({context.data.place(name)}); put the old data back or choose another --output"
            )
    save_data(context, [unit for unit in units if any(record in done for record in unit.expected)])


def save_data(context: Context, units: Iterable[Unit]) -> None:
    """Note which data these units were measured on."""
    known = RunInfo.read(context.output)
    fresh = {name for unit in units for name in unit.data} - known.data.keys()
    if fresh:
        found = {name: context.data.fingerprint(name) for name in sorted(fresh)}
        known.data |= {name: value for name, value in found.items() if value}
        known.write(context.output)


def save_coverage(output: Path, coverage: Coverage) -> None:
    """Note which languages a task was asked for, in this run or before, and which are missing, with the reasons."""
    known = RunInfo.read(output)
    before = known.coverage.get(coverage.task, coverage)
    missing = {tag: why for tag, why in before.missing.items() if tag not in coverage.asked} | coverage.missing
    known.coverage[coverage.task] = Coverage(coverage.task, sorted({*before.asked, *coverage.asked}), missing)
    known.write(output)


def contents(folder: Path) -> str:
    """A short hash of weights and tokenizer that tells a single row apart; with a manifest they were read before."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")])
    return hashlib.sha256("".join(f"{path.name} {measure(path).sha256}\n" for path in files).encode()).hexdigest()[:16]


def fingerprint(folder: Path) -> str:
    """A short hash of the weights from their sizes and samples spread over them: it tells a retrained model in the
    same folder apart without reading gigabytes.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with open(path, "rb") as file:
            for number in range(_SAMPLES):
                file.seek(size * number // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
