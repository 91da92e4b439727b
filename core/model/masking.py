"""Masked language modelling's masks: which tokens are to be predicted, and what stands in their place.

A function of (seed, sample index): it does not depend on the batch a sample is in, on workers or on ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from langsamp.core.hashing import bits

IGNORED = -100  # label of positions without loss
SHARE = 0.15  # of the tokens are to be predicted, unless told otherwise
_CHUNK = 1 << 32


class Masking:
    """BERT's masking (Devlin et al. 2019; paper.md section 2).

    Of the positions that are neither special nor padding a share is chosen; of these 80 % become ``<mask>``, 10 % a
    random ordinary piece, 10 % stay.

    Args:
        tokenizer: a transformers tokenizer: its special ids and vocabulary are read once.
        seed: of the masks.
        probability: share of positions chosen.

    Raises:
        ValueError: the tokenizer has no mask or pad token, or the probability is not in [0, 1].
    """

    def __init__(self, tokenizer: Any, seed: int = 42, probability: float = SHARE) -> None:
        if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no mask or no pad token; masked language modelling needs both.")
        if not 0 <= probability <= 1:
            raise ValueError(f"mlm_probability is {probability}; a probability is between 0 and 1.")
        self.seed, self.probability = seed, probability
        self.mask_id, self.pad_id = int(tokenizer.mask_token_id), int(tokenizer.pad_token_id)
        self._special = np.zeros(len(tokenizer), bool)
        self._special[[int(i) for i in tokenizer.all_special_ids]] = True
        self._ordinary = np.flatnonzero(~self._special)

    def __call__(self, ids: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mask the samples with these indices.

        Args:
            ids: (batch, length) token ids.
            index: (batch,) the number of each sample, int64.

        Returns:
            New ids and labels (:data:`IGNORED` where nothing is predicted), int64 (batch, length).

        Raises:
            ValueError: an id outside the vocabulary.
        """
        random, chosen = self._chosen(ids, index)
        row, column = np.nonzero(chosen)
        labels = np.full(ids.shape, IGNORED, np.int64)
        labels[row, column] = ids[row, column]
        action = (random[row, column] >> np.uint64(32)) & np.uint64(0xFFFF)
        masked = ids.astype(np.int64)
        to_mask = action < np.uint64(52429)  # 0.8 * 65536
        masked[row[to_mask], column[to_mask]] = self.mask_id
        swap = (action >= np.uint64(52429)) & (action < np.uint64(58982))  # 0.9 * 65536
        row, column = row[swap], column[swap]
        other = bits(random[row, column], 1) % np.uint64(len(self._ordinary))
        masked[row, column] = self._ordinary[other.astype(np.int64)]
        return masked, labels

    def chosen(self, ids: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Which positions are to be predicted: a bool for each of (batch, length) ids; for arguments see the call."""
        return self._chosen(ids, index)[1]

    def _chosen(self, ids: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One 64-bit number a position, and which are chosen by it."""
        if ids.size and int(ids.max()) >= len(self._special):
            raise ValueError(
                f"token id {int(ids.max())} is outside the tokenizer's vocabulary of {len(self._special)}; "
                "the store was made with another tokenizer."
            )
        # 32 bits choose the position, 16 say what it becomes, 16 are not used
        random = bits(bits(self.seed, 4, index)[:, None], np.arange(ids.shape[1]))
        chosen = (random & np.uint64(_CHUNK - 1)) < np.uint64(round(self.probability * _CHUNK))
        return random, chosen & ~self._special[ids]
