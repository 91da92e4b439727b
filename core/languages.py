"""Which languages there are and how they are usually written: what takes the tables of ISO 639 and CLDR (langcodes)."""

from __future__ import annotations

from collections.abc import Iterable

import langcodes
from langcodes.data_dicts import ALL_SCRIPTS, LIKELY_SUBTAGS

from langsamp.language_codes import (
    LANGUAGE_PATTERN,
    SCRIPT_PATTERN,
    TAG,
    TO_ISO_639_3,
    UNKNOWN_LANGUAGE,
    nearest,
    parse_tag,
)


def normalize_tag(tag: str) -> str:
    """The full name of a language, ``de`` -> ``deu_Latn``; a script that is not given is the likely one of CLDR.

    A region counts for that and is dropped then: ``zh-TW`` -> ``zho_Hant``.

    Raises:
        ValueError: malformed, or not a code of ISO 639-3 / ISO 15924 (the nearest ones are named), or a language whose
            usual script CLDR does not know.
    """
    language, script = parse_tag(tag)
    known = langcodes.Language.get(language)
    if language != UNKNOWN_LANGUAGE and not known.is_valid():
        raise ValueError(
            f"{language!r} in {tag!r} is no ISO 639-3 code; nearest: {', '.join(nearest(language, _all_codes()))}."
        )
    if script is None:
        known = known if known.language in LIKELY_SUBTAGS else known.prefer_macrolanguage()  # cmn -> zho, arb -> ara
        if known.language not in LIKELY_SUBTAGS:
            raise ValueError(f"{tag!r} names no script and CLDR knows none for it; write it out as lang_Script.")
        match = TAG.fullmatch(tag.strip())
        region = match[3].upper() if match and match[3] else None
        script = langcodes.Language.make(language=known.language, territory=region).maximize().script
    elif not langcodes.Language.make(script=script).is_valid():
        raise ValueError(
            f"{script!r} in {tag!r} is no ISO 15924 code; nearest: {', '.join(nearest(script, _all_scripts()))}."
        )
    return f"{language}_{script}"


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


def _all_codes() -> list[str]:
    """The ISO 639-3 codes CLDR knows, for suggestions."""
    return sorted({code for code in LIKELY_SUBTAGS if LANGUAGE_PATTERN.fullmatch(code)} | set(TO_ISO_639_3.values()))


def _all_scripts() -> list[str]:
    """The ISO 15924 codes, for suggestions."""
    return sorted(code for code in ALL_SCRIPTS if SCRIPT_PATTERN.fullmatch(code))
