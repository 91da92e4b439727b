"""Every family of encoders in miniature: a stock configuration and model, a real tokenizer of its kind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from langsamp.configuration_langsamp import FAMILIES

LAYERS, HIDDEN = 3, 32


def available() -> list[Any]:
    """The families as test parameters; one that this transformers lacks is skipped by name."""
    lacking = {name for name, family in FAMILIES.items() if family.stock + "Model" not in transformers.__all__}
    skip = pytest.mark.skip("the installed transformers has no such encoder")
    return [pytest.param(name, marks=[skip] if name in lacking else []) for name in FAMILIES]


def stock_config(name: str, tokenizer: Any, **changes: Any) -> Any:
    """A small stock configuration whose special ids are the tokenizer's."""
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "max_position_embeddings": 514 if name.startswith("xlm") else 512,
    }
    if name == "modernbert":  # as mmBERT's, but for the sizes; a window that cuts the test sentences
        values |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
        values |= {"local_attention": 8, "max_position_embeddings": 8192}
        values |= {"global_rope_theta": 160000.0, "local_rope_theta": 160000.0}
    if name == "eurobert":
        values |= {"mask_token_id": tokenizer.mask_token_id, "num_key_value_heads": 2}
    if name == "xlm-roberta":
        values["type_vocab_size"] = 1
    return getattr(transformers, FAMILIES[name].stock + "Config")(**{**values, **changes})


def stock_model(name: str, tokenizer: Any, folder: Path, **changes: Any) -> Path:
    """A saved stock masked LM with random weights of a visible size, and its tokenizer."""
    torch.manual_seed(0)
    config = stock_config(name, tokenizer, **changes)
    model = getattr(transformers, FAMILIES[name].stock + "ForMaskedLM")(config)
    for parameter_name, parameter in model.named_parameters():
        if "norm" not in parameter_name.lower():
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_tokenizer(name: str, texts: Iterable[str]) -> Any:
    """A stock fast tokenizer of the kind the family comes with, learnt on texts."""
    return {"bert": _wordpiece, "modernbert": _gemma, "eurobert": _llama}.get(name, _unigram)(list(texts))


def _unigram(texts: list[str]) -> Any:
    """XLM-R's: Unigram over words with a mark before each; ``<mask>`` takes the space before it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts * 4, trainer)
    mask = AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    tokenizer.add_special_tokens([mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names, pad_token="<pad>", mask_token=mask, model_max_length=512
    )


def _wordpiece(texts: list[str]) -> Any:
    """mBERT's: WordPiece, [CLS] and [SEP], accents kept, Chinese characters apart."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=True)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.BertTokenizerFast(tokenizer_object=tokenizer, do_lower_case=False, model_max_length=512)


def _gemma(texts: list[str]) -> Any:
    """mmBERT's: Gemma's BPE with byte fallback, spaces written as a mark and no other pre-tokenisation."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True, ignore_merges=False))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    special += [f"<0x{byte:02X}>" for byte in range(256)]
    learner = Tokenizer(models.BPE())  # merges within words: the real one learnt them on far more text
    learner.normalizer = tokenizer.normalizer
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    learner.train_from_iterator(texts * 4, trainer)
    learnt = json.loads(learner.to_str())["model"]
    state = json.loads(tokenizer.to_str())
    state["model"] |= {"vocab": learnt["vocab"], "merges": learnt["merges"]}
    tokenizer = Tokenizer.from_str(json.dumps(state))
    mask = AddedToken("<mask>", lstrip=True, special=True)
    tokenizer.add_special_tokens([*special[:4], mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> $B:1 <eos>:1", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "cls_token": "<bos>", "sep_token": "<eos>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names, unk_token="<unk>", pad_token="<pad>", mask_token=mask,
        model_max_length=8192,
    )  # fmt: skip


def _llama(texts: list[str]) -> Any:
    """EuroBERT's: Llama 3's byte-level BPE, no unknown piece, the special tokens behind the vocabulary."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(
            Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"), "isolated"
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts * 4, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|mask|>", "<|pad|>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    begin, end, mask, pad = special
    ids = [(token, tokenizer.token_to_id(token)) for token in (begin, end)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=f"{begin} $A {end} {begin} $B {end}", special_tokens=ids
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, mask_token=mask, pad_token=pad,
        model_max_length=8192,
    )  # fmt: skip
