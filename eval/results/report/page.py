"""What the sections of the report share: the models with their colours, the series, the headlines, the comparisons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import Cell, Series, System, labels, series, systems
from langsamp.eval.results.compare import Comparison, comparison
from langsamp.eval.results.records import Record
from langsamp.eval.results.rundir import Run
from langsamp.eval.results.stats import Interval, bootstrap_mean


@dataclass
class Page:
    """A run prepared for showing. `systems[0]` is the baseline; a system's colour class is `s0`, `s1`, ..."""

    run: Run
    systems: list[System]
    labels: dict[System, str]
    series: dict[tuple[System, Cell], Series]
    comparisons: list[list[Comparison]] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, baseline: str | None = None) -> Page:
        """Gather the records and compare every model with the baseline.

        Raises ValueError if there is no record or no such baseline.
        """
        found = systems(run.records)
        if not found:
            raise ValueError("there are no records to report: run `langsamp eval` first")
        names = labels(found)
        if baseline is not None:
            first = [system for system in found if baseline in (system.model, names[system])]
            if not first:
                raise ValueError(f"no model {baseline!r} in the records; there are {', '.join(names.values())}")
            found = [*first, *(system for system in found if system not in first)]
        measures = [record for record in run.records if catalog.is_measure(record.metric)]
        page = cls(run, found, names, series(measures))
        for other in found[1:]:
            try:
                pair = page.label(found[0]), page.label(other)
                page.comparisons.append(comparison(page.records(found[0]), page.records(other), pair))
            except ValueError:  # nothing in common: the tables say so by their gaps
                continue
        return page

    def records(self, system: System) -> list[Record]:
        """The records of one model."""
        return [record for record in self.run.records if System(record.model, record.revision) == system]

    def label(self, system: System) -> str:
        """The name shown."""
        return self.labels[system]

    def kind(self, system: System) -> str:
        """The class of its colour."""
        return f"s{min(self.systems.index(system), 5)}"

    @property
    def title(self) -> str:
        """`langsamp against baseline`, or the models' names."""
        names = [self.label(system) for system in self.systems]
        return f"{names[1]} against {names[0]}" if len(names) == 2 else ", ".join(names)

    @property
    def tasks(self) -> list[str]:
        """Tasks with records, the known ones in their usual order."""
        return sorted({cell.task for _, cell in self.series}, key=catalog.task_order)

    @property
    def languages(self) -> list[str]:
        """All languages with a value."""
        return sorted({code for entry in self.series.values() for code in entry.languages})

    def cells(self, task: str) -> list[Cell]:
        """The cells of a task over all models, sorted."""
        return sorted({cell for _, cell in self.series if cell.task == task}, key=Cell.sort_key)

    def headline(self, task: str) -> Cell:
        """The headline cell of a task, of those that all models have if there are any."""
        cells = self.cells(task)
        shared = [cell for cell in cells if all((system, cell) in self.series for system in self.systems)]
        return catalog.headline(shared or cells)

    def of_cell(self, cell: Cell) -> list[tuple[System, Series]]:
        """The models that have this cell, in order, each with its series."""
        return [(system, self.series[system, cell]) for system in self.systems if (system, cell) in self.series]

    def compared(self, cell: Cell) -> list[Comparison]:
        """The comparisons of this cell with the baseline."""
        return [entry for found in self.comparisons for entry in found if entry.cell == cell]


def overall(entry: Series) -> tuple[int, Interval]:
    """Number of languages and mean: the recorded number over all languages if there is one, else the mean over them."""
    if None not in entry.values:
        codes = entry.languages
        return len(codes), bootstrap_mean(entry.matrix(codes))
    low, high = entry.interval(None) or (None, None)
    return entry.n.get(None, len(entry.languages)), Interval(entry.mean(None), low, high)


def shown(metric: catalog.Metric, values: Iterable[float]) -> list[float]:
    """Values in the unit they are shown in."""
    return [value * 100 if metric.percent else value for value in values]


def interval_text(metric: catalog.Metric, interval: Interval, signed: bool = False) -> str:
    """`45.1 [43.0, 47.2]`, without brackets where there is no interval."""
    text = metric.show(interval.value, signed)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{metric.show(interval.low, signed)}, {metric.show(interval.high, signed)}]"
