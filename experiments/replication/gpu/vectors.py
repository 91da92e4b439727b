"""Sentence vectors of a model, made once where the model is and read by whoever measures.

All sentences of the frozen tasks are known before the first model is trained: they are tokenised once, and each model
gives all layers of all of them in one go, in its own process, while it lies on the card. The tasks of `langsamp eval`
then run unchanged in other processes; :class:`Kept` stands in for their encoder.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import XLMRobertaConfig

from langsamp.core.runtime import pick_device
from langsamp.eval.engines.encoder import MAX_TOKENS, batch_tokens, load_backend
from langsamp.eval.engines.packed import Texts, hidden_states, plan_batches
from langsamp.eval.task import Context
from langsamp.unicode_scripts import valid_unicode

FOLDERS = ("bible_retrieval", "tatoeba", "sib200", "taxi1500")
SENTENCES, VECTORS = "sentences.json", "vectors.npy"
MAX_LENGTH = 512


class Sentences:
    """The sentences of the test sets in a folder, each once, and their tokens.

    Args:
        data: the folder; the list of sentences is written into it.
        tokenizer: folder of the tokenizer that all models share.
    """

    def __init__(self, data: Path, tokenizer: Path) -> None:
        texts: dict[str, None] = {}
        for path in sorted(path for folder in FOLDERS for path in (data / folder).glob("*.parquet")):
            table = pq.read_table(path)
            for column in {"text", "english"} & set(table.column_names):
                texts.update(dict.fromkeys(table.column(column).to_pylist()))
        self.texts = list(texts)
        (data / SENTENCES).write_text(json.dumps(self.texts), encoding="utf-8")
        cut = load_backend(tokenizer, MAX_LENGTH)
        ids = [np.asarray(found.ids) for found in cut.encode_batch_fast([valid_unicode(text) for text in self.texts])]
        self.device = pick_device()
        self.dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        order = np.argsort([len(text) for text in ids], kind="stable")
        most = batch_tokens(XLMRobertaConfig.from_pretrained(tokenizer), self.device, self.dtype)
        batches = [order[places] for places in plan_batches([len(ids[row]) for row in order], most)]
        self._batches = [(rows, Texts([ids[row] for row in rows], self.device)) for rows in batches]

    @torch.inference_mode()
    def vectors(self, encoder: Any) -> np.ndarray:
        """Means over the tokens of each sentence at every layer: (layers, sentences, hidden), half precision.

        The encoder (an XLMRobertaModel on the device) computes in bfloat16 on a GPU and is left as it was.
        """
        model = copy.deepcopy(encoder).to(self.dtype).eval()
        shape = (model.config.num_hidden_layers, len(self.texts), model.config.hidden_size)
        found = torch.empty(shape, dtype=torch.float16, device=self.device)
        for rows, texts in self._batches:
            for layer, hidden in enumerate(hidden_states(model, texts)):
                if layer:  # 0 is the embeddings
                    found[layer - 1, texts.send(rows)] = texts.means(hidden).half()
        return found.cpu().numpy()


@dataclass
class KeptContext(Context):
    """A context whose encoder reads vectors that were made before, from `kept`; without it an ordinary one."""

    kept: Path | None = None

    def encoder(self, layers: tuple[int, ...]) -> Any:
        """The stand-in."""
        return super().encoder(layers) if self.kept is None else Kept(self.kept, self.data.root or Path(), layers)


class Kept:
    """Looks sentences up instead of encoding them; a sentence's "tokens" are its place in the list."""

    max_tokens, tell = MAX_TOKENS, None

    def __init__(self, kept: Path, data: Path, layers: tuple[int, ...]) -> None:
        self.layers, self._place = layers, _places(data)
        self._vectors = np.load(kept, mmap_mode="r")
        self.hidden_size = self._vectors.shape[-1]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(layers, texts, hidden).

        Raises:
            KeyError: a sentence is in no test set.
        """
        return self.encode_ids(self.tokenize(texts)).numpy()

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The place of each."""
        return [np.array([self._place[text]], np.int32) for text in texts]

    def encode_ids(self, ids: Sequence[np.ndarray]) -> Tensor:
        """(layers, texts, hidden), single precision."""
        where = np.concatenate([np.empty(0, np.int32), *ids])
        return torch.from_numpy(np.stack([self._vectors[layer - 1][where].astype(np.float32) for layer in self.layers]))

    def check_finite(self, vectors: np.ndarray) -> None:
        """Nothing here: a record that is not finite is an error of its own."""


@cache
def _places(data: Path) -> dict[str, int]:
    return {text: place for place, text in enumerate(json.loads((data / SENTENCES).read_text(encoding="utf-8")))}


def device_name() -> str:
    """What the numbers were made on."""
    return torch.cuda.get_device_name() if pick_device().type == "cuda" else "CPU"
