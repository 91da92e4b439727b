"""Regenerate the table of unicode_scripts.py from fontTools: ``python tools/make_unicode_scripts.py``."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from fontTools import unicodedata
from fontTools.unicodedata import Scripts

BEGIN, END = '_TABLE = """\\\n', '"""\n'


def table() -> str:
    """Every code point where the script changes, as ``hex:Code`` separated by blanks."""
    entries, last = [], None
    for code_point in range(sys.maxunicode + 1):
        script = unicodedata.script(chr(code_point))
        if script != last:
            entries.append(f"{code_point:x}:{script}")
            last = script
    return textwrap.fill(" ".join(entries), 118, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Replace the table between the markers, leave the code alone."""
    path = Path(__file__).resolve().parent.parent / "unicode_scripts.py"
    text = path.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END, 1)[1]
    version = next(line for line in Path(Scripts.__file__).read_text().splitlines() if "Scripts-" in line).split()[-1]
    path.write_text(head + BEGIN + table() + "\n" + END + tail, encoding="utf-8")
    print(f"wrote {path.name} from {version}")


if __name__ == "__main__":
    main()
