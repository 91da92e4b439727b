"""Learning rates from few short runs: the baseline chooses the encoder's, then LangSAMP that of its tables.

Judged by SR-Bible Acc@10 on the dev languages that are trained on, with a seed of its own. That the baseline chooses
first favours no variant over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from langsamp.eval.results.records import read

from ..archive import FINISHED
from ..plan import Experiment, Languages

SEED = 0
SHORTER = 10  # a search run has so many times fewer steps
CHOOSERS = {"learning_rate": "baseline", "table_learning_rate": "both"}
Trials = dict[str, Experiment]  # name of the model, which ends in the seed as everywhere -> its settings


def choose(experiment: Experiment, scored: Callable[[str, Trials], dict[str, float]]) -> Experiment:
    """The experiment with the best of the values that its `search` names.

    Args:
        experiment: what is not searched for stays as it is, and so does what no trial could be scored for.
        scored: trains a variant with each trial's settings and gives the scores by name.
    """
    for setting, variant in CHOOSERS.items():
        short = replace(experiment, steps=max(1, experiment.steps // SHORTER))
        values = {f"{variant}-{setting}-{value:g}-{SEED}": value for value in experiment.search.get(setting, ())}
        scores = scored(variant, {name: replace(short, **{setting: value}) for name, value in values.items()})
        if scores:
            experiment = replace(experiment, **{setting: values[max(scores, key=lambda name: scores[name])]})
    return experiment


def dev_score(folder: Path, who: Languages) -> float | None:
    """SR-Bible Acc@10 with English as the query, mean over the dev languages trained on; None without records."""
    if not (folder / FINISHED).exists():
        return None
    wanted = ("sr-bible", "acc@10", "en->x")
    values = [
        record.value
        for record in read(folder)
        if (record.task, record.metric, record.direction) == wanted
        and record.code in who.dev
        and who.trains(record.code or "")
    ]
    return float(np.mean(values)) if values else None
