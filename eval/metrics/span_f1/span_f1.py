"""F1 of whole spans (named entities), from seqeval, as a module for `evaluate`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain

import datasets
import evaluate
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
from sklearn.metrics import accuracy_score

_DESCRIPTION = "Precision, recall and F1 of whole BIO spans (seqeval), and the accuracy of the tags."
_INPUTS = """
Args:
    predictions: for each sentence the predicted tags, e.g. ["B-PER", "I-PER", "O"].
    references: for each sentence the true tags.
Returns:
    precision, recall, f1, token_accuracy in 0..1, and n_spans, the number of true spans.
"""


class SpanF1(evaluate.Metric):
    """`compute(predictions=[["B-PER", "O"]], references=[["B-PER", "O"]])["f1"]` -> 1.0."""

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    @staticmethod
    def _compute(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """An `I-X` without a `B-X` starts a span (the CoNLL convention); without any span at all the three are 0.

        Tags without `B-`/`I-` (POS) become chunks of equal neighbours, as in the paper's POS score, which is not token
        accuracy.

        Raises:
            ValueError: there is no tag, or sentences differ in length.
        """
        sizes, guessed = list(map(len, references)), list(map(len, predictions))
        if len(sizes) != len(guessed):
            raise ValueError(f"{len(sizes)} references but {len(guessed)} predictions")
        for number, (a, b) in enumerate(zip(sizes, guessed)):
            if a != b:
                raise ValueError(f"sentence {number}: {a} reference tags but {b} predicted tags")
        if not sum(sizes):
            raise ValueError("a score needs at least one item")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seqeval warns of POS tags without B-/I- and of divisions by zero
            precision, recall, f1, support = precision_recall_fscore_support(
                [list(row) for row in references], [list(row) for row in predictions], average="micro", zero_division=0
            )
        true, tags = list(chain.from_iterable(references)), list(chain.from_iterable(predictions))
        return {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "n_spans": int(support),
            "token_accuracy": float(accuracy_score(true, tags)),
        }
