"""From sentences to vectors: any XLM-R shaped checkpoint, one or several layers, mean-pooled; for every frozen task.

Fast without changing the numbers: only the layers needed are loaded and run, texts are sorted by length and packed
without padding, equal texts are encoded once, fp32 products take the fast exact kernels (performance notes, section 4).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from tqdm.auto import tqdm
from transformers import AutoTokenizer, XLMRobertaConfig

from langsamp.core.runtime import ModelSource, pick_device, resolve_model, threads
from langsamp.eval.engines.packed import Group, packed_hidden_states, plan_batches
from langsamp.modeling_langsamp import LangSAMPForMaskedLM, LangSAMPModel

logger = logging.getLogger(__name__)

MAX_TOKENS = 4096  # a batch: fills the matrix units of a CPU; measured best there
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def read_config(folder: Path) -> XLMRobertaConfig:
    """The stock configuration of a model folder. Raises FileNotFoundError or ValueError if it is not an XLM-R one."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is no model folder")
    config = XLMRobertaConfig.from_pretrained(folder)
    kind = XLMRobertaConfig.get_config_dict(folder)[0].get("model_type")
    if kind != "xlm-roberta" or getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"{folder} holds a model of type {kind!r}; evaluation works on XLM-R shaped models (LangSAMP, "
            "XLM-R, Glot500, multilingual-e5 ...)"
        )
    return config


def parse_layers(spec: str | int | Iterable[int], n_layers: int) -> tuple[int, ...]:
    """`8`, `last`, `all`, `4,8,12` or numbers -> layers; layer k is the output of block k (0: the embeddings).

    Raises ValueError for a layer the model does not have.
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


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """The checkpoint's tokenizer, cutting at `max_length` tokens (specials included). No code of the folder is run.

    Raises FileNotFoundError if the folder has none.
    """
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    elif (folder / "sentencepiece.bpe.model").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
    else:
        raise FileNotFoundError(f"{folder} has no tokenizer.json or sentencepiece.bpe.model: save the tokenizer there")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def load_backbone(folder: Path, n_layers: int, dtype: torch.dtype = torch.float32) -> LangSAMPModel:
    """The encoder up to block `n_layers`, in eval mode on the CPU; weights of other layers are not read.

    Raises FileNotFoundError if the folder has no safetensors weights, RuntimeError if tensors are missing.
    """
    model, info = load_quietly(LangSAMPModel, folder, num_hidden_layers=n_layers, dtype=dtype)
    _check_whole(folder, info["missing_keys"])
    return model.eval()


def load_masked_lm(folder: Path, dtype: torch.dtype = torch.float32) -> LangSAMPForMaskedLM:
    """The masked-LM model of a folder, in eval mode on the CPU; a stock XLM-R has no language rows.

    Raises FileNotFoundError if the folder has no safetensors weights, RuntimeError if tensors are missing.
    """
    model, info = load_quietly(LangSAMPForMaskedLM, folder, dtype=dtype)
    _check_whole(folder, info["missing_keys"])
    return model.eval()


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


def _check_whole(folder: Path, missing: Iterable[str]) -> None:
    lost = sorted(name for name in missing if "position_ids" not in name)
    if lost:
        raise RuntimeError(
            f"the weights in {folder} lack {len(lost)} tensors, the first is {lost[0]}: this is not a "
            "whole XLM-R checkpoint of this kind"
        )


class Encoder:
    """Sentence vectors of a checkpoint.

    Args:
        spec: a folder, a Hub id, `repo@revision`, or a resolved ModelSource. LangSAMP and stock XLM-R alike; the
            encoder needs no language.
        layers: layers to return, see `parse_layers`; blocks above the highest are neither loaded nor run.
        pooling: "mean" over the tokens, or "first" (`<s>`).
        special_tokens: count `<s>` and `</s>` in the mean, as the paper's protocol does.
        prefix: put before every sentence ("query: " for the e5 family).
        max_length: tokens after which a text is cut, specials included; no more than the model has positions for.
        dtype: "float32" (exact) or "bfloat16" (about twice as fast on CPUs and GPUs that have it).
        max_tokens: tokens in a batch. progress: show a bar.

    A text without tokens gets the mean of its specials, or zeros if `special_tokens` is off. Lone surrogates are
    replaced by U+FFFD.
    """

    def __init__(
        self,
        spec: str | os.PathLike[str] | ModelSource,
        layers: str | int | Iterable[int] = (8,),
        pooling: str = "mean",
        *,
        special_tokens: bool = True,
        prefix: str = "",
        max_length: int = 512,
        dtype: str = "float32",
        max_tokens: int = MAX_TOKENS,
        device: str | None = None,
        progress: bool = False,
    ) -> None:
        if pooling not in ("mean", "first"):
            raise ValueError(f"pooling is 'mean' or 'first', not {pooling!r}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
        self.source = spec if isinstance(spec, ModelSource) else resolve_model(spec)
        config = read_config(self.source.path)
        self.layers = parse_layers(layers, config.num_hidden_layers)
        self.max_length = min(max_length, config.max_position_embeddings - int(config.pad_token_id or 0) - 1)
        self.tokenizer = load_tokenizer(self.source.path, self.max_length)
        self.model = load_backbone(self.source.path, max(self.layers), DTYPES[dtype])
        torch.nn.Module.to(self.model, pick_device(device))
        self.pooling, self.special_tokens, self.prefix = pooling, special_tokens, prefix
        self.max_tokens, self.progress = max_tokens, progress
        self.hidden_size: int = config.hidden_size
        added = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        self._special = slice(1, -1) if added == 2 else slice(None)
        self._check_ids(config)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (layers, texts, hidden), float32, layers in rising order.

        The result for a set of texts does not depend on their order. Raises RuntimeError if the model gives NaN.
        """
        return Pool(self, texts).vectors(texts)

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text with its prefix and specials, cut at `max_length`."""
        encodings = self.tokenizer.encode_batch_fast([clean_text(self.prefix + text) for text in texts])
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_ids(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (layers, texts, hidden) of one batch of token ids that is sorted by length."""
        vectors = np.zeros((len(self.layers), len(ids), self.hidden_size), dtype=np.float32)
        empty = sum(not len(text) for text in ids)  # they come first and stay zero
        if empty == len(ids):
            return vectors
        with threads():
            for layer, (hidden, groups) in enumerate(packed_hidden_states(self.model, ids[empty:])):
                if layer in self.layers:
                    vectors[self.layers.index(layer), empty:] = self._pool(hidden, groups)
        if not np.isfinite(vectors).all():
            layer = next(layer for layer, part in zip(self.layers, vectors) if not np.isfinite(part).all())
            remedy = "" if self.model.dtype == torch.float32 else ", or need dtype float32"
            raise RuntimeError(
                f"model {self.source.name!r} gives NaN or infinite vectors at layer {layer}: its "
                f"weights are broken{remedy}"
            )
        return vectors

    def _pool(self, hidden: torch.Tensor, groups: list[Group]) -> np.ndarray:
        """(tokens, hidden) -> (texts, hidden)."""
        parts = []
        for group in groups:
            tokens = group.of(hidden)
            if self.pooling == "first":
                parts.append(tokens[:, 0].float())
                continue
            tokens = tokens if self.special_tokens else tokens[:, self._special]
            parts.append(tokens.sum(dim=1, dtype=torch.float32) / max(1, tokens.shape[1]))
        return torch.cat(parts).cpu().numpy()

    def _check_ids(self, config: XLMRobertaConfig) -> None:
        """A tokenizer with more tokens than the model has rows would read past the table."""
        top = max(self.tokenizer.get_vocab(with_added_tokens=True).values())
        if top >= config.vocab_size:
            raise ValueError(
                f"the tokenizer in {self.source.path} has token id {top}, but the model only "
                f"{config.vocab_size} rows: they do not belong together"
            )


def clean_text(text: str) -> str:
    """Valid Unicode: surrogate pairs are joined, lone surrogates become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Pool:
    """Vectors of a known set of texts, computed batch by batch when first asked for and kept.

    Which texts share a batch depends on the set only, never on the order of the questions, so that a resumed run gets
    the same numbers to the last bit. Made for the English side of retrieval, which all languages share.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.encoder = encoder
        ids = {text.tobytes(): text for text in encoder.tokenize(texts)}
        self._ids = [ids[key] for key in sorted(ids, key=lambda key: (len(key), key))]
        self._row = {text.tobytes(): row for row, text in enumerate(self._ids)}
        self._batches = plan_batches([len(text) for text in self._ids], encoder.max_tokens)
        self._batch_of = np.repeat(np.arange(len(self._batches)), [len(batch) for batch in self._batches])
        self._known = np.zeros(len(self._batches), dtype=bool)
        self._vectors = np.zeros((len(encoder.layers), len(self._ids), encoder.hidden_size), dtype=np.float32)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(layers, texts, hidden). Raises KeyError for a text that was not announced."""
        rows = np.array([self._row[ids.tobytes()] for ids in self.encoder.tokenize(texts)], dtype=np.int64)
        todo = [batch for batch in np.unique(self._batch_of[rows]) if not self._known[batch]] if len(rows) else []
        total = sum(len(self._batches[batch]) for batch in todo)
        hide = not self.encoder.progress or len(todo) < 2
        with tqdm(total=total, desc="encode", unit="text", leave=False, disable=hide) as bar:
            for batch in reversed(todo):  # longest first: a batch that does not fit into memory fails at once
                where = self._batches[batch]
                self._vectors[:, where] = self.encoder.encode_ids([self._ids[row] for row in where])
                self._known[batch] = True
                bar.update(len(where))
        return self._vectors[:, rows]
