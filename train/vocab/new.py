"""From nothing: a Unigram tokenizer in XLM-R's form, trained on a corpus, and a small model with random weights.

Comes before :mod:`langsamp.train.blocks.store`. To grow an existing vocabulary instead, see
:mod:`langsamp.train.vocab.extend`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from langsamp.core.files import atomic_write

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3, as in XLM-R; <mask> is the last id
MODEL_MAX_LENGTH = 512


def new_tokenizer(
    texts: Mapping[str, Iterable[str]],
    size: int,
    output: str | os.PathLike[str],
    characters: int = 1_500_000,
    seed: int = 42,
) -> Path:
    """Train a Unigram vocabulary and write it as a stock XLM-R tokenizer folder.

    Args:
        texts: the documents of each language. Every language gives an equal share of the learning text, so that small
            ones are not spelled out character by character.
        size: number of pieces, the five special tokens among them.
        output: the folder to write tokenizer.json and tokenizer_config.json to.
        characters: learning text in all.
        seed: which documents of a large language are taken.

    Raises:
        ValueError: no text, or a size that leaves no room for pieces.
    """
    if size <= len(SPECIAL) + 1:
        raise ValueError(f"a vocabulary of {size} pieces has no room beside its {len(SPECIAL) + 1} special tokens.")
    sample = [line for lines in texts.values() for line in _share(lines, characters // max(1, len(texts)), seed)]
    if not sample:
        raise ValueError("there is no text to learn a vocabulary from.")
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size - 1,
        special_tokens=list(SPECIAL),
        unk_token="<unk>",
        show_progress=False,
        max_piece_length=16,
        n_sub_iterations=1,  # one EM round a pruning step and steps of a half: 0.5 % more tokens, in 0.6 of the time
        shrinking_factor=0.5,
    )
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    folder = Path(output)
    atomic_write(folder / "tokenizer.json", tokenizer.to_str())
    atomic_write(folder / "tokenizer_config.json", json.dumps(_config(), indent=2) + "\n")
    return folder


def _share(lines: Iterable[str], characters: int, seed: int) -> list[str]:
    """Lines of one language up to so many characters, drawn by the seed."""
    every = list(lines)
    random.Random(seed).shuffle(every)
    taken, total = [], 0
    for line in every:
        if total >= characters:
            break
        taken.append(line)
        total += len(line)
    return taken


def _config() -> dict[str, object]:
    """tokenizer_config.json as XLM-R has it, but for the class: XLM-R's own puts its normalizer in place of ours."""
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False}
    return {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "mask_token": {**mask, "single_word": False, "special": True},
        "model_max_length": MODEL_MAX_LENGTH,
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }


def new_model(folder: str | os.PathLike[str], hidden: int, layers: int, seed: int) -> None:
    """Write a stock XLM-R masked LM with random weights beside the tokenizer in a folder.

    No dropout: small models see so little text that none of it is learnt by heart.

    Args:
        folder: has the tokenizer; gets config.json and model.safetensors.
        hidden: width, a multiple of 32; heads of 32, feed-forward layers of four times the width.
        layers: how many.
        seed: of the weights.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    config = XLMRobertaConfig(
        vocab_size=Tokenizer.from_file(os.path.join(folder, "tokenizer.json")).get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
        max_position_embeddings=MODEL_MAX_LENGTH + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=0.02 * (768 / hidden) ** 0.5,  # XLM-R's, for rows that are so much shorter
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(seed)
    model = XLMRobertaForMaskedLM(config)
    # Positions as sines and cosines (Vaswani et al. 2017), as large as random ones would be: those would have to learn
    # first which of them are neighbours, and short runs end before that.
    frequency = 1000.0 ** -torch.arange(0, 1, 2 / hidden)
    angle = torch.arange(config.max_position_embeddings)[:, None] * frequency
    with torch.no_grad():
        waves = torch.cat([angle.sin(), angle.cos()], dim=1) * config.initializer_range * 2**0.5
        model.roberta.embeddings.position_embeddings.weight.copy_(waves)
    model.save_pretrained(folder)
