"""Measuring beside training: parts of a model's evaluation as jobs of other processes, their records put together.

Frozen measures read kept vectors and need one core each; fine-tuning and the masked-LM loss need the model and share
the card with the training. A part that fails is told and left out; the others go on.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import traceback
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers

from langsamp.core.model.config import read_config
from langsamp.core.record import protocol_layer
from langsamp.core.runtime import ModelSource
from langsamp.eval.data.sets import EvalData
from langsamp.eval.results.records import RESULTS, Record, append, key, read
from langsamp.eval.run import run

from ..archive import FINISHED
from ..measures import FINETUNE_STEPS, TAGGING_STEPS, Pass, some_layers
from .vectors import VECTORS, KeptContext

FINETUNE = {"max_steps": FINETUNE_STEPS, "learning_rate": 1e-4, "batch_size": 16, "accumulation": 1}
TAGGING = {"max_steps": TAGGING_STEPS, "learning_rate": 2e-4, "batch_size": 32, "accumulation": 1}
MODEL = "model"  # the folder of a model beside its vectors
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Job:
    """One part of the evaluation of a model in `folder`; `vectors` says whether the kept ones are read."""

    name: str
    part: str
    folder: Path
    data: Path
    work: Pass
    vectors: bool


def frozen(blocks: int, every_layer: bool, rows: bool, downstream: bool) -> dict[str, Pass]:
    """The parts that need vectors alone (and the rows of a model that has some), the longest first."""
    some = some_layers(blocks)
    layers = "all" if every_layer else None
    parts = {"donors": Pass(("donors",))} if downstream else {}
    parts |= {
        "tatoeba": Pass(("sr-tatoeba",), layers),
        "bible": Pass(("sr-bible",), layers),
        "neutrality": Pass(("neutrality",), some, options={"sentences": 50}),
        "probes": Pass(("sib200", "taxi1500"), some, options={"probe": True}),
    }
    return parts | ({"map": Pass(("embedding-map",))} if rows else {})


def tuned(lm: bool, downstream: bool) -> dict[str, Pass]:
    """The parts that need the model."""
    parts = {"lm": Pass(("lm",), options={"sentences": 30})} if lm else {}
    if downstream:
        parts |= {
            "topics": Pass(("sib200", "taxi1500"), seeds=(42,), options=FINETUNE),
            "pos": Pass(("pos",), seeds=(1,), options=TAGGING),
            "ner": Pass(("ner",), seeds=(1,), options=TAGGING),
        }
    return parts


def do(job: Job) -> str:
    """Measure; returns what went wrong, or nothing."""
    try:
        context = KeptContext(
            source=ModelSource(job.folder / MODEL, job.name),
            data=EvalData(job.data),
            output=job.folder / job.part,
            layers=job.work.layers,
            seeds=job.work.seeds,
            dtype="bfloat16" if job.vectors else "float32",
            progress=False,
            options=job.work.options,
            kept=job.folder / VECTORS if job.vectors else None,
        )
        run(context, list(job.work.tasks))
    except Exception:  # whatever it is, the other parts are worth having
        return traceback.format_exc(limit=-3)
    return ""


def _begin() -> None:
    """In a new process: quiet, and behind the training where there is not a core for everybody."""
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    os.nice(5)


def _pool(count: int, environment: Mapping[str, str]) -> ProcessPoolExecutor:
    """Processes of one thread each, started now: what they import takes seconds."""
    before = dict(os.environ)
    os.environ.update(ONE_THREAD | environment)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin)
    for _ in range(count):
        pool.submit(os.getpid)
    os.environ.clear()
    os.environ.update(before)
    return pool


@dataclass
class Measured:
    """A model whose parts are under way."""

    folder: Path
    parts: list[str]
    left: set[Future[str]]


@dataclass
class Measurers:
    """The processes that measure, and what they are at.

    Args:
        frozen: how many that need no card.
        tuned: how many that use it.
        say: tells people.
        waiting: models under way, by the folder of their records.
    """

    frozen: int
    tuned: int
    say: Callable[[str], None]
    waiting: dict[Path, Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pools = [_pool(self.frozen, {"CUDA_VISIBLE_DEVICES": ""}), _pool(self.tuned, {})]

    def submit(self, folder: Path, records: Path, data: Path, *parts: Mapping[str, Pass]) -> None:
        """Measure the model in `folder`; the first `parts` are frozen, the second need the model.

        The folder goes when `records` is written, whose name is the model's.
        """
        left = set()
        for pool, wanted, vectors in zip(self._pools, parts, (True, False)):
            jobs = [Job(records.name, part, folder, data, work, vectors) for part, work in wanted.items()]
            left |= {pool.submit(do, job) for job in jobs}
        self.waiting[records] = Measured(folder, [part for wanted in parts for part in wanted], left)

    def lend(self, function: Callable[..., None], *given: Any) -> Future[None]:
        """Have something else done by a process that measures."""
        return self._pools[0].submit(function, *given)

    def collect(self, seconds: float = 0.0, only: Collection[Path] | None = None) -> None:
        """Put together the records of models that are measured whole; wait so long at most for those that are not.

        Args:
            seconds: how long.
            only: wait for these alone, by the folder of their records; None: for all.
        """
        asked = [entry for name, entry in self.waiting.items() if only is None or name in only]
        wait({future for entry in asked for future in entry.left}, timeout=seconds)
        for records in [name for name, entry in self.waiting.items() if all(future.done() for future in entry.left)]:
            self._finish(records)

    def give_up(self) -> None:
        """No more time: keep what there is of every model under way, and end the processes."""
        for records in list(self.waiting):
            self._finish(records)
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()

    def _finish(self, records: Path) -> None:
        entry, name = self.waiting.pop(records), f"{records.parent.name}/{records.name}"
        for future in entry.left:
            if future.done() and not future.cancelled() and (wrong := future.exception() or future.result()):
                self.say(f"{name}: {wrong}")
        missing = sum(not future.done() for future in entry.left)
        if missing:
            self.say(f"{name}: {missing} of {len(entry.left)} parts were not finished in time")
        files = [file for part in entry.parts if (file := entry.folder / part / RESULTS).exists()]
        layer = protocol_layer(int(read_config(entry.folder / MODEL).num_hidden_layers))
        found = {key(record): record for file in files for record in read(file) if _kept(record, layer)}
        if found:
            (records / RESULTS).unlink(missing_ok=True)
            append(records, found.values())
            (records / FINISHED).touch()
        shutil.rmtree(entry.folder, ignore_errors=True)


def _kept(record: Record, layer: int) -> bool:
    """Whether a record comes home: all but those that no table and no plot reads, which are most.

    Args:
        record: of a model.
        layer: the protocol's of that model.
    """
    aside = record.direction == "x->en" and record.layer != layer
    return not aside and record.metric != "acc@5" and record.task != "donors-transfer"
