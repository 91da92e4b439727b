"""Vocabularies that fit a corpus: new pieces get used, nothing becomes <unk>, a trim changes no segmentation."""

from __future__ import annotations

import json
import shutil

import pytest
from support.families import stock_model, train_tokenizer

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.core.facts import license_of
from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.train.vocab.extend import Fertility, extend_vocab, fertility, learn_pieces, show_fertility

GEORGIAN = ["სახლი მდინარესთან დგას", "იანვარში დღეები მოკლეა", "ის კითხულობს წიგნს ფრინველების შესახებ"]


def streams(texts):
    return {language: (lambda sentences=sentences: iter(sentences)) for language, sentences in texts.items()}


@pytest.fixture
def corpus(tmp_path, texts):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "kat_Geor.txt").write_text("\n".join(GEORGIAN * 3), encoding="utf-8")
    (folder / "deu_Latn.txt").write_text("\n".join(texts["deu_Latn"]), encoding="utf-8")
    return folder


def test_fertility_is_counted_by_hand(tiny_tokenizer_dir):
    tokenizer = load_tokenizer(tiny_tokenizer_dir)
    found = fertility(tokenizer, streams({"deu_Latn": ["Das Haus"], "kat_Geor": ["სახლი"]}))
    tokens = len(tokenizer("Das Haus", add_special_tokens=False)["input_ids"])
    assert found["deu_Latn"] == Fertility(tokens / 2, tokens / 7, 0.0)
    assert found["kat_Geor"].unknown > 0


def test_extended_vocabulary_cuts_less_and_knows_the_script(tiny_xlmr_dir, corpus, tmp_path):
    out = tmp_path / "out"
    base = shutil.copytree(tiny_xlmr_dir, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    report = extend_vocab(base, corpus, 60, out)
    assert license_of(out) == "cc-by-4.0"
    before, after = report["before"]["kat_Geor"], report["after"]["kat_Geor"]
    assert before["unknown"] > 0.1
    assert after["unknown"] == 0
    assert json.loads((out / "fertility.json").read_text()) == report
    old, new = load_tokenizer(tiny_xlmr_dir), LangSAMPTokenizer.from_pretrained(out)
    model = LangSAMPForMaskedLM.from_pretrained(out)
    assert len(old) < len(new) <= len(old) + 60
    assert len(new) == model.config.vocab_size
    assert new.mask_token_id == old.mask_token_id
    assert all(new.get_vocab()[piece] == i for piece, i in old.get_vocab().items())
    text = "Das Haus steht am Fluss."
    assert new(text)["input_ids"] == old(text)["input_ids"] or len(new(text)["input_ids"]) < len(old(text)["input_ids"])
    table = show_fertility(report)
    assert "kat_Geor" in table
    assert "deu_Latn" in table
    with pytest.raises(FileExistsError, match="exists already"):
        extend_vocab(tiny_xlmr_dir, corpus, 60, out)


def test_missing_characters_come_first_and_scores_fit_the_old_scale(tiny_tokenizer_dir):
    tokenizer = load_tokenizer(tiny_tokenizer_dir)
    pieces, scores = learn_pieces(tokenizer, streams({"kat_Geor": GEORGIAN}), 12)
    assert len(pieces) == len(scores) == 12
    assert all(len(piece) == 1 for piece in pieces)
    assert not set(pieces) & set(tokenizer.get_vocab())
    old = [score for _, score in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]]
    assert min(old) - 10 < min(scores)
    assert max(scores) <= 0


def test_learning_is_repeatable(tiny_tokenizer_dir, texts):
    tokenizer = load_tokenizer(tiny_tokenizer_dir)
    a, b = (learn_pieces(tokenizer, streams({**texts, "kat_Geor": GEORGIAN}), 40) for _ in range(2))
    assert a == b


def test_a_vocabulary_of_another_kind_is_refused_before_anything_is_read(texts, tmp_path):
    tokenizer = train_tokenizer("modernbert", [text for lines in texts.values() for text in lines])
    base = stock_model("modernbert", tokenizer, tmp_path / "base")
    with pytest.raises(ValueError, match=r"only Unigram vocabularies \(XLM-R's kind\) can be extended.* is BPE"):
        extend_vocab(base, tmp_path / "no corpus", 60, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nonsense_is_refused(tiny_xlmr_dir, corpus, tmp_path):
    with pytest.raises(ValueError, match="1 or more"):
        extend_vocab(tiny_xlmr_dir, corpus, 0, tmp_path / "out")
