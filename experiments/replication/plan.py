"""What the replication does: `recipes/replication.yaml` as objects, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from langsamp.core.languages import normalize_tag
from langsamp.language_codes import nearest

from .variants import VARIANTS


@dataclass(frozen=True)
class Languages:
    """Who takes part: trained on or not, and whether the search for settings looked at their scores.

    Settings were chosen on `dev`; claims are made on the others, which were measured once.
    """

    trained: tuple[str, ...]
    untrained: tuple[str, ...]
    dev: tuple[str, ...]

    @property
    def measured(self) -> list[str]:
        """All of them."""
        return sorted({*self.trained, *self.untrained})


@dataclass(frozen=True)
class Sizes:
    """How much text and how many test sentences a language."""

    max_bytes: int = 400_000
    heldout_rows: int = 100
    block: int = 128
    verses: int = 200
    pairs: int = 200


@dataclass(frozen=True)
class Experiment:
    """One kind of start (`e5`: a pretrained encoder; `scratch`: random weights) and how it is trained.

    Attributes:
        variants: names from :data:`VARIANTS`, in the order they run in.
        seeds: of the data order, the masks and the tables.
        head_steps, head_learning_rate: training of the masked-LM head alone before everything else, encoder frozen, so
            that what a random head does to the encoder is no part of the comparison. The start of all variants.
        steps, batch: optimizer steps, blocks a step.
        learning_rate, table_learning_rate: peak; the tables' own (and the bias-only head's) as rows are touched rarely.
        adapt_steps: masked-LM training of the whole model, at `learning_rate`, on those trained languages alone that
            XLM-R has seen; it makes of the start what XLM-R is, a masked LM that knows the head and not the tail.
        shape: `hidden`, `layers`, `vocabulary` of a model from scratch.
        halves: variants whose mean with the start is measured, too.
        downstream: variants that are also fine-tuned on English SIB-200 and judged as finders of donor languages.
    """

    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    batch: int
    learning_rate: float
    table_learning_rate: float
    head_steps: int = 0
    head_learning_rate: float = 0.0
    adapt_steps: int = 0
    warmup: float = 0.1
    shape: Mapping[str, int] = field(default_factory=dict)
    halves: tuple[str, ...] = ()
    downstream: tuple[str, ...] = ()


@dataclass(frozen=True)
class Replication:
    """The whole plan."""

    languages: Languages
    sizes: Sizes
    experiments: Mapping[str, Experiment]


def read_plan(path: str | Path) -> Replication:
    """Read the recipe.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a name nobody knows (the nearest are given), an unknown variant, or a malformed language.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no recipe {str(file)!r}; take recipes/replication.yaml.")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    experiments = {name: _object(Experiment, given, name) for name, given in values.pop("experiments").items()}
    for name, experiment in experiments.items():
        for variant in (*experiment.variants, *experiment.halves, *experiment.downstream):
            if variant not in VARIANTS:
                raise ValueError(f"{name}: there is no variant {variant!r}; the variants are {', '.join(VARIANTS)}.")
    return Replication(
        _object(Languages, {k: map(normalize_tag, v) for k, v in values["languages"].items()}, "languages"),
        _object(Sizes, values.get("sizes", {}), "sizes"),
        experiments,
    )


def _object(kind: Any, given: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a mapping; lists become tuples."""
    known = [f.name for f in fields(kind)]
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: there is no setting {name!r}; nearest: {', '.join(nearest(name, known))}.")
    return kind(**{k: v if isinstance(v, (str, int, float, dict)) else tuple(v) for k, v in given.items()})
