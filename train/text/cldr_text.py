"""How CLDR entries become text: names, dates, durations and amounts as phrases, and phrases as lines to train on.

Used by :mod:`langsamp.train.text.cldr` only. Everything is a function of one locale's own data, so a phrase is there
only if the locale's contributors wrote it.
"""

from __future__ import annotations

import datetime
import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from babel import Locale, localedata
from babel.core import get_global
from babel.dates import format_date

FORMAT = 2  # raise when the lines composed here change: prepared stores then know that their text is old

_NAMES = {"territories": "territory", "languages": "language", "scripts": "script", "currency_names": "currency"}
_FIELDS = ("year", "quarter", "month", "week", "day", "hour", "minute", "second")
_COUNTS = (2, 3, 5, 12)
_DAYS = 120  # dates a language
_LISTS = 300  # lists tried; those with a held-out name fall away
# Written without spaces between words: held-out phrases are looked for character by character.
_UNSPACED = {"Hani", "Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Yiii"}


def names(data: Mapping[str, Any]) -> dict[str, str]:
    """Territory, language, script and currency names a locale gives itself: ``territory/DE`` -> ``Deutschland``."""
    return {
        f"{topic}/{code}": text.strip()
        for field, topic in _NAMES.items()
        for code, text in data.get(field, {}).items()
        if isinstance(text, str) and text.strip() and text.strip() != code
    }


def phrases(identifier: str, data: Mapping[str, Any], held_out: Callable[[str], bool]) -> dict[str, str]:
    """All phrases of a locale, key -> text. Composed ones (dates, amounts, lists) use no held-out name."""
    named = names(data)
    usable = {key: text for key, text in named.items() if not held_out(key)}
    found = dict(named)
    found.update(_places(data))
    found.update(_calendar(data))
    found.update(_dates(identifier, data))
    found.update(_durations(data))
    found.update(_amounts(data, usable))
    found.update(_lists(data, usable))
    return {key: unicodedata.normalize("NFC", " ".join(text.split())) for key, text in found.items()}


def _places(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Time zones and the cities they are named after."""
    for code, zone in data.get("meta_zones", {}).items():
        if text := zone.get("long", {}).get("standard"):
            yield f"zone/{code}", text
    for code, zone in data.get("time_zones", {}).items():
        if text := zone.get("city"):
            yield f"city/{code}", text


def _wide(data: Mapping[str, Any], field: str) -> dict[int, str]:
    """Month or day names in full; empty when the locale only refers to another form."""
    wide = data.get(field, {}).get("format", {}).get("wide", {})
    return wide if isinstance(wide, dict) and len(wide) >= 7 else {}


def _calendar(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Months and days of the week."""
    for field in ("months", "days"):
        for number, text in _wide(data, field).items():
            yield f"calendar/{field}-{number}", text


def _dates(identifier: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Full dates, as "Saturday, May 17, 2031"."""
    if not (_wide(data, "months") and _wide(data, "days") and "full" in data.get("date_formats", {})):
        return
    locale = Locale.parse(identifier)
    for number in range(_DAYS):
        day = datetime.date(1960, 1, 1) + datetime.timedelta(days=313 * number + number * number % 97)
        try:
            yield f"date/{day.isoformat()}", format_date(day, "full", locale=locale)
        except KeyError:  # the pattern asks for a form of the month that Babel cannot find in this locale
            return


def _durations(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Relative times ("in 3 days") and measures ("12 kilometers")."""
    plural = data.get("plural_form", lambda number: "other")
    for field in _FIELDS:
        for direction in ("future", "past"):
            forms = data.get("date_fields", {}).get(field, {}).get(direction, {})
            for count in _COUNTS:
                if text := _fill(forms, plural, count):
                    yield f"duration/{field}-{direction}-{count}", text
    for unit, styles in data.get("unit_patterns", {}).items():
        for count in _COUNTS[1:]:
            if text := _fill(styles.get("long", {}), plural, count):
                yield f"unit/{unit}-{count}", text


def _fill(forms: Any, plural: Callable[[int], str], count: int) -> str | None:
    """The pattern for a number with the number in it; None when the locale has none."""
    if not isinstance(forms, Mapping):
        return None
    pattern = forms.get(plural(count)) or forms.get("other")
    return pattern.replace("{0}", str(count)) if isinstance(pattern, str) and "{0}" in pattern else None


def _amounts(data: Mapping[str, Any], usable: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Amounts of money ("12 euros") for currencies whose name is in use."""
    plural = data.get("plural_form", lambda number: "other")
    for code, forms in data.get("currency_names_plural", {}).items():
        text = forms.get(plural(12)) or forms.get("other")
        if text and f"currency/{code}" in usable:
            yield f"amount/{code}-12", f"12 {text}"


@cache
def _triples() -> list[tuple[str, str, str]]:
    """Territory codes to make lists of; the same for every language."""
    codes = sorted(code for code in localedata.load("en")["territories"] if code.isalpha())
    rng = random.Random("lists")
    return [(first, second, third) for first, second, third in (rng.sample(codes, 3) for _ in range(_LISTS))]


def _lists(data: Mapping[str, Any], usable: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Lists of three territories ("Chad, Peru, and Togo")."""
    pattern = _list_pattern(data)
    for codes in _triples() if pattern else ():
        keys = [f"territory/{code}" for code in codes]
        if all(key in usable for key in keys):
            yield "list/" + "-".join(codes), join([usable[key] for key in keys], pattern)


def _list_pattern(data: Mapping[str, Any]) -> Mapping[str, str]:
    """How the locale writes lists; empty if it does not say."""
    pattern = data.get("list_patterns", {}).get("standard")
    return pattern if isinstance(pattern, Mapping) and {"start", "end"} <= pattern.keys() else {}


def join(items: Sequence[str], pattern: Mapping[str, str]) -> str:
    """Two or more items as a list in the language of the pattern (CLDR, list patterns: start, middle, end, 2)."""
    if len(items) == 2:
        return pattern.get("2", "{0}, {1}").replace("{0}", items[0]).replace("{1}", items[1])
    text = pattern["end"].replace("{0}", items[-2]).replace("{1}", items[-1])
    for item in reversed(items[1:-2]):
        text = pattern.get("middle", "{0}, {1}").replace("{0}", item).replace("{1}", text)
    return pattern["start"].replace("{0}", items[0]).replace("{1}", text) if len(items) > 2 else text


def lines(language: str, train: Mapping[str, str], data: Mapping[str, Any]) -> list[str]:
    """Lines to train on, shuffled by a seed of the language's own, so that no two languages run in parallel."""
    rng = random.Random(f"cldr {language}")
    found = list(train.values()) + list(_facts(train))
    pattern = _list_pattern(data) or {"start": "{0}, {1}", "middle": "{0}, {1}", "end": "{0}, {1}"}
    by_topic: dict[str, list[str]] = {}
    for key, text in train.items():
        by_topic.setdefault(key.split("/")[0], []).append(text)
    for texts in by_topic.values():
        rng.shuffle(texts)
        found += [join(texts[start : start + 3], pattern) for start in range(0, len(texts) - 2, 3)]
    for field, numbers in (("months", range(1, 13)), ("days", range(7))):
        ordered = [train[key] for number in numbers if (key := f"calendar/{field}-{number}") in train]
        found += [", ".join(ordered)] if ordered else []
    rng.shuffle(found)
    return found


def _facts(train: Mapping[str, str]) -> Iterator[str]:
    """What CLDR knows about a territory, as "Chile: Spanish; Chilean Peso", and about the writing of a language."""
    for key, text in train.items():
        topic, code = key.split("/", 1)
        if topic == "territory":
            spoken = [train[k] for c in _spoken(code) if (k := f"language/{c}") in train]
            money = train.get(f"currency/{_currency(code)}")
            parts = [", ".join(spoken), money or ""]
            if any(parts):
                yield f"{text}: " + "; ".join(part for part in parts if part)
        elif topic == "language" and (script := train.get(f"script/{_script(code)}")):
            yield f"{text} ({script})"


@cache
def _spoken(territory: str) -> tuple[str, ...]:
    """The three most spoken languages of a territory."""
    shares = get_global("territory_languages").get(territory, {})
    ranked = sorted(shares, key=lambda code: (-shares[code]["population_percent"], code))
    return tuple(code.split("_")[0] for code in ranked[:3])


@cache
def _currency(territory: str) -> str | None:
    """The currency a territory uses now."""
    current = [row[0] for row in get_global("territory_currencies").get(territory, []) if row[2] is None and row[3]]
    return current[0] if current else None


@cache
def _script(language: str) -> str | None:
    """The likely script of a language."""
    likely = get_global("likely_subtags").get(language)
    return likely.split("_")[1] if likely else None


class Guard:
    """Finds held-out phrases inside text: as a sequence of whole words, or of characters where words are not spaced.

    Case and punctuation do not count, and a number is one word ("5 m" is not in "15 m").
    """

    def __init__(self, language: str, held_out: Iterable[str]) -> None:
        self._by_character = language.split("_")[1] in _UNSPACED
        self._found: dict[str, list[tuple[str, ...]]] = {}
        for text in held_out:
            units = self._units(text)
            if units:
                self._found.setdefault(units[0], []).append(units)

    def hit(self, text: str) -> bool:
        """Whether the text contains a held-out phrase."""
        units = self._units(text)
        return any(
            units[start : start + len(candidate)] == candidate
            for start, unit in enumerate(units)
            for candidate in self._found.get(unit, ())
        )

    def _units(self, text: str) -> tuple[str, ...]:
        words = text.casefold().translate(_BOUNDARIES).split()
        return tuple(unit for word in words for unit in _characters(word)) if self._by_character else tuple(words)


def _characters(word: str) -> Iterator[str]:
    """The characters of a word, each run of digits in one."""
    for digits, run in groupby(word, str.isdigit):
        text = "".join(run)
        yield from [text] if digits else text


class _Boundaries(dict):
    """A table for str.translate that turns punctuation, symbols and separators into spaces, filled as it is used."""

    def __missing__(self, code: int) -> int:
        self[code] = 32 if unicodedata.category(chr(code))[0] in "PZS" else code
        return self[code]


_BOUNDARIES = _Boundaries()
