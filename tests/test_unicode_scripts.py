"""Script detection: the Unicode property over all code points, mixed writing systems, speed."""

import sys
import time

import pytest

from langsamp.unicode_scripts import script_of, script_of_char


def test_no_code_point_differs_from_fonttools():
    unicodedata = pytest.importorskip("fontTools.unicodedata")
    characters = map(chr, range(sys.maxunicode + 1))
    assert [c for c in characters if script_of_char(c) != unicodedata.script(c)] == []


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The house.", "Latn"),
        ("Дом стоит.", "Cyrl"),
        ("日本語のテキスト", "Jpan"),
        ("東京都の人口", "Jpan"),
        ("カタカナ", "Jpan"),
        ("中文文本没有假名", "Hani"),
        ("ㄅㄆㄇ中", "Hani"),
        ("韓國語는 좋다 그리고", "Hang"),
        ("漢字漢字漢字漢字는", "Hani"),
        ("中" * 60 + "の", "Hani"),
        ("घर नदी", "Deva"),
        ("", "Zyyy"),
        ("12 345 — 😀!", "Zyyy"),
        ("\u0301\u200d\u200f", "Zyyy"),
        ("\ud800", "Zyyy"),
        ("a\u0301b 123", "Latn"),
        ("abc фы", "Latn"),
        ("ab фыв", "Cyrl"),
    ],
)
def test_script_of(text, script):
    assert script_of(text) == script


def test_a_tie_goes_to_the_script_that_comes_first():
    assert script_of("ab фы") == "Latn"
    assert script_of("фы ab") == "Cyrl"


def test_two_hundred_thousand_characters_a_second():
    lines = ["Привет hello 中文 the text here नमस्ते"] * 6000
    start = time.process_time()
    for line in lines:
        script_of(line)
    assert sum(map(len, lines)) / (time.process_time() - start) > 200_000
