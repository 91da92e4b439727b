"""What the replication does: `recipes/replication.yaml` as objects, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from langsamp.core.language.languages import normalize_tag
from langsamp.language_codes import nearest

from .variants import VARIANTS


@dataclass(frozen=True)
class Languages:
    """Who takes part: trained on or not, and whether the search for settings looked at their scores.

    Settings were chosen on `dev`; claims are made on the others, which were measured once. Without a list of trained
    languages these are all that there is text of, but for the untrained.
    """

    untrained: tuple[str, ...]
    dev: tuple[str, ...]
    trained: tuple[str, ...] = ()

    @property
    def measured(self) -> list[str]:
        """All that are named."""
        return sorted({*self.trained, *self.untrained})

    def trains(self, tag: str) -> bool:
        """Whether a language is trained on."""
        return tag in self.trained if self.trained else tag not in self.untrained


@dataclass(frozen=True)
class Sizes:
    """How much text and how many test sentences a language.

    Attributes:
        max_bytes, heldout_rows: of training text, and of what is held out for the masked-LM loss.
        block: tokens.
        verses, pairs: of the two retrieval sets.
        words: test sentences a language of the tagging sets, and ten times as many of English to train on; with it
            Taxi1500 is cut, too. 0: neither.
        sources: languages of SIB-200 that keep their training part; none: all that are trained on.
        least: how often the corpus must use a piece of the encoder's vocabulary for it to stay.
    """

    max_bytes: int = 400_000
    heldout_rows: int = 100
    block: int = 128
    verses: int = 200
    pairs: int = 200
    words: int = 0
    sources: tuple[str, ...] = ()
    least: int = 1


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
        search: the settings to choose from, by name, with one seed on the dev languages (:mod:`.gpu.search`).
        layers: False to measure retrieval at the protocol's layer only (on a CPU nothing else of the encoder).
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
    search: Mapping[str, Sequence[float]] = field(default_factory=dict)
    layers: bool = True


@dataclass(frozen=True)
class Replication:
    """The whole plan; `order` says what comes when: names of experiments, `gpu:baseline,both` for some variants."""

    languages: Languages
    sizes: Sizes
    experiments: Mapping[str, Experiment]
    order: tuple[str, ...] = ()


def read_plan(path: str | Path, size: str | None = None) -> Replication:
    """Read the recipe; with a size, the values that it has under that name replace the others.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a name nobody knows (the nearest are given), an unknown variant, or a malformed language.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no recipe {str(file)!r}; take recipes/replication.yaml.")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if size is not None:
        if not isinstance(values.get(size), dict):
            raise ValueError(f"{path} has no values for the size {size!r}.")
        values = _merged(values, values[size])
    experiments = {name: _object(Experiment, given, name) for name, given in values.pop("experiments").items()}
    for name, experiment in experiments.items():
        for variant in (*experiment.variants, *experiment.halves, *experiment.downstream):
            if variant not in VARIANTS:
                raise ValueError(f"{name}: there is no variant {variant!r}; the variants are {', '.join(VARIANTS)}.")
    return Replication(
        _object(Languages, {k: map(normalize_tag, v) for k, v in values["languages"].items()}, "languages"),
        _object(Sizes, values.get("sizes", {}), "sizes"),
        experiments,
        tuple(values.get("order") or experiments),
    )


def _merged(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The values with others in place of those of equal name; mappings are merged likewise."""
    both = {k: _merged(values[k], v) if isinstance(v, dict) and k in values else v for k, v in others.items()}
    return {**values, **both}


def _object(kind: Any, given: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a mapping; lists become tuples."""
    known = [f.name for f in fields(kind)]
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: there is no setting {name!r}; nearest: {', '.join(nearest(name, known))}.")
    return kind(**{k: v if isinstance(v, (str, int, float, dict)) else tuple(v) for k, v in given.items()})
