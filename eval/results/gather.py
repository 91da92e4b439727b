"""The records of some models, prepared for showing: what card, report, plots and summaries read their numbers from.

So, for all that was measured:

    results = Results.of(rundir.load("runs"))
    for task in results.tasks:
        cell = results.headline(task)
        for system, mean in results.means(cell):
            print(catalog.describe(cell), results.label(system), catalog.metric(cell.metric).text(mean.mean))

The means of a cell are over the languages that all models have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from langsamp.core.record import Record
from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import Aggregate, Cell, Series, System, aggregate, labels, overall, series, systems
from langsamp.eval.results.compare import Comparison, Side, compared
from langsamp.eval.results.rundir import Run

Points = list[tuple[float, float]]  # layer, value
Band = list[tuple[float, float, float]]  # layer, low, high


@dataclass
class Results:
    """Models, series, headlines, means, comparisons. `systems[0]` is the baseline of the others."""

    run: Run
    systems: list[System]
    labels: dict[System, str]
    series: dict[tuple[System, Cell], Series]
    _means: dict[Cell, list[tuple[System, Aggregate]]] = field(default_factory=dict, repr=False)
    _groups: dict[Cell, list[tuple[System, list[Aggregate]]]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, run: Run, baseline: str | None = None) -> Results:
        """Gather the records.

        Args:
            run: what was found in run directories.
            baseline: the model the others are compared with (its name in the records or as shown); else the first.

        Raises:
            ValueError: there is no record, or no such baseline.
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
        measures = series(record for record in run.records if catalog.metric(record.metric).score)
        return cls(run, found, names, measures)

    @cached_property
    def by_system(self) -> dict[System, list[Record]]:
        """The records of each model."""
        found: dict[System, list[Record]] = {system: [] for system in self.systems}
        for record in self.run.records:
            found[System(record.model, record.revision)].append(record)
        return found

    @cached_property
    def comparisons(self) -> list[list[Comparison]]:
        """Every model compared with the first; one that has nothing in common with it is left out."""
        sides: dict[System, Side] = {system: {} for system in self.systems}
        for (system, cell), entry in self.series.items():
            sides[system][cell] = entry
        first, *others = self.systems
        found = (compared(sides[first], sides[other], (self.label(first), self.label(other))) for other in others)
        return [pair for pair in found if pair]

    def compared(self, cell: Cell) -> list[Comparison]:
        """The comparisons of this cell with the baseline."""
        return [entry for found in self.comparisons for entry in found if entry.cell == cell]

    def label(self, system: System) -> str:
        """The name shown."""
        return self.labels[system]

    @property
    def title(self) -> str:
        """`ours against baseline`, or the models' names."""
        names = [self.label(system) for system in self.systems]
        return f"{names[1]} against {names[0]}" if len(names) == 2 else ", ".join(names)

    @property
    def tasks(self) -> list[str]:
        """Tasks with records, in the order of the catalogue."""
        return list(self._cells)

    @cached_property
    def languages(self) -> list[str]:
        """All languages with a value."""
        return sorted({code for entry in self.series.values() for code in entry.values if code is not None})

    @cached_property
    def _cells(self) -> dict[str, list[Cell]]:
        found: dict[str, list[Cell]] = {}
        for cell in sorted({cell for _, cell in self.series}, key=catalog.cell_order):
            found.setdefault(cell.task, []).append(cell)
        return found

    def cells(self, task: str) -> list[Cell]:
        """The cells of a task over all models: measures in the order of the catalogue, then layer and direction."""
        return self._cells.get(task, [])

    def headline(self, task: str) -> Cell:
        """The headline cell of a task, of those that all models have if there are any."""
        cells = self.cells(task)
        shared = [cell for cell in cells if all((system, cell) in self.series for system in self.systems)]
        return catalog.headline(shared or cells)

    def at_headline(self, task: str) -> list[Cell]:
        """The cells of a task at its headline's layer: those that are shown where there is no room for all."""
        layer = self.headline(task).layer
        return [cell for cell in self.cells(task) if cell.layer == layer]

    def of_cell(self, cell: Cell) -> list[tuple[System, Series]]:
        """The models that have this cell, in order, each with its series."""
        return [(system, self.series[system, cell]) for system in self.systems if (system, cell) in self.series]

    def shared(self, cell: Cell) -> list[str]:
        """The languages that all models with this cell have: what their means are over. Empty if there are none."""
        return sorted(set.intersection(*(set(entry.languages) for _, entry in self.of_cell(cell))))

    def means(self, cell: Cell) -> list[tuple[System, Aggregate]]:
        """The mean of each model with this cell over the shared languages (or over its own, with none in common)."""
        if cell not in self._means:
            codes = self.shared(cell) or None
            self._means[cell] = [(system, overall(entry, codes)) for system, entry in self.of_cell(cell)]
        return self._means[cell]

    def groups(self, cell: Cell) -> list[tuple[System, list[Aggregate]]]:
        """`means` by group of languages, scripts among them; the first is that over all."""
        if cell not in self._groups:
            codes = self.shared(cell) or None
            self._groups[cell] = [(system, aggregate(entry, codes, True)) for system, entry in self.of_cell(cell)]
        return self._groups[cell]

    def over_layers(self, headline: Cell, every: bool = False) -> dict[str, list[Cell]]:
        """Metric -> its cells at several layers, in the headline's direction and source; with `every` all metrics."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells(headline.task):
            if cell.layer is not None and cell[3:] == headline[3:] and (every or cell.metric == headline.metric):
                found.setdefault(cell.metric, []).append(cell)
        return {name: cells for name, cells in found.items() if len(cells) > 1}

    def curve(self, system: System, cells: Sequence[Cell]) -> tuple[Points, Band]:
        """Means of a model over layers, and their intervals, in the unit they are shown in."""
        points: Points = []
        band: Band = []
        for cell in cells:
            metric, layer = catalog.metric(cell.metric), float(cell.layer or 0)
            for value, low, high in (mean.mean for who, mean in self.means(cell) if who == system):
                points.append((layer, metric.scaled(value)))
                if low is not None and high is not None:
                    band.append((layer, metric.scaled(low), metric.scaled(high)))
        return points, band
