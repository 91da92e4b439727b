"""What the report is made of: sections with figures and tables, for the template to lay out."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

from langsamp.eval.results.report.tables import Table


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
