"""Sections of the report beside the tasks: map of the languages, donors, training curves, coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from langsamp.eval.results import catalog, rowmap
from langsamp.eval.results.aggregate import System
from langsamp.eval.results.gather import Results
from langsamp.eval.results.report import charts
from langsamp.eval.results.report.charts import Line, Point
from langsamp.eval.results.report.parts import Figure, Section, count, kind
from langsamp.eval.results.report.tables import donor_table
from langsamp.eval.results.rowmap import Place
from langsamp.eval.results.rundir import Coverage, reasons

_COLOURS = 9  # categories with a colour of their own; the others share one


def map_sections(results: Results) -> list[Section]:
    """The maps of the language rows and of the script rows of every model, and how pure their neighbourhoods are."""
    task = catalog.task(rowmap.TASK)
    section = Section(f"task-{rowmap.TASK}", task.title, task.about)
    for system in results.systems:
        own = [record for record in results.by_system[system] if record.task == rowmap.TASK]
        for method, found in rowmap.places(own).items():
            for what in ("languages", "scripts"):
                shown = [place for place in found if (place.language is None) == (what == "scripts")]
                if shown:
                    section.figures.append(_map(f"{results.label(system)}: {method.upper()} of {what}", shown))
        untrained = sorted(r.code or str(r.script) for r in own if catalog.metric(r.metric).kind == "untrained")
        if untrained:
            section.notes.append(f"{results.label(system)}: {count(len(untrained), 'row')} never trained, left out: "
                                 + ", ".join(untrained))  # fmt: skip
        section.sentences += _purity(results, system)
    return [section] if section.figures or section.sentences else []


def _purity(results: Results, system: System) -> Iterable[str]:
    """How often neighbours agree, beside chance."""
    means = {c.metric: mean.mean.value for c in results.cells(rowmap.TASK) for who, mean in results.means(c)
             if who == system}  # fmt: skip
    for name, value in means.items():
        metric, chance = catalog.metric(name), means.get(f"{name}_chance")
        if metric.kind == "purity" and chance is not None:
            yield (
                f"{results.label(system)}: of the {metric.k} nearest rows of a language {metric.show(value)} % share "
                f"its {metric.of}; by chance it would be {metric.show(chance)} %."
            )


def _map(title: str, found: Sequence[Place]) -> Figure:
    scripts, families = _kinds(p.script for p in found), _kinds(p.family for p in found)
    points = []
    for p in (found[i] for i in rowmap.apart([(p.x, p.y) for p in found])):
        tip = " · ".join(filter(None, [f"{p.name} ({p.code})", p.script and catalog.script_name(p.script), p.family]))
        points.append(Point(p.x, p.y, p.name, tip, scripts[p.script], families[p.family]))
    names = [(colour, catalog.script_name(script) if script else "no script") for script, colour in scripts.items()]
    others = [(colour, family or "no family known") for family, colour in families.items()]
    several = len({p.family for p in found if p.family}) > 1
    if len(scripts) == len(found):  # every mark a category of its own: colours would say nothing
        points, names = [point._replace(kind="s1") for point in points], []
    xs, ys = [p.x for p in found], [p.y for p in found]
    ratio = min(2.2, max(1.1, (max(xs) - min(xs) + 1e-9) / (max(ys) - min(ys) + 1e-9)))
    chart = charts.scatter(
        points, x_label="", y_label="", about=f"{title}, {len(points)} points", ratio=ratio, equal=True,
        ticks=False, named=60,
    )  # fmt: skip
    note = f"{len(points)} rows. Point at a mark for its name."
    return Figure(title, chart, note, _legend(names), _legend(others) if several else [], wide=True)


def donor_sections(results: Results) -> list[Section]:
    """For every target asked about: sources ranked by similarity, beside the measured transfer if there is one."""
    tables = []
    for system in results.systems:
        found: dict[str, dict[str, dict[str, float]]] = {}
        measured = {}
        for record in results.by_system[system]:
            metric = catalog.metric(record.metric)
            if record.task == "donors" and metric.kind == "similarity" and record.code and record.source:
                found.setdefault(record.code, {}).setdefault(record.source, {})[metric.of] = record.value
            elif record.task == "donors-transfer" and record.metric == "macro_f1":
                measured[record.code, record.source] = record.value
        for target, sources in sorted(found.items()):
            title = f"{results.label(system)}: sources for {catalog.language_name(target)} ({target})"
            own = {source: measured[target, source] for source in sources if (target, source) in measured}
            tables.append((title, donor_table(sources, own), True))
    about = (
        "Languages to annotate or to train on for a target, the most similar first; a click on a column ranks by it."
    )
    return [Section("donor-ranking", "Sources for a language", about, tables=tables)] if tables else []


def _kinds(values: Iterable[str | None]) -> dict[str | None, str]:
    """Category -> colour class: the most frequent ones get one of their own; None has none."""
    counts = Counter(values)
    ranked = sorted((value for value in counts if value), key=lambda value: (-counts[value], value))
    found: dict[str | None, str] = {value: f"c{i}" if i < _COLOURS else "rest" for i, value in enumerate(ranked)}
    return {**found, None: "none"} if None in counts else found


def _legend(entries: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """One entry for all categories without a colour of their own."""
    rest = [name for kind, name in entries if kind == "rest"]
    shown_ones = [(kind, name) for kind, name in entries if kind != "rest"]
    return [*shown_ones, ("rest", f"{len(rest)} others" if len(rest) > 1 else rest[0])] if rest else shown_ones


def training_section(results: Results) -> list[Section]:
    """Loss curves of every training.json beside the records."""
    lines = []
    for number, (folder, points) in enumerate(results.run.losses):
        colours = [kind(results, system) for system in results.systems if results.label(system) == folder]
        if len(points) > 1:
            lines.append(Line(folder, points, colours[0] if colours else f"s{min(number, 5)}"))
    if not lines:
        return []
    chart = charts.curves(
        lines, x_label="step", y_label="loss (nats per masked token)", about="Training loss by step", marks=False,
        whole=True,
    )  # fmt: skip
    figure = Figure("Training loss", chart, "", [(line.kind, line.name) for line in lines], wide=True)
    return [Section("training", "Training", "Masked-language-model loss on the training stream.", figures=[figure])]


def coverage_section(results: Results) -> list[Section]:
    """Languages of each task and the missing ones: of those asked for, or of those that any model has."""
    have: dict[str, dict[System, set[str]]] = {}
    for system, records in results.by_system.items():
        for record in records:
            codes = have.setdefault(record.task, {}).setdefault(system, set())
            if record.code:
                codes.add(record.code)
    bases = Counter(catalog.base_task(task) for task in have)  # `sib200` ran as `sib200-probe` and as nothing else
    lines: list[str] = []
    for task in sorted(have, key=catalog.task_order):
        base = catalog.base_task(task)
        ran = [item for item in results.run.coverage if item.task == task or (item.task == base and bases[base] == 1)]
        lines += _coverage(results, task, have[task], ran)
    about = "Languages with a number, of those asked for (where the run says so) or of those that any model has."
    return [Section("coverage", "Coverage", about, notes=[*results.run.cautions, *lines])]


def _coverage(results: Results, task: str, have: dict[System, set[str]], ran: Sequence[Coverage]) -> Iterable[str]:
    """One line a model: how many languages, and which are missing for which reason."""
    whole = {code for item in ran for code in item.asked}.union(*have.values())
    why = {code: text for item in ran for code, text in item.missing.items()}
    for system in results.systems:
        name = f"{catalog.task(task).title}, {results.label(system)}"
        codes = have.get(system)
        if codes is None:
            yield f"{name}: not measured"
        elif not codes:
            yield f"{name}: all languages at once"
        else:
            missing = sorted(whole - codes)
            named = f"; missing: {reasons({code: why.get(code, '') for code in missing})}" if missing else ""
            yield f"{name}: {len(codes)} of {count(len(whole), 'language')}{named}"
