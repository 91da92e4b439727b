"""Where text comes from: a local folder, a Hub data set or the built-in ``cldr``, behind one interface.

First stage of training: :mod:`langsamp.train.blocks.store` asks a corpus for its languages and reads their documents as
a stream. A corpus is cut into parts (one file, one Hub configuration); a part belongs to one language and is the unit
that a second ``langsamp prepare`` recognises and leaves alone.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from langsamp.core.languages import normalize_tag

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A piece of a corpus in one language.

    Attributes:
        language: ``lang_Script``.
        name: what people call it: the path below the corpus folder, or the Hub configuration.
        size: bytes as stored (compressed where the file is), for progress and balance; 0 if unknown.
        detail: what the corpus needs to find it again.
    """

    language: str
    name: str
    size: int
    detail: str


class Corpus(ABC):
    """Text by language. Subclasses say which parts there are, what is in them and how to recognise them again.

    Attributes:
        name: what the user asked for, kept in the store as its source.
        counts: how many pieces of text were ``invalid`` (not valid Unicode) so far, by language.
    """

    name: str

    def __init__(self, only: Iterable[str] | None = None) -> None:
        self._only = None if only is None else {normalize_tag(tag) for tag in only}
        self.counts: Counter[str] = Counter()

    @abstractmethod
    def _find(self) -> dict[str, list[Part]]:
        """All parts by language."""

    @abstractmethod
    def fingerprint(self, part: Part) -> str:
        """A sha256 in hex that changes whenever the part's text does."""

    @abstractmethod
    def documents(self, part: Part) -> Iterator[str]:
        """The part's documents in a fixed order: valid Unicode, not blank, nothing stripped but the line end."""

    @cached_property
    def parts(self) -> dict[str, list[Part]]:
        """``lang_Script`` -> parts in the order of their names; sorted by language.

        Raises:
            ValueError: a language asked for is not there, or there is none at all.
        """
        found = self._find()
        missing = sorted((self._only or set()) - found.keys())
        if missing:
            raise ValueError(
                f"{self.name} has no text in {', '.join(missing)}; it has {', '.join(sorted(found)[:20])}"
                f"{' ...' if len(found) > 20 else ''}."
            )
        if not found:
            raise ValueError(f"{self.name} has no text: expected files named like deu_Latn.txt, .jsonl or .parquet.")
        wanted = sorted(found if self._only is None else self._only)
        return {language: sorted(found[language], key=lambda part: part.name) for language in wanted}

    @property
    def languages(self) -> list[str]:
        """The languages, sorted."""
        return list(self.parts)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes as stored, by language."""
        return {language: sum(part.size for part in parts) for language, parts in self.parts.items()}


def sort_by_language(names: Iterable[tuple[str, Part]], what: str, strict: bool) -> dict[str, list[Part]]:
    """Group parts by the language their name stands for.

    Args:
        names: (the tag people wrote, a part whose language is still to be filled in).
        what: "file" or "configuration", for the message.
        strict: whether a name that is no language is an error; if not it is logged and left out.

    Raises:
        ValueError: names that are no language, all of them (up to ten) in one message with the reasons.
    """
    found: dict[str, list[Part]] = {}
    rejected: list[str] = []
    for tag, part in names:
        try:
            language = normalize_tag(tag)
        except ValueError as error:
            rejected.append(f"{part.name} ({error})")
            continue
        found.setdefault(language, []).append(Part(language, part.name, part.size, part.detail))
    if rejected and strict:
        more = f" and {len(rejected) - 10} more" if len(rejected) > 10 else ""
        raise ValueError(
            f"{what}s whose name is not a language: {'; '.join(rejected[:10])}{more}. Rename them like deu_Latn, "
            "move them away, or name the languages you want with --languages."
        )
    if rejected:
        log.info("left out, not a language: %s", "; ".join(rejected))
    return found


def clean(texts: Iterable[object], counts: Counter[str], language: str, on_invalid: str, where: str) -> Iterator[str]:
    """Drop blank and missing texts and repair lone surrogates (which JSON and Arrow can smuggle in).

    Raises:
        ValueError: a text is not a string.
    """
    for text in texts:
        if text is None:
            continue
        if not isinstance(text, str):
            raise ValueError(f"the text in {where} is a {type(text).__name__}, not a string; name another --column.")
        if not text or text.isspace():
            continue
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            counts[language] += 1
            if on_invalid == "skip":
                continue
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        yield text
