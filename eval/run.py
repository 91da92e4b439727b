"""Run tasks on a model: units of work in, records out; finished records are never computed again.

One run directory holds `results.jsonl` (the records) and `run.json` (settings, and which languages were covered).
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence

from tqdm.auto import tqdm

from langsamp.eval.results import records
from langsamp.eval.rows import DataError
from langsamp.eval.run_settings import check_settings, save_coverage
from langsamp.eval.task import Context, Coverage, Task, Unit, choose_languages

logger = logging.getLogger(__name__)

# name -> module:object; imported when asked for, so that one task never pays for another's libraries.
TASKS: dict[str, str] = {
    "sr-bible": "retrieval:SR_BIBLE",
    "sr-tatoeba": "retrieval:SR_TATOEBA",
    "sr-cldr": "retrieval:SR_CLDR",
    "taxi1500": "classify:TAXI1500",
    "sib200": "classify:SIB200",
    "ner": "tagging:NER",
    "pos": "tagging:POS",
    "lm": "lm:LM",
    "neutrality": "neutrality:NEUTRALITY",
    "donors": "donors:DONORS",
    "embedding-map": "embedding_map:EMBEDDING_MAP",
}


def load_task(name: str) -> Task:
    """The task object of a name. Raises ValueError naming the tasks there are."""
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; the tasks are {', '.join(TASKS)}")
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(f"langsamp.eval.tasks.{module}"), attribute)
    return task


def run(context: Context, tasks: Sequence[str], languages: Sequence[str] | None = None) -> list[Coverage]:
    """Evaluate `tasks` in order; records go to `context.output`/results.jsonl as each unit is finished.

    A rerun with the same settings only computes what is missing. Returns the coverage of each task.
    Raises ValueError for an unknown task or if the folder holds a run with other settings, and DataError if a task
    has no language at all.
    """
    objects = [load_task(name) for name in tasks]
    check_settings(context, objects)
    done = records.Done(context.output)
    found = []
    for task in objects:
        chosen, coverage = choose_languages(task.name, task.languages(context), languages)
        _run_task(task, context, chosen, coverage, done)
        save_coverage(context.output, coverage)
        found.append(coverage)
    return found


def _run_task(task: Task, context: Context, chosen: list[str], coverage: Coverage, done: records.Done) -> None:
    """Compute the units that are not done; a language with unusable data is counted as missing, with the reason."""
    with tqdm(task.units(context, chosen), desc=task.name, unit="unit", disable=not context.progress) as units:
        for unit in units:
            units.set_postfix_str(unit.language or "", refresh=False)
            if all(record in done for record in unit.expected):
                continue
            try:
                fresh = _compute(unit, done)
            except DataError as error:
                if unit.language is None:
                    raise
                coverage.missing[unit.language] = str(error)
                logger.warning("%s: %s is left out: %s", task.name, unit.language, error)
                continue
            records.append(context.output, fresh)
            done.add(fresh)
    if coverage.asked and not coverage.measured:
        raise DataError(coverage.line())


def _compute(unit: Unit, done: records.Done) -> list[records.Record]:
    """The unit's records that are not in the file yet; they must be the ones it promised."""
    found = list(unit.compute())
    promised = {records.key(record) for record in unit.expected}
    given = {records.key(record) for record in found}
    if given != promised:
        raise RuntimeError(f"a task gave other records than it promised: {sorted(map(str, given ^ promised))}")
    return [record for record in found if record not in done]
