"""What the records of a replication say: tables and plots for `docs/replication.md`, from records and nothing else.

python -m benchmarks.replication.findings recipes/replication.yaml docs/replication     (records in, tables out)
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from langsamp.eval import catalog, compare, stats
from langsamp.eval.aggregate import Cell, is_head
from langsamp.eval.compare import ALPHA, Comparison, comparison, show_p
from langsamp.eval.records import Record, read
from langsamp.runtime import atomic_write

from .archive import finished, pack, unpack
from .donors import table
from .measures import FINETUNE_STEPS
from .pictures import draw
from .plan import Experiment, Languages, Replication, read_plan
from .variants import VARIANTS, ZERO

Runs = dict[str, list[Record]]  # variant -> the records of all its seeds
GAP = "cosine_gap"  # cosine of translations minus cosine of sentences that are none: what the control leaves over

# what is claimed or denied, at the protocol's layer; short names for the columns
CELLS: dict[Cell, str] = {
    Cell("sr-bible", "acc@10", 8, "en->x"): "SR-Bible Acc@10",
    Cell("sr-bible", "acc@1", 8, "en->x"): "SR-Bible Acc@1",
    Cell("sr-tatoeba", "acc@10", 8, "en->x"): "SR-Tatoeba Acc@10",
    Cell("sib200-probe", "macro_f1", 8, None, "eng_Latn"): "SIB-200 probe F1",
    Cell(f"sib200-{FINETUNE_STEPS}steps", "macro_f1", None, None, "eng_Latn"): "SIB-200 fine-tuned F1",
    Cell("lm", "loss"): "LM loss",
    Cell("neutrality", "cosine", 8): "cosine",
    Cell("neutrality", "cosine_control", 8): "control",
    Cell("neutrality", GAP, 8): "cosine − control",
    Cell("neutrality", "cosine_centred", 8): "centred cosine",
    Cell("neutrality", "margin", 8): "margin",
    Cell("neutrality", "language_probe", 8): "language guessed",
}
ABOUT = {"start": "what all start from", ZERO: "both, unknown rows zero instead of the mean"}
CONTRASTS = (
    ("baseline", "both"), ("baseline", "lang"), ("baseline", "script"), ("baseline", "dropout"),
    ("baseline", "bias"), ("baseline", "shuffled"), ("baseline", "frozen"), ("baseline", "input"),
    ("bias", "both"), ("shuffled", "both"), ("frozen", "both"), ("input", "both"),
    ("start", "baseline"), ("start", "both"), ("start", "dropout"), ("baseline", ZERO), ("both", ZERO),
    ("both", "dropout"), ("start", "baseline-half"), ("start", "both-half"), ("baseline-half", "both-half"),
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """A set of languages that a claim is about."""

    name: str
    has: Callable[[str, Languages], bool]


GROUPS = (
    Group("trained on, not used in the search", lambda tag, who: tag in who.trained and tag not in who.dev),
    Group(
        "the tail of these (XLM-R never saw them)",
        lambda tag, who: tag in who.trained and tag not in who.dev and not is_head(tag),
    ),
    Group("not trained on, not used in the search", lambda tag, who: tag in who.untrained and tag not in who.dev),
    Group("used in the search", lambda tag, who: tag in who.dev),
)


def write_findings(plan: Replication, records: Path, output: Path) -> None:
    """Write `<experiment>.md`, its plots and its packed records for every experiment that has finished models."""
    output.mkdir(parents=True, exist_ok=True)
    for name, experiment in plan.experiments.items():
        runs = gather(records / name, experiment)
        if len(runs) > 1:
            pack(records / name, output / f"{name}.jsonl.gz")
            atomic_write(output / f"{name}.md", page(runs, plan.languages, experiment))
            if kept := within(runs, GROUPS[0], plan.languages):
                draw(kept, retrieval_against_baseline(kept), output / name)


def gather(folder: Path, experiment: Experiment) -> Runs:
    """Records by variant, `start` first; only models that were measured whole."""
    found: Runs = {}
    for name in ("start", *experiment.variants, ZERO):
        runs = [run for run in finished(folder) if run.name.rpartition("-")[0] == name or run.name == name]
        if runs:
            found[name] = [record for run in runs for record in with_gap(read(run))]
    return found


def with_gap(records: Sequence[Record]) -> list[Record]:
    """The records, and for each language and layer how far translations are from sentences that are none."""
    control = {(r.code, r.layer): r.value for r in records if r.metric == "cosine_control"}
    gaps = [
        replace(r, metric=GAP, value=r.value - control[r.code, r.layer])
        for r in records
        if r.metric == "cosine" and r.code
    ]
    return [*records, *gaps]


def page(runs: Runs, who: Languages, experiment: Experiment) -> str:
    """The tables of one experiment: for each group of languages the means, and what differs from what."""
    lines: list[str] = []
    for group in GROUPS:
        if kept := within(runs, group, who):
            lines += [f"### Languages {group.name}", "", *means(kept, layer(kept)), "", *contrasts(kept), ""]
    lines += table(runs)
    seeds = ", ".join(f"{name} {len({r.model for r in found})}" for name, found in runs.items())
    return "\n".join([*lines, f"Models measured: {seeds}; {experiment.steps} steps of {experiment.batch} blocks.", ""])


def within(runs: Runs, group: Group, who: Languages) -> Runs:
    """The records of a group's languages; empty if there are none."""
    kept = {name: [r for r in found if r.code and group.has(r.code, who)] for name, found in runs.items()}
    return kept if all(kept.values()) and len(kept) > 1 else {}


def layer(runs: Runs) -> int:
    """The protocol's 8th layer, or the last one of a smaller model."""
    return min(8, max(r.layer or 0 for found in runs.values() for r in found))


def cells(at: int) -> dict[Cell, str]:
    """The columns of the tables at a layer."""
    return {cell._replace(layer=at) if cell.layer else cell: name for cell, name in CELLS.items()}


def means(runs: Runs, at: int) -> list[str]:
    """One row a variant: unweighted means over languages and seeds."""
    table = cells(at)
    shown = {cell: name for cell, name in table.items() if any(_values(found, cell) for found in runs.values())}
    counts = [max(len({r.code for r in _values(found, cell)}) for found in runs.values()) for cell in shown]
    head = [f"{name} (n={n})" for name, n in zip(shown.values(), counts)]
    rows = ["| model | " + " | ".join(head) + " |", "|---|" + "--:|" * len(shown)]
    for name, found in runs.items():
        about = VARIANTS[name].about if name in VARIANTS else ABOUT[name]
        values = [_mean(_values(found, cell)) for cell in shown]
        show = ["" if v is None else catalog.metric(cell.metric).show(v) for cell, v in zip(shown, values)]
        rows.append(f"| {name}: {about} | " + " | ".join(show) + " |")
    return rows


def _cell(record: Record) -> Cell:
    return Cell(record.task, record.metric, record.layer, record.direction, record.source)


def _values(records: Iterable[Record], cell: Cell) -> list[Record]:
    return [record for record in records if _cell(record) == cell]


def _mean(records: Sequence[Record]) -> float | None:
    return sum(r.value for r in records) / len(records) if records else None


def compared(runs: Runs) -> list[Comparison]:
    """Every contrast in every cell, paired by language and seed; p-values corrected over all of them together."""
    at = cells(layer(runs))
    runs = {name: [r for r in found if _cell(r) in at] for name, found in runs.items()}  # all layers would take minutes
    found: list[Comparison] = []
    for a, b in CONTRASTS:
        if a in runs and b in runs:
            entries = comparison(runs[a], runs[b], (a, b)) if {*map(_cell, runs[a])} & {*map(_cell, runs[b])} else []
            found += [replace(entry, groups=(_paired(entry, runs[a], runs[b]),)) for entry in entries]
    adjusted = stats.holm([entry.wilcoxon.p for entry in found])
    return [replace(entry, p_holm=p) for entry, p in zip(found, adjusted)]


def _paired(entry: Comparison, a: list[Record], b: list[Record]) -> compare.Group:
    """The mean difference over languages and seeds; models of one seed saw the same blocks, so they are paired too."""
    left, right = (_by_seed(side, entry.cell) for side in (a, b))
    if len(left) == 1:  # the start has no seed
        left = dict.fromkeys(right, next(iter(left.values())))
    rows = [[right[seed][tag] - left[seed][tag] for seed in sorted(set(left) & set(right))] for tag in entry.values_a]
    return compare.Group("all", entry.n, stats.bootstrap_mean(rows))


def _by_seed(records: list[Record], cell: Cell) -> dict[str, dict[str, float]]:
    """Seed (the end of the model's name) -> language -> value."""
    found: dict[str, dict[str, float]] = {}
    for record in _values(records, cell):
        found.setdefault(record.model.rpartition("-")[2], {})[record.code or ""] = record.value
    return found


def contrasts(runs: Runs) -> list[str]:
    """One row a contrast and column of the means: difference, interval, corrected p, effect size."""
    names = cells(layer(runs))
    rows = [
        "| b − a | measure | n | difference | 95 % interval | p (Holm) | Cohen's d |",
        "|---|---|--:|--:|---|--:|--:|",
    ]
    for entry in compared(runs):
        value, low, high = entry.difference
        show = entry.metric.show
        interval = "" if low is None or high is None else f"{show(low, True)} to {show(high, True)}"
        mark = "**" if low is not None and high is not None and low * high > 0 and entry.p_holm < ALPHA else ""
        effect = "" if entry.cohen_d is None else f"{entry.cohen_d:+.2f}".replace("-", "−")
        rows.append(
            f"| {entry.b} − {entry.a} | {names[entry.cell]} | {entry.n} | {mark}{show(value, True)}{mark} | {interval} "
            f"| {show_p(entry.p_holm)} | {effect} |"
        )
    return rows


def retrieval_against_baseline(runs: Runs) -> list[Comparison]:
    """What the forest plot shows."""
    wanted = {cell for cell, name in cells(layer(runs)).items() if name in ("SR-Bible Acc@10", "SR-Tatoeba Acc@10")}
    return [entry for entry in compared(runs) if entry.a == "baseline" and entry.cell in wanted]


def main() -> None:
    """Make the tables and plots again from packed records."""
    recipe, folder = sys.argv[1:]
    plan = read_plan(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        for name in plan.experiments:
            file = Path(folder) / f"{name}.jsonl.gz"
            if file.exists():
                unpack(file, Path(scratch) / name)
        write_findings(plan, Path(scratch), Path(folder))


if __name__ == "__main__":
    main()
