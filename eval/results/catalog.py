"""What tasks and measures are called, their units, which way is better, and which number is a headline.

Records carry names only. One entry a task, one a kind of measure: runner, command line, comparison, plots, report and
model card look up here. An unknown task or measure goes under its own name, as a plain number without a better side.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from langsamp.core.record import protocol_layer

if TYPE_CHECKING:
    from langsamp.eval.results.aggregate import Cell
    from langsamp.eval.results.stats import Interval

ENGLISH = "eng_Latn"
RANKERS = ("language+script-row", "language-row", "centroid", "table")  # of donors, in order of preference


class Entry(NamedTuple):
    """A task: its title, one sentence about it, its headline measures in order of preference.

    `run` is where `langsamp eval` finds it (module:object in `langsamp.eval.tasks`), empty for what is recorded by
    others; `leaderboard` the data set on the Hub that holds exactly its sentences, and the measure that goes there.
    """

    title: str
    about: str
    headlines: tuple[str, ...]
    run: str = ""
    leaderboard: tuple[str, str] | None = None


TASKS = {
    "sr-bible": Entry(
        "SR-Bible",
        "Sentence retrieval, English to every language, among the verses of the same file.",
        ("acc@10",),
        run="retrieval:SR_BIBLE",
    ),
    "sr-tatoeba": Entry(
        "SR-Tatoeba",
        "Sentence retrieval, English to every language, among up to 1,000 sentences.",
        ("acc@10",),
        run="retrieval:SR_TATOEBA",
        leaderboard=("mteb/tatoeba-bitext-mining", "acc@1"),
    ),
    "sr-cldr": Entry(
        "SR-CLDR",
        "Phrase retrieval, English to every language, among held-out phrases of the Unicode CLDR.",
        ("acc@10",),
        run="retrieval:SR_CLDR",
    ),
    "taxi1500": Entry(
        "Taxi1500",
        "Verse classification with 6 classes, trained on one language only.",
        ("macro_f1",),
        run="classify:TAXI1500",
    ),
    "sib200": Entry(
        "SIB-200",
        "Topic classification with 7 classes, trained on one language only.",
        ("macro_f1",),
        run="classify:SIB200",
        leaderboard=("mteb/sib200", "macro_f1"),
    ),
    "ner": Entry("NER", "Named entities: F1 of whole spans, trained on one language only.", ("f1",), run="tagging:NER"),
    "pos": Entry(
        "POS",
        "Part of speech: share of right tags, trained on one language only.",
        ("accuracy", "f1"),
        run="tagging:POS",
    ),
    "lm": Entry("Masked LM", "Mean cross entropy of masked tokens on held-out text.", ("loss",), run="lm:LM"),
    "heldout": Entry("Held-out loss", "Mean cross entropy of masked tokens in blocks held out in training.", ("loss",)),
    "neutrality": Entry(
        "Neutrality",
        "How little a sentence vector depends on the language of the sentence, layer by layer.",
        ("cosine_centred",),
        run="neutrality:NEUTRALITY",
    ),
    "donors-transfer": Entry(
        "Donor transfer", "A SIB-200 probe trained on every source language, tested on every other one.", ("macro_f1",)
    ),
    "donors": Entry(
        "Donors",
        "Do similarities of languages find the best source to train on? NDCG@3 and regret against measured transfer.",
        tuple(f"ndcg@3_{ranker}" for ranker in RANKERS),
        run="donors:DONORS",
    ),
    "embedding-map": Entry(
        "Map of the languages",
        "Rows of the language table, projected to a plane: languages that lie close were treated alike in training.",
        ("purity_script@5", "purity_family@5"),
        run="embedding_map:EMBEDDING_MAP",
    ),
}


# The pictures that plots draws and the card shows, in this order: name -> caption.
PICTURES = {
    "scores": "The headline of each task: means over all languages, those that XLM-R saw (head) and the others (tail), "
    "with 95 % intervals over languages.",
    "differences": "Differences between the models, paired over languages, with 95 % intervals.",
    "layers": "The measures layer by layer, with 95 % intervals over languages.",
    "losses": "Masked-LM loss with the right language and script, with none, and with wrong ones.",
    "neutrality": "How similar the vectors of translations are, for each pair of languages.",
    "map": "The language vectors, projected to their two main axes; the languages that stand apart are named.",
}


class Metric(NamedTuple):
    """How a measure is shown, and what its name says.

    `unit` is `%` (values times 100), `nats` or nothing; `better` 1 (higher), -1 (lower) or 0 (neither); `score` False
    for what is no measure (coordinates and norms of the map, similarities of donors). The name `ndcg@3_centroid` is of
    `kind` `ndcg`, at `k` 3, `of` `centroid`. `stands_in` is the measure that stands for it in a model that has none.
    """

    label: str
    unit: str = ""
    better: int = 0
    score: bool = True
    kind: str = ""
    k: int = 0
    of: str = ""
    stands_in: str = ""
    place: int = 0

    @property
    def percent(self) -> bool:
        """True for shares, which are shown times 100."""
        return self.unit == "%"

    @property
    def difference_unit(self) -> str:
        """Unit of a difference; differences of percents are points."""
        return "points" if self.percent else self.unit

    @property
    def titled(self) -> str:
        """The label with its unit: `Acc@10 (%)`."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def side(self) -> str:
        """Which way is better, as a sentence; nothing where neither is."""
        return {1: "Higher is better.", -1: "Lower is better."}.get(self.better, "")

    def scaled(self, value: float) -> float:
        """A value in the unit it is shown in."""
        return value * 100 if self.percent else value

    def show(self, value: float, signed: bool = False) -> str:
        """The value with the digits it deserves: `45.1` for percent, `2.317` else; a real minus sign."""
        digits = 1 if self.percent else 3
        text = f"{self.scaled(value):{'+' if signed else ''}.{digits}f}"
        if float(text) == 0:
            text = f"{0:.{digits}f}"
        return text.replace("-", "\N{MINUS SIGN}")

    def bounds(self, interval: Interval, signed: bool = False) -> str:
        """`[43.0, 47.2]`, nothing where there is no interval."""
        if interval.low is None or interval.high is None:
            return ""
        return f"[{self.show(interval.low, signed)}, {self.show(interval.high, signed)}]"

    def text(self, interval: Interval, signed: bool = False) -> str:
        """`45.1 [43.0, 47.2]`, without brackets where there is no interval."""
        return f"{self.show(interval.value, signed)} {self.bounds(interval, signed)}".rstrip()


# The grammar of the names, and how each kind is shown; `of` and `k` are parts of a name.
_OF = r"(?:_(?P<of>.+))?"
_METRICS: tuple[tuple[str, Metric], ...] = (
    (r"acc@(?P<k>\d+)" + _OF, Metric("Acc@{k}{of}", "%", 1, kind="acc")),
    (r"(?:(?P<of>dev)_)?macro_f1", Metric("Macro-F1{on}", "%", 1, kind="f1")),
    (r"(?:(?P<of>dev)_)?f1", Metric("F1{on}", "%", 1, kind="f1")),
    (r"(?:token_)?accuracy", Metric("Accuracy", "%", 1, kind="accuracy")),
    (r"ndcg(?:@(?P<k>\d+))?" + _OF, Metric("NDCG{at}{of}", "%", 1, kind="ndcg")),
    (r"regret" + _OF, Metric("Regret{of}", "%", -1, kind="regret")),
    (r"loss", Metric("Loss", "nats", -1, kind="loss")),
    (r"loss_(?P<of>missing)", Metric("Loss without ids", "nats", -1, kind="loss", stands_in="loss")),
    (r"loss_(?P<of>wrong)", Metric("Loss with wrong ids", "nats", -1, kind="loss")),
    (r"cosine", Metric("Cosine of translations", kind="cosine")),
    (r"cosine_(?P<of>centred)", Metric("Cosine of translations, centred", better=1, kind="cosine")),
    (r"cosine_(?P<of>control)", Metric("Cosine of other sentences", kind="cosine")),
    (r"margin", Metric("Margin of the translation", better=1, kind="margin")),
    (r"language_probe", Metric("Language probe", "%", -1, kind="probe")),
    (r"purity_(?P<of>\w+)@(?P<k>\d+)", Metric("Nearest {k} of the same{of}", "%", 1, kind="purity")),
    (r"purity_(?P<of>\w+)@(?P<k>\d+)_chance", Metric("The same by chance{of}", "%", kind="chance")),
    (r"(?P<of>language|script)_pca_variance_(?P<k>\d)", Metric("Variance on axis {k}{of}", "%", 0, False, "variance")),
    (r"pca_(?P<of>[xy])", Metric("PCA{of}", score=False, kind="pca")),
    (r"umap_(?P<of>[xy])", Metric("UMAP{of}", score=False, kind="umap")),
    (r"row_norm", Metric("Norm of the row", score=False, kind="norm")),
    (r"untrained", Metric("Never trained", score=False, kind="untrained")),
    (r"similarity_(?P<of>.+)", Metric("Similarity{of}", score=False, kind="similarity")),
)


@cache
def metric(name: str) -> Metric:
    """How to show a measure of the records, and what its name says; an unknown one goes under its own name."""
    for place, (pattern, shown) in enumerate(_METRICS):
        if match := re.fullmatch(pattern, name):
            parts: dict[str, Any] = {"k": "", "of": "", **{key: text or "" for key, text in match.groupdict().items()}}
            of = re.sub("[-_]", " ", parts["of"])
            label = shown.label.format(
                k=parts["k"],
                at=f"@{parts['k']}" if parts["k"] else "",
                on=" on dev" if of else "",
                of=f", {of}" if of and shown.kind != "purity" else f" {of}" if of else "",
            )
            return shown._replace(label=label, k=int(parts["k"] or 0), of=parts["of"], place=place)
    return Metric(name[:1].upper() + name[1:].replace("_", " "), kind=name, place=len(_METRICS))


def rankers(names: Collection[str]) -> list[str]:
    """Rankers of donors in order of preference, those of others behind ours."""
    return sorted(names, key=lambda name: (RANKERS.index(name) if name in RANKERS else len(RANKERS), name))


def metric_order(name: str) -> tuple[int, str, int, str]:
    """Sort key: the order of the catalogue, then the number (`acc@5` before `acc@10`)."""
    found = metric(name)
    return found.place, found.of, found.k, name


def cell_order(cell: Cell) -> tuple[Any, ...]:
    """Sort key: tasks and measures as in the catalogue, then layer, direction and source."""
    return task_order(cell.task), metric_order(cell.metric), cell.sort_key()


def task(name: str) -> Entry:
    """Title and headline of a task; `sib200-probe` is "SIB-200 (probe)", an unknown one goes under its own name."""
    base = base_task(name)
    if base is None or base == name:
        return TASKS.get(name, Entry(name, "", ()))
    return TASKS[base]._replace(title=f"{TASKS[base].title} ({name[len(base) + 1 :]})")


def task_order(name: str) -> tuple[int, str]:
    """Sort key: the order of the catalogue, variants (`sib200-probe`) after their task, unknown ones last."""
    base = base_task(name)
    return (list(TASKS).index(base) if base else len(TASKS), name)


@cache
def base_task(name: str) -> str | None:
    """The task that a name is, or is a variant of."""
    return max((base for base in TASKS if f"{name}-".startswith(f"{base}-")), key=len, default=None)


def describe(cell: Cell) -> str:
    """`SR-Bible, Acc@10, en→x, layer 8, trained on deu_Latn`."""
    return ", ".join([task(cell.task).title, metric(cell.metric).label, *setting(cell)])


def setting(cell: Cell) -> list[str]:
    """Direction, layer and source (if it is not English) of a cell, for people: `["en→x", "layer 8"]`."""
    parts = [cell.direction.replace("->", "→")] if cell.direction else []
    parts += [f"layer {cell.layer}"] if cell.layer is not None else []
    return parts + ([f"trained on {cell.source}"] if cell.source and cell.source != ENGLISH else [])


def headline(cells: Iterable[Cell]) -> Cell:
    """The one number that stands for a task, of the cells of that task.

    In this order: the task's metric, English as the query, English as the source, the protocol's layer (of a model that
    ends where the cells do) and otherwise the last one.

    Raises:
        ValueError: there are no cells.
    """
    cells = list(cells)
    if not cells:
        raise ValueError("a headline needs at least one cell")
    order: Sequence[str] = task(cells[0].task).headlines
    layer = protocol_layer(max(cell.layer or 0 for cell in cells))

    def preference(cell: Cell) -> tuple[object, ...]:
        return (
            order.index(cell.metric) if cell.metric in order else len(order),
            cell.direction not in (None, "en->x"),
            cell.source not in (None, ENGLISH),
            cell.layer != layer,
            -(cell.layer if cell.layer is not None else -1),
            cell.sort_key(),
        )

    return min(cells, key=preference)


@cache
def two_letter_codes() -> dict[str, str]:
    """ISO 639-3 -> ISO 639-1 for the languages that have both; codes withdrawn by the registration authority aside."""
    from langcodes.data_dicts import LANGUAGE_ALPHA3

    withdrawn = {"in", "iw", "ji", "jw", "mo", "sh"}
    return {three: two for two, three in LANGUAGE_ALPHA3.items() if len(two) == 2 and two not in withdrawn}


@cache
def language_name(code: str) -> str:
    """`cym_Latn` -> "Welsh"; the code itself where no name is known."""
    from langcodes import Language

    language = code.partition("_")[0]
    short = "sh" if language == "hbs" else two_letter_codes().get(language, language)
    try:
        name = Language.make(language=short).display_name("en")  # make, not get: get folds Tagalog into Filipino
    except (ValueError, LookupError):
        return code
    return code if name.startswith("Unknown language") else name


@cache
def script_name(script: str) -> str:
    """`Latn` -> "Latin"; the code itself where no name is known."""
    from langcodes import Language

    try:
        name = Language.make(script=script).script_name("en")
    except (ValueError, LookupError):
        return script
    return script if name.startswith("Unknown") else name
