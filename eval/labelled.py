"""Labelled sentences of one language: what the classification tasks, the probe and the donor study read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from langsamp.eval.data.columns import DataError, columns_of
from langsamp.eval.task import Context

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples:
    """Texts and their labels, of one language and split."""

    texts: list[str]
    labels: list[str]


def read_examples(context: Context, folder: str, tag: str, split: str) -> Examples:
    """One language's split; texts without a label are left out. May be empty."""
    rows = context.data.rows(folder, tag, columns_of(folder), split)
    keep = [index for index, label in enumerate(rows["label"]) if label not in (None, "")]
    return Examples([rows["text"][i] for i in keep], [str(rows["label"][i]) for i in keep])


def usable(context: Context, folder: str, tags: Sequence[str], split: str) -> list[str]:
    """The tags with labelled sentences in a split; one whose data cannot be used is left out, with a warning."""
    found = []
    for tag in tags:
        try:
            found += [tag] if read_examples(context, folder, tag, split).texts else []
        except DataError as error:
            logger.warning("%s is left out: %s", tag, error)
    return found


def read_texts(context: Context, folder: str, tag: str) -> list[str]:
    """Sentences to characterise a language by: its dev split (parallel in SIB-200), else test, else train."""
    for split in ("dev", "test", "train"):
        if texts := list(context.data.rows(folder, tag, ["text"], split)["text"]):
            return texts
    return []


def read_test(context: Context, folder: str, tag: str, known: Sequence[str]) -> Examples:
    """The test split.

    A label the source never showed stays: no model can predict it, so it counts as a class with F1 0, with a warning.

    Raises:
        DataError: it is empty, or the source showed none of its labels (numbers, another language's names).
    """
    test = read_examples(context, folder, tag, "test")
    if not test.texts:
        raise DataError(f"{folder}/{tag} has no test sentences with a label")
    unknown = sorted(set(test.labels) - set(known))
    if len(unknown) == len(set(test.labels)):
        raise DataError(f"{folder}/{tag}: no test label is one of {', '.join(known)}; found {', '.join(unknown)}")
    if unknown:
        logger.warning("%s/%s: labels that training never showed count as wrong: %s", folder, tag, ", ".join(unknown))
    return test


@dataclass(frozen=True)
class Source:
    """The language trained on: its train and dev split, read when first needed."""

    context: Context
    folder: str
    tag: str

    @cached_property
    def train(self) -> Examples:
        """The train split; a DataError without two classes at least: there would be nothing to learn."""
        train = read_examples(self.context, self.folder, self.tag, "train")
        if (classes := len(set(train.labels))) < 2:
            raise DataError(
                f"{self.folder}/{self.tag} cannot be trained on: it has {len(train.texts)} train sentences "
                f"of {classes} classes; choose another source language"
            )
        return train

    @cached_property
    def dev(self) -> Examples:
        """The dev split; a DataError if it is empty."""
        dev = read_examples(self.context, self.folder, self.tag, "dev")
        if not dev.texts:
            raise DataError(
                f"{self.folder}/{self.tag} has no dev sentences to choose the model by; mark some in its column split"
            )
        return dev

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted(set(self.train.labels)))
