"""Regenerate core/language/families.txt from CLDR: ``python tools/make_language_families.py FILE``.

FILE is ``supplemental/languageGroups.json`` of the npm package cldr-core (48.2 was used).
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

from langcodes import Language

# Groups of ISO 639-5 that are geographic, disputed or not genealogical: a member's family is the next lower group.
COLLECTIONS = {"art", "aus", "cai", "cau", "cpe", "crp", "euq", "khi", "mul", "nai", "paa", "sai", "sgn", "ssa"}
COLLECTIONS |= {"tut", "und"}


def families(groups: dict[str, list[str]]) -> dict[str, list[str]]:
    """The members (ISO 639-3) of each top-most group that is a family."""
    parent = {child: group for group, children in groups.items() for child in children}
    members: dict[str, set[str]] = {}
    for code in parent:
        chain = [code]
        while chain[-1] in parent:
            chain.append(parent[chain[-1]])
        named = [group for group in chain[1:] if group not in COLLECTIONS]
        if named:
            members.setdefault(named[-1], set()).add(Language.get(code, normalize=False).to_alpha3())
    return {family: sorted(codes) for family, codes in sorted(members.items())}


def main() -> None:
    """Write the table: a family a line, its members behind it."""
    data = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["supplemental"]
    groups = {group: children.split() for group, children in data["languageGroups"].items()}
    entries = [f"{family}: {' '.join(codes)}" for family, codes in families(groups).items()]
    table = "\n".join(textwrap.fill(entry, 118, subsequent_indent=" ") for entry in entries)
    path = Path(__file__).resolve().parents[1] / "core" / "language" / "families.txt"
    path.write_text(table + "\n", encoding="utf-8")
    print(f"wrote {path.name} from CLDR {data['version']['_cldrVersion']}")


if __name__ == "__main__":
    main()
