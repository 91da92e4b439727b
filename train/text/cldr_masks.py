"""Questions for a masked language model, from the held-out phrases of the built-in corpus: which word is missing?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import category

import numpy as np
import torch
from numpy.typing import NDArray

from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.text import cldr


class Question(NamedTuple):
    """A held-out phrase with one word masked, and what is asked for: the word, one piece of the vocabulary."""

    language: str
    kind: str
    text: str
    word: str
    piece: int


def questions(language: str, tokenizer: LangSAMPTokenizer) -> list[Question]:
    """The held-out phrases of a language without the word that its training phrases have most often.

    Chosen among the words that are one piece, as one mask stands for one: words that the corpus teaches, and no commas.

    Args:
        language: one of :func:`langsamp.train.text.cldr.languages`.
        tokenizer: of any kind; it says how a mask is written and what is one piece.
    """
    texts = cldr.texts(language)
    known = Counter(word for key, text in texts.items() if cldr.split_of(key) == "train" for word in text.split())
    found = []
    for key in (key for key in texts if cldr.split_of(key) == "test"):
        words = texts[key].split()
        letters = [word for word in words if all(category(c)[0] in "LM" for c in word)] if len(words) > 1 else []
        tried = (_masked(words, word, tokenizer) for word in sorted(letters, key=known.__getitem__, reverse=True))
        if asked := next(filter(None, tried), None):
            found.append(Question(language, key.split("/")[0], *asked))
    return found


def _masked(words: list[str], word: str, tokenizer: LangSAMPTokenizer) -> tuple[str, str, int] | None:
    """The phrase with a word masked, the word, its piece; None where it is no single known piece of the phrase."""
    at = words.index(word)
    before, after = " ".join(words[:at]), " ".join(words[at + 1 :])
    whole = tokenizer(" ".join(words))["input_ids"]
    for space in (" ", ""):  # most masks take the space before them; with others it stays, and belongs to the word
        text = f"{before}{space}{tokenizer.mask_token} {after}".strip()
        ids = tokenizer(text)["input_ids"]
        pieces = [piece for piece, other in zip(whole, ids) if piece != other]
        if len(ids) == len(whole) and len(pieces) == 1 and pieces[0] != tokenizer.unk_token_id:
            return text, word, pieces[0]
    return None


@torch.inference_mode()
def guessed(model: Path, asked: Sequence[Question], told: bool, guesses: int) -> NDArray[np.bool_]:
    """For each question, whether the word is among the first `guesses`; `told`: with its language."""
    tokenizer, lm = LangSAMPTokenizer.from_pretrained(model), LangSAMPForMaskedLM.from_pretrained(model).eval()
    right = np.zeros(len(asked), bool)
    order = sorted(range(len(asked)), key=lambda number: len(asked[number].text))
    for start in range(0, len(order), 64):
        numbers = order[start : start + 64]
        some = [asked[number] for number in numbers]
        lang: list[str | None] | None = [question.language for question in some] if told else None
        batch = tokenizer([question.text for question in some], padding=True, return_tensors="pt", lang=lang)
        logits = lm(**batch).logits[batch["input_ids"] == tokenizer.mask_token_id]
        wanted = torch.tensor([question.piece for question in some])
        right[numbers] = (logits.topk(guesses).indices == wanted[:, None]).any(1).numpy()
    return right
