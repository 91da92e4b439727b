"""Run tasks on a model: units of work in, records out; finished records are never computed again.

One run directory holds `results.jsonl` (the records) and `run.json` (settings, and which languages were covered). Units
are computed by a crew: a `Worker` in this process, or many elsewhere; this process alone writes.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Protocol

from tqdm.auto import tqdm

from langsamp.core.files import atomic_write, held
from langsamp.eval.data.columns import DataError
from langsamp.eval.results import records
from langsamp.eval.results.catalog import TASKS
from langsamp.eval.run_settings import LOCK, check_data, check_settings, save_coverage, save_data
from langsamp.eval.task import Context, Coverage, Task, Unit, choose_languages

logger = logging.getLogger(__name__)


def load_task(name: str) -> Task:
    """The task object of a name.

    Raises:
        ValueError: there is no such task; names those there are.
    """
    if name not in TASKS or not TASKS[name].run:
        known = ", ".join(task for task, entry in TASKS.items() if entry.run)
        raise ValueError(f"there is no task {name!r}; the tasks are {known}")
    module, _, attribute = TASKS[name].run.partition(":")  # imported now: one task never pays for another's libraries
    task: Task = getattr(importlib.import_module(f"langsamp.eval.tasks.{module}"), attribute)
    return task


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: its records and files of the run directory, or why its language cannot be measured."""

    records: Sequence[records.Record] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    problem: str | None = None


class Crew(Protocol):
    """Whoever computes units; `tell` hears how many are at work."""

    tell: Callable[[str], None]

    def outcomes(self, task: str, units: Sequence[Unit]) -> Iterable[tuple[Unit, Outcome]]:
        """The outcome of every unit, in any order; an error comes through, unless it is a language's."""
        ...


class Worker:
    """Computes units one after the other with one model at a time; a crew of one, and what larger ones are made of."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.tell: Callable[[str], None] = context.tell

    def outcomes(self, task: str, units: Sequence[Unit]) -> Iterator[tuple[Unit, Outcome]]:
        """In the order given."""
        for unit, following in zip_longest(units, units[1:]):
            together = following is not None and following.group == unit.group
            self.context.following = following if together else None
            yield unit, self.compute(task, unit)

    def compute(self, task: str, unit: Unit) -> Outcome:
        """One unit of a task.

        Raises:
            RuntimeError: the task gave other records than it promised.
        """
        self.context.tell(unit.language or "")
        self.context.begin((task, unit.group))
        try:
            found = list(load_task(task).compute(self.context, unit))
        except DataError as error:
            if unit.language is None:
                raise
            return Outcome(problem=str(error))
        strange = {*map(records.key, found)} ^ {*map(records.key, unit.expected)}
        if strange:
            raise RuntimeError(f"{task} gave other records than it promised: {sorted(map(str, strange))}")
        files = dict(self.context.files)
        self.context.files.clear()
        return Outcome(found, files)


@dataclass
class _Plan:
    """What a task has to do: its languages, the units whose records are not all there, and whose were at a stage."""

    task: Task
    coverage: Coverage
    units: list[Unit]
    todo: list[Unit]
    measured: set[tuple[int, str | None]]


def run(
    context: Context, tasks: Sequence[str], languages: Sequence[str] | None = None, crew: Crew | None = None
) -> list[Coverage]:
    """Evaluate `tasks` in order; records go to `context.output`/results.jsonl as each unit is finished.

    A rerun with the same settings only computes what is missing; `crew` computes elsewhere than in this process, with
    equal results.

    Returns:
        The coverage of each task.

    Raises:
        ValueError: a task is unknown, or the folder holds a run with other settings.
        RuntimeError: another run writes there.
        DataError: a task has no language at all.
    """
    objects = [load_task(name) for name in dict.fromkeys(tasks)]
    context = replace(context)  # what is kept for the units is this run's
    where = context.output
    with held(where / LOCK, f"another evaluation is writing to {where}; wait for it or choose another --output."):
        check_settings(context, objects)
        done = records.Done(context.output)
        plans = [_plan(task, context, languages, done) for task in objects]
        check_data(context, [unit for plan in plans for unit in plan.units], done)
        for plan in plans:  # a run that does not end shall tell, too, what it was asked for
            save_coverage(context.output, plan.coverage)
        total = sum(len(plan.todo) for plan in plans)
        pause = 0.1 if sys.stderr.isatty() else 30  # seconds between two lines: a log file is read later
        with tqdm(total=total, unit="unit", mininterval=pause, disable=not (context.progress and total)) as bar:
            crew = crew or Worker(context)
            if not bar.disable:
                context.tell = crew.tell = bar.set_postfix_str
            for plan in plans:
                bar.set_description(plan.task.name)
                _run_task(plan, context, crew, done, bar)
                save_coverage(context.output, plan.coverage)
    return [plan.coverage for plan in plans]


def _plan(task: Task, context: Context, languages: Sequence[str] | None, done: records.Done) -> _Plan:
    context.begin((task.name, None))
    chosen, coverage = choose_languages(task.name, task.languages(context), languages)
    units = list(task.units(context, chosen))
    todo = [unit for unit in units if any(record not in done for record in unit.expected)]
    whole = {(unit.stage, unit.language) for unit in units if all(record in done for record in unit.expected)}
    return _Plan(task, coverage, units, todo, whole)


def _run_task(plan: _Plan, context: Context, crew: Crew, done: records.Done, bar: tqdm) -> None:
    """Compute the units that are not done; a language none of whose data is usable is missing, with the reason."""
    for stage in sorted({unit.stage for unit in plan.todo}):
        units = _with_given(context, [unit for unit in plan.todo if unit.stage == stage])
        problems, finished = {}, list[Unit]()
        safe = time.monotonic()  # the disk is waited for once a second, which only a loss of power would notice
        for number, (unit, outcome) in enumerate(crew.outcomes(plan.task.name, units), 1):
            bar.update()
            if outcome.problem is not None and unit.language is not None:
                problems[unit.language] = outcome.problem
                logger.warning("%s: %s is left out: %s", plan.task.name, unit.language, outcome.problem)
                continue
            for name, content in outcome.files.items():
                atomic_write(context.output / name, content)
            fresh = [record for record in outcome.records if record not in done]
            finished.append(unit)
            wait = number == len(units) or time.monotonic() > safe + 1
            if wait:
                save_data(context, finished)
                finished.clear()
            records.append(context.output, fresh, wait)
            done.add(fresh)
            safe = time.monotonic() if wait else safe
            plan.measured.add((stage, unit.language))
        plan.coverage.missing |= {tag: why for tag, why in problems.items() if (stage, tag) not in plan.measured}
    if plan.coverage.asked and not plan.coverage.measured:
        raise DataError(plan.coverage.line())


def _with_given(context: Context, units: list[Unit]) -> list[Unit]:
    """The units with the records that they want."""
    if not any(unit.wants for unit in units) or not (context.output / records.RESULTS).exists():
        return units
    known: dict[tuple[str, str | None], list[records.Record]] = {}
    for record in records.read(context.output):
        known.setdefault((record.task, record.code), []).append(record)
    return [replace(unit, given=known.get((unit.wants or "", unit.language), ())) for unit in units]
