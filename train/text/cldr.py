"""The built-in corpus: names, dates, durations and lists of the Unicode CLDR, read from Babel; no download.

First stop of the data flow for ``langsamp quickstart``: parallel phrases keyed by CLDR item (:func:`texts`, for
retrieval and classification) and, composed from the phrases of the training split only, text for masked language
modelling (:class:`CldrCorpus`). CLDR data is under the Unicode licence (free use with attribution).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import babel
from babel import localedata
from babel.core import get_global

from langsamp.core.language.languages import normalize_tag
from langsamp.core.language.names import Told
from langsamp.train.text import cldr_text
from langsamp.train.text.corpus import Corpus, Part, Report

logger = logging.getLogger(__name__)

MIN_NAMES = 60  # locales with fewer names of their own are mostly placeholders
MAX_REPEATED = 0.85  # a locale that shares more of its names than this with a larger one is a copy of it
TEST_PERCENT = 10
_SCRIPT_NAMES = {"Kore": "Hang"}  # Korean text is written Hang in the data sets and in the official language table


@cache
def split_of(key: str) -> str:
    """The split of a CLDR item: ``test`` for about a tenth of the keys, the same in every language.

    Items with one English name (Qatar is a territory, a city of a time zone and a zone) go the same way, since other
    languages share such names too. Calendar words (months, days of the week) are always ``train``: all dates are made
    of them.
    """
    topic, code = key.split("/", 1)
    if topic == "calendar":
        return "train"
    if topic in ("city", "zone"):  # named after the place in the zone's identifier, Asia/Qatar
        name = code.split("/")[-1].replace("_", " ").casefold()
    else:
        name = _english().get(key, key)
    return "test" if int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 100 < TEST_PERCENT else "train"


@cache
def _english() -> dict[str, str]:
    """English names by key, for :func:`split_of`."""
    return {key: text.casefold() for key, text in cldr_text.names(_own_data("en")).items()}


@cache
def locales() -> dict[str, str]:
    """The languages of the corpus: ``lang_Script`` -> Babel's locale identifier, sorted.

    Left out: regional variants, locales with fewer than 60 names of their own, locales that cannot be named in
    ISO 639-3, and locales that repeat a larger one (85 % or more of the names are the same: of the Tanzanian
    locales many are one list, Cebuano is mostly English).
    """
    found: list[tuple[int, str, str, dict[str, str]]] = []
    for identifier in localedata.locale_identifiers():
        if any(len(part) != 4 or not part.isalpha() for part in identifier.split("_")[1:]):
            continue  # a region or a spelling variant
        names = cldr_text.names(_own_data(identifier))
        tag = _tag(identifier) if len(names) >= MIN_NAMES else None
        if tag is not None:
            found.append((len(names), identifier, tag, names))
    kept: dict[str, tuple[str, dict[str, str]]] = {}
    # English first, so that a copy of English is dropped and never English itself
    for _, identifier, tag, names in sorted(found, key=lambda row: (row[1] != "en", -row[0], row[1])):
        if tag not in kept and not any(_repeats(names, other) for t, (_, other) in kept.items() if t[4:] == tag[4:]):
            kept[tag] = (identifier, names)
    return {tag: kept[tag][0] for tag in sorted(kept)}


def _repeats(names: dict[str, str], other: dict[str, str]) -> bool:
    """Whether at least 85 % of the items that both name have the same text."""
    same = len(names.items() & other.items())
    return same >= MIN_NAMES / 2 and same >= MAX_REPEATED * len(names.keys() & other.keys())


def _own_data(identifier: str) -> Mapping[str, Any]:
    """What a locale says itself; nothing inherited from its parent or from the root."""
    return localedata.load(identifier, merge_inherited=False)


def _tag(identifier: str) -> str | None:
    """``zh_Hant`` -> ``zho_Hant``, ``ko`` -> ``kor_Hang``; the script that is not given is Babel's likely one.

    Returns:
        None for a code too young for the normaliser's tables (``tok``, Toki Pona).
    """
    likely = get_global("likely_subtags").get(identifier, identifier).split("_")[:2]
    try:
        language, script = normalize_tag("_".join(likely)).split("_")
    except ValueError as error:
        logger.debug("left out: %s", error)
        return None
    return f"{language}_{_SCRIPT_NAMES.get(script, script)}"


def languages() -> list[str]:
    """The languages of the corpus, sorted: over 200 ``lang_Script`` names in over 30 scripts."""
    return list(locales())


def texts(language: str) -> Mapping[str, str]:
    """All phrases of one language, key -> text, both splits, sorted by key.

    A key is a CLDR item in any language, as ``territory/DE`` or ``date/2031-05-17``; the part before the slash is its
    topic, a label for classification.

    Within a language a text belongs to one key (Arabic, the language, and Arabic, the script). No training phrase
    contains a test phrase of its language as a sequence of words ("Swiss French" when "French" is held out), and none
    is a test phrase of another language; such training phrases are dropped, in that language only.

    Raises:
        KeyError: the language is not one of :func:`languages`.
    """
    if language not in locales():
        raise KeyError(f"{language!r} is not a language of the CLDR corpus; see langsamp.train.text.cldr.languages().")
    return _texts(language)


@cache
def _texts(language: str) -> Mapping[str, str]:
    elsewhere = _held_out_texts()
    return {
        key: text
        for key, text in _candidates(language).items()
        if split_of(key) == "test" or text.casefold() not in elsewhere
    }


@cache
def _held_out_texts() -> frozenset[str]:
    """The test phrases of all languages (a few seconds of work)."""
    return frozenset(
        text.casefold()
        for language in languages()
        for key, text in _candidates(language).items()
        if split_of(key) == "test"
    )


@cache
def _candidates(language: str) -> Mapping[str, str]:
    """The phrases of one language as far as they can be judged without looking at the others."""
    identifier = locales()[language]
    every = cldr_text.phrases(identifier, _own_data(identifier), held_out=lambda key: split_of(key) == "test")
    unique: dict[str, str] = {}
    seen: set[str] = set()
    for key, text in sorted(every.items(), key=lambda item: (split_of(item[0]) != "test", item[0])):
        if text.casefold() not in seen:
            seen.add(text.casefold())
            unique[key] = text
    guard = cldr_text.Guard(language, (text for key, text in unique.items() if split_of(key) == "test"))
    return {key: text for key, text in sorted(unique.items()) if split_of(key) == "test" or not guard.hit(text)}


def write_phrases(folder: str | Path, split: str = "test", only: list[str] | None = None) -> Path:
    """Write one ``lang_Script.parquet`` a language with columns id, text, label, split: the evaluation data format.

    Args:
        folder: made if missing.
        split: ``train``, ``test`` or ``all``.
        only: the languages wanted; None for all.

    Returns:
        The folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in ("id", "text", "label", "split")])
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for language in only or languages():
        rows = [
            {"id": key, "text": text, "label": key.split("/")[0], "split": split_of(key)}
            for key, text in texts(language).items()
            if split in ("all", split_of(key))
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema), target / f"{language}.parquet")
    return target


@cache
def documents(language: str) -> tuple[str, ...]:
    """The training text of one language: a few thousand short lines, in a fixed order.

    Lines are the training phrases themselves, lists of them, and facts that CLDR knows about territories (their
    languages and currency). No line contains a phrase of its language's test split.
    """
    train = {key: text for key, text in texts(language).items() if split_of(key) == "train"}
    guard = cldr_text.Guard(language, (text for key, text in texts(language).items() if split_of(key) == "test"))
    lines = cldr_text.lines(language, train, _own_data(locales()[language]))
    return tuple(line for line in lines if line.casefold() not in _held_out_texts() and not guard.hit(line))


class CldrCorpus(Corpus):
    """The corpus named ``cldr``: one part a language, made on the spot."""

    name = "cldr"

    def _find(self) -> dict[str, list[Part]]:
        version = f"cldr of babel {babel.__version__}, format {cldr_text.FORMAT}"
        parts = (Part(language, language, _SIZE_GUESS, version) for language in languages())
        return {part.language: [part] for part in parts if self._wants(Told(*part.language.split("_")))}

    def fingerprint(self, part: Part) -> str:
        """Text is a function of Babel's version and of how phrases are composed."""
        return hashlib.sha256(f"{part.detail} {part.language}".encode()).hexdigest()

    def _texts(self, part: Part, report: Report) -> Iterator[str]:
        return iter(documents(part.language))


_SIZE_GUESS = 60_000  # bytes a language, for progress bars; knowing better would mean composing the text
