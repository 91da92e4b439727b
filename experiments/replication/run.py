"""A small replication on real text: does LangSAMP do better than its baseline, and is it the languages that do it?

    python -m experiments.replication.run recipes/replication.yaml --data DIR --base ENCODER --output runs/replication

Trains every variant with every seed (variants share blocks, masks, order and steps), measures each, and writes what was
found. Interrupted at any point it goes on; models that were measured are deleted unless --keep-models, their records
stay. `--records DIR` starts from records made before, so that only what is missing is trained.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.core.facts import FACTS
from langsamp.core.model.config import read_config
from langsamp.core.runtime import resolve_model
from langsamp.eval.data.sets import EvalData
from langsamp.eval.run import run
from langsamp.eval.task import Context
from langsamp.train.saves import checkpoints

from .archive import FINISHED, unpack
from .data import cut
from .findings import write_findings
from .measures import passes
from .plan import Experiment, Replication, read_plan
from .start import make_start
from .training import train
from .variants import VARIANTS, ZERO, AtInput, half, halve


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True, metavar="DIR", help="mlm, bible_retrieval, tatoeba, sib200")
    parser.add_argument("--base", metavar="MODEL", help="the pretrained encoder, for experiments without a shape")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--records", metavar="DIR", help="packed records of an earlier run to go on from")
    parser.add_argument("--experiments", nargs="+", metavar="NAME", help="only these of the recipe")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="only these of the recipe")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="only these of the recipe")
    parser.add_argument("--keep-models", action="store_true")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    plan, output = read_plan(args.recipe), Path(args.output)
    cut(Path(args.data), plan.languages, plan.sizes, output / "data")
    for name, experiment in plan.experiments.items():
        if args.records and (packed := Path(args.records, f"{name}.jsonl.gz")).exists():
            unpack(packed, output / "records" / name)
        if name in (args.experiments or plan.experiments):
            work = Work(plan, name, experiment, args.base, output, args.keep_models)
            work.do(args.variants, args.seeds)
    write_findings([plan], output / "records", output / "findings")


class Work:
    """The runs of one experiment."""

    def __init__(
        self, plan: Replication, name: str, experiment: Experiment, base: str | None, output: Path, keep: bool
    ) -> None:
        if not experiment.shape and base is None:
            raise SystemExit(f"{name} starts from a pretrained encoder: give --base MODEL.")
        self.plan, self.name, self.experiment, self.keep = plan, name, experiment, keep
        self.base = None if experiment.shape else base
        self.output, self.folder, self.records = output, output / name, output / "records" / name

    def do(self, variants: list[str] | None, seeds: list[int] | None) -> None:
        """Seed by seed, so that an unfinished replication has whole comparisons; the start is measured, too."""
        todo = [
            (variant, seed)
            for seed in self.experiment.seeds
            for variant in self.experiment.variants
            if variant in (variants or VARIANTS) and seed in (seeds or self.experiment.seeds)
        ]
        todo = [unit for unit in todo if not all(self.measured(name) for name in self.made_of(*unit))]
        if not todo and self.measured("start"):
            return
        store = make_start(self.base, self.experiment, self.plan.sizes, self.output / "data", self.folder)
        further = bool(self.experiment.downstream)
        self.measure("start", self.folder / "start", lm=self.base is not None, downstream=further)
        for variant, seed in tqdm(todo, desc=self.name, unit="model"):
            model = train(
                variant, seed, self.experiment, self.folder / "start", store, self.folder / _name(variant, seed)
            ).folder
            further = variant in self.experiment.downstream
            self.measure(_name(variant, seed), model, lm=VARIANTS[variant].kind is not AtInput, downstream=further)
            if variant == "both":
                self.derive(model, _name(ZERO, seed), encoder=False)
            if variant in self.experiment.halves:
                self.derive(model, _name(half(variant), seed), self.halve, lm=False)
            if not self.keep:
                shutil.rmtree(model)

    def made_of(self, variant: str, seed: int) -> list[str]:
        """The names of a trained model and of what is measured of it besides."""
        beside = [ZERO] * (variant == "both") + [half(variant)] * (variant in self.experiment.halves)
        return [_name(name, seed) for name in (variant, *beside)]

    def measured(self, name: str) -> bool:
        """Whether there are all records of a model."""
        return (self.records / name / FINISHED).exists()

    def derive(
        self, model: Path, name: str, change: Callable[[LangSAMPForMaskedLM], None] | None = None, **wanted: bool
    ) -> None:
        """Measure a trained model with other weights: changed, and with unknown rows of zero.

        Zero is what they were in training; what they become is in the finished model only, not in its checkpoint.
        """
        if self.measured(name):
            return
        folder = self.folder / name
        other = LangSAMPForMaskedLM.from_pretrained(checkpoints.last_good(model))
        if change:
            change(other)
        other.save_pretrained(folder)
        LangSAMPTokenizer.from_pretrained(model).save_pretrained(folder)
        self.measure(name, folder, **wanted)
        shutil.rmtree(folder)

    def halve(self, model: LangSAMPForMaskedLM) -> None:
        """Half the start."""
        halve(model, LangSAMPForMaskedLM.from_pretrained(self.folder / "start"))

    def measure(self, name: str, model: Path, **wanted: bool) -> None:
        """All records of a model (`wanted`: see :func:`passes`); a second call computes what is missing."""
        if self.measured(name):
            return
        source = resolve_model(model)
        for part in passes(int(read_config(source.path).num_hidden_layers), layers=self.experiment.layers, **wanted):
            context = Context(
                source=source,
                data=EvalData(self.output / "data" / "test"),
                output=self.records / name,
                layers=part.layers,
                seeds=part.seeds,
                dtype="bfloat16",
                progress=False,
                options=part.options,
            )
            run(context, list(part.tasks), self.plan.languages.measured)
        shutil.rmtree(self.records / name / "finetuned", ignore_errors=True)
        for side in (FACTS, "train.jsonl"):
            if (model / side).exists():
                shutil.copy(model / side, self.records / name / side)
        (self.records / name / FINISHED).write_text("", encoding="utf-8")


def _name(variant: str, seed: int) -> str:
    return f"{variant}-{seed}"


if __name__ == "__main__":
    main()
