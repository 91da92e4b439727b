"""Text to token ids, inside the worker processes of ``langsamp prepare``; needs nothing but the package tokenizers.

The exact word cache: XLM-R's kind of tokenizer (Unigram on words split at spaces) segments each word on its own, so
each distinct word needs to be segmented only once. Where that is not certain the text takes the plain way, and the
ids are those of the plain way always (notes: 1.7 times faster on one thread).
"""

from __future__ import annotations

import json
import re
import string
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from operator import add
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import Unigram

_MARK = "\x00"  # stands between documents while they are looked up together
_LIMIT = 500_000  # words kept, about 100 MB; then the cache starts anew
_LONG = 40  # characters; longer words hardly ever come again
_MOST_CHECKED = 100_000  # characters of a document that is encoded twice, to check the cache
_UNSPACED = 16  # mean characters a word from which a cache does not pay (Thai, Chinese, ...)


class Segmenter:
    """A tokenizer that turns documents into one run of ids, ``<s> ... </s><s> ... </s>``.

    Args:
        tokenizer: the tokenizer, whose truncation and padding are switched off.
        cached: whether to use the word cache where the tokenizer allows it.
    """

    def __init__(self, tokenizer: Tokenizer, cached: bool = True) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._prefix, self._suffix = self._specials()
        self._trailing_space_counts = False
        self.cached = cached and self._splits_into_words()
        self._forget()

    def _specials(self) -> tuple[bytes, bytes]:
        """What the tokenizer puts before and after a text."""
        whole, bare = self._ids("a", True), self._ids("a", False)
        start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return _pack(whole[:start]), _pack(whole[start + len(bare) :])

    def _ids(self, text: str, specials: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=specials).ids)

    def _splits_into_words(self) -> bool:
        """Whether words between spaces are segmented on their own: by the tokenizer's parts, then by trial."""
        if not isinstance(self._tokenizer.model, Unigram) or self._tokenizer.pre_tokenizer is None:
            return False
        steps = json.loads(self._tokenizer.pre_tokenizer.__getstate__())
        chain = steps.get("pretokenizers", [steps])
        last = chain[-1]
        words = (
            all(step.get("type") == "WhitespaceSplit" for step in chain[:-1])
            and last.get("type") == "Metaspace"
            and last.get("split", True)
            and last.get("prepend_scheme", "always") in ("always", "first")
        )
        added = [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]
        if not words or any(" " in content for content in added):
            return False
        self._space = str(last.get("replacement", "▁"))
        # a space mark in the text, or an added token, is not segmented like a word
        self._odd = re.compile("|".join(re.escape(text) for text in [self._space, _MARK, *added]))
        plain = string.printable[:95]
        self._ascii_is_kept = self._normal(plain) == plain and self._normal(plain[::-1]) == plain[::-1]
        self._trailing_space_counts = self._ids("a ", False) != self._ids("a", False)
        one, two = self._ids("a", False), self._ids("b", False)
        return self._ids("a b", False) == self._ids("a  b", False) == self._ids("   a   b", False) == one + two

    def _normal(self, text: str) -> str:
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _forget(self) -> None:
        """Start the cache anew. The empty word is what split() finds between two spaces."""
        self._cache: dict[str, bytes] = {"": b"", _MARK: self._suffix + self._prefix}
        self._slow: set[str] = set()

    def plain(self, documents: Sequence[str]) -> bytes:
        """The ids (uint32, this machine's byte order) without the cache."""
        encodings = self._tokenizer.encode_batch_fast(list(documents), add_special_tokens=True)
        return b"".join(_pack(encoding.ids) for encoding in encodings)

    def encode(self, documents: Sequence[str]) -> bytes:
        """The ids of the documents with their special tokens, one after the other, as uint32 bytes."""
        if not documents:
            return b""
        if not self.cached:
            return self.plain(documents)
        joined = f" {_MARK} ".join(documents)
        words = joined.split(" ")
        if len(joined) > _UNSPACED * len(words):
            return self.plain(documents)
        distinct = set(words)
        long = self._learn(distinct - self._cache.keys() - self._slow)
        simple = self._slow.isdisjoint(distinct) and joined.count(_MARK) == len(documents) - 1
        if simple and not self._odd_end(joined):
            ids = self._prefix + b"".join(map(self._cache.__getitem__, words)) + self._suffix
        else:
            ids = self._one_by_one(documents)
        for word in long:
            self._cache.pop(word, None)
        if len(self._cache) + len(self._slow) > _LIMIT:
            self._forget()
        return ids

    def _odd_end(self, joined: str) -> bool:
        """Whether a document ends in a space and the tokenizer makes a token of that."""
        return self._trailing_space_counts and (f"  {_MARK}" in joined or joined[-1] == " ")

    def _one_by_one(self, documents: Sequence[str]) -> bytes:
        """As :meth:`encode` with every word known; documents with a word that does not stand alone go the plain way."""
        found: list[bytes | None] = []
        slow: list[str] = []
        for document in documents:
            words = document.split(" ")
            if _MARK in document or not self._slow.isdisjoint(words) or self._odd_end(document):
                slow.append(document)
                found.append(None)
            else:
                found.append(self._prefix + b"".join(map(self._cache.__getitem__, words)) + self._suffix)
        encodings = iter(self._tokenizer.encode_batch_fast(slow, add_special_tokens=True))
        return b"".join(_pack(next(encodings).ids) if ids is None else ids for ids in found)

    def _learn(self, words: set[str]) -> list[str]:
        """Segment new words that stand alone, note the others as slow; returns words too long to keep."""
        long = []
        tokenize = self._tokenizer.model.tokenize  # the bare model: half the time of encode() for a word
        for word in words:
            normal = self._alone(word)
            if normal is None:
                self._slow.add(word)
                continue
            if len(normal.split()) == 1:
                self._cache[word] = _pack([token.id for token in tokenize(self._space + normal)])
            else:  # a no-break space, say, in the middle
                self._cache[word] = _pack(self._ids(word, False))
            if len(word) > _LONG:
                long.append(word)
        return long

    def _alone(self, word: str) -> str | None:
        """The normalised word if its ids do not depend on its neighbours, which are spaces; else None.

        Normalising works on grapheme clusters, and a cluster can span a space only with the character next to it (a
        combining mark at the start of the word), so normalising the word between two others shows all there is.
        """
        if self._odd.search(word):
            return None
        if self._ascii_is_kept and word.isascii() and word.isprintable():
            return word
        normal = self._normal(word)
        if not normal or normal[0].isspace() or normal[-1].isspace() or self._odd.search(normal):
            return None
        return normal if self._normal(f"a {word} a") == f"a {normal} a" else None


def _pack(ids: Sequence[int]) -> bytes:
    """Ids as uint32 bytes (C's unsigned int has 4 bytes wherever Python runs today)."""
    return array("I", ids).tobytes()


@dataclass(frozen=True)
class Totals:
    """Sums over text; ``bytes`` are of UTF-8, ``unknown`` counts unknown tokens."""

    documents: int
    bytes: int
    tokens: int
    heldout_tokens: int
    unknown: int

    def plus(self, other: Totals) -> Totals:
        """The sum."""
        return Totals(*map(add, astuple(self), astuple(other)))


NOTHING = Totals(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Encoded:
    """What a worker sends back: ids of the documents to train on and of those held out, or the files they lie in."""

    tokens: bytes | Path
    heldout: bytes | Path
    totals: Totals
    cached: bool


class Worker:
    """A segmenter that checks itself: the first documents of each chunk are also encoded the plain way.

    Should the cached ids ever differ, it goes the plain way from then on, and says so in what it returns.
    """

    def __init__(self, tokenizer: Tokenizer, cached: bool, unknown: int | None) -> None:
        self._segmenter = Segmenter(tokenizer, cached)
        self._unknown = unknown
        self._check = 200  # documents to check in the next chunk

    def __call__(self, documents: list[str], heldout_share: float) -> Encoded:
        """Encode a chunk; documents are held out by a hash of their text, so copies go the same way."""
        if self._segmenter.cached:
            sample = [document for document in documents if len(document) < _MOST_CHECKED][: self._check]
            self._segmenter.cached = self._segmenter.encode(sample) == self._segmenter.plain(sample)
            self._check = 2
        train: list[str] = []
        heldout: list[str] = []
        size = 0
        for document in documents:
            data = document.encode()
            size += len(data) + 1
            (heldout if zlib.crc32(data) < heldout_share * 2**32 else train).append(document)
        tokens = self._segmenter.encode(train)
        unknown = 0 if self._unknown is None else np.count_nonzero(np.frombuffer(tokens, np.uint32) == self._unknown)
        held = self._segmenter.encode(heldout)
        totals = Totals(len(documents), size, len(tokens) // 4, len(held) // 4, int(unknown))
        return Encoded(_stored(tokens), _stored(held), totals, self._segmenter.cached)


def _stored(tokens: bytes) -> bytes:
    """Ids in the byte order of the store, little-endian."""
    return tokens if sys.byteorder == "little" else np.frombuffer(tokens, np.uint32).astype("<u4").tobytes()
