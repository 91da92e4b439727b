"""What the names of files and folders tell: a language, perhaps its script, and marks such as a split or "noisy".

The readers of corpora and of evaluation data understand names here and nowhere else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from langsamp.core.language.languages import (
    OTHER_NAMES,
    check_tag,
    is_language,
    is_region_for,
    is_script,
    likely_script,
    region_of,
    scripts_agree,
)
from langsamp.language_codes import TAG, TO_ISO_639_3, UNKNOWN_SCRIPT
from langsamp.unicode_scripts import script_of


def _by_word(words: Mapping[str, str]) -> dict[str, str]:
    """``{"train": "train training"}`` -> ``{"train": "train", "training": "train"}``."""
    return {word: meaning for meaning, some in words.items() for word in some.split()}


SPLITS = _by_word(
    {
        "train": "train training",
        "dev": "dev valid val validation development",
        "test": "test testing devtest eval heldout",
    }
)
SUBSETS = frozenset(
    {"noisy", "removed", "noclean", "noblocklist", "unclean", "dirty", "rejected", "discarded", "duplicates"}
)
_SCRIPT_WORDS = _by_word(
    {
        "Latn": "rom latin",
        "Cyrl": "cyrl cyrillic",
        "Arab": "arabic",
        "Hans": "simp simpl simplified",
        "Hant": "trad traditional",
    }
)
# Codes of ISO 639-3 that are more often words in the name of a folder; a second name must agree before they count.
_WORDS = frozenset({
    "all", "bin", "bio", "dev", "doc", "gov", "law", "med", "mix", "ner", "new", "old", "out", "pos", "raw", "ref",
    "run", "set", "src", "sub", "tar", "tmp", "tok", "txt", "two", "val", "web",
})  # fmt: skip
# What may stand beside a code in a name: sw_part_00000, sw_clean_0000, c4-sw, swh_Latn_removed, 20231101.sw
_BESIDE = re.compile(
    r"\d+[km]?|c4|mc4|of|part|shard|chunk|clean|cleaned|meta|dedup|deduped|deduplicated|tfrecord", re.I
)
_EBIBLE = re.compile(r"([a-z]{3})-\1.*")  # deu-deu1912, arb-arb-vd
_LEIPZIG = re.compile(r"([a-z]{3})(?:-[a-z]{2})?_[a-z-]+(?:_[\w-]+)?_\d+[KM]?-sentences")  # deu_news_2020_10K-sentences
_WITH_SCRIPT = re.compile(r"(?<![A-Za-z0-9])([a-z]{2,3})[-_]([A-Z][a-z]{3})(?![A-Za-z0-9])")
_WIKIEXTRACTOR = re.compile(r"[A-Z]{2}/wiki_\d+")  # the folders AA, AB, ... are no languages
_TWO = re.compile(r"(?:.+\.)?([a-z]{2})[-_]([a-z]{2})(?:\..+)?")  # en-sw, but also pt-br
_PAIR = re.compile(r"(?:.+\.)?([\w@]+)-([\w@]+)\.(?:.+\.)?([\w@]+)")  # OPUS and LASER: Tatoeba.en-sw.sw


@dataclass(frozen=True)
class Told:
    """A language as a name tells it, in ISO 639-3; the script is None where the name has none."""

    language: str
    script: str | None = None
    region: str | None = None


def find_language(pieces: Sequence[str], names: Mapping[str, str] | None = None) -> Told | None:
    """The language that a path tells, or None.

    Args:
        pieces: the folders from the outermost on, then the file's name without what says its format.
        names: what names that are no codes stand for, ``{"swahili": "swh"}``; these come first.

    Raises:
        ValueError: the names tell several languages.
    """
    if len(pieces) > 1 and _WIKIEXTRACTOR.fullmatch("/".join(pieces[-2:])):
        pieces = pieces[:-2]
    for piece in reversed(pieces) if names else ():
        for part in (piece, *piece.split(".")):
            if part in names:  # type: ignore[operator]
                return _told(names[part])  # type: ignore[index]
    told = [(piece, language) for piece in pieces if (language := language_in(piece))]
    if written := [language for _, language in told if language.script]:
        return written[0]
    certain = [language for piece, language in told if not _is_word(piece)]
    found = certain or ([language for _, language in told] if len(told) > 1 else [])
    counts = Counter(language.language for language in found).most_common(2)
    if len(counts) > 1 and counts[0][1] == counts[1][1]:
        raise ValueError(f"its names tell several languages ({', '.join(language.language for language in found)})")
    if not counts and (two := next(filter(None, map(_two, pieces)), None)):
        raise ValueError(f"its name tells two languages ({', '.join(two)}); give each a file of its own")
    found = [language for language in found if language.language == counts[0][0]]
    return max(found, key=lambda language: language.region is not None, default=None)


def _told(tag: str) -> Told:
    language, script = check_tag(tag)
    return Told(language, script, region_of(tag))


def _is_word(piece: str) -> bool:
    said_twice = _EBIBLE.fullmatch(piece) or _LEIPZIG.fullmatch(piece)
    return not said_twice and re.split(r"[^A-Za-z]", piece)[0].lower() in _WORDS


def _two(text: str) -> tuple[str, str] | None:
    """The languages of a parallel corpus in one file, ``en-sw``; None for ``pt-br``, Brazil's Portuguese."""
    match = _TWO.fullmatch(text)
    if match is None or match[1] == match[2] or is_region_for(match[2]) or not {match[1], match[2]} <= {*TO_ISO_639_3}:
        return None
    return TO_ISO_639_3[match[1]], TO_ISO_639_3[match[2]]


@cache
def language_in(piece: str) -> Told | None:
    """The language that one name tells: ``deu_Latn``, ``sw_part_00000``, ``20231101.sw``, ``zh-min-nan``."""
    parts = dict.fromkeys((piece, *piece.split(".")))
    return next((told for read in (_whole, _inside) for part in parts if (told := read(part))), None)


def _whole(text: str) -> Told | None:
    """A name that is a tag, or what data sets write for one."""
    known = text.lower().replace("_", "-")
    if known in OTHER_NAMES:
        tag = OTHER_NAMES[known]
        return _told(tag) if tag else None
    head, _, word = re.sub("[-_@]", "@", text).partition("@")
    if script := _SCRIPT_WORDS.get(word.lower()):
        told = _whole(head)
        return Told(told.language, script) if told else None
    match = TAG.fullmatch(text)
    if match is None or _two(text):
        return None
    language = match[1].lower()
    language = TO_ISO_639_3.get(language, language)
    script = match[2].title() if match[2] else None
    if len(language) != 3 or not is_language(language) or not (script is None or is_script(script)):
        return None
    return Told(language, script, region_of(text))


def _inside(text: str) -> Told | None:
    """A tag among what may stand beside one."""
    if match := _EBIBLE.fullmatch(text) or _LEIPZIG.fullmatch(text):
        return _whole(match[1])
    tokens = [match.span() for match in re.finditer("[A-Za-z0-9]+", text)]
    while tokens and _may_stand_beside(text[slice(*tokens[-1])]):
        tokens.pop()
    while tokens and _may_stand_beside(text[slice(*tokens[0])]):
        tokens.pop(0)
    if tokens and (told := _whole(text[tokens[0][0] : tokens[-1][1]])):
        return told
    written = {(match[1], match[2]) for match in _WITH_SCRIPT.finditer(text)}
    found = [told for language, script in sorted(written) if (told := _whole(f"{language}_{script}"))]
    return found[0] if len(found) == 1 else None


def _may_stand_beside(token: str) -> bool:
    return token.lower() in SPLITS or token.lower() in SUBSETS or bool(_BESIDE.fullmatch(token))


def script_told(told: Told, text: str) -> str:
    """The script of a language: that of its name, else of the text, else the likely one where there are no letters.

    Han characters do not tell Hans from Hant, but a region in the name does.
    """
    likely, found = likely_script(told.language, told.region), script_of(text)
    finer = told.region is not None and likely is not None and scripts_agree(likely, found)
    return told.script or (likely if likely and (found == UNKNOWN_SCRIPT or finer) else found)


def pair_side(name: str) -> Told | None:
    """The language of one side of a parallel corpus whose file ends in it: ``Tatoeba.en-sw.sw`` -> Swahili."""
    match = _PAIR.fullmatch(name)
    return _whole(match[3]) if match and match[3] in match.groups()[:2] else None


def marks(pieces: Iterable[str], also: Container[str] = ()) -> set[str]:
    """What a path is marked as: ``train``, ``dev`` or ``test``, and subsets such as ``noisy``; empty for plain text.

    Args:
        pieces: the folders and the file's name.
        also: further words that count as subsets.
    """
    words = {word.lower() for piece in pieces for word in re.split("[^A-Za-z]+", piece)}
    return {SPLITS.get(word, word) for word in words if word in SPLITS or word in SUBSETS or word in also}
