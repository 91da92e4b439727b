"""Blocks to batches: BERT's masking and the language and script ids, in a few vectorised numpy steps.

Between :mod:`langsamp.train.batches.sampling` and the model. What a sample becomes is a pure function of (seed, sample
index): it does not depend on the batch it is in, on workers or on ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from langsamp.core.hashing import uniform
from langsamp.core.model.masking import IGNORED, SHARE, Masking
from langsamp.language_codes import match_script, suggest


class Collator:
    """Makes a batch of samples ``{"index": int, "language": "deu_Latn", "input_ids": (length,) ids}``.

    Args:
        tokenizer: a transformers tokenizer: its special ids and vocabulary are read once.
        languages: ``config.languages`` (row 0 is unknown); an empty list: no ``lang_ids`` are made.
        scripts: ``config.scripts`` likewise.
        seed: of masking and language dropout.
        mlm_probability: share of positions chosen.
        lang_dropout: probability that a sample's language and script become unknown (0, 0), which trains these rows.
        dropout_from: number of the first sample that this can happen to.
        same_as: language -> the language whose row it trains.
        positions: also give ``masked_positions``, filled up to a multiple of this, and no ``attention_mask`` where
            nothing is padded: so that a GPU need not be asked how many tokens are masked or whether the mask says
            anything. 0: neither.

    Raises:
        ValueError: the tokenizer has no mask or pad token, or a probability is not in [0, 1].
    """

    def __init__(
        self,
        tokenizer: Any,
        languages: Sequence[str] = (),
        scripts: Sequence[str] = (),
        seed: int = 42,
        mlm_probability: float = SHARE,
        lang_dropout: float = 0.0,
        dropout_from: int = 0,
        same_as: Mapping[str, str] | None = None,
        positions: int = 0,
    ) -> None:
        if not 0 <= lang_dropout <= 1:
            raise ValueError(f"lang_dropout is {lang_dropout}; a probability is between 0 and 1.")
        self.seed, self.lang_dropout, self.dropout_from = seed, lang_dropout, dropout_from
        self.positions = positions
        self.mask = Masking(tokenizer, seed, mlm_probability)
        self._languages = {code: row for row, code in enumerate(languages)}
        self._scripts = {code: row for row, code in enumerate(scripts)}
        self._same_as = dict(same_as or {})
        self._rows: dict[str, tuple[int, int]] = {}

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """The batch.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels``: int64 (batch, length), shorter samples padded;
            ``lang_ids``, ``script_ids``: int64 (batch,), unless the model has no such table. With ``positions`` see
            above: ``masked_positions``, int64 (N,), is what the model's forward takes.

        Raises:
            ValueError: an id outside the vocabulary, or a language without a row.
        """
        ids = self._stack([sample["input_ids"] for sample in samples])
        index = np.array([sample["index"] for sample in samples], np.int64)
        masked, labels = self.mask(ids, index)
        real = ids != self.mask.pad_id
        batch = {"input_ids": masked, "attention_mask": real.astype(np.int64), "labels": labels}
        if self.positions:
            found = np.flatnonzero(labels != IGNORED)
            fill = -len(found) % self.positions
            batch["masked_positions"] = np.concatenate([found, np.full(fill, -1)])
            if real.all():
                del batch["attention_mask"]
        rows = np.array([self._row(sample["language"]) for sample in samples], np.int64).reshape(-1, 2)
        if self.lang_dropout:
            dropped = uniform(self.seed, 5, index) < self.lang_dropout
            rows[dropped & (index >= self.dropout_from)] = 0
        if self._languages:
            batch["lang_ids"] = rows[:, 0].copy()
        if self._scripts:
            batch["script_ids"] = rows[:, 1].copy()
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _stack(self, rows: Sequence[Any]) -> np.ndarray:
        """Rows of ids in one array, shorter ones padded on the right."""
        arrays = [np.asarray(row) for row in rows]
        length = max((len(array) for array in arrays), default=0)
        if all(len(array) == length for array in arrays) and arrays:
            return np.stack(arrays).astype(np.int64)
        ids = np.full((len(arrays), length), self.mask.pad_id, np.int64)
        for row, array in zip(ids, arrays):
            row[: len(array)] = array
        return ids

    def _row(self, tag: str) -> tuple[int, int]:
        """Rows of the two tables for ``deu_Latn``."""
        found = self._rows.get(tag)
        if found is None:
            language, _, script = tag.partition("_")
            language = self._same_as.get(language, language)
            found = (_find(language, self._languages, "language"), _find_script(script, self._scripts))
            self._rows[tag] = found
        return found


def _find(code: str, table: Mapping[str, int], what: str) -> int:
    """The row of a code; 0 if there is no table.

    Raises:
        ValueError: the table has no such code.
    """
    if not table:
        return 0
    if code not in table:
        raise ValueError(
            f"the store has text in the {what} {code!r}, but the model has no row for it; nearest: "
            f"{', '.join(suggest(code, list(table)))}. Start the model from this store, or leave the {what} out."
        )
    return table[code]


def _find_script(code: str, table: Mapping[str, int]) -> int:
    """As :func:`_find`; scripts of the same writing stand for each other (Hans in a table that has Hani)."""
    return _find(match_script(code, list(table)) or code, table, "script") if table else 0
