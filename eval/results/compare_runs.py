"""Run directories compared: which with which, and the files `langsamp compare` leaves (Markdown, JSON, TSV)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from langsamp.core.files import atomic_write
from langsamp.eval.results import catalog, escape, rundir
from langsamp.eval.results.aggregate import Cell, System, labels, systems
from langsamp.eval.results.compare import Comparison, comparison, contrary, show_p

logger = logging.getLogger(__name__)


def compare_runs(runs: Sequence[str], output: Path) -> list[tuple[Path, list[Comparison]]]:
    """Compare every run with the first one; each pair's folder is `output`, or a sub-folder where there are several.

    A run is a directory (or `.jsonl` file), or several joined by commas: replicates of one model. A single directory
    that holds several models is split into them.

    Raises:
        ValueError: there are fewer than two models.
    """
    sides = [(_run_name(run), rundir.load(run.split(",")).records) for run in runs]
    for caution in rundir.other_data([Path(part) for run in runs for part in run.split(",")]):
        logger.warning("%s", caution)
    if len(sides) == 1:
        records = sides[0][1]
        names = labels(systems(records))
        sides = [(names[who], [r for r in records if System(r.model, r.revision) == who]) for who in names]
    if len(sides) < 2:
        raise ValueError(f"{runs[0]} holds one model only: give a second run directory to compare it with")
    sides = [
        (name if [n for n, _ in sides].count(name) == 1 else f"{name} ({i})", r) for i, (name, r) in enumerate(sides, 1)
    ]
    (a, base), *others = sides
    pairs = [(name, comparison(base, records, (a, name))) for name, records in others]
    if len(pairs) == 1:
        return [(output, pairs[0][1])]
    return [(output / f"{_file_name(name)}_vs_{_file_name(a)}", found) for name, found in pairs]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


def _run_name(run: str) -> str:
    """The folder's name; what replicates have in common (`ours-1,ours-2` -> `ours`)."""
    names = [Path(part).resolve().name for part in run.split(",")]
    shared = names[0]
    while any(not name.startswith(shared) for name in names):
        shared = shared[:-1]
    shared = re.sub(r"[-_. ]+(?:seed|s)?\d*$", "", shared) if len(names) > 1 else shared
    return shared or " + ".join(names)


def markdown(found: Sequence[Comparison]) -> str:
    """The comparisons as a Markdown page: a sentence for each headline, a table of all, the languages left out."""
    a, b = escape.markdown(found[0].a), escape.markdown(found[0].b)
    lines = [f"# {b} against {a}", ""]
    lines += [f"- {escape.markdown(entry.sentence)}" for entry in found if entry.headline]
    if against := contrary(found):
        lines += ["", "What speaks against:", "", *(f"- {escape.markdown(entry.sentence)}" for entry in against)]
    lines += ["", "| what | n | a | b | b - a | 95 % interval | p | p (Holm) | r | higher / equal / lower |"]
    lines += ["|---|--:|--:|--:|--:|---|--:|--:|--:|---|"]
    for entry in found:
        metric = entry.metric
        cells = [
            catalog.describe(entry.cell)
            + (f" ({metric.unit})" if metric.unit else "")
            + " (headline)" * entry.headline,
            entry.n,
            metric.show(entry.mean_a),
            metric.show(entry.mean_b),
            metric.show(entry.difference.value, True),
            metric.bounds(entry.difference, True).strip("[]"),
            show_p(entry.wilcoxon.p),
            show_p(entry.p_holm),
            f"{entry.rank_biserial:+.2f}",
            " / ".join(map(str, entry.counts)),
        ]
        lines.append("| " + " | ".join(map(escape.markdown, cells)) + " |")
    lines += [
        "",
        f"a = {a}, b = {b}. Values are means over the n languages that both have; interval: bootstrap over languages",
        "(and seeds), from four languages on; p: exact Wilcoxon signed-rank test, corrected by Holm's method over the",
        "headlines, and over the other rows; r: rank-biserial correlation.",
        "",
    ]
    return "\n".join([*lines, *(f"- {escape.markdown(line)}" for line in left_out(found)), ""])


def left_out(found: Sequence[Comparison]) -> list[str]:
    """Lines that name the languages only one of the two has, or has with another n, once for each distinct case."""
    lines: dict[str, None] = {}
    for entry in found:
        for name, codes in ((entry.a, entry.only_a), (entry.b, entry.only_b)):
            if codes:
                title = catalog.task(entry.cell.task).title
                lines[f"{title}: only {name} has {len(codes)} of the languages: {', '.join(codes)}"] = None
        if entry.caution:
            lines[entry.caution] = None
    return list(lines)


def write_comparison(found: Sequence[Comparison], output: str | Path) -> Path:
    """Write `compare.md`, `compare.json` and `compare.tsv` (one line a language and cell) into a folder."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(output / "compare.md", markdown(found))
    lines = (json.dumps(entry.to_json()) for entry in found)
    atomic_write(output / "compare.json", "[\n" + ",\n".join(lines) + "\n]\n")
    rows = ([*entry.cell, *row] for entry in found for row in entry.rows)
    head = [*Cell._fields, "language", found[0].a, found[0].b, "difference"]
    atomic_write(output / "compare.tsv", escape.table(head, rows, delimiter="\t"))
    return output / "compare.md"
