"""Fast prediction with a fine-tuned classifier or tagger, and the batches that training shares with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from langsamp.core.runtime import threads
from langsamp.eval.engines.encoder import MAX_TOKENS
from langsamp.eval.engines.packed import packed_hidden_states, plan_batches

Feature = dict[str, Any]  # input_ids: list[int], labels: int or list[int] of the same length
IGNORED = -100


def pad_batch(features: Sequence[Feature], pad_id: int) -> dict[str, Tensor]:
    """Features as tensors (batch, longest); labels of tokens are padded with -100."""
    longest = max(len(feature["input_ids"]) for feature in features)
    ids = torch.full((len(features), longest), pad_id)
    mask = torch.zeros_like(ids)
    for row, feature in enumerate(features):
        size = len(feature["input_ids"])
        ids[row, :size] = torch.tensor(feature["input_ids"])
        mask[row, :size] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    if "labels" in features[0]:
        if isinstance(features[0]["labels"], int):
            batch["labels"] = torch.tensor([feature["labels"] for feature in features])
        else:
            batch["labels"] = torch.full_like(ids, IGNORED)
            for row, feature in enumerate(features):
                batch["labels"][row, : len(feature["labels"])] = torch.tensor(feature["labels"])
    return batch


@torch.inference_mode()
def predict(
    model: PreTrainedModel, inputs: Sequence[Sequence[int]], max_tokens: int = MAX_TOKENS, progress: bool = False
) -> list[np.ndarray]:
    """Logits of each input, in the order given: (classes,) or, for tagging, (length, classes); float32.

    Sorted by length and packed without padding (engines/packed.py), in the dtype the model is in. RuntimeError for
    logits that are not finite.
    """
    model.eval()
    order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
    found: list[np.ndarray] = [np.empty(0)] * len(inputs)
    with threads(), tqdm(total=len(inputs), desc="predict", leave=False, disable=not progress) as bar:
        for batch in plan_batches([len(inputs[index]) for index in order], max_tokens):
            rows = [order[position] for position in batch]
            for row, logits in zip(rows, _logits(model, [np.asarray(inputs[row]) for row in rows])):
                if not np.isfinite(logits).all():
                    raise RuntimeError(f"the model gives NaN or infinite logits in {model.dtype}: training broke it")
                found[row] = logits
            bar.update(len(rows))
    return found


def _logits(model: PreTrainedModel, ids: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Logits of one batch that is sorted by length."""
    *_, (hidden, groups) = packed_hidden_states(model.roberta, ids)
    for group in groups:
        logits: Tensor = model.classifier(group.of(hidden))  # type: ignore[operator]  # a sentence's head looks at <s> only, a tagger's at every token
        yield from logits.float().cpu().numpy()
