"""What the records of a replication say: tables and plots for `docs/replication.md`, from records and nothing else.

    python -m experiments.replication.findings recipes/replication.yaml recipes/replication_gpu.yaml docs/replication

reads the packed records of the folder, and `runs.jsonl` of a GPU, which says how each model was trained, and writes
beside them `<experiment>.md` (every difference) and the plots; the short tables in `docs/replication.md`, the document
of the folder's name, are filled in again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langsamp.core.files import atomic_write
from langsamp.eval.results import catalog
from langsamp.eval.results.compare import show_p
from langsamp.eval.results.records import Record

from . import donors, summary
from .archive import pack, unpack
from .contrasts import TRAINED, Part, Runs, clear, gather, parts
from .pictures import draw
from .plan import Experiment, Replication, read_plan
from .variants import about

RUNS = "runs.jsonl"  # what a run on a GPU says of its trainings


def write_findings(plans: Sequence[Replication], records: Path, output: Path) -> None:
    """Write `<experiment>.md`, its plots and its packed records for every experiment that has finished models.

    If there is a document `<output>.md`, its tables are filled in.
    """
    output.mkdir(parents=True, exist_ok=True)
    trainings = _trainings(output / RUNS)
    short, models = {}, ["| experiment | models measured |", "|---|---|"]
    for name, plan in {name: one for one in plans for name in one.experiments}.items():
        experiment = plan.experiments[name]
        runs = gather(records / name, experiment)
        if len(runs) > 1:
            pack(records / name, output / f"{name}.jsonl.gz")
            found = list(parts(runs, plan.languages))
            how = trained(trainings.get(name, []), experiment)
            atomic_write(output / f"{name}.md", page(found, runs, how))
            for part in found:
                if part.group is TRAINED:
                    draw(part, output / name)
            models.append(f"| {name} | {summary.seeds(runs)} |")
            short |= {f"{name} {kind}": lines for kind, lines in summary.tables(found, runs).items()}
            short[f"{name} training"] = [how]
    document = output.with_suffix(".md")
    if document.exists():
        atomic_write(document, summary.fill(document.read_text(encoding="utf-8"), short | {"all models": models}))


def _trainings(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of `runs.jsonl` by experiment; none without the file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, lines):
        found.setdefault(line["experiment"], []).append(line)
    return found


def trained(lines: Sequence[Mapping[str, Any]], experiment: Experiment) -> str:
    """One sentence on how long the models were trained: as measured, or as the recipe has it."""
    if not lines:
        return f"{experiment.steps} steps of {experiment.batch} blocks a model."
    steps, tokens, speed, devices = (
        sorted({line[key] for line in lines}) for key in ("steps", "tokens", "tokens_per_second", "device")
    )
    return (
        f"{_range(steps)} steps of {experiment.batch} blocks and {_range(tokens)} tokens a model, {_range(speed)} "
        f"tokens a second beside the measuring of others, on one {' or '.join(devices)}."
    )


def _range(values: Sequence[float]) -> str:
    return " to ".join(f"{value:,.0f}" for value in dict.fromkeys((values[0], values[-1])))


def page(found: Sequence[Part], runs: Runs, how: str) -> str:
    """The tables of one experiment: for each group of languages the means, and what differs from what."""
    lines: list[str] = []
    for part in found:
        lines += [f"### Languages {part.group.name}", "", *means(part), "", *differences(part), ""]
    if rows := summary.by_layer(found, summary.PROBES):
        lines += ["### Probes at every layer measured (not corrected)", "", *rows, ""]
    if rows := summary.by_layer(found, summary.RETRIEVAL, "_csls"):
        lines += ["### Retrieval with CSLS, which takes hubs off (not corrected)", "", *rows, ""]
    if rows := donors.table(runs):
        lines += ["### Choosing donor languages", "", *rows, ""]
    return "\n".join([*lines, f"Models measured: {summary.seeds(runs)}. Training: {how}", ""])


def means(part: Part) -> list[str]:
    """One row a variant: unweighted means over languages and seeds."""
    values, columns = part.values, part.columns
    counts = [max(len({r.code for r in values[name].get(cell, [])}) for name in part.runs) for cell in columns]
    head = [f"{name} (n={n})" for name, n in zip(columns.values(), counts)]
    rows = ["| model | " + " | ".join(head) + " |", "|---|" + "--:|" * len(columns)]
    for name in part.runs:
        shown = [_mean(values[name].get(cell, [])) for cell in columns]
        show = ["" if v is None else catalog.metric(cell.metric).show(v) for cell, v in zip(columns, shown)]
        rows.append(f"| {name}: {about(name)} | " + " | ".join(show) + " |")
    return rows


def _mean(records: Sequence[Record]) -> float | None:
    return sum(r.value for r in records) / len(records) if records else None


def differences(part: Part) -> list[str]:
    """One row a contrast and column of the means: difference, interval, corrected p, effect size."""
    rows = [
        "| b − a | measure | n | difference | 95 % interval | p (Holm) | Cohen's d |",
        "|---|---|--:|--:|---|--:|--:|",
    ]
    for entry in part.comparisons:
        value, low, high = entry.difference
        show = entry.metric.show
        interval = "" if low is None or high is None else f"{show(low, True)} to {show(high, True)}"
        mark = "**" if clear(entry) else ""
        effect = "" if entry.cohen_d is None else f"{entry.cohen_d:+.2f}".replace("-", "−")
        rows.append(
            f"| {entry.b} − {entry.a} | {part.columns[entry.cell]} | {entry.n} | {mark}{show(value, True)}{mark} "
            f"| {interval} | {show_p(entry.p_holm)} | {effect} |"
        )
    return rows


def main(argv: Sequence[str]) -> None:
    """Make the tables and plots again from packed records."""
    *recipes, folder = argv
    plans = [read_plan(recipe) for recipe in recipes]
    with tempfile.TemporaryDirectory() as scratch:
        for name in (name for plan in plans for name in plan.experiments):
            file = Path(folder) / f"{name}.jsonl.gz"
            if file.exists():
                unpack(file, Path(scratch) / name)
        write_findings(plans, Path(scratch), Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
