"""What people type, and what it is turned into."""

import langcodes
import pytest
from langcodes.data_dicts import LANGUAGE_ALPHA3, LANGUAGE_ALPHA3_BIBLIOGRAPHIC

from langsamp.language_codes import (
    _MEMBERS,
    TO_ISO_639_3,
    match_language,
    match_script,
    nearest,
    other_codes,
    parse_tag,
    suggest,
)


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


@pytest.mark.parametrize(
    ("code", "known", "expected"),
    [
        ("swh", ["und", "swa"], "swa"),
        ("swa", ["swh"], "swh"),
        ("cmn", ["zho"], "zho"),
        ("zho", ["cmn", "yue"], "cmn"),
        ("nob", ["nor"], "nor"),
        ("scr", ["hrv"], "hrv"),
        ("fil", ["tgl"], "tgl"),
        ("arz", ["ara"], None),
        ("swh", ["swc"], None),
        ("msa", ["zsm", "zlm"], None),
        ("deu", ["swa"], None),
        ("swh", {"swh": 3, "swa": 4}, "swh"),
    ],
)
def test_one_language_under_codes_of_other_precision(code, known, expected):
    assert match_language(code, known) == expected


def test_suggestions_begin_with_the_same_language_then_its_family():
    known = ["deu", "swa", "ara", "swb", "swe", "arz", "zho", "hrv"]
    assert suggest("swh", known)[0] == "swa"
    assert suggest("arb", known)[:2] == ["ara", "arz"]
    assert suggest("apc", known)[:2] == ["ara", "arz"]
    assert suggest("srp", known)[0] == "hrv"
    assert len(suggest("xxx", known, 5)) == 5


def test_the_macrolanguages_agree_with_langcodes():
    from langcodes.data_dicts import LANGUAGE_REPLACEMENTS, MACROLANGUAGES, NORMALIZED_MACROLANGUAGES

    def long(code):
        return TO_ISO_639_3.get(code, code)

    table = {member: macro for macro, (usual, rest) in _MEMBERS.items() for member in usual + rest}
    added = {"fil", "bho"}
    assert {member: macro for member, macro in table.items() if member not in added} == {
        long(member): long(macro) for member, macro in MACROLANGUAGES.items()
    }
    for member, macro in NORMALIZED_MACROLANGUAGES.items():
        if member not in ("bh", "him", "pbu"):  # two are in no macrolanguage of ISO 639-3; FLORES has pbt
            assert long(macro) in other_codes(long(member))
    for old in ("scc", "scr", "ccq", "yuu"):
        assert other_codes(old) == [long(LANGUAGE_REPLACEMENTS[old])]
