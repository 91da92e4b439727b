"""The replication on a GPU: from a bundle to packed records, in the recipe's order, until the time is up.

    python -m experiments.replication.gpu.run BUNDLE OUT --seconds 500

Packed records in BUNDLE/records (those of an earlier call) are not made again. What fails is told and left out. OUT
gets `<experiment>.jsonl.gz` and `runs.jsonl`, a line a training, all the time: they are whole whenever the end comes.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from langsamp import LangSAMPForMaskedLM
from langsamp.core.compute.kernels import usable_cpus
from langsamp.core.runtime import pick_device
from langsamp.train.fast import gpu as fast
from langsamp.train.pretrain import PretrainResult

from ..archive import FINISHED, pack, unpack
from ..data import ENGLISH
from ..findings import RUNS
from ..plan import Experiment
from ..training import settle, train
from ..variants import VARIANTS, AtInput
from .measuring import MODEL, Measurers, frozen, tuned
from .search import Trials, choose, dev_score
from .unpack import open_bundle
from .vectors import VECTORS, Sentences, device_name

LOG = "train.log"
SEARCH, TEST, START = "gpu-search", "test", "start"
FACTS = ("steps", "tokens", "seconds", "tokens_per_second", "parameters")  # of a training
CAUTION = 0.9  # of the time that there seems to be
LAST_MEASURES = 45  # seconds for what the last model still has to be measured by
QUICK = {"save_strategy": "no", "disable_tqdm": True}  # nothing is kept of a model but its records


@dataclass
class Clock:
    """Seconds since the call began, and how many are left."""

    seconds: float
    began: float

    def __post_init__(self) -> None:
        self.speed = 0.0  # tokens a second of the last training
        self.beside = 5.0  # seconds of the last training and its vectors, without the steps

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds from now to the end."""
        return self.seconds - self.spent

    def say(self, text: str) -> None:
        """A line for people, at once."""
        print(f"{self.spent:6.1f} s  {text}", flush=True)

    def tokens(self, trainings: int) -> float:
        """How long each of so many trainings may be, so that all of them, and their measuring, still end in time."""
        return CAUTION * self.speed * ((self.left - LAST_MEASURES) / trainings - self.beside)

    def fits(self, tokens: float) -> bool:
        """Whether a training of so many tokens, and its measuring, would still end in time."""
        return self.left > LAST_MEASURES + self.beside + (tokens / self.speed if self.speed else 0)


class GpuRun:
    """One call."""

    def __init__(
        self, bundle: Path, out: Path, work: Path, clock: Clock, order: Sequence[str] = (), fit: bool = False
    ) -> None:
        self.out, self.work, self.clock, self.fit = out, work, clock, fit
        self.left_out: dict[str, None] = {}
        self._packing: Future[None] | None = None
        cpus = usable_cpus()
        self.measurers = Measurers(max(1, cpus * 5 // 8), max(1, min(3, cpus // 4)), clock.say)
        self.plan, self.store = open_bundle(bundle, work)
        self.order = tuple(order) or self.plan.order
        for file in (bundle / "records").glob("*.jsonl.gz"):
            unpack(file, work / "records" / file.name.removesuffix(".jsonl.gz"))
        if (bundle / "records" / RUNS).exists():
            shutil.copy(bundle / "records" / RUNS, out)
        tokens = sum(self.store.counts.values()) * self.store.block_size
        clock.say(f"{device_name()}; {len(self.store.counts)} languages, {tokens:,} tokens")
        _only_dev(work / TEST, work / SEARCH, self.plan.languages.dev)
        beside = ThreadPoolExecutor(1)  # beside the first training
        self._sentences = {place: beside.submit(Sentences, work / place, work / "first") for place in (SEARCH, TEST)}

    def do(self) -> None:
        """Everything, in order."""
        settings = dict(self.plan.experiments)
        first = next(iter(settings))
        with self.guarded("start"):
            with self.noted():
                settle(self.work / "first", settings[first], self.store, self.work, **QUICK)
            self.clock.say("start made")
            if not self.measured(first, START):
                model = LangSAMPForMaskedLM.from_pretrained(self.work / START).to(pick_device())  # type: ignore[arg-type]
                self.measure(first, START, settings[first], model)
        with self.guarded("search"):
            found = choose(settings[first], self.scored)
            rates = {"learning_rate": found.learning_rate, "table_learning_rate": found.table_learning_rate}
            settings = {name: replace(experiment, **rates) for name, experiment in settings.items()}
            self.clock.say(f"chosen: {rates}")
        if self.fit and self.clock.speed:
            settings = self.fitted(settings)
        for name, variant, seed in self.units():
            if not self.measured(name, f"{variant}-{seed}"):
                with self.guarded(f"{name}/{variant}-{seed}"):
                    self.one(name, f"{variant}-{seed}", variant, seed, settings[name])
        self.clock.say(f"no time for {', '.join(self.left_out) or 'nothing: all is done'}")

    def fitted(self, settings: dict[str, Experiment]) -> dict[str, Experiment]:
        """The experiment that comes first in the order, so short that its trainings named there end in this call."""
        units = list(self.units(self.order[:1]))
        name, tokens = units[0][0], int(self.clock.tokens(len(units)))
        steps = min(settings[name].steps, tokens // (settings[name].batch * self.store.block_size))
        self.clock.say(f"{name}: {steps} steps of {settings[name].steps} fit")
        return settings | {name: replace(settings[name], steps=max(1, steps))}

    def units(self, order: Sequence[str] | None = None) -> Iterator[tuple[str, str, int]]:
        """Experiment, variant and seed, seed by seed, so that whole comparisons come first."""
        for entry in self.order if order is None else order:
            name, _, variants = entry.partition(":")
            experiment = self.plan.experiments[name]
            for seed in experiment.seeds:
                for variant in variants.split(",") if variants else experiment.variants:
                    yield name, variant, seed

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """A block whose failure is told and does not end the others."""
        try:
            yield
        except Exception as error:
            self.clock.say(f"{name}: {''.join(traceback.format_exception(error, limit=-4))}")

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A block whose printing goes to a file, lest the lines for people drown in it."""
        with (self.out / LOG).open("a", encoding="utf-8") as file, redirect_stdout(file):
            yield

    def measured(self, experiment: str, name: str) -> bool:
        """Whether a model has its records, or is about to."""
        folder = self.work / "records" / experiment / name
        return (folder / FINISHED).exists() or folder in self.measurers.waiting

    def scored(self, variant: str, trials: Trials) -> dict[str, float]:
        """Train the trials that have no records yet, wait for their measures, and say how good they are."""
        for name, experiment in trials.items():
            if not self.measured(SEARCH, name):
                self.one(SEARCH, name, variant, int(name.rpartition("-")[2]), replace(experiment, layers=False))
        folders = {name: self.work / "records" / SEARCH / name for name in trials}
        self.measurers.collect(max(0.0, min(60.0, self.clock.left)), folders.values())
        scores = {name: dev_score(folder, self.plan.languages) for name, folder in folders.items()}
        self.clock.say(f"search: {scores}")
        return {name: score for name, score in scores.items() if score is not None}

    def one(self, experiment: str, name: str, variant: str, seed: int, settings: Experiment) -> None:
        """Train a model and set its measuring going, if there is time."""
        tokens = settings.steps * settings.batch * self.store.block_size
        if not self.clock.fits(tokens):
            self.left_out[f"{experiment}/{name}"] = None
            return
        began = self.clock.spent
        folder = self.work / "models" / experiment / name / MODEL
        with self.noted():
            result = train(variant, seed, settings, self.work / START, self.store, folder, **QUICK)
        self.tell(experiment, name, result, settings)
        self.measure(experiment, name, settings, result.model, variant)
        training = max(result.facts.seconds or 0.0, 1e-3)
        self.clock.speed, self.clock.beside = tokens / training, self.clock.spent - began - training
        del result
        gc.collect()
        self.measurers.collect()
        self.pack()

    def measure(self, experiment: str, name: str, settings: Experiment, model: Any, variant: str = "baseline") -> None:
        """Make the model's vectors and hand it to the other processes."""
        folder = self.work / "models" / experiment / name
        if name == START:
            shutil.copytree(self.work / START, folder / MODEL)
        place, kind, blocks = TEST, VARIANTS[variant], int(model.config.num_hidden_layers)
        downstream = variant in settings.downstream or (name == START and bool(settings.downstream))
        parts = frozen(blocks, settings.layers, kind.lang, downstream), tuned(kind.kind is not AtInput, downstream)
        if experiment == SEARCH:
            place, parts = SEARCH, ({"bible": frozen(blocks, False, False, False)["bible"]}, {})
        np.save(folder / VECTORS, self._sentences[place].result().vectors(model.roberta))
        self.measurers.submit(folder, self.work / "records" / experiment / name, self.work / place, *parts)

    def tell(self, experiment: str, name: str, result: PretrainResult, settings: Experiment) -> None:
        """A line about a training, for people and in `runs.jsonl`."""
        facts = {key: getattr(result.facts, key) for key in FACTS}
        rates = {"learning_rate": settings.learning_rate, "table_learning_rate": settings.table_learning_rate}
        line = {"experiment": experiment, "model": name, **facts, **rates, "device": device_name()}
        line["losses"] = [[step, round(loss, 4)] for step, loss in result.losses]
        with (self.out / RUNS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        last = result.losses[-1][1] if result.losses else float("nan")
        self.clock.say(f"{experiment}/{name}: loss {last:.3f}, {facts['tokens_per_second'] or 0:,.0f} tokens a second")

    def pack(self) -> None:
        """What is measured so far, as files to take home; made by another process, as it takes seconds."""
        if self._packing is None or self._packing.done():
            self._packing = self.measurers.lend(pack_all, self.work / "records", self.out)

    def close(self) -> None:
        """Wait for the last measures while there is time."""
        with self.guarded("last measures"):
            self.measurers.collect(max(0.0, self.clock.left - 3))
        self.measurers.give_up()
        pack_all(self.work / "records", self.out)
        self.clock.say("all is written")


def _only_dev(data: Path, folder: Path, dev: Iterable[str]) -> None:
    """What the search measures with: the verses of the dev languages, and English."""
    place = folder / "bible_retrieval"
    place.mkdir(parents=True, exist_ok=True)
    for tag in (*dev, ENGLISH):
        if (file := data / "bible_retrieval" / f"{tag}.parquet").exists():
            shutil.copy(file, place)


def pack_all(records: Path, out: Path) -> None:
    """Pack each experiment of which something new is measured."""
    for folder in sorted(records.glob("*")):
        file = out / f"{folder.name}.jsonl.gz"
        newest = max((path.stat().st_mtime for path in folder.glob(f"*/{FINISHED}")), default=0.0)
        if newest and (not file.exists() or file.stat().st_mtime < newest):
            pack(folder, file)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=500.0, help="after which no more is begun and all is written")
    parser.add_argument("--order", nargs="+", default=[], metavar="NAME", help="instead of the recipe's: gpu:both ...")
    parser.add_argument(
        "--fit", action="store_true", help="shorten what is first in the order to what this call has time for"
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    ours = logging.getLogger("langsamp")
    ours.setLevel(logging.INFO)
    ours.addHandler(logging.FileHandler(args.out / LOG, encoding="utf-8"))
    fast.WORTH_COMPILING = 0.0  # what one training compiles serves all others of the process, however short
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**34 else None
    with tempfile.TemporaryDirectory(prefix="replication-", dir=place) as work:
        transformers.utils.logging.disable_progress_bar()
        run = GpuRun(args.bundle, args.out, Path(work), Clock(args.seconds, began), args.order, args.fit)
        try:
            run.do()
        finally:
            run.close()


if __name__ == "__main__":
    main()
