"""Names of others are printed as letters."""

from __future__ import annotations

import io

from langsamp.core.plain import Printable, printable


def test_controls_are_spelled_out_and_texts_stay():
    assert printable("\x1b[31mred\x1b[0m \x07\r\x9b2J") == r"\x1b[31mred\x1b[0m \x07\r\x9b2J"
    assert printable("a\u202eb\u2066c\u2028d") == r"a\u202eb\u2066c\u2028d"
    for text in ("line\nnext\ttab", "Gĩkũyũ میخواهم क्‍ष 😀", "می\u200cخواهم"):  # joiners are part of words
        assert printable(text) == text


def test_a_printable_stream_is_the_stream_otherwise():
    stream = io.StringIO()
    print("a\x1b[2Jb", file=Printable(stream))
    assert stream.getvalue() == "a\\x1b[2Jb\n"
    assert Printable(stream).closed is False
