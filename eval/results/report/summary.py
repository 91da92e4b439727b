"""The top of the report: the verdict in words, the plot of differences, the table of means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from langsamp.eval.results import catalog
from langsamp.eval.results.aggregate import System
from langsamp.eval.results.compare import Comparison, contrary
from langsamp.eval.results.gather import Results
from langsamp.eval.results.report import charts
from langsamp.eval.results.report.dots import Row, rows
from langsamp.eval.results.report.parts import Figure, count
from langsamp.eval.results.report.tables import means_table


def summary(results: Results) -> dict[str, Any]:
    """Sentences computed from the intervals, the forest plots of differences, and the table of means."""
    headlines, against = _headlines(results)
    return {
        "lead": _leads(results, headlines, against),
        "sentences": [(entry.sentence, _mood(entry.verdict)) for entry in headlines],
        "against": [(entry.sentence, _mood(entry.verdict)) for entry in against],
        "forests": _forests(headlines, len(results.systems) > 2),
        "table": means_table(results),
    }


def verdict(results: Results) -> list[str]:
    """The sentences at the top of the page: the verdict on each model, one for each task, and what speaks against."""
    headlines, against = _headlines(results)
    return [*_leads(results, headlines, against), *(entry.sentence for entry in [*headlines, *against])]


def _headlines(results: Results) -> tuple[list[Comparison], list[Comparison]]:
    """The headlines of all comparisons by task, and what speaks against the models beside them."""
    found = [entry for pair in results.comparisons for entry in pair if entry.headline]
    against = [entry for pair in results.comparisons for entry in contrary(pair)]
    order = {task: number for number, task in enumerate(results.tasks)}
    return tuple(sorted(entries, key=lambda entry: order[entry.cell.task]) for entries in (found, against))  # type: ignore[return-value]


def _leads(results: Results, headlines: Sequence[Comparison], against: Sequence[Comparison]) -> list[str]:
    found = []
    for system in results.systems[1:]:
        own = [[entry for entry in part if entry.b == results.label(system)] for part in (headlines, against)]
        found.append(_lead(results, own[0], own[1], system))
    return found or [_single(results)]


def _single(results: Results) -> str:
    return (
        f"One model, {results.label(results.systems[0])}, was measured on {count(len(results.tasks), 'task')} and "
        f"{count(len(results.languages), 'language')}. There is no second model to compare it with."
    )


def _lead(results: Results, found: Sequence[Comparison], against: Sequence[Comparison], system: System) -> str:
    """The verdict in one sentence, which says so if the model is not better; and in another what speaks against it."""
    a, b = results.label(results.systems[0]), results.label(system)
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
    but = f" It is worse in: {'; '.join(_short(entry) for entry in against)}." if against else ""
    if better == len(found):
        return f"{b} is better than {a} on {'all ' if better > 1 else ''}{total}.{but}"
    if better:
        return f"{b} is better than {a} on {better} of {total}; {said}.{but}"
    if verdicts["worse"] == len(found):
        return f"{b} is worse than {a} on {'all ' if len(found) > 1 else ''}{total}."
    return f"{b} is not shown to be better than {a} on {f'any of {total}' if len(found) > 1 else total}: {said}.{but}"


def _short(entry: Comparison) -> str:
    """`Neutrality, Language probe (+21.3 points)`."""
    shown = f"{entry.metric.show(entry.difference.value, True)} {entry.metric.difference_unit}".rstrip()
    return f"{catalog.task(entry.cell.task).title}, {entry.metric.label} ({shown})"


def _mood(verdict: str) -> str:
    return {"better": "good", "worse": "bad"}.get(verdict, "even")


def _forests(found: Sequence[Comparison], several: bool) -> list[Figure]:
    """One plot of differences for each unit."""
    figures = []
    for unit in dict.fromkeys(entry.metric.difference_unit for entry in found):
        entries = [entry for entry in found if entry.metric.difference_unit == unit]
        lines = [row for entry in entries for row in _forest_rows(entry, several)]
        values = [v for row in lines for v in (row.value, row.low, row.high) if v is not None]
        chart = rows(lines, charts.scale(values, zero=True), unit=unit)
        first = "Each model" if several else entries[0].b
        note = f"{first} minus {entries[0].a}: mean over languages with 95 % interval."
        better = {entry.metric.better for entry in entries}
        side = {1: " Right of zero is better.", -1: " Left of zero is better."}
        note += side.get(better.pop(), "") if len(better) == 1 else ""
        title = f"Differences in {unit}" if unit else "Differences of measures without a unit"
        figures.append(Figure(title, chart, note, wide=True))
    return figures


def _forest_rows(entry: Comparison, several: bool) -> Iterable[Row]:
    name = catalog.task(entry.cell.task).title + (f": {entry.b}" if several else "")
    for group in entry.groups:
        first = group.group == "all"
        if first or (not several and group.group in ("head", "tail") and group.n < entry.n):
            yield Row.of(
                entry.metric, group.mean, _mood(entry.verdict) if first else "part",
                f"{name}, {group.group}, n = {group.n}", name if first else group.group,
                f"{entry.metric.label}, n = {group.n}" if first else f"n = {group.n}", signed=True,
                level=0 if first else 1,
            )  # fmt: skip
