"""Questions to a masked LM: held-out phrases without a word that the corpus teaches; answers counted as they are."""

import pytest
import torch
from support.families import available, train_tokenizer

from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.text import cldr
from langsamp.train.text.cldr_masks import Question, guessed, questions

WORDS = ["and", "Time", "Standard", "in", "Africa", "days", "12", ",", "समय"]
ID = {word: 100 + number for number, word in enumerate([*WORDS, "[M]"])}


class Words:
    """A tokenizer that knows a few words; the others are two pieces, but "Alaska" is one that is not known."""

    mask_token, unk_token_id = "[M]", 3

    def __call__(self, text):
        pieces = [[self.unk_token_id] if word == "Alaska" else [ID.get(word, 7), *([] if word in ID else [8])]
                  for word in text.split()]  # fmt: skip
        return {"input_ids": [0, *(piece for word in pieces for piece in word), 2]}


def test_the_commonest_word_that_is_one_piece_is_asked_for():
    texts = cldr.texts("eng_Latn")
    held_out = {text for key, text in texts.items() if cldr.split_of(key) == "test"}
    asked = questions("eng_Latn", Words())
    assert len(asked) > 30
    for question in asked:
        assert question.text.replace("[M]", question.word) in held_out
        assert question.piece == ID[question.word]
        assert question.word.isalpha(), "neither numbers nor commas"
    zone = next(question for question in asked if question.text.startswith("Alaska"))
    assert (zone.kind, zone.text, zone.word) == ("zone", "Alaska Standard [M]", "Time"), "not the rarer Standard"
    assert any(question.word == "and" and question.kind == "list" for question in asked)
    assert {question.word for question in questions("hin_Deva", Words())} == {"समय"}, "combining signs are letters"


@pytest.mark.parametrize("name", available())
def test_whatever_the_tokenizer_the_mask_stands_for_one_piece_and_nothing_else_changes(name):
    """Masks that take the space before them and masks that do not, bytes, word pieces."""
    texts = cldr.texts("eng_Latn")
    tokenizer = train_tokenizer(name, texts.values())
    asked = questions("eng_Latn", tokenizer)
    assert len(asked) > 5
    for question in asked:
        before, after = question.text.split(tokenizer.mask_token)
        space = "" if before.endswith(" ") or not before else " "
        whole = tokenizer(before + space + question.word + after)["input_ids"]
        assert [piece if piece != tokenizer.mask_token_id else question.piece for piece in tokenizer(question.text)[
            "input_ids"]] == whole  # fmt: skip
        assert tokenizer.decode([question.piece]).strip() == question.word


def test_nothing_is_asked_where_no_word_is_a_piece(tiny_tokenizer):
    assert questions("eng_Latn", tiny_tokenizer) == []


@pytest.fixture(scope="module")
def asked(tiny_model_dir):
    """Phrases with a mask whose right answer is whatever piece."""
    pieces = LangSAMPTokenizer.from_pretrained(tiny_model_dir).get_vocab().values()
    texts = [text.split() for key, text in cldr.texts("eng_Latn").items() if cldr.split_of(key) == "test"]
    some = [words for words in texts if len(words) > 1][:40]
    return [Question("eng_Latn", "zone", " ".join([*words[:-1], "<mask>"]), words[-1], sorted(pieces)[-30 + n % 20])
            for n, words in enumerate(some)]  # fmt: skip


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
