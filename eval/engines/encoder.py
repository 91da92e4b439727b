"""From sentences to vectors: any encoder that LangSAMP knows, one or several layers, mean-pooled; for frozen tasks.

Fast without changing the numbers: only the layers needed are loaded and run, texts are sorted by length and packed
without padding, equal texts are encoded once, fp32 products take the fast exact kernels (performance notes, section 4).
On a GPU a batch is as large as the card bears, and the host prepares the next one while the card works.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

from langsamp.core.compute.kernels import products, threads
from langsamp.core.model import tokenizer as core
from langsamp.core.model.config import read_config
from langsamp.core.record import protocol_layer
from langsamp.core.runtime import ModelSource, pick_device, resolve_model
from langsamp.eval.engines.packed import Texts, halved, hidden_states, plan_batches
from langsamp.modeling_langsamp import LangSAMPForMaskedLM, LangSAMPModel
from langsamp.unicode_scripts import valid_unicode

logger = logging.getLogger(__name__)

MAX_TOKENS = 4096  # a batch: fills the matrix units of a CPU; measured best there
MOST_TOKENS = 2**17  # a batch on a GPU, if its memory allows
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}  # of the weights


def parse_layers(spec: str | int | Iterable[int], n_layers: int) -> tuple[int, ...]:
    """`8`, `last`, `all`, `4,8,12` or numbers -> layers; layer k is the output of block k (0: the embeddings).

    Where the blocks do not normalise what they give, it is that after the encoder's last norm (engines/packed.py).

    Raises:
        ValueError: the model has no such layer.
    """
    if spec == "all":
        return tuple(range(1, n_layers + 1))
    parts = spec.split(",") if isinstance(spec, str) else [spec] if isinstance(spec, int) else list(spec)
    layers = []
    for part in parts:
        text = str(part).strip()
        if not (text == "last" or text.isdigit()) or (text.isdigit() and int(text) > n_layers):
            raise ValueError(
                f"layer {text!r} does not exist: the model has layers 1 to {n_layers} (0: the embeddings; "
                "also 'last', 'all', and lists like 4,8)"
            )
        layers.append(n_layers if text == "last" else int(text))
    return tuple(sorted(set(layers)))


def load_backend(folder: Path, max_length: int) -> Tokenizer:
    """The checkpoint's tokenizer, cutting at `max_length` tokens (specials included). No code of the folder is run.

    Raises:
        FileNotFoundError: the folder has none.
    """
    tokenizer = core.load_tokenizer(folder).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def load_backbone(folder: Path, n_layers: int, dtype: torch.dtype = torch.float32) -> LangSAMPModel:
    """The encoder up to block `n_layers`, in eval mode on the CPU; weights of other layers are not read.

    Raises:
        FileNotFoundError: the folder has no safetensors weights.
        RuntimeError: tensors are missing.
    """
    return _load_whole(LangSAMPModel, folder, num_hidden_layers=n_layers, dtype=dtype)


def load_masked_lm(folder: Path, dtype: torch.dtype = torch.float32) -> LangSAMPForMaskedLM:
    """The masked-LM model of a folder, in eval mode on the CPU; a stock one has no language rows.

    Raises:
        FileNotFoundError: the folder has no safetensors weights.
        RuntimeError: tensors are missing.
    """
    return _load_whole(LangSAMPForMaskedLM, folder, dtype=dtype)


def load_quietly(kind: Any, folder: Path, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """`from_pretrained` without the report on tensors that are left out on purpose."""
    verbosity, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, output_loading_info=True, local_files_only=True, **settings)
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()


def _load_whole(kind: Any, folder: Path, **settings: Any) -> Any:
    model, info = load_quietly(kind, folder, **settings)
    if lost := model.config.family.lacking(info["missing_keys"]):
        raise RuntimeError(
            f"the weights in {folder} lack {len(lost)} tensors, the first is {lost[0]}: this is not a "
            f"whole {model.config.family.stock} checkpoint of this kind; save or download it again"
        )
    return model.eval()


def batch_tokens(config: Any, device: torch.device, dtype: torch.dtype) -> int:
    """Tokens in a batch: what fills a CPU, or what takes a quarter of a card's memory.

    The whole memory counts, not what is free now: the same batches on the same kind of card give the same numbers.
    """
    if device.type != "cuda":
        return MAX_TOKENS
    token = (10 * config.hidden_size + 3 * config.intermediate_size) * dtype.itemsize  # bytes alive within a layer
    fits = torch.cuda.get_device_properties(device).total_memory // 4 // token
    return min(MOST_TOKENS, max(MAX_TOKENS, 2 ** (int(fits).bit_length() - 1)))


class Encoder:
    """Sentence vectors of a checkpoint.

    Args:
        spec: a folder, a Hub id, `repo@revision`, or a resolved ModelSource. LangSAMP and stock encoders alike; none
            needs a language.
        layers: layers to return, see `parse_layers`; default the paper's. Blocks above the highest are neither loaded
            nor run.
        pooling: "mean" over the tokens, or "first" (`<s>`).
        special_tokens: count `<s>` and `</s>` in the mean, as the paper's protocol does.
        prefix: put before every sentence ("query: " for the e5 family).
        max_length: tokens after which a text is cut, specials included; no more than the model has positions for.
        dtype: "float32" (exact), "tf32" (fp32 weights, products of rounded numbers; CUDA only) or "bfloat16".
        max_tokens: tokens in a batch (default: `batch_tokens`). tell: called with how far a long set of texts is.

    A text without tokens gets the mean of its specials, or zeros if `special_tokens` is off. Lone surrogates are
    replaced by U+FFFD.
    """

    def __init__(
        self,
        spec: str | os.PathLike[str] | ModelSource,
        layers: str | int | Iterable[int] | None = None,
        pooling: str = "mean",
        *,
        special_tokens: bool = True,
        prefix: str = "",
        max_length: int = 512,
        dtype: str = "float32",
        max_tokens: int | None = None,
        device: str | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        if pooling not in ("mean", "first"):
            raise ValueError(f"pooling is 'mean' or 'first', not {pooling!r}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
        self.source = spec if isinstance(spec, ModelSource) else resolve_model(spec)
        self.device = pick_device(device)
        if dtype == "tf32" and self.device.type != "cuda":
            raise ValueError(
                f"dtype tf32 is for CUDA cards; this device is {self.device.type}: take float32 or bfloat16"
            )
        config = read_config(self.source.path)
        depth = config.num_hidden_layers
        self.layers = (protocol_layer(depth),) if layers is None else parse_layers(layers, depth)
        self.max_length = min(max_length, config.max_tokens)
        self.tokenizer = load_backend(self.source.path, self.max_length)
        self.model = load_backbone(self.source.path, max(self.layers), DTYPES[dtype])
        torch.nn.Module.to(self.model, self.device)
        self.pooling, self.special_tokens, self.prefix, self.dtype = pooling, special_tokens, prefix, dtype
        self.max_tokens = max_tokens or batch_tokens(config, self.device, DTYPES[dtype])
        self.tell = tell
        self.hidden_size: int = config.hidden_size
        added = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        if added not in (0, 2) and not special_tokens:
            raise ValueError(
                f"the tokenizer of {self.source.name} puts {added} special tokens around a text, not one on each side; "
                "leave out --no-special-tokens"
            )
        self._special = int(added == 2 and not special_tokens)
        self._check_ids(config)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (layers, texts, hidden), float32, layers in rising order.

        The result for a set of texts does not depend on their order.

        Raises:
            RuntimeError: the model gives NaN.
        """
        return Pool(self, texts).vectors(texts)

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids (int32) of each text with its prefix and specials, cut at `max_length`."""
        found = self.tokenizer.encode_batch_fast([valid_unicode(self.prefix + text) for text in texts])
        lists = [encoding.ids for encoding in found]
        flat = np.fromiter(chain.from_iterable(lists), dtype=np.int32)  # one array: thousands of small ones are slow
        ends = list(accumulate(map(len, lists), initial=0))
        return [flat[start:end] for start, end in pairwise(ends)]

    def encode_ids(self, ids: Sequence[np.ndarray]) -> torch.Tensor:
        """Vectors (layers, texts, hidden), float32 on the device, of a batch of token ids that is sorted by length."""
        found: torch.Tensor = halved(self._forward, ids, lambda *parts: torch.cat(parts, dim=1))
        return found

    @torch.inference_mode()
    def _forward(self, ids: Sequence[np.ndarray]) -> torch.Tensor:
        empty = sum(not len(text) for text in ids)  # they come first and stay zero
        vectors = torch.zeros((len(self.layers), len(ids), self.hidden_size), device=self.device)
        if empty < len(ids):
            texts = Texts(ids[empty:], self.device)
            with threads(), products(self.dtype):
                for layer, hidden in enumerate(hidden_states(self.model, texts)):
                    if layer in self.layers:
                        rows = texts.means(hidden, self._special) if self.pooling == "mean" else texts.first(hidden)
                        vectors[self.layers.index(layer), empty:] = rows
        return vectors

    def _check_ids(self, config: Any) -> None:
        """A tokenizer with more tokens than the model has rows would read past the table."""
        top = max(self.tokenizer.get_vocab(with_added_tokens=True).values())
        if top >= config.vocab_size:
            raise ValueError(
                f"the tokenizer in {self.source.path} has token id {top}, but the model only "
                f"{config.vocab_size} rows: they do not belong together; take its own tokenizer"
            )

    def check_finite(self, vectors: np.ndarray) -> None:
        """Refuse NaN and infinite vectors (layers, texts, hidden) with a RuntimeError that names the layer."""
        if not np.isfinite(vectors).all():
            layer = next(layer for layer, part in zip(self.layers, vectors) if not np.isfinite(part).all())
            remedy = "" if self.model.dtype == torch.float32 else ", or need dtype float32"
            raise RuntimeError(
                f"model {self.source.name!r} gives NaN or infinite vectors at layer {layer}: its "
                f"weights are broken{remedy}; take an earlier checkpoint"
            )


class Pool:
    """Vectors of a known set of texts, computed batch by batch when first asked for and kept.

    Which texts share a batch depends on the set only, never on the order of the questions, so that a resumed run gets
    the same numbers to the last bit. Made for the English side of retrieval, which all languages share.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.encoder = encoder
        names = list(dict.fromkeys(texts))
        keys = [ids.tobytes() for ids in encoder.tokenize(names)]
        order = sorted(set(keys), key=lambda key: (len(key), key))
        self._ids = [np.frombuffer(key, dtype=np.int32) for key in order]
        rows = {key: row for row, key in enumerate(order)}
        self._row = {text: rows[key] for text, key in zip(names, keys)}
        self._batches = plan_batches([len(text) for text in self._ids], encoder.max_tokens)
        self._batch_of = np.repeat(np.arange(len(self._batches)), [len(batch) for batch in self._batches])
        self._known = np.zeros(len(self._batches), dtype=bool)
        self._vectors = np.zeros((len(encoder.layers), len(self._ids), encoder.hidden_size), dtype=np.float32)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(layers, texts, hidden).

        Raises:
            KeyError: a text was not announced.
        """
        rows = np.array([self._row[text] for text in texts], dtype=np.int64)
        todo = [batch for batch in np.unique(self._batch_of[rows]) if not self._known[batch]] if len(rows) else []
        waiting: list[tuple[int, torch.Tensor, Any]] = []
        for number, batch in enumerate(reversed(todo)):  # longest first: what does not fit into memory fails at once
            if self.encoder.tell and number:
                self.encoder.tell(f"{number} of {len(todo)} batches of texts")
            part = self.encoder.encode_ids([self._ids[row] for row in self._batches[batch]])
            waiting.append((batch, *_to_host(part)))
            if len(waiting) > 1:  # the card has the next batch already
                self._keep(*waiting.pop(0))
        for entry in waiting:
            self._keep(*entry)
        return self._vectors[:, rows]

    def _keep(self, batch: int, part: torch.Tensor, copied: Any) -> None:
        """Put a batch's vectors in their place when they have arrived."""
        if copied is not None:
            copied.synchronize()
        found = part.numpy()
        self.encoder.check_finite(found)
        self._vectors[:, self._batches[batch]] = found
        self._known[batch] = True


def _to_host(part: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """A tensor on its way to the host, and the event after which it is there (None: it is there)."""
    if part.device.type != "cuda":
        return part.cpu(), None
    host = part.to("cpu", non_blocking=True)  # into pinned memory
    return host, torch.cuda.current_stream(part.device).record_event()
