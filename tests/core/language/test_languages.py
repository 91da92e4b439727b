"""Full names of languages: likely scripts, and codes that do not exist."""

import pytest

from langsamp.core.language.languages import normalize_tag


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("zh-TW", "zho_Hant"), ("zh_hk", "zho_Hant"), ("cmn-TW", "cmn_Hant"), ("sr-ME", "srp_Latn"), ("pa-PK", "pan_Arab"),
     ("zh-Hans-TW", "zho_Hans"), ("de-CH", "deu_Latn"), ("es-419", "spa_Latn"), ("de-XX", "deu_Latn")],
)  # fmt: skip
def test_the_likely_script_is_that_of_the_region(tag, expected):
    assert normalize_tag(tag) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("de", "deu_Latn"), ("zh-Hans", "zho_Hans"), ("ru", "rus_Cyrl"), ("cmn", "cmn_Hans"), ("abk", "abk_Cyrl")],
)
def test_normalize_tag_adds_the_likely_script(tag, expected):
    assert normalize_tag(tag) == expected


def test_codes_that_do_not_exist_are_refused_with_suggestions():
    with pytest.raises(ValueError, match=r"'xxq'.*no ISO 639-3 code; nearest: \w{3}, \w{3}, \w{3}"):
        normalize_tag("xxq_Latn")
    with pytest.raises(ValueError, match=r"'Latx'.*no ISO 15924 code; nearest: Latn"):
        normalize_tag("deu_Latx")
    with pytest.raises(ValueError, match="write it out"):
        normalize_tag("und")


def test_every_development_language_is_its_own_normal_form(shared):
    import csv

    with (shared / "data" / "languages.csv").open() as file:
        codes = [row["code"] for row in csv.DictReader(file)]
    assert len(codes) > 400
    assert [normalize_tag(code) for code in codes] == codes
