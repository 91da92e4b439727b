"""The training data as torch sees it: sample number in, token block out, nothing to iterate and nothing to lose; and
the collator, which makes batches of samples: BERT's masking and the language and script ids.

Between sampling.py (which block a number stands for) and :mod:`langsamp.train.pretrain`. The Trainer cuts the numbers
0, 1, 2 ... into batches and deals the batches to the ranks in turn, so what all ranks see together is the
single-process stream. What a sample becomes is a pure function of (seed, sample index): it does not depend on the batch
it is in, on workers or on ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from langsamp.core.hashing import uniform
from langsamp.core.model.masking import IGNORED, SHARE, Masking
from langsamp.language_codes import match_script, suggest
from langsamp.train.batches.sampling import Plan
from langsamp.train.blocks.store import BlockStore


class BlockStream(Dataset):
    """Samples 0 to ``length - 1`` of a run.

    Args:
        store: where the blocks are.
        plan: which block each sample is.
        length: samples of the whole run.
        offset: added to every number: where this run's sample 0 lies in the plan (not 0 after a change of batch size).
    """

    def __init__(self, store: BlockStore, plan: Plan, length: int, offset: int = 0) -> None:
        self.store, self.plan, self.length, self.offset = store, plan, length, offset

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        """One sample: ``index`` (its number in the plan), ``language``, ``input_ids`` (block_size,) uint32."""
        return self.__getitems__([i])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The samples of a batch at once (torch's fetcher asks for it)."""
        return [
            {"index": index, "language": language, "input_ids": self.store.block(language, block)}
            for index, language, block in self.plan.draws([number + self.offset for number in numbers])
        ]

    def mix(self, first: int, count: int) -> dict[str, int]:
        """How often each language occurs among ``count`` samples from number ``first`` on; most frequent first."""
        start = first + self.offset
        return dict(Counter(draw.language for draw in self.plan.draws(range(start, start + count))).most_common())


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
        ids = np.full((len(arrays), length), self.mask.pad_id, np.int64)
        for row, array in zip(ids, arrays):
            row[: len(array)] = array
        return ids

    def _row(self, tag: str) -> tuple[int, int]:
        """Rows of the two tables for ``deu_Latn``."""
        if tag not in self._rows:
            language, _, script = tag.partition("_")
            language = self._same_as.get(language, language)
            script = match_script(script, list(self._scripts)) or script  # Hans in a table that has Hani
            self._rows[tag] = _find(language, self._languages, "language"), _find(script, self._scripts, "script")
        return self._rows[tag]


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
