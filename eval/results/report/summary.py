"""The top of the report: the verdict in words, the plot of differences, the table of means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import System
from langsamp.eval.results.compare import Comparison
from langsamp.eval.results.report import charts
from langsamp.eval.results.report.page import Page, interval_text, shown
from langsamp.eval.results.report.parts import Figure, count
from langsamp.eval.results.report.rows import Row, rows
from langsamp.eval.results.report.tables import means_table


def summary(page: Page) -> dict[str, Any]:
    """Sentences computed from the intervals, the forest plot of differences, and the table of means."""
    headlines = _headlines(page)
    return {
        "lead": _leads(page, headlines),
        "sentences": [(entry.sentence, _mood(entry.verdict)) for entry in headlines],
        "forests": _forests(headlines, len(page.systems) > 2),
        "table": means_table(page),
    }


def verdict(page: Page) -> list[str]:
    """The sentences at the top of the page: the verdict on each model, then one sentence for each task."""
    headlines = _headlines(page)
    return [*_leads(page, headlines), *(entry.sentence for entry in headlines)]


def _headlines(page: Page) -> list[Comparison]:
    found = [entry for pair in page.comparisons for entry in pair if entry.headline]
    return sorted(found, key=lambda entry: page.tasks.index(entry.cell.task))


def _leads(page: Page, headlines: Sequence[Comparison]) -> list[str]:
    found = [
        _lead(page, [entry for entry in headlines if entry.b == page.label(system)], system)
        for system in page.systems[1:]
    ]
    return found or [_single(page)]


def _single(page: Page) -> str:
    languages = len(page.languages)
    return (
        f"One model, {page.label(page.systems[0])}, was measured on {count(len(page.tasks), 'task')} and "
        f"{count(languages, 'language')}. There is no second model to compare it with."
    )


def _lead(page: Page, found: Sequence[Comparison], system: System) -> str:
    """The verdict in one sentence, which says so if the model is not better."""
    a, b = page.label(page.systems[0]), page.label(system)
    if not found:
        return f"{b} and {a} have no task with languages in common, so nothing can be said about which is better."
    verdicts = Counter(entry.verdict for entry in found)
    rest = {
        "worse on": verdicts["worse"],
        "different, without a better side, on": verdicts["higher"] + verdicts["lower"],
        "no clear difference on": verdicts["no clear difference"],
        "too few languages to tell on": verdicts["too few languages"],
    }
    said = ", ".join(f"{text} {number}" for text, number in rest.items() if number)
    total, better = count(len(found), "task"), verdicts["better"]
    if better == len(found):
        return f"{b} is better than {a} on {'all ' if better > 1 else ''}{total}."
    if better:
        return f"{b} is better than {a} on {better} of {total}; {said}."
    if verdicts["worse"] == len(found):
        return f"{b} is worse than {a} on {'all ' if len(found) > 1 else ''}{total}."
    return f"{b} is not shown to be better than {a} on {f'any of {total}' if len(found) > 1 else total}: {said}."


def _mood(verdict: str) -> str:
    return {"better": "good", "worse": "bad"}.get(verdict, "even")


def _forests(found: Sequence[Comparison], several: bool) -> list[Figure]:
    """One plot of differences for each unit: points, and whatever else."""
    figures = []
    for percent, title, unit in (
        (True, "Differences in points", "points"),
        (False, "Differences in the task's unit", ""),
    ):
        entries = [entry for entry in found if entry.metric.percent == percent]
        lines = [row for entry in entries for row in _forest_rows(entry, several)]
        if lines:
            values = [v for row in lines for v in (row.value, row.low, row.high) if v is not None]
            chart = rows(lines, charts.scale(values, zero=True), unit=unit)
            first = "Each model" if several else entries[0].b
            note = f"{first} minus {entries[0].a}: mean over languages with 95 % interval."
            better = {entry.metric.better for entry in entries}
            side = {1: " Right of zero is better.", -1: " Left of zero is better."}
            figures.append(
                Figure(title, chart, note + (side.get(better.pop(), "") if len(better) == 1 else ""), wide=True)
            )
    return figures


def _forest_rows(entry: Comparison, several: bool) -> Iterable[Row]:
    metric = entry.metric
    for group in entry.groups:
        if group.name != "all" and (several or group.name not in ("head", "tail")):
            continue
        value, low, high = group.difference
        bounds = (None, None) if low is None or high is None else shown(metric, [low, high])
        first = group.name == "all"
        name = catalog.task(entry.cell.task).title + (f": {entry.b}" if several else "")
        yield Row(
            label=name if first else group.name,
            note=f"{metric.label}, n = {group.n}" if first else f"n = {group.n}",
            value=shown(metric, [value])[0], low=bounds[0], high=bounds[1],
            text=interval_text(metric, group.difference, signed=True),
            kind=_mood(entry.verdict) if first else "part",
            tip=f"{name}, {group.name}: {interval_text(metric, group.difference, signed=True)}, n = {group.n}",
            level=0 if first else 1,
        )  # fmt: skip
