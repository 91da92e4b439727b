"""Scores for the Hub's leaderboards: records to ``.eval_results/*.yaml`` (huggingface.co/docs/hub/eval-results)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from langsamp.core.files import atomic_write
from langsamp.eval.results.card.tables import Score, scores
from langsamp.eval.results.records import Record

FOLDER = ".eval_results"

# Data sets on the Hub that hold exactly the sentences a task is measured on. Bible, Taxi1500, NER and POS are not here:
# their texts depend on what a user may use, so a score of ours does not belong on those leaderboards by default.
DATASETS: Mapping[str, tuple[str, str]] = {
    "sib200": ("mteb/sib200", "macro_f1"),
    "sr-tatoeba": ("mteb/tatoeba-bitext-mining", "acc@1"),
}


def write_eval_results(folder: Path, records: Iterable[Record], model: str | None = None) -> list[Path]:
    """Write one file a data set that has a home on the Hub; files of tasks without records stay as they are.

    Where the records compare several models, only those of ``model`` are this checkpoint's; without it nothing is
    written, so that a baseline's score is never published under this checkpoint's name.

    The client's ``EvalResultEntry`` writes the same form but exists only in huggingface_hub 2, so it is built here;
    a test reads it back with the client where it can.
    """
    records = list(records)
    models = {record.model for record in records}
    if model is None and len(models) > 1:
        return []
    table, _ = scores(record for record in records if model in (None, record.model))
    written = []
    for task, (dataset, metric) in DATASETS.items():
        entries = [_entry(score, dataset) for score in table if score.task == task and score.metric == metric]
        if entries:
            text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
            written.append(atomic_write(folder / FOLDER / f"{task}.yaml", text))
    return written


def _entry(score: Score, dataset: str) -> dict[str, Any]:
    interval = "" if score.low is None else f", 95 % interval {score.show(score.low)} to {score.show(score.high)}"
    setting = f" ({score.setting})" if score.setting else ""
    return {
        "dataset": {"id": dataset, "task_id": score.task},
        "value": round(100 * score.mean, 2),
        "notes": f"mean {score.metric} over {score.languages} languages{setting}{interval}",
    }
