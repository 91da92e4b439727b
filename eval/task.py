"""What a task is: an object that turns a model and a data folder into units of work, one a language (and seed).

A task names the records a unit will give before it computes them. So the runner (eval/run.py) alone decides what is
already done, appends each unit's records at once, prints coverage, and a killed run loses one unit at most:

    class SentenceCount:
        name = "count"

        def languages(self, context):
            return context.data.languages("sib200")

        def units(self, context, languages):
            for tag in languages:
                expected = [context.record(self.name, tag, "sentences")]
                yield Unit(tag, expected, lambda tag=tag: [replace(expected[0], value=context.data.table(...)["text"])])
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from langsamp.core.languages import parse_same_as
from langsamp.core.runtime import ModelSource
from langsamp.eval.data import EvalData
from langsamp.eval.results.records import Record, split_code
from langsamp.eval.rows import DataError
from langsamp.language_codes import match_language, parse_tag

if TYPE_CHECKING:
    from langsamp.eval.engines.encoder import Encoder

PROTOCOL_LAYER = 8  # paper section 3.1: the output of the 8th block


@dataclass(frozen=True)
class Unit:
    """The smallest piece that is computed, appended and skipped as a whole.

    `expected` are the records `compute` will give, with any value: the unit is skipped when all of them exist.
    `compute` raises DataError if this language's data cannot be used; the runner reports it as missing.
    """

    language: str | None
    expected: Sequence[Record]
    compute: Callable[[], Sequence[Record]]


class Task(Protocol):
    """One evaluation. `languages` lists the tags (`deu_Latn`) that the data has; `units` may share state lazily.

    If its numbers depend on options, a third method `settings(context)` gives those: see eval/run_settings.py.
    """

    name: str

    def languages(self, context: Context) -> list[str]:
        """Tags there is data for, sorted; raises DataError if there is none at all."""
        ...

    def units(self, context: Context, languages: list[str]) -> Iterator[Unit]:
        """The work for these languages, in a fixed order; nothing expensive happens before a unit's `compute`."""
        ...


@dataclass
class Context:
    """Everything a task may know. `layers` or `seeds` None: the task's own. `options` holds task settings by name."""

    source: ModelSource
    data: EvalData
    output: Path
    layers: tuple[int, ...] | str | None = None
    prefix: str = ""
    seeds: tuple[int, ...] | None = None
    train_language: str = "eng_Latn"
    dtype: str = "float32"
    special_tokens: bool = True
    progress: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def n_layers(self) -> int:
        """Number of blocks of the model."""
        from langsamp.eval.engines.encoder import read_config

        return int(read_config(self.source.path).num_hidden_layers)

    def layer_list(self, default: str | int = PROTOCOL_LAYER) -> tuple[int, ...]:
        """The layers asked for, or the task's default; the 8th block becomes the last one of a smaller model."""
        from langsamp.eval.engines.encoder import parse_layers

        if self.layers is None and isinstance(default, int):
            return (min(default, self.n_layers),)
        return parse_layers(default if self.layers is None else self.layers, self.n_layers)

    def encoder(self, layers: tuple[int, ...]) -> Encoder:
        """The encoder that gives these layers; built once for each choice of layers."""
        from langsamp.eval.engines.encoder import Encoder

        if layers not in self._encoders:
            self._encoders.clear()  # one model in memory at a time
            self._encoders[layers] = Encoder(
                self.source,
                layers,
                prefix=self.prefix,
                dtype=self.dtype,
                special_tokens=self.special_tokens,
                progress=self.progress,
            )
        return self._encoders[layers]

    @cached_property
    def _encoders(self) -> dict[tuple[int, ...], Encoder]:
        return {}

    def row_code(self, language: str, names: Container[str]) -> str | None:
        """Which of the model's rows is a language's: what `same_as` says, else the same language under another code."""
        told = parse_same_as(self.options.get("same_as") or ()).get(language, language)
        return match_language(told, names)

    def record(self, task: str, tag: str | None, metric: str, value: float = 0.0, **fields: Any) -> Record:
        """A record of this model for the language `tag` (None: over several languages)."""
        language, script = split_code(tag) if tag else (None, None)
        return Record(
            task=task,
            language=language,
            script=script,
            metric=metric,
            value=value,
            model=self.source.name,
            revision=self.source.revision,
            **fields,
        )


@dataclass
class Coverage:
    """Which of the languages asked for were measured, and why the others were not."""

    task: str
    asked: list[str]
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> list[str]:
        """Those asked for that are not missing; a missing source language need not have been asked for."""
        return [tag for tag in self.asked if tag not in self.missing]

    def line(self) -> str:
        """`sib200: 2 of 4 languages; missing: abc_Latn, xyz_Latn (no data)`."""
        text = f"{self.task}: {len(self.measured)} of {len(self.asked)} languages"
        reasons: dict[str, list[str]] = {}
        for tag, why in self.missing.items():
            reasons.setdefault(why, []).append(tag)
        if reasons:
            text += "; missing: " + "; ".join(f"{', '.join(tags)} ({why})" for why, tags in reasons.items())
        return text


def choose_languages(task: str, present: list[str], asked: Iterable[str] | None) -> tuple[list[str], Coverage]:
    """Match what was asked for (`de`, `deu`, `deu_Latn`; None: everything) with the tags there is data for.

    Returns the tags to evaluate and the coverage so far. Raises DataError if none is left.
    """
    if asked is None:
        return present, Coverage(task, list(present))
    chosen: list[str] = []
    coverage = Coverage(task, [])
    for tag in asked:
        language, script = parse_tag(tag)
        found = [name for name in present if name == tag or parse_tag(name) == (language, script or parse_tag(name)[1])]
        if not found:
            coverage.asked.append(tag)
            coverage.missing[tag] = "no data"
        chosen += [name for name in found if name not in chosen]
    coverage.asked = sorted({*coverage.asked, *chosen})
    if not chosen:
        raise DataError(f"{task}: no data for any of the languages asked for ({', '.join(coverage.asked)})")
    return sorted(chosen), coverage
