"""Which language should I annotate or train on? Sources ranked for a target, and how much such a ranking is worth.

With the option `target` the answer for one language, as a ranked table. Without it the study: a probe on SIB-200 is
trained on every source and measured on every target (`donors-transfer`); each way to rank the sources is then judged
against these scores by NDCG@3 and by regret (what its first choice loses against the best source), beside always
choosing English, choosing at random, and the oracle (notes/paper.md, section 5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from langsamp.core.language.languages import normalize_tag
from langsamp.core.record import Record
from langsamp.eval.data.columns import DataError
from langsamp.eval.engines.probe import fit_probe
from langsamp.eval.labelled import Examples, Source, read_examples, usable
from langsamp.eval.metrics import compute
from langsamp.eval.results import catalog
from langsamp.eval.task import Context, Unit
from langsamp.eval.tasks.rankers import FOLDER, Rankers, read_table, row_tags

TRANSFER = "donors-transfer"
TOP = 3
ENGLISH = "eng_Latn"
SIMILARITY = "similarity_"


def judge(gains: dict[str, float], scores: dict[str, float]) -> tuple[float, float]:
    """(NDCG@3, regret) of ranking sources by `scores` where `gains` is what they are worth.

    The gain of a source in NDCG is what it has over the worst one, so that a random order is far from 1. Sources
    without a score come last, all equal. Equal scores share their places. If all sources are worth the same, any order
    is right: (1, 0).
    """
    names = sorted(gains)
    worth = np.array([gains[name] for name in names])
    last = min(scores.values(), default=0.0) - 1.0
    order = np.array([scores.get(name, last) for name in names])
    above = worth - worth.min()
    if not above.any():
        return 1.0, 0.0
    found = compute("ndcg", predictions=[order], references=[above], k=TOP)
    return found["ndcg"], found["regret"]


def references(target_gains: dict[str, float]) -> dict[str, dict[str, float]]:
    """Scores of the references for one target: always English (if it is a candidate), random, the oracle.

    Random is one big tie: NDCG and regret share ties, which gives the expected value over all orders.
    """
    found = {"random": dict.fromkeys(target_gains, 0.0), "oracle": target_gains}
    if ENGLISH in target_gains:
        found["english"] = {ENGLISH: 1.0}
    return found


def measure_transfer(context: Context, unit: Unit, layer: int) -> list[Record]:
    """Train a probe on the unit's language and measure it on all targets, whose vectors are computed once and kept."""

    def encoded(examples: Examples) -> tuple[np.ndarray, list[str]]:
        return context.encoder((layer,)).encode(examples.texts)[0], examples.labels

    def test(target: str) -> tuple[np.ndarray, list[str]]:
        return encoded(read_examples(context, FOLDER, target, "test"))

    source = Source(context, FOLDER, unit.language or "")
    probe = fit_probe(*encoded(source.train), *encoded(source.dev))
    found = []
    for record in unit.expected:
        vectors, labels = context.shared(("test", record.code), partial(test, record.code or ""))
        score = compute("macro_f1", predictions=probe.predict(vectors), references=labels)["macro_f1"]
        found.append(replace(record, value=score, n=len(labels)))
    return found


class Donors:
    """Options: `target`, `sources` (candidates; default all with training data), `similarity` (a table's file)."""

    name = "donors"

    def languages(self, context: Context) -> list[str]:
        """The target, or all languages of SIB-200 that can be tested on."""
        if target := context.options.target:
            return [normalize_tag(target)]
        return usable(context, FOLDER, context.data.languages(FOLDER), "test")

    def settings(self, context: Context) -> dict[str, Any]:
        """The candidates of the study (an answer for one target adds to any run), and the table if there is one."""
        found: dict[str, Any] = {}
        if told := context.options.same_as:
            found["same_as"] = sorted(told)
        if path := context.options.similarity:
            found["similarity"] = hashlib.sha256(repr(sorted(read_table(path).items())).encode()).hexdigest()[:16]
        if not context.options.target:
            asked = context.options.sources
            found["sources"] = sorted({normalize_tag(tag) for tag in asked}) if asked else "all"
        return found

    def units(self, context: Context, languages: list[str]) -> list[Unit]:
        """One unit for `target`; else one a source (transfer), then one a target (how good each ranking is)."""
        sources = candidates(context)
        if context.options.target:
            return [_answer_unit(context, languages[0], sources)]
        if len(sources) < 3:
            raise DataError(
                f"a study of donors compares sources, but {FOLDER} has training data in {len(sources)} "
                "languages only; --target LANG ranks without measuring"
            )
        layer = context.layer_list()[-1]

        def transfer(source: str) -> list[Record]:
            targets = [target for target in languages if target != source]
            return [context.record(TRANSFER, tag, "macro_f1", source=source, layer=layer) for tag in targets]

        rankers = Rankers(context, _all(languages, sources), layer, sources)
        english = ENGLISH in sources and _trainable(context, ENGLISH)
        places = [f"{FOLDER}/{tag}" for tag in languages]
        return [Unit(source, transfer(source), [f"{FOLDER}/{source}", *places]) for source in sources] + [
            _judged_unit(context, target, languages, sources, rankers, english) for target in languages
        ]

    def compute(self, context: Context, unit: Unit) -> list[Record]:
        """The answer for a target, the transfer from a source, or how good the rankings for a target are."""
        layer = context.layer_list()[-1]
        if unit.about is None:
            return measure_transfer(context, unit, layer)
        tags, sources = unit.about
        centre = sources if unit.wants else tags
        rankers = context.shared(tags, lambda: Rankers(context, tags, layer, centre))
        return judged(unit, sources, rankers) if unit.wants else answer(unit, sources, rankers)


def _all(languages: Sequence[str], sources: Sequence[str]) -> tuple[str, ...]:
    """Every language that takes part."""
    return tuple(dict.fromkeys([*languages, *sources]))


def candidates(context: Context) -> list[str]:
    """The sources asked for, else all languages of SIB-200 with training data."""
    if asked := context.options.sources:
        return sorted({normalize_tag(tag) for tag in asked})
    if not context.data.folders(FOLDER):
        return []
    return usable(context, FOLDER, context.data.languages(FOLDER), "train")


def _trainable(context: Context, tag: str) -> bool:
    """Whether a probe can be trained on a language; its unit will say why not."""
    source = Source(context, FOLDER, tag)
    try:
        return bool(source.train.texts and source.dev.texts)
    except DataError:
        return False


def _answer_unit(context: Context, target: str, sources: list[str]) -> Unit:
    """The similarity of one target with every candidate, by every ranker that knows both.

    Without data the candidates are all languages with a trained row.
    """
    sources = [tag for tag in sources or row_tags(context) if tag != target]
    layer = context.layer_list()[-1]
    rankers = Rankers(context, _all([target], sources), layer)
    wanted = []
    for name in rankers.names:
        at = layer if name == "centroid" else None
        for source in rankers.known(name, target, sources):
            wanted.append(context.record("donors", target, SIMILARITY + name, source=source, layer=at))
    if not wanted:
        raise DataError(
            f"nothing is known of {target}: the model has no trained row for it, the data has no {FOLDER} "
            "sentences, and no table of similarities (--similarity) names it"
        )
    return Unit(target, wanted, rankers.places, (_all([target], sources), sources))


def answer(unit: Unit, sources: Sequence[str], rankers: Rankers) -> list[Record]:
    """The similarities of the unit's language with the sources."""
    scores = {SIMILARITY + name: rankers.scores(name, unit.language or "", sources) for name in rankers.names}
    return [replace(record, value=scores[record.metric][record.source or ""]) for record in unit.expected]


def _judged_unit(
    context: Context, target: str, languages: list[str], sources: list[str], rankers: Rankers, english: bool
) -> Unit:
    """How good every ranking of sources is for one target."""
    others = [source for source in sources if source != target]
    names = [name for name in rankers.names if rankers.known(name, target, others)]
    names += ["random", "oracle"] + ["english"] * (english and target != ENGLISH)
    wanted = [
        context.record("donors", target, metric, layer=rankers.layer)
        for name in names
        for metric in (f"ndcg@{TOP}_{name}", f"regret_{name}")
    ]
    about = _all(languages, sources), sources
    return Unit(target, wanted, rankers.places, about, stage=1, wants=TRANSFER)


def judged(unit: Unit, sources: Sequence[str], rankers: Rankers) -> list[Record]:
    """NDCG@3 and regret of every ranker for one target, against the measured transfer that the unit was given.

    Raises:
        DataError: too little of it could be measured.
    """
    target, layer = unit.language or "", rankers.layer
    gains = {r.source: r.value for r in unit.given if r.layer == layer and r.source and r.source in sources}
    if len(gains) < 2:
        raise DataError(f"no transfer to {target} from at least two sources was measured")
    scores = references(gains)
    judgements: dict[str, tuple[float, float]] = {}
    found = []
    for record in unit.expected:
        metric, _, name = record.metric.partition("_")
        if name == "english" and name not in scores:
            raise DataError(f"no transfer from {ENGLISH} to {target} was measured")
        if name not in judgements:
            judgements[name] = judge(gains, scores[name] if name in scores else rankers.scores(name, target, sources))
        found.append(replace(record, value=judgements[name][metric == "regret"], n=len(gains)))
    return found


def ranking_table(found: Sequence[Record], target: str, rows: int = 20) -> str:
    """The answer as text: the best sources for `target` by the first ranker, the others beside it, from records alone.

    Where a study is in the same run directory, its measured scores and the mean regret of each ranker are added.
    """
    target = normalize_tag(target)
    similar: dict[str, dict[str, float]] = {}
    regrets: dict[str, list[float]] = {}
    for record in found:
        metric = catalog.metric(record.metric)
        if record.task == "donors" and record.code == target and metric.kind == "similarity":
            similar.setdefault(metric.of, {})[record.source or ""] = record.value
        elif record.task == "donors" and metric.kind == "regret":
            regrets.setdefault(metric.of, []).append(record.value)
    if not similar:
        raise ValueError(f"no similarities with {target} here: run `langsamp eval --tasks donors --target {target}`")
    names = catalog.rankers(similar)
    score = catalog.metric("macro_f1")
    measured = {r.source or "": r.value for r in found if r.task == TRANSFER and r.code == target}
    first = similar[names[0]]
    columns = [*names, f"measured ({score.unit})"] if measured else names
    lines = [f"sources for {target} ({catalog.language_name(target)}), by {names[0]}:", ""]
    lines.append(f"{'':>4}  {'source':<10}{'name':<26}" + "".join(f"{name:>21}" for name in columns))
    for rank, source in enumerate(sorted(first, key=lambda source: (-first[source], source))[:rows], 1):
        cells = ["-" if (value := similar[name].get(source)) is None else f"{value:.3f}" for name in names]
        if measured:
            cells.append(score.show(measured[source]) if source in measured else "-")
        lines.append(
            f"{rank:>4}  {source:<10}{catalog.language_name(source):<26.25}" + "".join(f"{c:>21}" for c in cells)
        )
    if regrets:
        means = ", ".join(
            f"{name} {catalog.metric('regret').show(float(np.mean(values)))}"
            for name, values in sorted(regrets.items())
        )
        lines += ["", f"mean regret of the first choice in the study of this run (points of macro-F1): {means}"]
    return "\n".join(lines)


DONORS = Donors()
