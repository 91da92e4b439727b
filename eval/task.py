"""What a task is: an object that turns a model and a data folder into units of work, one a language (and seed).

A task names the records a unit will give before it computes them, and a unit is plain data. So the runner (eval/run.py)
alone decides what is already done and where it is computed (here, on another card, on another machine), appends each
unit's records at once, prints coverage, and a killed run loses one unit at most:

    class SentenceCount:
        name = "count"

        def languages(self, context):
            return context.data.languages("sib200")

        def units(self, context, languages):
            return [
                Unit(tag, [context.record(self.name, tag, "sentences")], [f"sib200/{tag}"]) for tag in languages
            ]

        def compute(self, context, unit):
            texts = context.data.rows("sib200", unit.language, ["text"])["text"]
            return [replace(record, value=len(texts)) for record in unit.expected]
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from langsamp.core.language.languages import parse_same_as
from langsamp.core.record import Record, protocol_layer, split_code
from langsamp.core.runtime import ModelSource
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.results.rundir import Coverage
from langsamp.language_codes import match_language, parse_tag

if TYPE_CHECKING:
    from langsamp.eval.engines.encoder import Encoder

Shared = TypeVar("Shared")
_THREAD = ThreadPoolExecutor(1, "langsamp-ahead")


@dataclass(frozen=True)
class Unit:
    """The smallest piece that is computed, appended and skipped as a whole; plain data, so it can travel.

    Args:
        language: the tag measured; None for a number over several languages, or for what the others need.
        expected: the records that computing it gives, with any value; it is skipped when all of them exist.
        data: what it is measured on, `sib200/deu_Latn`: a later run is refused where those have changed.
        about: whatever else the task must know to compute it.
        stage: units of a stage begin when all of the stages before are done.
        wants: a task whose records of this unit's language are handed to it in `given`.
        trains: it leaves a model in the run directory that units of later stages read.
    """

    language: str | None
    expected: Sequence[Record]
    data: Sequence[str] = ()
    about: Any = None
    stage: int = 0
    wants: str | None = None
    given: Sequence[Record] = ()
    trains: bool = False

    @property
    def group(self) -> Hashable:
        """Units of one group share a model and whatever else `Context.shared` keeps; a change of group costs a load."""
        return self.expected[0].seed if self.expected else None


class Task(Protocol):
    """One evaluation. If its numbers depend on options, a method `settings(context)` gives those (run_settings.py)."""

    name: str

    def languages(self, context: Context) -> list[str]:
        """Tags (`deu_Latn`) there is data for, sorted; a DataError if there is none at all."""
        ...

    def units(self, context: Context, languages: list[str]) -> Iterable[Unit]:
        """The work for these languages, in a fixed order; nothing expensive happens before `compute`."""
        ...

    def compute(self, context: Context, unit: Unit) -> Sequence[Record]:
        """The records of one unit.

        Raises:
            DataError: this language's data cannot be used; it is told as missing.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the tasks can be told by name; None (or False): the task's own. docs/tasks.md says what each does."""

    csls: bool = False
    parallel: str | None = None
    sentences: int | None = None
    text: str | None = None
    probe: bool = False
    target: str | None = None
    sources: tuple[str, ...] | None = None
    similarity: str | None = None
    same_as: tuple[str, ...] | None = None
    # the fields of a fine-tuning recipe (engines/finetune.py)
    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    accumulation: int | None = None
    max_length: int | None = None
    eval_steps: int | None = None
    patience: int | None = None
    max_steps: int | None = None

    @classmethod
    def names(cls) -> list[str]:
        """What there is."""
        return [entry.name for entry in fields(cls)]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> TaskOptions:
        """Options by name.

        Raises:
            ValueError: no task knows a name; gives the nearest.
        """
        for name in given:
            if name not in cls.names():
                near = get_close_matches(name, cls.names(), 1, 0.5) or [", ".join(cls.names())]
                raise ValueError(f"no task has an option {name!r}; did you mean {near[0]}?")
        values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        return cls(**values)


def _silent(text: str) -> None:
    """Tell nobody."""


@dataclass
class Context:
    """Everything a task may know. `layers` or `seeds` None: the task's own. `options`: TaskOptions, or a dictionary.

    `tell` is called with a few words on what goes on inside a long unit.
    """

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
    options: TaskOptions = field(default_factory=TaskOptions)
    tell: Callable[[str], None] = _silent
    files: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)
    following: Unit | None = field(default=None, init=False, repr=False, compare=False)
    _begun: tuple[Unit, Future[Any]] | None = field(default=None, init=False, repr=False, compare=False)
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _group: Hashable = field(default=None, init=False, repr=False, compare=False)
    _encoder: Encoder | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.options, TaskOptions):
            self.options = TaskOptions.of(self.options)

    @cached_property
    def n_layers(self) -> int:
        """Number of blocks of the model."""
        from langsamp.core.model.config import read_config

        return int(read_config(self.source.path).num_hidden_layers)

    def layer_list(self, default: str | None = None) -> tuple[int, ...]:
        """The layers asked for, or the task's default; without one the paper's layer."""
        from langsamp.eval.engines.encoder import parse_layers

        spec = default if self.layers is None else self.layers
        return (protocol_layer(self.n_layers),) if spec is None else parse_layers(spec, self.n_layers)

    def encoder(self, layers: tuple[int, ...]) -> Encoder:
        """The encoder that gives these layers; the last one is kept, one model in memory at a time."""
        from langsamp.eval.engines.encoder import Encoder

        if self._encoder is None or self._encoder.layers != layers:
            self._encoder = None
            self._encoder = Encoder(
                self.source,
                layers,
                prefix=self.prefix,
                dtype=self.dtype,
                special_tokens=self.special_tokens,
                tell=self.tell,
            )
        return self._encoder

    def shared(self, name: Hashable, make: Callable[[], Shared]) -> Shared:
        """Something that the units of a group have in common, made when it is first asked for."""
        if name not in self._kept:
            self._kept[name] = make()
        found: Shared = self._kept[name]
        return found

    def ready(self, unit: Unit, read: Callable[[Context, Unit], Shared]) -> Shared:
        """What `read` gives for a unit: made in a thread while a card worked on the unit before, if there was one.

        Then the following one is begun. A CPU has enough to do: there it is read when it is asked for.
        """
        begun, self._begun = self._begun, None
        mine: Shared = begun[1].result() if begun is not None and begun[0] is unit else read(self, unit)
        if self.following is not None and self._on_a_card():
            self._begun = self.following, _THREAD.submit(read, self, self.following)
        return mine

    def _on_a_card(self) -> bool:
        return self._encoder is not None and self._encoder.device.type == "cuda"

    def begin(self, group: Hashable) -> None:
        """Forget what the units of another group had in common."""
        if group != self._group:
            self._kept.clear()
            self._group = group

    def fresh(self) -> Context:
        """The same settings without anything kept, fit to travel to another process."""
        return replace(self, progress=False, tell=_silent)

    def save(self, name: str, content: bytes) -> None:
        """A file of the run directory beside the records; the runner writes it when the unit is done."""
        self.files[name] = content

    def row_code(self, language: str, names: Container[str]) -> str | None:
        """Which of the model's rows is a language's: what `same_as` says, else the same language under another code."""
        told = parse_same_as(self.options.same_as or ()).get(language, language)
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


def choose_languages(task: str, present: list[str], asked: Iterable[str] | None) -> tuple[list[str], Coverage]:
    """Match what was asked for (`de`, `deu`, `deu_Latn`; None: everything) with the tags there is data for.

    Returns:
        The tags to evaluate and the coverage so far.

    Raises:
        DataError: no tag is left.
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
