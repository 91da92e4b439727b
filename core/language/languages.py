"""Which languages there are and how they are usually written: what takes the tables of ISO 639 and CLDR (langcodes)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import langcodes
from langcodes.data_dicts import ALL_SCRIPTS, LIKELY_SUBTAGS

from langsamp.language_codes import (
    LANGUAGE_PATTERN,
    SCRIPT_PATTERN,
    TAG,
    TO_ISO_639_3,
    UNKNOWN_LANGUAGE,
    UNKNOWN_SCRIPT,
    match_script,
    nearest,
    parse_tag,
)

# What data sets call languages beside their codes -> the language, None for what is none. Some of Wikipedia's own names
# mean another language in ISO 639 ("als" is Tosk Albanian there).
WIKIPEDIA: dict[str, str | None] = {
    "als": "gsw_Latn",
    "bat-smg": "sgs_Latn",
    "cbk-zam": "cbk_Latn",
    "fiu-vro": "vro_Latn",
    "map-bms": None,
    "nds-nl": None,
    "be-x-old": None,
    "roa-rup": "rup_Latn",
    "simple": None,
    "zh-classical": "lzh_Hani",
    "zh-min-nan": "nan_Latn",
    "zh-yue": "yue_Hani",
    "eml": None,
    "bh": "bih_Deva",
}
# The names that mean nothing else, with those of CC-100 and MADLAD-400.
OTHER_NAMES: dict[str, str | None] = {
    **{name: tag for name, tag in WIKIPEDIA.items() if "-" in name or tag is None},
    "be-tarask": None,
    "ns": "nso_Latn",
    "my-zaw": None,  # Burmese, but in an encoding of its own
    "en-xx-simple": None,
    "zxx": None,
}


@cache
def is_language(code: str) -> bool:
    """Whether a three-letter code is one of ISO 639 ("und" counts)."""
    return code == UNKNOWN_LANGUAGE or langcodes.Language.get(code).is_valid()


@cache
def is_script(code: str) -> bool:
    """Whether a code is one of ISO 15924."""
    return langcodes.Language.make(script=code).is_valid()


@cache
def likely_script(language: str, region: str | None = None) -> str | None:
    """The script CLDR finds likely for an ISO 639-3 code (in a region); None where it knows none."""
    known = langcodes.Language.get(language)
    known = known if known.language in LIKELY_SUBTAGS else known.prefer_macrolanguage()  # cmn -> zho, arb -> ara
    if known.language not in LIKELY_SUBTAGS:
        return None
    return langcodes.Language.make(language=known.language, territory=region).maximize().script


@cache
def is_region_for(code: str) -> bool:
    """Whether two letters behind a language are rather a country than another language: ``br``, but not ``fr``.

    French is what France speaks: English beside ``fr`` is two languages, Portuguese beside ``br`` is Brazil's.
    """
    region = langcodes.Language.make(territory=code.upper())
    return region.is_valid() and region.maximize().language != code


def scripts_agree(script: str, found: str) -> bool:
    """Whether the script of a text is what its tag says; a text without letters says nothing."""
    same = match_script(found, [script]) or match_script(script, [found])
    return bool(same) or UNKNOWN_SCRIPT in (script, found) or (found == "Hani" and script in ("Jpan", "Hang", "Kore"))


def check_tag(tag: str) -> tuple[str, str | None]:
    """As `langsamp.language_codes.parse_tag`, for codes that exist only.

    Raises:
        ValueError: malformed, or not a code of ISO 639-3 / ISO 15924 (the nearest ones are named).
    """
    language, script = parse_tag(tag)
    if not is_language(language):
        raise ValueError(
            f"{language!r} in {tag!r} is no ISO 639-3 code; nearest: {', '.join(nearest(language, _all_codes()))}."
        )
    if script is not None and not is_script(script):
        raise ValueError(
            f"{script!r} in {tag!r} is no ISO 15924 code; nearest: {', '.join(nearest(script, _all_scripts()))}."
        )
    return language, script


def normalize_tag(tag: str) -> str:
    """The full name of a language, ``de`` -> ``deu_Latn``; a script that is not given is the likely one of CLDR.

    A region counts for that and is dropped then: ``zh-TW`` -> ``zho_Hant``.

    Raises:
        ValueError: as in `check_tag`, or a language whose usual script CLDR does not know.
    """
    language, script = check_tag(tag)
    script = script or likely_script(language, region_of(tag))
    if script is None:
        raise ValueError(f"{tag!r} names no script and CLDR knows none for it; write it out as lang_Script.")
    return f"{language}_{script}"


def region_of(tag: str) -> str | None:
    """``zh-TW`` -> ``TW``."""
    match = TAG.fullmatch(tag.strip())
    return match[3].upper() if match and match[3] else None


def parse_same_as(pairs: Iterable[str]) -> dict[str, str]:
    """What ``--same-as swh=swa`` says: the first code is to be read as the second, both in ISO 639-3.

    Raises:
        ValueError: not two languages with ``=`` between them.
    """
    found = {}
    for pair in pairs:
        one, _, other = pair.partition("=")
        try:
            found[parse_tag(one)[0]] = parse_tag(other)[0]
        except ValueError as error:
            raise ValueError(f"--same-as {pair!r}: write two languages like swh=swa ({error})") from error
    return found


def renamed(tag: str, same_as: Mapping[str, str]) -> str:
    """A tag with its language as `parse_same_as` says: ``swh_Latn`` -> ``swa_Latn``."""
    language, _, script = tag.partition("_")
    return f"{same_as[language]}_{script}" if language in same_as else tag


def _all_codes() -> list[str]:
    """The ISO 639-3 codes CLDR knows, for suggestions."""
    return sorted({code for code in LIKELY_SUBTAGS if LANGUAGE_PATTERN.fullmatch(code)} | set(TO_ISO_639_3.values()))


def _all_scripts() -> list[str]:
    """The ISO 15924 codes, for suggestions."""
    return sorted(code for code in ALL_SCRIPTS if SCRIPT_PATTERN.fullmatch(code))
