"""Which family a language belongs to, as far as CLDR says: the colours of the embedding map and its purity score.

families.txt is generated (tools/make_language_families.py) from the language groups of the Unicode CLDR 48, which are
those of ISO 639-5 (© 2004-2026 Unicode, Inc., Unicode License v3); a few languages that CLDR leaves out are added. It
is coarse and incomplete: isolates, creoles, signed and constructed languages, and groups that are only geographic have
no family here, and None is the answer.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Languages of common corpora that CLDR's groups lack and whose family nobody disputes.
_MORE = """\
afa: acq ajp alw dbr jii mlt
aav: juy unx
awd: cpu
ine: aln als ast bfz bpx dso lbm mwl pnb rmn rmy sqi
map: abc buc max min ppk
nic: amo fuf ndo reg run zdj
omq: mzi ztu
sit: csy hak hlt tvt
tai: kkh
"""


@cache
def _families() -> dict[str, str]:
    table: dict[str, str] = {}
    generated = Path(__file__).with_name("families.txt").read_text(encoding="utf-8")
    for entry in (generated + _MORE).replace("\n ", " ").splitlines():
        family, _, codes = entry.partition(": ")
        table.update(dict.fromkeys(codes.split(), family))
    return table


@cache
def family_of(language: str) -> str | None:
    """The family of a language (ISO 639-3, with or without a script) as a code of ISO 639-5, or None where unknown.

    A language that CLDR does not list belongs to the family of its macrolanguage (`ekk` -> `est` -> `urj`).
    """
    code = language.partition("_")[0]
    table = _families()
    if code in table:
        return table[code]
    from langcodes import Language

    macro = Language.get(code).prefer_macrolanguage()
    try:
        return table.get(macro.to_alpha3())
    except LookupError:  # not a code of ISO 639
        return None


@cache
def family_name(family: str) -> str:
    """The English name of a family: `ine` -> `Indo-European`."""
    from langcodes import Language

    name = Language.get(family).display_name()
    return name.removesuffix(" languages").removesuffix(" (family)")
