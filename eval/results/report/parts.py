"""What the report is made of: sections with figures and tables, for the template to lay out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from markupsafe import Markup

from langsamp.eval.results.aggregate import System
from langsamp.eval.results.gather import Results


@dataclass
class Head:
    """A column: title, classes (`number`, `text`, `aside`), hover text; a `track` has its two ends instead."""

    title: str
    kind: str = "number"
    tip: str = ""


@dataclass
class Data:
    """A cell: what is shown, what it sorts by, small print below, a class, and a drawing instead of text."""

    text: str = ""
    sort: float | str = ""
    note: str = ""
    kind: str = ""
    drawing: Markup | None = None


NOTHING = Data("–", "", kind="none")


@dataclass
class Table:
    """Columns and rows; `long` tables get a search box and scroll by themselves."""

    heads: list[Head]
    rows: list[list[Data]] = field(default_factory=list)
    long: bool = False


@dataclass
class Figure:
    """A chart with its title and a line on how to read it; `wide` takes the whole width.

    `legend` and `other_legend` list (colour class, name); with the second one the reader chooses between the two.
    """

    title: str
    chart: Markup
    note: str = ""
    legend: list[tuple[str, str]] = field(default_factory=list)
    other_legend: list[tuple[str, str]] = field(default_factory=list)
    wide: bool = False


@dataclass
class Section:
    """A part of the page: sentences, then figures, then tables (title, table, open)."""

    id: str
    title: str
    about: str = ""
    sentences: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[tuple[str, Table, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def count(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def kind(results: Results, system: System) -> str:
    """The class of a model's colour: `s0` is the baseline, a sixth model and those after it share one."""
    return f"s{min(results.systems.index(system), 5)}"


def legend(results: Results, systems: Iterable[System]) -> list[tuple[str, str]]:
    """(colour class, name) of models."""
    return [(kind(results, system), results.label(system)) for system in systems]
