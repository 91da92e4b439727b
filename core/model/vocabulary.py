"""Surgery on a Unigram vocabulary: drop pieces, append pieces, and carry a model's rows over by piece string.

Training extends vocabularies with it, export trims them. Ids change, so nothing here ever matches rows by id.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from transformers import PreTrainedTokenizerFast

from langsamp.unicode_scripts import valid_unicode

Tokenizer = TypeVar("Tokenizer", bound=PreTrainedTokenizerFast)
NewRows = Literal["mean", "random"]
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def check_unigram(tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse a vocabulary that is not a Unigram one: only from that pieces can be taken one by one.

    Raises:
        ValueError: it is not.
    """
    kind = type(tokenizer.backend_tokenizer.model).__name__
    if kind != "Unigram":
        raise ValueError(
            f"only Unigram vocabularies (XLM-R's kind) can be extended or trimmed; that of this tokenizer is {kind}, "
            "whose pieces depend on each other."
        )


def trim(tokenizer: Tokenizer, keep_ids: Iterable[int]) -> Tokenizer:
    """A tokenizer with only the pieces of the given ids and the special tokens, in their old order.

    A text whose pieces are all kept is cut into the same pieces as before: the best segmentation is still there, and
    no new one has come.

    Raises:
        ValueError: the tokenizer is not a Unigram one, or an id is outside its vocabulary.
    """
    wanted = {int(i) for i in keep_ids}

    def edit(data: dict[str, Any]) -> None:
        vocab = data["model"]["vocab"]
        added = {token["id"] for token in data["added_tokens"]}
        outside = [i for i in wanted if not 0 <= i < len(vocab) and i not in added]
        if outside:
            raise ValueError(f"id {min(outside)} to keep is outside the vocabulary of {len(vocab)} pieces.")
        special = {token["content"] for token in data["added_tokens"]} | {vocab[data["model"]["unk_id"]][0]}
        data["model"]["vocab"] = [entry for i, entry in enumerate(vocab) if i in wanted or entry[0] in special]

    return _rebuilt(tokenizer, edit)


def extend(tokenizer: Tokenizer, pieces: Sequence[str], scores: Sequence[float]) -> Tokenizer:
    """A tokenizer with pieces appended after its last one; every old id stays, ``<mask>``'s too.

    Args:
        tokenizer: a Unigram tokenizer.
        pieces: new pieces with ``▁`` for the space, as in the vocabulary.
        scores: their log-probabilities on the scale of the old ones.

    Raises:
        ValueError: not a Unigram tokenizer, lists of different lengths, a piece that is there already or twice, or one
            that is no text.
    """
    if len(pieces) != len(scores):
        raise ValueError(f"{len(pieces)} pieces need as many scores, not {len(scores)}.")
    if wrong := [piece for piece, score in zip(pieces, scores) if valid_unicode(piece) != piece or not isfinite(score)]:
        raise ValueError(f"the piece {wrong[0]!r} is no valid text, or its score is no number.")
    seen = set(tokenizer.get_vocab())
    repeated: list[str] = []
    for piece in pieces:
        (repeated.append if piece in seen else seen.add)(piece)
    if repeated:
        raise ValueError(f"{len(repeated)} pieces are in the vocabulary already or given twice, like {repeated[0]!r}.")

    def edit(data: dict[str, Any]) -> None:
        vocab = data["model"]["vocab"]
        for token in sorted(data["added_tokens"], key=lambda token: token["id"]):
            if token["id"] == len(vocab):  # <mask> behind the vocabulary: make it a piece, so that its id stays
                vocab.append([token["content"], 0.0])
        vocab += [[piece, float(score)] for piece, score in zip(pieces, scores)]

    return _rebuilt(tokenizer, edit)


@torch.no_grad()
def carry_rows(
    model: Any, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast, new_rows: NewRows = "mean", seed: int = 0
) -> Any:
    """Give a masked LM another vocabulary, in place: each piece keeps its embedding and its output bias.

    A new piece starts as the mean over the old pieces it used to be cut into (``"mean"``), or as N(0,
    initializer_range) with bias 0 (``"random"``, what the official code did). Special tokens are matched by role.

    Returns:
        The model.

    Raises:
        ValueError: the new tokenizer's padding id differs from the model's (XLM-R's positions count from it).
    """
    pad = model.config.pad_token_id
    if new.pad_token_id != pad and model.config.family.after_padding:
        raise ValueError(
            f"the tokenizer pads with id {new.pad_token_id}, the model with {pad}; positions depend on it."
        )
    sources = _sources(old, new)
    before = [(name, table.detach().clone()) for name, table in _by_piece(model).items()]
    model.resize_token_embeddings(len(sources), mean_resizing=False)
    model.get_input_embeddings().padding_idx = model.config.pad_token_id = new.pad_token_id
    kept = [(i, ids[0]) for i, ids in enumerate(sources) if len(ids) == 1]
    to, source = torch.tensor(kept).T
    fresh = [(i, ids) for i, ids in enumerate(sources) if len(ids) != 1]
    generator, std = torch.Generator().manual_seed(seed), model.config.initializer_range
    for name, rows in before:
        table = _by_piece(model)[name]
        table[to] = rows[source]
        for i, ids in fresh:
            if new_rows == "mean":
                table[i] = rows[ids].mean(0)
            else:  # a bias starts at 0
                table[i] = torch.empty(rows[0].shape).normal_(0, std, generator=generator) if rows.dim() > 1 else 0
    for role in ("bos_token_id", "eos_token_id"):
        setattr(model.config, role, getattr(new, role))
    return model


def _by_piece(model: Any) -> dict[str, torch.Tensor]:
    """The tables with a row for each piece: embeddings, the decoder's weight where it is not tied to them, its bias."""
    words, decoder = model.get_input_embeddings().weight, model.get_output_embeddings()
    tables = {"words": words, "decoder": None if decoder.weight is words else decoder.weight, "bias": decoder.bias}
    return {name: table for name, table in tables.items() if table is not None}


def _sources(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> list[list[int]]:
    """For each new id the old ids it comes from: one for a piece that stays, else the pieces it was cut into."""
    old_vocab, pieces = old.get_vocab(), new.get_vocab()
    by_role = {getattr(new, role): old_vocab.get(getattr(old, role)) for role in ROLES if getattr(new, role)}
    everything = sorted(set(old_vocab.values()) - set(old.all_special_ids))
    cut = old.backend_tokenizer.model.tokenize
    sources: list[list[int]] = [everything] * len(new)
    for piece, i in pieces.items():
        same = by_role.get(piece) if by_role.get(piece) is not None else old_vocab.get(piece)
        if same is not None:
            sources[i] = [same]
        else:
            parts = [token.id for token in cut(piece) if token.id != old.unk_token_id]
            # a mean of one part is a copy; doubling it keeps "one source" meaning "the same piece"
            sources[i] = (parts * 2 if len(parts) == 1 else parts) or everything
    return sources


def _rebuilt(tokenizer: Tokenizer, edit: Callable[[dict[str, Any]], None]) -> Tokenizer:
    """The tokenizer after an edit of its tokenizer.json, every id that is written elsewhere following its piece."""
    with tempfile.TemporaryDirectory(prefix="langsamp-vocab-") as folder:
        tokenizer.save_pretrained(folder)
        path, config_path = Path(folder, "tokenizer.json"), Path(folder, "tokenizer_config.json")
        check_unigram(tokenizer)
        data = json.loads(path.read_text(encoding="utf-8"))
        unknown = data["model"]["vocab"][data["model"]["unk_id"]][0]
        edit(data)
        ids = {piece: i for i, (piece, _) in enumerate(data["model"]["vocab"])}
        data["model"]["unk_id"] = ids[unknown]
        for token in data["added_tokens"]:  # tokens outside the model's own vocabulary come after it
            token["id"] = ids.setdefault(token["content"], len(ids))
        for token in ((data.get("post_processor") or {}).get("special_tokens") or {}).values():
            token["ids"] = [ids[name] for name in token["tokens"]]
        path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        config = json.loads(config_path.read_text(encoding="utf-8"))
        if "added_tokens_decoder" in config:  # transformers 4 writes the ids a second time
            decoder = config["added_tokens_decoder"].values()
            config["added_tokens_decoder"] = {str(ids[token["content"]]): token for token in decoder}
            config_path.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")
        rebuilt = type(tokenizer).from_pretrained(folder)
    rebuilt.name_or_path = tokenizer.name_or_path
    return rebuilt
