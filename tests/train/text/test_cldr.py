"""The built-in corpus: enough languages, parallel keys, and a test split that training text never shows."""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter

import pyarrow.parquet as pq
import pytest

from langsamp.train.text import cldr, cldr_text
from langsamp.train.text.open import open_corpus

SOME = ["eng_Latn", "deu_Latn", "zho_Hans", "amh_Ethi", "tha_Thai", "uzb_Cyrl"]


def test_more_than_200_languages_in_more_than_30_scripts():
    tags = cldr.languages()
    assert len({tag.split("_")[0] for tag in tags}) > 200
    assert len({tag.split("_")[1] for tag in tags}) > 30
    assert tags == sorted(set(tags))
    assert {"srp_Latn", "srp_Cyrl", "zho_Hant", "kor_Hang", "jpn_Jpan"} <= set(tags)


def test_locales_that_copy_another_are_left_out():
    kept = set(cldr.locales().values())
    assert "en" in kept
    assert "ceb" not in kept, "92 % of its names are English"
    assert len(kept & {"rwk", "vun", "jmc"}) == 1, "three locales with one and the same list"
    assert not {"de_AT", "el_POLYTON"} & kept


def test_phrases_are_parallel_and_labelled():
    english, german, chinese, *_ = (cldr.texts(language) for language in SOME)
    assert english["territory/DE"] == "Germany"
    assert german["territory/DE"] == "Deutschland"
    assert chinese["territory/DE"] == "德国"
    assert german["duration/day-future-3"] == "in 3 Tagen"
    assert english["unit/length-kilometer-12"] == "12 kilometers"
    topics = {key.split("/")[0] for key in english}
    assert {"territory", "language", "currency", "date", "duration", "unit", "list", "calendar"} <= topics


def test_the_split_goes_by_key_and_both_parts_are_usable():
    languages = Counter(key for language in SOME for key in cldr.texts(language))
    test = [key for key in languages if cldr.split_of(key) == "test"]
    assert 0.05 < len(test) / len(languages) < 0.15
    assert sum(languages[key] == len(SOME) for key in test) > 80
    assert not any(key.startswith("calendar/") for key in test)


@pytest.mark.parametrize("language", SOME)
def test_no_training_line_contains_a_held_out_phrase(language):
    held_out = [text for key, text in cldr.texts(language).items() if cldr.split_of(key) == "test"]
    lines = cldr.documents(language)
    assert len(lines) > 300
    unspaced = language.split("_")[1] in ("Hans", "Thai")
    padded = "\n".join(f" {' '.join(_words(line))} " for line in lines)
    for text in held_out:
        if unspaced and any(char.isdigit() for char in text):
            continue  # numbers are compared whole; the guard's own test below has such cases
        needle = " ".join(_words(text))
        assert (needle if unspaced else f" {needle} ") not in padded, text


def test_no_test_phrase_is_a_training_line_in_any_language():
    phrases = (item for language in cldr.languages() for item in cldr.texts(language).items())
    texts = {text.casefold() for key, text in phrases if cldr.split_of(key) == "test"}
    assert len(texts) > 20_000
    for language in cldr.languages()[::4]:
        assert not texts & {line.casefold() for line in cldr.documents(language)}, language


def _words(text):
    letters = (char if unicodedata.category(char)[0] in "LNMC" else " " for char in text.casefold())
    return "".join(letters).split()


def test_guard_matches_whole_words_and_whole_numbers():
    latin = cldr_text.Guard("eng_Latn", ["French", "5 meters"])
    assert latin.hit("Swiss French, German")
    assert latin.hit("about 5 METERS!")
    assert not latin.hit("Frenchmen")
    assert not latin.hit("15 meters")
    chinese = cldr_text.Guard("zho_Hans", ["法语", "5天"])
    assert chinese.hit("瑞士法语")
    assert not chinese.hit("15天")
    assert chinese.hit("还有5天")


def test_lists_are_joined_as_the_language_does():
    english = {"start": "{0}, {1}", "middle": "{0}, {1}", "end": "{0}, and {1}", "2": "{0} and {1}"}
    assert cldr_text.join(["a", "b"], english) == "a and b"
    assert cldr_text.join(["a", "b", "c", "d"], english) == "a, b, c, and d"


@pytest.mark.slow
def test_text_is_the_same_in_every_process(run_fresh):
    code = "import zlib; from langsamp.train.text.cldr import documents\n"
    code += "print(zlib.crc32(repr(documents('amh_Ethi')).encode()))"
    assert int(run_fresh(code)) == zlib.crc32(repr(cldr.documents("amh_Ethi")).encode())


def test_corpus_interface():
    corpus = open_corpus("cldr", only=["de", "am"])
    assert corpus.languages == ["amh_Ethi", "deu_Latn"]
    (part,) = corpus.parts["deu_Latn"]
    assert list(corpus.documents(part)) == list(cldr.documents("deu_Latn"))
    (other,) = corpus.parts["amh_Ethi"]
    assert corpus.fingerprint(part) != corpus.fingerprint(other)
    with pytest.raises(ValueError, match="no text in xho_Cyrl"):
        open_corpus("cldr", only=["xho_Cyrl"]).languages  # noqa: B018
    with pytest.raises(KeyError, match="not a language of the CLDR corpus"):
        cldr.texts("xxx_Latn")


def test_written_phrases_read_as_evaluation_data(tmp_path):
    folder = cldr.write_phrases(tmp_path / "phrases", only=["eng_Latn", "deu_Latn"])
    rows = pq.read_table(folder / "deu_Latn.parquet").to_pylist()
    assert {row["split"] for row in rows} == {"test"}
    assert {"id", "text", "label", "split"} == set(rows[0])
    english = {row["id"] for row in pq.read_table(folder / "eng_Latn.parquet").to_pylist()}
    assert len(english & {row["id"] for row in rows}) > 150
