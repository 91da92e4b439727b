"""What people type, and what it is turned into."""

import langcodes
import pytest
from langcodes.data_dicts import LANGUAGE_ALPHA3, LANGUAGE_ALPHA3_BIBLIOGRAPHIC

from langsamp.language_codes import match_script, nearest, parse_tag


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("de", ("deu", None)),
        ("deu", ("deu", None)),
        ("ger", ("deu", None)),
        ("DE", ("deu", None)),
        ("deu_Latn", ("deu", "Latn")),
        ("de-Latn", ("deu", "Latn")),
        ("ENG_latn", ("eng", "Latn")),
        ("zh-Hans-CN", ("zho", "Hans")),
        ("pt-BR", ("por", None)),
        ("iw", ("heb", None)),
        (" eng ", ("eng", None)),
    ],
)
def test_parse_tag(tag, expected):
    assert parse_tag(tag) == expected


@pytest.mark.parametrize("tag", ["", "d", "german", "deu_Lat", "deu_Latin", "deu Latn", "de_Latn_x", None, 3, "дeu"])
def test_what_is_no_tag_is_refused_by_name(tag):
    with pytest.raises(ValueError, match="is not a language tag"):
        parse_tag(tag)


def test_an_unknown_two_letter_code_names_the_nearest():
    with pytest.raises(ValueError, match=r"'dx' in 'dx' is no ISO 639-1 code; nearest: "):
        parse_tag("dx")


def test_the_shipped_tables_agree_with_langcodes():
    for two, three in LANGUAGE_ALPHA3.items():
        if len(two) == 2 and len(three) == 3 and two not in ("bh", "mo"):  # a collection; a retired alias of ro
            assert parse_tag(two)[0] == three
    for two, bibliographic in LANGUAGE_ALPHA3_BIBLIOGRAPHIC.items():
        assert parse_tag(bibliographic)[0] == langcodes.Language.get(two).to_alpha3()


def test_match_script():
    assert match_script("Hans", ["Hani", "Latn"]) == "Hani"
    assert match_script("Hani", ["Hans", "Latn"]) == "Hans"
    assert match_script("Hani", ["Hans", "Hant"]) is None
    assert match_script("Kore", ["Hang"]) == "Hang"
    assert match_script("Thai", ["Hang"]) is None
    assert match_script(None, ["Hang"]) is None


def test_nearest_always_suggests():
    assert nearest("zzz", ["aaa", "zza", "zzb", "bbb"])[:2] == ["zzb", "zza"]
