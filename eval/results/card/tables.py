"""Tables of a model card: records to means with intervals, training facts and the config's rows to languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from langsamp.core.facts import Share
from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import Aggregate, Cell, Series
from langsamp.eval.results.gather import Results


class Score(NamedTuple):
    """A row of the evaluation table, as text: the mean over languages, and the languages at both ends."""

    task: str
    measure: str
    setting: str
    model: str
    languages: str
    value: str
    worst: str = ""
    best: str = ""


class Language(NamedTuple):
    """A row of the table of languages: blocks in the corpus, share of the blocks drawn in training, in percent."""

    name: str
    code: str
    blocks: str = ""
    share: str = ""


def headlines(results: Results) -> list[Score]:
    """The headline of every task, a row a model."""
    return [row for task in results.tasks for row in _scores(results, results.headline(task))]


def measures(results: Results) -> tuple[list[Score], int]:
    """Every measure at the layers of the headlines, and how many rows other layers would be."""
    shown = [row for task in results.tasks for cell in results.at_headline(task) for row in _scores(results, cell)]
    return shown, len(results.series) - len(shown)


def by_language(results: Results, most: int = 8) -> tuple[list[str], dict[str, list[str]]]:
    """The headlines of every language in up to `most` columns: (column titles, language -> cells)."""
    columns = []
    for task in results.tasks:
        cell = results.headline(task)
        columns += [(cell, system, entry) for system, entry in results.of_cell(cell) if entry.languages]
    columns = columns[:most]
    titles = []
    for cell, system, _ in columns:
        name = [results.label(system)] if len(results.systems) > 1 else []
        titles.append(", ".join([catalog.task(cell.task).title, catalog.metric(cell.metric).titled, *name]))
    table = {
        code: [_value(entry, code) if code in entry.values else "" for *_, entry in columns]
        for code in sorted({code for *_, entry in columns for code in entry.languages})
    }
    return titles, table


def languages(sampled: Sequence[Share], rows: Sequence[str]) -> list[Language]:
    """Languages of a model: those it was trained on last, most drawn first, then those that have a row besides.

    Args:
        sampled: from the training facts; a language can come in several scripts.
        rows: the languages of the config, without row 0.
    """
    total = sum(row.probability for row in sampled) or 1.0
    found = [
        Language(
            catalog.language_name(row.language),
            row.language,
            "" if row.blocks is None else f"{row.blocks:,}",
            f"{100 * row.probability / total:.2f}",
        )
        for row in sorted(sampled, key=lambda row: (-row.probability, row.language))
    ]
    trained = {row.language.partition("_")[0] for row in sampled}
    return found + [
        Language(catalog.language_name(code), code) for code in rows if code.partition("_")[0] not in trained
    ]


def _scores(results: Results, cell: Cell) -> list[Score]:
    """The rows of one cell, a model each."""
    metric = catalog.metric(cell.metric)
    shown = (catalog.task(cell.task).title, metric.titled, ", ".join(catalog.setting(cell)))
    series = dict(results.of_cell(cell))
    return [
        Score(*shown, results.label(system), f"{mean.n:,}" if mean.n else "", metric.text(mean.mean),
              *_ends(series[system], mean, metric, results.shared(cell)))
        for system, mean in results.means(cell)
    ]  # fmt: skip


def _ends(entry: Series, mean: Aggregate, metric: catalog.Metric, shared: Sequence[str]) -> tuple[str, ...]:
    """The languages where the measure is worst and best; nothing where no side is better, or for one language."""
    codes = list(shared or entry.languages)
    if not metric.better or mean.n < 2 or len(codes) < 2:
        return ()
    order = sorted(codes, key=lambda code: (metric.better * entry.mean(code), code))
    return tuple(f"{code} {_value(entry, code)}" for code in (order[0], order[-1]))


def _value(entry: Series, code: str) -> str:
    return catalog.metric(entry.cell.metric).show(entry.mean(code))
