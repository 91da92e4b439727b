"""Text of others in Markdown, in Python examples and in tables: it means itself, whatever it holds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from markupsafe import escape

from langsamp.core.plain import one_line

_MARKDOWN = re.compile(r"([\\`*\[\]|{}#~$])|(?<!\w)_|_(?!\w)")
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def markdown(value: Any) -> str:
    """Text for Markdown, table cells too: no markup, no HTML, no cell or line of its own."""
    return _MARKDOWN.sub(lambda match: "\\" + match[0], str(escape(one_line(value))))


def code(value: Any) -> str:
    """A name for a code span: letters, digits and what names are joined by; anything else could end the span."""
    return re.sub(r"[^\w@./:+-]+", "", one_line(value))


def python(value: Any) -> str:
    """A string literal for an example in Python; a name never leaves it, nor the fence around the example."""
    text = re.sub(r"[\"'\\`]+", "", one_line(value))
    return f'"{text}"'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str = ",") -> str:
    """A CSV or TSV file; text that a spreadsheet would compute has an apostrophe before it."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    for row in (head, *rows):
        writer.writerow([_cell(cell) if cell.__class__ is str else cell for cell in row])
    return file.getvalue()


@cache
def _cell(text: str) -> str:
    """The same few names come in every row; a line of its own in a cell would begin with what others wrote."""
    text = one_line(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
