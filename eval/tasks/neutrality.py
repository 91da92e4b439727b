"""Language neutrality (`neutrality`): do translations get the same vector, whatever the language, at every layer?

For each pair of languages, over the sentences both have (unit vectors u; sentence i of languages a and b):

* `cosine`: mean of u_ai . u_bi. High values alone prove nothing, as most vectors of a model point the same way; hence
* `cosine_centred`: the same after the mean vector of each language is taken off,
* `cosine_control`: mean of u_ai . u_bj over i != j: how similar sentences are that are no translations,
* `margin`: mean of u_ai . u_bi - max over j != i of u_ai . u_bj, both directions: above 0 the translation is found,
* `language_probe`: accuracy of a linear classifier that guesses the language from the vector; LOWER is more neutral.

A language's number is the mean over its pairs (or its sentences), the number over all languages is the mean over all
pairs; its interval resamples languages. The matrices behind the heat map are in `neutrality/layer08.npz` (arrays
`languages`, and `cosine`, `cosine_centred`, `cosine_control`, `margin` of shape (languages, languages), NaN on the
diagonal). The paper's exact definition is not public; this is the proposal of the paper notes, section 5.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from langsamp.core.record import Record, with_interval
from langsamp.eval.data.columns import DataError
from langsamp.eval.results import stats
from langsamp.eval.results.rundir import Matrices
from langsamp.eval.task import Context, Unit
from langsamp.eval.tasks.similarity import Mask, Matrix, pair_matrices, probe_languages

FOLDERS = ("bible_retrieval", "sib200")  # parallel by id, in order of preference
SENTENCES = 100
FEWEST = 10  # sentences a language needs
PAIRED = ("cosine", "cosine_centred", "cosine_control", "margin")
PROBE = "language_probe"
METRICS = (*PAIRED, PROBE)


class Neutrality:
    """The task. Options: `parallel` (the folder to use) and `sentences` (most sentences a language)."""

    name = "neutrality"

    def languages(self, context: Context) -> list[str]:
        """Tags of the parallel folder, English among them."""
        return context.data.languages(_folder(context))

    def settings(self, context: Context) -> dict[str, Any]:
        """What the numbers depend on besides the run's settings and the set of languages."""
        return {"parallel": _folder(context), "sentences": _limit(context)}

    def units(self, context: Context, languages: list[str]) -> list[Unit]:
        """One unit a layer, with the numbers of all languages; one for each language that has too few sentences."""
        sample = context.shared("sample", lambda: Sample.draw(context, languages))
        layers = context.layer_list("all")
        units = [
            Unit(tag, [context.record(self.name, tag, METRICS[0], layer=layers[0])], about=why)
            for tag, why in sample.problems.items()
        ]
        for layer in layers:
            _check_same_languages(context.output / Matrices.file(layer), sample.languages)
            expected = [
                part
                for metric in METRICS
                for tag in (None, *sample.languages)
                for part in _bounded(context.record(self.name, tag, metric, layer=layer), len(sample.languages))
            ]
            units.append(Unit(None, expected, [f"{_folder(context)}/{tag}" for tag in sample.languages], languages))
        return units

    def compute(self, context: Context, unit: Unit) -> list[Record]:
        """The numbers of one layer. For a language that takes no part a DataError says why."""
        if unit.language is not None:
            raise DataError(unit.about)
        sample = context.shared("sample", lambda: Sample.draw(context, unit.about))
        return measure_layer(context, sample, context.layer_list("all"), unit.expected)


@dataclass
class Sample:
    """The sentences compared, `texts[language][id]`, and why other languages take no part."""

    languages: list[str]
    ids: list[str]
    texts: dict[str, dict[str, str]]
    problems: dict[str, str]

    @classmethod
    def draw(cls, context: Context, languages: list[str]) -> Sample:
        """The ids that most of the languages have that take part, ties in an order that depends on the id alone.

        A language takes part if it has `FEWEST` of the sentences; one that does not changes nothing.

        Raises:
            DataError: fewer than two languages take part.
        """
        limit, folder = _limit(context), _folder(context)
        texts: dict[str, dict[str, str]] = {}
        problems: dict[str, str] = {}
        for tag in languages:
            try:
                found = context.data.by_id(folder, tag, "test")
                texts[tag] = {name: text for name, text in found.items() if text.strip()}
            except DataError as error:
                problems[tag] = str(error)
        few, ids = list(texts), list[str]()
        while few:  # without these others may have too few
            counts = Counter(name for own in texts.values() for name in own)
            shared = [name for name, count in counts.items() if count > 1]
            ids = sorted(shared, key=lambda name: (-counts[name], hashlib.sha256(name.encode()).hexdigest()))[:limit]
            few = [tag for tag, own in texts.items() if sum(name in own for name in ids) < min(FEWEST, limit)]
            for tag in few:
                problems[tag] = f"fewer than {FEWEST} of the sampled sentences"
                del texts[tag]
        if len(texts) < 2:
            raise DataError(f"neutrality needs two languages with sentences parallel by id in {folder}")
        return cls(list(texts), ids, texts, problems)

    @cached_property
    def mask(self) -> Mask:
        """(languages, ids): where there is a sentence."""
        return np.array([[name in self.texts[tag] for name in self.ids] for tag in self.languages])

    def encode(self, context: Context, layers: tuple[int, ...], layer: int) -> Matrix:
        """Vectors (languages, ids, hidden) of a layer, zero where there is no sentence; encoded once for all layers."""
        if not hasattr(self, "_vectors"):
            flat = [self.texts[tag][name] for tag in self.languages for name in self.ids if name in self.texts[tag]]
            self._vectors = context.encoder(layers).encode(flat)
        full = np.zeros((*self.mask.shape, self._vectors.shape[-1]))
        full[self.mask] = self._vectors[layers.index(layer)]
        return full


def measure_layer(
    context: Context, sample: Sample, layers: tuple[int, ...], expected: Sequence[Record]
) -> list[Record]:
    """All records of the layer of `expected`; the layer's matrices become a file beside them."""
    layer = expected[0].layer or 0
    vectors, mask = sample.encode(context, layers, layer), sample.mask
    matrices = pair_matrices(vectors, mask)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, languages=np.array(sample.languages), **matrices)  # type: ignore[arg-type]
    context.save(Matrices.file(layer), buffer.getvalue())
    right = probe_languages(vectors, mask)
    values: dict[tuple[str, str | None], tuple[float, int]] = {}
    for metric in METRICS:
        if metric == PROBE:
            own = np.array([row.mean() for row in right])
            overall = stats.bootstrap_mean(own)
        else:
            own = np.nanmean((matrices[metric] + matrices[metric].T) / 2, axis=1)
            overall = stats.bootstrap_pairs(matrices[metric])
        for tag, value, count in zip(sample.languages, own, mask.sum(axis=1)):
            values[metric, tag] = float(value), int(count)
        for record in with_interval(context.record(NEUTRALITY.name, None, metric, overall.value), *overall[1:]):
            values[record.metric, None] = record.value, len(own)
    pairs = ((record, *values[record.metric, record.code]) for record in expected)
    return [replace(record, value=value, n=n) for record, value, n in pairs]


def _bounded(record: Record, languages: int) -> list[Record]:
    """A number over all languages has an interval, if they are enough; a language's own number has none."""
    return with_interval(record, 0.0, 0.0) if record.language is None and languages >= stats.FEWEST else [record]


def _check_same_languages(path: Path, languages: list[str]) -> None:
    """The numbers depend on the whole set of languages, so one run directory holds one set."""
    if path.exists() and (known := Matrices.read(path).languages) != languages:
        raise ValueError(
            f"{path} was measured over {len(known)} languages, now {len(languages)} others are asked for; "
            "neutrality depends on the whole set: choose another --output"
        )


def _folder(context: Context) -> str:
    """The parallel folder asked for, else the first there is."""
    return context.options.parallel or context.data.first(FOLDERS)


def _limit(context: Context) -> int:
    """Most sentences of a language; a ValueError for one, which has no other sentence to be compared with."""
    limit = context.options.sentences or SENTENCES
    if limit < 2:
        raise ValueError("neutrality compares sentences with others: give --sentences 2 or more")
    return limit


NEUTRALITY = Neutrality()
