"""From records to differences: who is compared with whom, in what, over which languages.

Differences are paired by language and by seed (models of one seed saw the same blocks with the same masks).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from langsamp.core.language.xlmr import is_head
from langsamp.eval.results import stats
from langsamp.eval.results.aggregate import Aggregate, Cell
from langsamp.eval.results.catalog import metric, task_order
from langsamp.eval.results.compare import ALPHA, Comparison, comparison
from langsamp.eval.results.records import Record, read

from .archive import finished
from .measures import FINETUNE_STEPS, TAGGING_STEPS
from .plan import Experiment, Languages
from .variants import ZERO, half

Runs = dict[str, list[Record]]  # variant -> the records of all its seeds
GAP = "cosine_gap"  # cosine of translations minus cosine of sentences that are none: what the control leaves over

# what is claimed or denied, at the protocol's layer; short names for the columns
CELLS: dict[Cell, str] = {
    Cell("sr-bible", "acc@10", 8, "en->x"): "SR-Bible Acc@10",
    Cell("sr-bible", "acc@1", 8, "en->x"): "SR-Bible Acc@1",
    Cell("sr-tatoeba", "acc@10", 8, "en->x"): "SR-Tatoeba Acc@10",
    Cell("sr-bible", "acc@10", 8, "x->en"): "SR-Bible Acc@10, x→en",
    Cell("sr-tatoeba", "acc@10", 8, "x->en"): "SR-Tatoeba Acc@10, x→en",
    Cell("sib200-probe", "macro_f1", 8, None, "eng_Latn"): "SIB-200 probe F1",
    Cell(f"sib200-{FINETUNE_STEPS}steps", "macro_f1", None, None, "eng_Latn"): "SIB-200 fine-tuned F1",
    Cell("taxi1500-probe", "macro_f1", 8, None, "eng_Latn"): "Taxi1500 probe F1",
    Cell(f"taxi1500-{FINETUNE_STEPS}steps", "macro_f1", None, None, "eng_Latn"): "Taxi1500 fine-tuned F1",
    Cell(f"ner-{TAGGING_STEPS}steps", "f1", None, None, "eng_Latn"): "NER F1",
    Cell(f"pos-{TAGGING_STEPS}steps", "accuracy", None, None, "eng_Latn"): "POS accuracy",
    Cell("lm", "loss"): "LM loss",
    Cell("lm", "loss_missing"): "LM loss without ids",
    Cell("lm", "loss_wrong"): "LM loss with wrong ids",
    Cell("neutrality", "cosine", 8): "cosine",
    Cell("neutrality", "cosine_control", 8): "control",
    Cell("neutrality", GAP, 8): "cosine − control",
    Cell("neutrality", "cosine_centred", 8): "centred cosine",
    Cell("neutrality", "margin", 8): "margin",
    Cell("neutrality", "language_probe", 8): "language guessed",
}
CONTRASTS = (
    ("baseline", "both"), ("baseline", "lang"), ("baseline", "script"), ("baseline", "dropout"),
    ("baseline", "bias"), ("baseline", "shuffled"), ("baseline", "frozen"), ("baseline", "input"),
    ("bias", "both"), ("shuffled", "both"), ("frozen", "both"), ("input", "both"),
    ("start", "baseline"), ("start", "both"), ("start", "dropout"), ("baseline", ZERO), ("both", ZERO),
    ("both", "dropout"), ("both", "late"), ("both", "fitted"), ("lang", "both"), ("script", "both"),
    ("baseline", "late"), ("baseline", "fitted"),
    ("start", "baseline-half"), ("start", "both-half"), ("baseline-half", "both-half"),
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """A set of languages that a claim is about."""

    name: str
    has: Callable[[str, Languages], bool]


TRAINED = Group("trained on, not used in the search", lambda tag, who: who.trains(tag) and tag not in who.dev)
TAIL = Group("the tail of these (XLM-R never saw them)", lambda tag, who: TRAINED.has(tag, who) and not is_head(tag))
UNTRAINED = Group("not trained on, not used in the search", lambda tag, who: not who.trains(tag) and tag not in who.dev)
GROUPS = (TRAINED, TAIL, UNTRAINED, Group("used in the search", lambda tag, who: tag in who.dev))


@dataclass(frozen=True)
class Part:
    """One group of languages: its records and every comparison."""

    group: Group
    runs: Runs
    comparisons: Sequence[Comparison]

    @cached_property
    def columns(self) -> dict[Cell, str]:
        """The cells that any model has, with their names."""
        has = {cell_of(record) for found in self.runs.values() for record in found}
        return {cell: name for cell, name in cells(self.runs).items() if cell in has}

    @cached_property
    def values(self) -> Mapping[str, Mapping[Cell, list[Record]]]:
        """The records of each variant by cell."""
        table: dict[str, dict[Cell, list[Record]]] = {}
        for name, found in self.runs.items():
            for record in found:
                table.setdefault(name, {}).setdefault(cell_of(record), []).append(record)
        return table


def parts(runs: Runs, who: Languages) -> Iterator[Part]:
    """A part for every group that all variants were measured in."""
    for group in GROUPS:
        if kept := within(runs, group, who):
            yield Part(group, kept, compared(kept))


def gather(folder: Path, experiment: Experiment) -> Runs:
    """Records by variant, `start` first; only models that were measured whole."""
    found: Runs = {}
    for name in ("start", *experiment.variants, *map(half, experiment.halves), ZERO):
        runs = [run for run in finished(folder) if run.name.rpartition("-")[0] == name or run.name == name]
        if runs:
            found[name] = [record for run in runs for record in with_gap(one_ner(transferred(read(run))))]
    return found


def transferred(records: Sequence[Record]) -> list[Record]:
    """The records without the scores of a language on itself: what is asked is how well it helps others."""
    return [record for record in records if record.code is None or record.code != record.source]


def one_ner(records: Sequence[Record]) -> list[Record]:
    """The records, and as one task the named-entity sets, of which a language may have several: their mean."""
    task = f"ner-{TAGGING_STEPS}steps"
    sets: dict[str, list[Record]] = {}
    for record in records:
        if re.fullmatch(rf"ner-[^-]+-{TAGGING_STEPS}steps", record.task) and record.code:
            sets.setdefault(record.code, []).append(record)
    means = [
        replace(found[0], task=task, value=sum(r.value for r in found) / len(found), n=sum(r.n or 0 for r in found))
        for found in sets.values()
    ]
    return [*(record for record in records if record.task != task), *means]


def with_gap(records: Sequence[Record]) -> list[Record]:
    """The records, and for each language and layer how far translations are from sentences that are none."""
    control = {(r.code, r.layer): r.value for r in records if r.metric == "cosine_control"}
    gaps = [
        replace(r, metric=GAP, value=r.value - control[r.code, r.layer])
        for r in records
        if r.metric == "cosine" and r.code
    ]
    return [*records, *gaps]


def within(runs: Runs, group: Group, who: Languages) -> Runs:
    """The records of a group's languages; empty if there are none."""
    kept = {name: [r for r in found if r.code and group.has(r.code, who)] for name, found in runs.items()}
    return kept if all(kept.values()) and len(kept) > 1 else {}


def cells(runs: Runs) -> dict[Cell, str]:
    """The columns of the tables at the protocol's 8th layer, or the last one of a smaller model."""
    at = min(8, max(r.layer or 0 for found in runs.values() for r in found))
    return {cell._replace(layer=at) if cell.layer else cell: name for cell, name in CELLS.items()}


def cell_of(record: Record) -> Cell:
    """What the record is a value of."""
    return Cell(record.task, record.metric, record.layer, record.direction, record.source)


def compared(runs: Runs) -> list[Comparison]:
    """Every contrast in every cell, paired by language and seed.

    p-values are corrected as `langsamp compare` does: over the headlines of the tasks, of all contrasts together, and
    apart from them over all other cells.
    """
    at = cells(runs)
    runs = {name: [r for r in found if cell_of(r) in at] for name, found in runs.items()}  # all layers would take long
    found: list[Comparison] = []
    for a, b in CONTRASTS:
        if a in runs and b in runs:
            has = {cell_of(r) for r in runs[a]} & {cell_of(r) for r in runs[b]}
            entries = comparison(runs[a], runs[b], (a, b)) if has else []
            entries.sort(key=lambda entry: (not entry.headline, task_order(entry.cell.task), entry.cell.sort_key()))
            found += [
                replace(entry, groups=(paired(entry.cell, runs[a], runs[b]) or entry.groups[0],)) for entry in entries
            ]
    adjusted: dict[int, float] = {}
    for family in (True, False):
        members = [i for i, entry in enumerate(found) if entry.headline is family]
        adjusted |= zip(members, stats.holm([found[i].wilcoxon.p for i in members]))
    return [replace(entry, p_holm=adjusted[i]) for i, entry in enumerate(found)]


def clear(entry: Comparison) -> bool:
    """Whether the interval excludes zero and the corrected p-value is below 0.05."""
    _, low, high = entry.difference
    return low is not None and high is not None and low * high > 0 and entry.p_holm < ALPHA


def paired(cell: Cell, a: Sequence[Record], b: Sequence[Record]) -> Aggregate | None:
    """The mean of b - a over languages and seeds; models of one seed saw the same blocks, so they are paired too.

    None if no seed has both.
    """
    instead = cell._replace(metric=metric(cell.metric).stands_in)  # a model without rows has one loss for all ids
    left, right = (_by_seed(side, cell) or _by_seed(side, instead) for side in (a, b))
    if len(left) == 1:  # the start has no seed
        left = dict.fromkeys(right, next(iter(left.values())))
    shared = {seed: left[seed].keys() & right[seed].keys() for seed in sorted(left.keys() & right.keys())}
    if not shared:
        return None
    most = max(map(len, shared.values()))
    whole = [seed for seed, tags in shared.items() if len(tags) == most]  # the others were not measured to the end
    rows = [[right[seed][tag] - left[seed][tag] for seed in whole] for tag in sorted(shared[whole[0]])]
    return Aggregate("all", len(rows), stats.bootstrap_mean(rows))


def _by_seed(records: Sequence[Record], cell: Cell) -> dict[str, dict[str, float]]:
    """Seed (the end of the model's name) -> language -> value."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        if cell_of(record) == cell:
            found.setdefault(record.model.rpartition("-")[2], {})[record.code or ""] = record.value
    return found
