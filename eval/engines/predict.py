"""Fast prediction with a fine-tuned classifier or tagger, and the batches that training shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from langsamp.core.compute.kernels import fast_matmul, threads
from langsamp.eval.engines.encoder import batch_tokens
from langsamp.eval.engines.packed import Texts, halved, last_hidden_state, plan_batches
from langsamp.modeling_langsamp import LangSAMPForTokenClassification

Feature = dict[str, Any]  # input_ids: list[int], labels: int or list[int] of the same length
IGNORED = -100


def pad_batch(features: Sequence[Feature], pad_id: int, multiple: int = 1) -> dict[str, Tensor]:
    """Features as tensors (batch, length); labels of tokens are padded with -100.

    The length is that of the longest, or the next multiple: then every text has padding, and a batch without any is no
    other case for a compiler.
    """
    rows = [torch.as_tensor(feature["input_ids"], dtype=torch.long) for feature in features]
    longest = max(map(len, rows))
    extra = multiple - longest % multiple if multiple > 1 else 0

    def padded(parts: list[Tensor], filler: int) -> Tensor:
        return F.pad(pad_sequence(parts, batch_first=True, padding_value=filler), (0, extra), value=filler)

    batch = {"input_ids": padded(rows, pad_id), "attention_mask": padded([torch.ones_like(row) for row in rows], 0)}
    if "labels" in features[0]:
        labels = [torch.tensor(feature["labels"]) for feature in features]
        batch["labels"] = padded(labels, IGNORED) if labels[0].dim() else torch.stack(labels)
    return batch


@torch.inference_mode()
def predict(model: PreTrainedModel, inputs: Sequence[Sequence[int]], max_tokens: int | None = None) -> list[np.ndarray]:
    """Logits of each input, in the order given: (classes,) or, for tagging, (length, classes); float32.

    Sorted by length and packed without padding (engines/packed.py), in the dtype the model is in.

    Raises:
        RuntimeError: logits are not finite.
    """
    model.eval()
    order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
    found: list[np.ndarray] = [np.empty(0)] * len(inputs)
    max_tokens = max_tokens or batch_tokens(model.config, model.device, model.dtype)
    with threads():
        for batch in plan_batches([len(inputs[index]) for index in order], max_tokens):
            rows = [order[position] for position in batch]
            ids = [np.asarray(inputs[row]) for row in rows]
            for row, logits in zip(rows, halved(partial(_logits, model), ids, add)):
                if not np.isfinite(logits).all():
                    raise RuntimeError(
                        f"the model gives NaN or infinite logits in {model.dtype}: training broke it; try float32"
                    )
                found[row] = logits
    return found


def _logits(model: PreTrainedModel, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Logits of one batch that is sorted by length."""
    texts, classify = Texts(ids, model.device), getattr(model, "classifier", None)
    if model.config.model_type != "xlm-roberta" or classify is None:  # other families pool and classify in other ways
        return _stock_logits(model, texts)
    hidden = last_hidden_state(model.base_model, texts)
    if isinstance(model, LangSAMPForTokenClassification):
        tags = classify(hidden).float().cpu().numpy()
        return np.split(tags, texts.ends[:-1])
    logits: Tensor = classify(texts.first(hidden)[:, None])  # a sentence's head looks at <s> only
    return list(logits.float().cpu().numpy())


def _stock_logits(model: PreTrainedModel, texts: Texts) -> list[np.ndarray]:
    """The same by the model's own forward pass over a padded batch."""
    ids, inside = texts.padded(model.config.pad_token_id or 0)
    with fast_matmul():
        logits = model(input_ids=ids, attention_mask=inside.long()).logits
    if logits.dim() == 2:
        return list(logits.float().cpu().numpy())
    return np.split(logits[inside].float().cpu().numpy(), texts.ends[:-1])
