"""What tasks and metrics are called, which way is better, and which number of a task is its headline.

Records carry names only; compare, plots and report look up here how to show them. An unknown task or metric is shown
under its own name, as a plain number without a better side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from langsamp.eval.results.aggregate import Cell

PROTOCOL_LAYER = 8  # notes/paper.md, section 3.1


class Metric(NamedTuple):
    """How a metric is shown: `percent` values times 100; `better` is 1 (higher), -1 (lower) or 0 (neither)."""

    label: str
    percent: bool
    better: int

    def show(self, value: float, signed: bool = False) -> str:
        """The value with the digits it deserves: `45.1` for percent, `2.317` else; a real minus sign."""
        number = value * 100 if self.percent else value
        digits = 1 if self.percent else 3
        text = f"{number:{'+' if signed else ''}.{digits}f}"
        if float(text) == 0:
            text = f"{0:.{digits}f}"
        return text.replace("-", "\N{MINUS SIGN}")

    @property
    def unit(self) -> str:
        """Unit of a value; differences of percents are points."""
        return "%" if self.percent else ""

    @property
    def difference_unit(self) -> str:
        """Unit of a difference."""
        return "points" if self.percent else ""


class Task(NamedTuple):
    """Title of a task and its headline metric and direction, in order of preference."""

    title: str
    headlines: tuple[str, ...]
    about: str


TASKS = {
    "sr-bible": Task(
        "SR-Bible", ("acc@10",), "Sentence retrieval, English to every language, among the verses of the same file."
    ),
    "sr-tatoeba": Task(
        "SR-Tatoeba", ("acc@10",), "Sentence retrieval, English to every language, among up to 1,000 sentences."
    ),
    "sr-cldr": Task(
        "SR-CLDR",
        ("acc@10",),
        "Phrase retrieval, English to every language, among held-out phrases of the Unicode CLDR.",
    ),
    "taxi1500": Task("Taxi1500", ("macro_f1",), "Verse classification with 6 classes, trained on one language only."),
    "sib200": Task("SIB-200", ("macro_f1",), "Topic classification with 7 classes, trained on one language only."),
    "ner": Task("NER", ("f1",), "Named entities: F1 of whole spans, trained on one language only."),
    "pos": Task("POS", ("accuracy", "f1"), "Part of speech: share of right tags, trained on one language only."),
    "lm": Task("Masked LM", ("loss",), "Mean cross entropy of masked tokens on held-out text, in nats."),
    "neutrality": Task(
        "Neutrality",
        ("cosine_centred",),
        "How little a sentence vector depends on the language of the sentence, layer by layer.",
    ),
    "donors-transfer": Task(
        "Donor transfer", ("macro_f1",), "A SIB-200 probe trained on every source language, tested on every other one."
    ),
    "donors": Task(
        "Donors",
        ("ndcg@3_language+script-row", "ndcg@3_language-row", "ndcg@3_centroid"),
        "Do similarities of languages find the best source to train on? NDCG@3 and regret against measured transfer.",
    ),
    "embedding-map": Task(
        "Map of the languages",
        ("purity_script@5", "purity_family@5"),
        "Rows of the language table, projected to a plane: languages that lie close were treated alike in training.",
    ),
}

_METRICS = (  # `rest` is what follows the name: `regret_random` is "Regret, random"
    (r"acc@(\d+)(?:_(?P<rest>.+))?", "Acc@{0}", True, 1),
    (r"macro_f1", "Macro-F1", True, 1),
    (r"dev_macro_f1", "Macro-F1 on dev", True, 1),
    (r"f1", "F1", True, 1),
    (r"dev_f1", "F1 on dev", True, 1),
    (r"(?:token_)?accuracy", "Accuracy", True, 1),
    (r"ndcg((?:@\d+)?)(?:_(?P<rest>.+))?", "NDCG{0}", True, 1),
    (r"regret(?:_(?P<rest>.+))?", "Regret", True, -1),
    (r"loss", "Loss", False, -1),
    (r"loss_missing", "Loss without ids", False, -1),
    (r"loss_wrong", "Loss with wrong ids", False, -1),
    (r"cosine", "Cosine of translations", False, 0),
    (r"cosine_centred", "Cosine of translations, centred", False, 1),
    (r"cosine_control", "Cosine of other sentences", False, 0),
    (r"margin", "Margin of the translation", False, 1),
    (r"language_probe", "Language probe", True, -1),
    (r"purity_(.+)_chance", "Purity, {0}, by chance", True, 0),
    (r"purity_(?P<rest>.+)", "Purity", True, 1),
)
_COORDINATES = re.compile(r"(?:pca|umap)_[xy]|.*_pca_variance_\d|row_norm|untrained|similarity_.+")


def is_measure(name: str) -> bool:
    """False for records that are not a score: coordinates and norms of the map, similarities of donors."""
    return not _COORDINATES.fullmatch(name)


@cache
def metric(name: str) -> Metric:
    """How to show a metric of the records; an unknown one under its own name."""
    for pattern, label, percent, better in _METRICS:
        match = re.fullmatch(pattern, name)
        if match:
            rest = re.sub("[-_]", " ", match.groupdict("").get("rest", ""))
            return Metric(label.format(*match.groups("")) + (f", {rest}" if rest else ""), percent, better)
    return Metric(name[:1].upper() + name[1:].replace("_", " "), False, 0)


def metric_order(name: str) -> tuple[int, str, int]:
    """Sort key: the order of the catalogue, then the number (`acc@5` before `acc@10`)."""
    place = next((i for i, (pattern, *_) in enumerate(_METRICS) if re.fullmatch(pattern, name)), len(_METRICS))
    head, _, number = name.partition("@")
    return place, head, int(number) if number.isdigit() else 0


@cache
def language_name(code: str) -> str:
    """`cym_Latn` -> "Welsh"; the code itself where no name is known."""
    from langcodes import Language

    try:
        name = Language.get(code.partition("_")[0]).display_name("en")
    except ValueError:
        return code
    return code if name.startswith("Unknown language") else name


@cache
def script_name(script: str) -> str:
    """`Latn` -> "Latin"; the code itself where no name is known."""
    from langcodes import Language

    try:
        name = Language.make(script=script).script_name("en")
    except ValueError:
        return script
    return script if name.startswith("Unknown") else name


def task(name: str) -> Task:
    """Title and headline of a task; `sib200-probe` is "SIB-200 (probe)", an unknown one goes under its own name."""
    if name in TASKS:
        return TASKS[name]
    known = [base for base in TASKS if name.startswith(f"{base}-")]
    if not known:
        return Task(name, (), "")
    base = max(known, key=len)
    return TASKS[base]._replace(title=f"{TASKS[base].title} ({name[len(base) + 1 :]})")


def task_order(name: str) -> tuple[int, str]:
    """Sort key: the usual order of the tasks, variants (`sib200-probe`) after their task, unknown ones last."""
    bases = [i for i, known in enumerate(TASKS) if name == known or name.startswith(f"{known}-")]
    return (max(bases), name) if bases else (len(TASKS), name)


def describe(cell: Cell) -> str:
    """`SR-Bible, Acc@10, en→x, layer 8, trained on eng_Latn`."""
    parts = [task(cell.task).title, metric(cell.metric).label]
    if cell.direction:
        parts.append(cell.direction.replace("->", "→"))
    if cell.layer is not None:
        parts.append(f"layer {cell.layer}")
    if cell.source and cell.source != "eng_Latn":
        parts.append(f"trained on {cell.source}")
    return ", ".join(parts)


def headline(cells: Iterable[Cell]) -> Cell:
    """The one number that stands for a task, of the cells of that task.

    In this order: the task's metric, English as the query, English as the source, the 8th layer and otherwise the last
    one. Raises ValueError without cells.
    """
    cells = list(cells)
    if not cells:
        raise ValueError("a headline needs at least one cell")
    order = task(cells[0].task).headlines

    def preference(cell: Cell) -> tuple[object, ...]:
        return (
            order.index(cell.metric) if cell.metric in order else len(order),
            cell.direction not in (None, "en->x"),
            cell.source not in (None, "eng_Latn"),
            cell.layer != PROTOCOL_LAYER,
            -(cell.layer if cell.layer is not None else -1),
            cell.sort_key(),
        )

    return min(cells, key=preference)
