"""What the tests of the engines share: texts that break encoders, and a small fine-tuning."""

from __future__ import annotations

import numpy as np

from langsamp.core.runtime import resolve_model
from langsamp.eval.engines.recipe import Job, Recipe

HOSTILE = [
    "",
    " ",
    "\ud800 lone",
    "\ud83d\ude00",
    "NUL \0 inside",
    "\u202e\u05d0\u05d1 RTL",
    "a\u200db",
    "e\u0301",
    "\u00e9",
    "<pad> in the text <pad>",
    "</s>",
    "word " * 700,
    "The house stands by the river.",
    "家は川のそばにあります。",
    "The house stands by the river.",
]

IDS = [np.array(ids) for ids in ([0, 2], [0, 7, 2], [0, 1, 2], [0, 9, 8, 1, 30, 2])]

RECIPE = Recipe(1e-3, epochs=2, batch_size=4, accumulation=2, max_length=20)
LABELS = ("a", "b", "c")


def job(model, kind="sequence", recipe=RECIPE, **fields):
    return Job(resolve_model(model), kind, "t", "eng_Latn", 1, LABELS, recipe, **fields)


def features(kind, count=22):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, size=count)
    texts = [[0, *rng.integers(5, 60, size=size).tolist(), 2] for size in sizes]
    labels = [
        i % 3 if kind == "sequence" else [-100, *rng.integers(3, size=len(t) - 2), -100] for i, t in enumerate(texts)
    ]
    return [{"input_ids": ids, "labels": label} for ids, label in zip(texts, labels)]


def score(predicted, true):
    return float((predicted == true)[true != -100].mean())
