"""Sentence retrieval, `sr-bible` and `sr-tatoeba`: does a sentence find its translation? No training, frozen vectors.

Protocol (paper section 3.1): mean-pooled vectors of layer 8, cosine, English as the query; here both directions, any
layers, Acc@1/5/10, and on request CSLS. Rules that the official code leaves open:

* A tie counts against the model: the rank of the right sentence is 1 + the number of wrong candidates whose similarity
  is at least its own, less rounding (`metrics/acc_at_k`). A model that maps everything to one point scores 0, not luck.
* A candidate with the very text of the right one, or whose source has the very text of the query, is right as well.
* Pairs are joined by `id`, never by line number; sentences without a partner and blank ones are left out; n is told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from langsamp.core.record import Record
from langsamp.eval.data.columns import DataError, columns_of
from langsamp.eval.data.sets import EvalData
from langsamp.eval.engines.encoder import Pool
from langsamp.eval.metrics import compute
from langsamp.eval.task import Context, Unit
from langsamp.eval.tasks.similarity import cosine

logger = logging.getLogger(__name__)

ENGLISH = "eng_Latn"
TOP = (1, 5, 10)
DIRECTIONS = ("en->x", "x->en")
CSLS_NEIGHBOURS = 10

Pairs = tuple[list[str], list[str]]  # sentences of the language, their English translations


def csls(similarity: np.ndarray, neighbours: int = CSLS_NEIGHBOURS) -> np.ndarray:
    """Cross-domain similarity local scaling: 2 cos(x, y) - r(x) - r(y), r being the mean cosine of the nearest ones.

    (n, m) -> (n, m). Source: Conneau et al. 2018, "Word translation without parallel data", section 2.3.
    """
    rows, columns = min(neighbours, similarity.shape[1]), min(neighbours, similarity.shape[0])
    of_row = np.sort(similarity, axis=1)[:, -rows:].mean(axis=1, keepdims=True)
    of_column = np.sort(similarity, axis=0)[-columns:].mean(axis=0, keepdims=True)
    return 2 * similarity - of_row - of_column


def same_text(queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
    """(n, n) bool: candidate j is right for query i because one of the two texts is literally the same."""
    query, candidate = (np.unique(list(side), return_inverse=True)[1] for side in (queries, candidates))
    return np.asarray((query[:, None] == query[None, :]) | (candidate[:, None] == candidate[None, :]))


@dataclass(frozen=True)
class Retrieval:
    """A retrieval task on a folder of sentences."""

    name: str
    folder: str

    @property
    def english_in_file(self) -> bool:
        """Whether the translations stand beside the sentences."""
        return "english" in columns_of(self.folder)

    def languages(self, context: Context) -> list[str]:
        """All tags of the folder but English, which must be there unless it stands beside the sentences."""
        found = context.data.languages(self.folder)
        if not self.english_in_file and ENGLISH not in found:
            raise DataError(f"{self.folder} has no {ENGLISH}, the language to search with: add its file")
        return [tag for tag in found if tag != ENGLISH]

    def units(self, context: Context, languages: list[str]) -> list[Unit]:
        """One unit a language, with all layers, directions and metrics."""
        parts = list(product(context.layer_list(), DIRECTIONS, _metrics(context)))

        def expected(tag: str) -> list[Record]:
            return [context.record(self.name, tag, metric, layer=k, direction=way) for k, way, metric in parts]

        shared = [] if self.english_in_file else [f"{self.folder}/{ENGLISH}"]
        return [Unit(tag, expected(tag), [f"{self.folder}/{tag}", *shared]) for tag in languages]

    def pairs(self, data: EvalData, tag: str, english: Mapping[str, str] | None = None) -> Pairs:
        """Aligned sentences of a language and English.

        `english`: the English sentences by id, where they were read before.

        Raises:
            DataError: there are no two different pairs.
        """
        if self.english_in_file:
            rows = data.rows(self.folder, tag, columns_of(self.folder))
            found = list(zip(rows["text"], rows["english"]))
        else:
            own = data.by_id(self.folder, tag)
            english = data.by_id(self.folder, ENGLISH) if english is None else english
            found = [(text, english[name]) for name, text in own.items() if name in english]
            if not found:
                raise DataError(f"{self.folder}/{tag} has no id in common with {ENGLISH}: the files are not parallel")
        kept = [pair for pair in found if pair[0].strip() and pair[1].strip()]
        if len(kept) < len(found):
            logger.warning("%s/%s: %d blank sentences are left out", self.folder, tag, len(found) - len(kept))
        if min(len({pair[side] for pair in kept}) for side in (0, 1)) < 2:
            raise DataError(f"{self.folder}/{tag} has fewer than two different sentences: nothing to tell apart")
        return [pair[0] for pair in kept], [pair[1] for pair in kept]

    def _english(self, context: Context) -> dict[str, str]:
        return context.shared("english", lambda: context.data.by_id(self.folder, ENGLISH))

    def _read(self, context: Context, unit: Unit) -> tuple[list[str], list[str], Pool]:
        """A language's sentences, their translations, and a pool of the first, with the others if they are its own."""
        english = None if self.english_in_file else self._english(context)
        texts, translations = self.pairs(context.data, unit.language or "", english)
        together = texts + translations if self.english_in_file else texts  # fuller batches
        return texts, translations, Pool(context.encoder(context.layer_list()), together)

    def compute(self, context: Context, unit: Unit) -> list[Record]:
        """All records of one language."""
        encoder = context.encoder(context.layer_list())
        texts, english, pool = context.ready(unit, self._read)
        if self.english_in_file:
            both = pool.vectors(texts + english)
            own, other = both[:, : len(texts)], both[:, len(texts) :]
        else:  # all languages share the English side: it is encoded once
            all_english = context.shared("pool", lambda: Pool(encoder, [*self._english(context).values()]))
            own, other = pool.vectors(texts), all_english.vectors(english)
        if len(texts) <= TOP[-1]:
            logger.warning(
                "%s/%s: of %d sentences all are among the first %d", self.folder, unit.language, len(texts), TOP[-1]
            )
        values: dict[tuple[int | None, str | None, str], float] = {
            (layer, direction, metric): value
            for layer, x, en in zip(encoder.layers, own, other)
            for (direction, metric), value in score(x, en, texts, english, context.options.csls).items()
        }
        return [
            replace(record, value=values[record.layer, record.direction, record.metric], n=len(texts))
            for record in unit.expected
        ]


def score(
    own: np.ndarray, english: np.ndarray, texts: list[str], translations: list[str], with_csls: bool = False
) -> dict[tuple[str, str], float]:
    """Acc@k by (direction, metric) of aligned vectors (n, d) and their texts."""
    right = same_text(texts, translations)
    similarity = cosine(english, own)
    found = {}
    for ending, matrix in [("", similarity), ("_csls", csls(similarity))] if with_csls else [("", similarity)]:
        for direction, scores in zip(DIRECTIONS, (matrix, matrix.T)):
            for metric, value in compute("acc_at_k", predictions=scores, k=TOP, right=right).items():
                found[direction, metric + ending] = value
    return found


def _metrics(context: Context) -> list[str]:
    endings = ("", "_csls") if context.options.csls else ("",)
    return [f"acc@{k}{ending}" for ending in endings for k in TOP]


SR_BIBLE = Retrieval("sr-bible", "bible_retrieval")
SR_TATOEBA = Retrieval("sr-tatoeba", "tatoeba")
SR_CLDR = Retrieval("sr-cldr", "cldr")  # the built-in phrases of the quickstart
