"""Questions to a masked LM: held-out phrases without a word that the corpus teaches; answers counted as they are."""

import pytest
import torch

from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.text import cldr
from langsamp.train.text.cldr_masks import guessed, questions

PIECES = {
    f"▁{word}": number for number, word in enumerate(["and", "Time", "Standard", "in", "Africa", "days", "12", ","])
}


def test_the_commonest_word_that_is_one_piece_is_asked_for():
    texts = cldr.texts("eng_Latn")
    held_out = {text for key, text in texts.items() if cldr.split_of(key) == "test"}
    asked = questions("eng_Latn", PIECES)
    assert len(asked) > 30
    for question in asked:
        assert question.text.replace("<mask>", question.word) in held_out
        assert question.piece == PIECES[f"▁{question.word}"]
        assert question.word.isalpha(), "neither numbers nor commas"
    zone = next(question for question in asked if question.text.startswith("Alaska"))
    assert (zone.kind, zone.text, zone.word) == ("zone", "Alaska Standard <mask>", "Time"), "not the rarer Standard"
    assert any(question.word == "and" and question.kind == "list" for question in asked)


def test_words_of_scripts_with_combining_signs_are_words():
    assert {question.word for question in questions("hin_Deva", {"▁समय": 7})} == {"समय"}


def test_nothing_is_asked_where_no_word_is_a_piece():
    assert questions("eng_Latn", {}) == []


@pytest.fixture(scope="module")
def asked(tiny_model_dir):
    vocabulary = LangSAMPTokenizer.from_pretrained(tiny_model_dir).get_vocab()
    words = {piece: number for piece, number in vocabulary.items() if piece.startswith("▁")}
    found = questions("eng_Latn", {**words, "▁Time": max(words.values())})
    assert len(found) > 5
    return found


def test_a_word_is_right_when_it_is_among_the_first_guesses(tiny_model_dir, asked):
    everything = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir).config.vocab_size
    assert guessed(tiny_model_dir, asked, True, everything).all()
    few, more = (guessed(tiny_model_dir, asked, True, count) for count in (1, everything // 2))
    assert (few <= more).all()
    assert few.sum() < len(asked)


def test_answers_stand_in_the_order_of_the_questions_and_telling_the_language_counts(tiny_model_dir, asked):
    half = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir).config.vocab_size // 2
    told = guessed(tiny_model_dir, asked, True, half)
    assert guessed(tiny_model_dir, asked[::-1], True, half).tolist() == told[::-1].tolist()
    assert torch.tensor(guessed(tiny_model_dir, asked, False, half)).ne(torch.tensor(told)).any()
