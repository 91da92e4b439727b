"""Scores for the Hub's leaderboards: records to ``.eval_results/*.yaml`` (huggingface.co/docs/hub/eval-results).

Only tasks whose data set on the Hub holds exactly the sentences measured (`catalog.Entry.leaderboard`): the texts of
the others depend on what a user may use, so a score of ours does not belong on those leaderboards.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from langsamp.core.files import atomic_write
from langsamp.core.record import Record
from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import Aggregate, Cell
from langsamp.eval.results.gather import Results
from langsamp.eval.results.rundir import Run

FOLDER = ".eval_results"


def write_eval_results(folder: Path, records: Iterable[Record], model: str | None = None) -> list[Path]:
    """Write one file a data set that has a home on the Hub; files of tasks without records stay as they are.

    Where the records compare several models, only those of ``model`` are this checkpoint's; without it nothing is
    written, so that a baseline's score is never published under this checkpoint's name.

    The client's ``EvalResultEntry`` writes the same form but exists only in huggingface_hub 2, so it is built here;
    a test reads it back with the client where it can.
    """
    own = [record for record in records if model in (None, record.model)]
    if not own or len((results := Results.of(Run(own))).systems) > 1:
        return []
    written = []
    for name, task in catalog.TASKS.items():
        dataset, measure = task.leaderboard or ("", "")
        cells = [cell for cell in results.at_headline(name) if cell.metric == measure] if name in results.tasks else []
        if cells:
            entries = [_entry(cell, name, dataset, mean) for cell in cells for _, mean in results.means(cell)]
            text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
            written.append(atomic_write(folder / FOLDER / f"{name}.yaml", text))
    return written


def _entry(cell: Cell, task: str, dataset: str, mean: Aggregate) -> dict[str, Any]:
    metric = catalog.metric(cell.metric)
    notes = [f"mean {metric.label} over {mean.n} languages", *catalog.setting(cell)]
    spread = metric.bounds(mean.mean)
    return {
        "dataset": {"id": dataset, "task_id": task},
        "value": round(metric.scaled(mean.mean.value), 2),
        "notes": ", ".join(notes + [f"95 % interval {spread}"] * bool(spread)),
    }
