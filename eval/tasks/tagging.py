"""Tagging (ner, pos): trained on one language, measured on every language of every data set there is.

As the paper does it (notes/paper.md 3.4): label on the first piece of a word, seqeval F1, chosen by the source's dev F1
every 1,000 updates. For POS the seqeval F1 is a chunk F1 that merges equal neighbours and confuses CCONJ with SCONJ, so
the plain token accuracy is recorded beside it: `f1` and `accuracy` are two metrics, never one number.
Unlike the official code, a word whose text gives no piece is `<unk>`, so every word has a tag (theirs shifts the tags);
a sentence ends in one `</s>` as in pretraining (theirs in two); a word with an unknown label has a defined one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from langsamp.core.record import Record
from langsamp.eval.data.columns import DataError, columns_of
from langsamp.eval.engines.encoder import load_backend
from langsamp.eval.engines.finetune import Tuned
from langsamp.eval.engines.predict import IGNORED, Feature
from langsamp.eval.engines.recipe import Job, Recipe, recipe_settings, task_name
from langsamp.eval.metrics import compute
from langsamp.eval.task import Context, Unit
from langsamp.unicode_scripts import valid_unicode

logger = logging.getLogger(__name__)

NER_LABELS = ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
POS_LABELS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM",
    "VERB", "X",
)  # fmt: skip

Sentence = tuple[list[str], list[str]]  # words, tags


@dataclass(frozen=True)
class Chunk:
    """A piece of a sentence that fits into the model: which words, their first pieces, the token ids."""

    sentence: int
    words: range
    starts: list[int]
    ids: list[int]


class WordTokenizer:
    """Cuts sentences of given words into chunks of token ids; every word is segmented once."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.first, self.last = _specials(tokenizer)
        known = (tokenizer.token_to_id(name) for name in ("<unk>", "[UNK]"))
        self.unknown: int = next((number for number in known if number is not None), 0)
        bare, spaced = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("a", " a"))
        self.before = "" if bare == spaced else " "  # byte-level BPE and Gemma's know a word by the space before it
        self._pieces: dict[str, list[int]] = {}

    def pieces(self, words: Sequence[str]) -> list[list[int]]:
        """Piece ids of each word, at least one; a word longer than a whole chunk is cut."""
        new = [word for word in dict.fromkeys(words) if word not in self._pieces]
        clean = [valid_unicode(self.before + word) for word in new]
        for word, encoding in zip(new, self.tokenizer.encode_batch_fast(clean, add_special_tokens=False)):
            most = self.max_length - len(self.first) - len(self.last)
            self._pieces[word] = encoding.ids[:most] or [self.unknown]
        return [self._pieces[word] for word in words]

    def chunks(self, sentences: Sequence[Sentence]) -> list[Chunk]:
        """All chunks in order; a sentence that does not fit is cut between words, one without words has no chunk."""
        found = []
        for number, (words, _) in enumerate(sentences):
            begin = 0
            starts: list[int] = []
            ids = [*self.first]
            for position, pieces in enumerate(self.pieces(words)):
                if len(ids) + len(pieces) + len(self.last) > self.max_length:
                    found.append(Chunk(number, range(begin, position), starts, [*ids, *self.last]))
                    begin, starts, ids = position, [], [*self.first]
                starts.append(len(ids))
                ids.extend(pieces)
            if starts:
                found.append(Chunk(number, range(begin, len(words)), starts, [*ids, *self.last]))
        return found


def _specials(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind a text, usually one token each."""
    whole, bare = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


@dataclass(frozen=True)
class Tagging:
    """A task over all data sets in its folder: `ner/wikiann`, `ner/uner` ... become tasks `ner-wikiann`, `ner-uner` ...

    `other` is the tag of words whose label is not in `labels` (the protocol's O for NER and X for POS).
    """

    name: str
    labels: tuple[str, ...]
    other: str
    metrics: tuple[str, ...]
    recipe: Recipe
    seeds: tuple[int, ...] = (1,)

    def languages(self, context: Context) -> list[str]:
        """Tags with data in any of the data sets."""
        folders = context.data.folders(self.name)
        return sorted({tag for folder in folders or [self.name] for tag in context.data.languages(folder)})

    def settings(self, context: Context) -> dict[str, Any]:
        """The recipe, and the data set trained on: one more data set may have more sentences."""
        return {**recipe_settings(self.recipe.changed(context.options)), "trained on": self.source_folder(context)}

    def units(self, context: Context, languages: list[str]) -> list[Unit]:
        """For each seed the source's dev score (the training), then for each seed each language of each data set."""
        recipe, source = self.recipe.changed(context.options), context.train_language
        seeds, name = context.seeds or self.seeds, task_name(self.name, recipe)
        folders = {folder: context.data.languages(folder) for folder in context.data.folders(self.name)}

        def wanted(folder: str, tag: str, seed: int) -> list[Record]:
            task = task_name(folder.replace("/", "-"), recipe)
            return [context.record(task, tag, metric, source=source, seed=seed) for metric in self.metrics]

        dev = {seed: context.record(name, source, "dev_f1", source=source, seed=seed) for seed in seeds}
        sources = [f"{folder}/{source}" for folder, tags in folders.items() if source in tags]
        trained = [Unit(None, [record], sources, trains=True) for record in dev.values()]
        return trained + [
            Unit(tag, wanted(folder, tag, seed), [*sources, f"{folder}/{tag}"], about=folder, stage=1)
            for seed in seeds
            for folder, tags in folders.items()
            for tag in sorted({*languages} & {*tags})
        ]

    def compute(self, context: Context, unit: Unit) -> list[Record]:
        """The dev score, or the numbers of one language in one data set."""
        recipe, seed = self.recipe.changed(context.options), unit.expected[0].seed or 0
        tagger = context.shared("tagger", lambda: Tagger(context, self, recipe, seed))
        if unit.language is None:
            return [tagger.dev_record(unit.expected[0])]
        return tagger.measure(unit.about, unit.language, unit.expected)

    def read(self, context: Context, folder: str, tag: str, split: str) -> list[Sentence]:
        """Sentences with at least one word; labels outside the label set become `other`, with a count in the log.

        Raises:
            DataError: words and tags differ in number, or no label at all is known (numbers, another tag set).
        """
        rows = context.data.rows(folder, tag, columns_of(folder), split)
        sentences, labels = rows.values()
        known, strange, found = set(self.labels), Counter[str](), []
        for number, (words, tags) in enumerate(zip(sentences, labels)):
            if len(words) != len(tags):
                raise DataError(f"{folder}/{tag}, {split} sentence {number}: {len(words)} words but {len(tags)} tags")
            strange.update(str(label) for label in tags if label not in known)
            if words:
                found.append(([str(word) for word in words], [x if x in known else self.other for x in tags]))
        if strange:
            names = ", ".join(f"{label} ({count})" for label, count in strange.most_common(5))
            if sum(strange.values()) == sum(map(len, labels)):
                raise DataError(f"{folder}/{tag}: no {split} label is one of {', '.join(self.labels)}; found {names}")
            logger.warning("%s/%s: unknown labels count as %s: %s", folder, tag, self.other, names)
        return found

    def source_folder(self, context: Context) -> str:
        """The data set with the most training sentences in the source language.

        Raises:
            DataError: none has any.
        """
        sizes = {}
        for folder in context.data.folders(self.name):
            if context.train_language in context.data.languages(folder):
                sizes[folder] = len(context.data.rows(folder, context.train_language, ["tokens"], "train")["tokens"])
        if not any(sizes.values()):
            raise DataError(
                f"{self.name} has no train sentences in {context.train_language}, the language to train on; "
                "--train-language names another"
            )
        return max(sizes, key=lambda folder: sizes[folder])


@dataclass
class Tagger:
    """A fine-tuned tagger of one seed; trained when its first number is needed."""

    context: Context
    task: Tagging
    recipe: Recipe
    seed: int

    @cached_property
    def _words(self) -> WordTokenizer:
        return WordTokenizer(load_backend(self.context.source.path, self.recipe.max_length), self.recipe.max_length)

    @cached_property
    def _splits(self) -> dict[str, list[Sentence]]:
        folder = self.task.source_folder(self.context)
        tag = self.context.train_language
        return {split: self.task.read(self.context, folder, tag, split) for split in ("train", "dev")}

    @cached_property
    def _tuned(self) -> Tuned:
        context, labels = self.context, self.task.labels
        name = task_name(self.task.name, self.recipe)
        job = Job(context.source, "token", name, context.train_language, self.seed, labels, self.recipe, context.dtype)

        def data() -> tuple[list[Feature], list[Feature]]:
            return self.features(self._splits["train"]), self.features(self._splits["dev"])

        def score(predicted: np.ndarray, true: np.ndarray) -> float:
            """Span F1; a dev sentence that is cut counts as two."""
            names = np.asarray(labels)
            rows = [(names[p[t != IGNORED]].tolist(), names[t[t != IGNORED]].tolist()) for p, t in zip(predicted, true)]
            guessed, gold = zip(*rows)
            return float(compute("span_f1", predictions=guessed, references=gold)["f1"])

        return Tuned(job, data, score, context.output, context.tell)

    def features(self, sentences: Sequence[Sentence]) -> list[Feature]:
        """Chunks as the Trainer wants them: the label number at each word's first piece, else -100."""
        number = {label: index for index, label in enumerate(self.task.labels)}
        found = []
        for chunk in self._words.chunks(sentences):
            labels = [IGNORED] * len(chunk.ids)
            for start, word in zip(chunk.starts, chunk.words):
                labels[start] = number[sentences[chunk.sentence][1][word]]
            found.append({"input_ids": chunk.ids, "labels": labels})
        return found

    def tag(self, sentences: Sequence[Sentence]) -> list[list[str]]:
        """A tag for every word of every sentence."""
        chunks = self._words.chunks(sentences)
        found: list[list[str]] = [[] for _ in sentences]
        for chunk, logits in zip(chunks, self._tuned.predict([chunk.ids for chunk in chunks])):
            found[chunk.sentence] += [self.task.labels[int(i)] for i in logits[chunk.starts].argmax(-1)]
        return found

    def dev_record(self, expected: Record) -> Record:
        """Train if need be; the best dev F1."""
        score = self._tuned.trained[1]
        return replace(expected, value=score, n=len(self._splits["dev"]))

    def measure(self, folder: str, tag: str, expected: Sequence[Record]) -> list[Record]:
        """The task's metrics on one language's test sentences; n counts true spans for `f1`, words for `accuracy`.

        Raises:
            DataError: there is no sentence with words.
        """
        test = self.task.read(self.context, folder, tag, "test")
        if not test:
            raise DataError(f"{folder}/{tag} has no test sentences with words")
        true, predicted = [tags for _, tags in test], self.tag(test)
        scores = compute("span_f1", predictions=predicted, references=true)
        found = {"f1": (scores["f1"], scores["n_spans"]), "accuracy": (scores["token_accuracy"], sum(map(len, true)))}
        return [replace(record, value=found[record.metric][0], n=found[record.metric][1]) for record in expected]


_RECIPE = Recipe(learning_rate=2e-5, epochs=10, batch_size=8, accumulation=4, max_length=256, eval_steps=1000)
NER = Tagging("ner", NER_LABELS, "O", ("f1",), _RECIPE)
POS = Tagging("pos", POS_LABELS, "X", ("accuracy", "f1"), _RECIPE)
