"""The tokenizer: which ids come out for which input, what is refused, what survives saving and pickling."""

import json
import logging
import pickle
import time
from itertools import chain
from string import ascii_lowercase

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)

from langsamp import LangSAMPConfig, LangSAMPTokenizer
from langsamp.language_codes import parse_tag

# rows of the tiny world: und deu ell eng hin jpn rus / Zyyy Cyrl Deva Grek Jpan Latn
DEU, ENG, JPN, RUS, CYRL, JPAN, LATN = 1, 3, 5, 6, 1, 4, 5


@pytest.fixture
def tok(tiny_model_dir):
    return LangSAMPTokenizer.from_pretrained(tiny_model_dir)


@pytest.mark.parametrize("lang", ["de", "deu", "ger", "deu_Latn", "de-Latn", "DEU_latn"])
def test_every_spelling_of_a_language_gives_its_row(tok, lang):
    encoding = tok("Das Haus", lang=lang)
    assert (encoding["lang_ids"], encoding["script_ids"]) == (DEU, LATN)


def test_an_unknown_language_is_asked_for_by_name_and_the_script_is_seen_in_the_text(tok):
    encoding = tok(["Das Haus", "Дом", "家は川", "123"], lang="und")
    assert encoding["lang_ids"] == [0, 0, 0, 0]
    assert encoding["script_ids"] == [LATN, CYRL, JPAN, 0]
    assert tok("Дом", script="Cyrl")["lang_ids"] == 0


def test_nothing_asked_nothing_added(tok):
    """What masked-LM and multiple-choice scripts do with every field of the output works with this tokenizer too."""
    batch = tok(["Das Haus steht.", "Heute regnet es."], return_special_tokens_mask=True)
    assert list(batch) == ["input_ids", "attention_mask", "special_tokens_mask"]
    joined = {name: list(chain(*batch[name])) for name in batch}
    assert {len(values) for values in joined.values()} == {len(batch["input_ids"][0]) + len(batch["input_ids"][1])}
    assert list(tok([])) == ["input_ids", "attention_mask"]
    tensors = tok(["Das Haus", "Дом"], padding=True, return_tensors="pt")
    assert list(tensors) == ["input_ids", "attention_mask"]
    tok.lang = "und"
    assert "lang_ids" in tok("Das Haus")


def test_the_script_argument_beats_the_tag_and_the_tag_beats_the_text(tok):
    assert tok("abc", lang="deu_Cyrl")["script_ids"] == CYRL
    assert tok("abc", lang="deu_Cyrl", script="Latn")["script_ids"] == LATN
    assert tok("abc", lang="deu", script="latn")["script_ids"] == LATN
    assert tok(["abc", "abc"], lang="deu", script=["Latn", "Cyrl"])["script_ids"] == [LATN, CYRL]


def test_a_detected_script_without_a_row_is_unknown_but_a_named_one_is_an_error(tok):
    assert tok("ภาษาไทย", lang="eng")["script_ids"] == 0
    with pytest.raises(ValueError, match="'Thai' is not one of the 5 codes of this model; nearest: "):
        tok("ภาษาไทย", lang="eng_Thai")


def test_an_unknown_language_names_the_three_nearest_unless_ignored(tok):
    with pytest.raises(ValueError, match=r"'dex' is not one of the 6 codes of this model; nearest: \w+, \w+, \w+\."):
        tok("x", lang="dex")
    tok.unknown_lang = "ignore"
    assert tok("x", lang="dex_Latn")["lang_ids"] == 0
    with pytest.raises(ValueError, match="'error' or 'ignore'"):
        tok.unknown_lang = "whatever"


def test_the_policy_for_unknown_languages_is_checked_on_loading_too(tiny_model_dir, tmp_path):
    loaded = LangSAMPTokenizer.from_pretrained(tiny_model_dir, unknown_lang="ignore", lang="dex")
    loaded.save_pretrained(tmp_path)
    assert LangSAMPTokenizer.from_pretrained(tmp_path)("x")["lang_ids"] == 0
    with pytest.raises(ValueError, match="'error' or 'ignore'"):
        LangSAMPTokenizer.from_pretrained(tiny_model_dir, unknown_lang="ignroe")


def test_tables_given_to_the_constructor_have_row_zero_too(tiny_tokenizer_dir, tmp_path):
    file = str(tiny_tokenizer_dir / "tokenizer.json")
    made = LangSAMPTokenizer(tokenizer_file=file, languages=["deu", "rus"], scripts=["Latn"])
    assert made("x", lang="rus_Latn")["lang_ids"] == 2
    made.save_pretrained(tmp_path)
    assert LangSAMPTokenizer.from_pretrained(tmp_path).languages == made.languages == ["und", "deu", "rus"]
    with pytest.raises(ValueError, match="malformed: 'de'"):
        LangSAMPTokenizer(tokenizer_file=file, languages=["de"])("x", lang="de")


def test_one_language_for_each_text_or_an_error(tok):
    assert tok(["a", "b"], lang=["deu", "rus"])["lang_ids"] == [DEU, RUS]
    with pytest.raises(ValueError, match="lang has 1 entries for 2 texts"):
        tok(["a", "b"], lang=["deu"])
    with pytest.raises(ValueError, match=r"script has 3 entries for 1 text; .*pipeline hands over one text at a time"):
        tok("a", script=["Latn"] * 3)
    with pytest.raises(ValueError, match="not a language tag"):
        tok("a", lang="german")
    for other in (1, iter(["deu"])):
        with pytest.raises(ValueError, match="lang must be a tag or a list"):
            tok("a", lang=other)
    for other in ("Latin", "deu_Latn", [3]):
        with pytest.raises(ValueError, match="is not a script; write ISO 15924"):
            tok("a", script=other)


def test_tensors_and_shapes(tok):
    single = tok("Das Haus", lang="deu", return_tensors="pt")
    assert single["input_ids"].shape[0] == 1
    assert single["lang_ids"].tolist() == [DEU]
    batch = tok(["Das Haus", "Дом стоит у реки"], lang=["deu", "rus"], padding=True, return_tensors="np")
    assert isinstance(batch["lang_ids"], np.ndarray)
    assert batch["script_ids"].tolist() == [LATN, CYRL]
    assert batch.word_ids(0)[0] is None


def test_pairs_words_and_overflow(tok):
    assert tok("Das Haus", "Der Fluss", lang="deu")["lang_ids"] == DEU
    assert tok(["a", "б"], ["c", "d"], lang=["deu", "rus"])["script_ids"] == [LATN, CYRL]
    assert tok([("Das", "Haus"), ("Дом", "x")], lang="und")["script_ids"] == [LATN, CYRL]
    words = tok(["Дом", "стоит"], is_split_into_words=True, lang="rus")
    assert (words["lang_ids"], words["script_ids"]) == (RUS, CYRL)
    assert words.word_ids()[1] == 0
    assert tok([["Дом"], ["Haus", "x"]], lang="und", is_split_into_words=True)["script_ids"] == [CYRL, LATN]
    assert tok([("1945", "Дом"), ()], lang="und", is_split_into_words=True)["script_ids"] == [CYRL, 0]
    assert tok([["Дом", "the pair is longer"]], lang="und")["script_ids"] == [CYRL]
    long = tok(["Das Haus steht am Fluss.", "Дом"], lang=["deu", "rus"], max_length=8, stride=2, truncation=True,
               return_overflowing_tokens=True)  # fmt: skip
    pieces = long["overflow_to_sample_mapping"]
    assert len(pieces) > 2
    assert long["lang_ids"] == [[DEU, RUS][i] for i in pieces]
    one = tok("Das Haus steht am Fluss.", lang="deu", max_length=8, truncation=True, return_overflowing_tokens=True)
    assert one["lang_ids"] == [DEU] * len(one["input_ids"])


def test_empty_input(tok):
    assert tok("", lang="deu")["input_ids"] == [0, 2]
    assert tok(["", "a"], lang="deu")["lang_ids"] == [DEU, DEU]
    assert tok([], lang="deu")["lang_ids"] == []


def test_hostile_text_does_not_crash(tok):
    assert tok("a\ud800b", lang="deu")["input_ids"] == tok("a\ufffdb", lang="deu")["input_ids"]
    assert len(tok(["ok", "\udfff"], lang="deu")["input_ids"]) == 2
    assert tok("a\x00b\u200d\u200f", lang="deu")["lang_ids"] == DEU
    million = tok("Das Haus " * 120_000, lang="deu", truncation=True)
    assert len(million["input_ids"]) == 512
    with pytest.raises((TypeError, ValueError)):
        tok(3)


STOCK = {
    "as XLM-R has it": {"model_max_length": 512},
    "a class and no more": {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512},
    "a mask that says lstrip": {
        "tokenizer_class": "XLMRobertaTokenizerFast",
        "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "special": True},
    },
    "more special tokens": {"tokenizer_class": "XLMRobertaTokenizer", "additional_special_tokens": ["<s>NOTUSED"]},
    "cut from the left": {"tokenizer_class": "XLMRobertaTokenizer", "truncation_side": "left", "model_max_length": 9},
}


@pytest.mark.parametrize("lstrip", [True, False])
@pytest.mark.parametrize("kind", STOCK)
def test_a_stock_tokenizer_cuts_as_its_own_class_does(tiny_tokenizer_dir, texts, tmp_path, kind, lstrip):
    """Its class knows more than tokenizer.json: our class and, once saved, both doors cut every text alike."""
    folder = tmp_path / "stock"
    folder.mkdir()
    data = json.loads((tiny_tokenizer_dir / "tokenizer.json").read_text())
    data["added_tokens"][-1]["lstrip"] = lstrip
    (folder / "tokenizer.json").write_text(json.dumps(data))
    (folder / "tokenizer_config.json").write_text(json.dumps(STOCK[kind]))
    (folder / "config.json").write_text(json.dumps({"model_type": "xlm-roberta"}))
    stock = AutoTokenizer.from_pretrained(folder)
    ours = LangSAMPTokenizer.from_pretrained(folder, languages=["deu"], scripts=["Latn"])
    ours.save_pretrained(tmp_path / "ours")
    doors = [AutoTokenizer.from_pretrained(tmp_path / "ours", trust_remote_code=trust) for trust in (True, False)]
    special = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "<s>NOTUSED"]
    spaces = ["a {} b", "a{}b", "{}a {}", "  {}  ", "a.{}.", "{}{} {}"]
    strings = [form.replace("{}", token) for token in special for form in spaces]
    strings += [" two  spaces,\ta tab\nand a line ", "ﬁ １２ ①", "", *chain(*texts.values())]
    for tokenizer in (ours, *doors):
        for text in strings:
            assert tokenizer(text, truncation=True)["input_ids"] == stock(text, truncation=True)["input_ids"], text
            ids = stock(text)["input_ids"]
            for skip in (True, False):
                assert tokenizer.decode(ids, skip_special_tokens=skip) == stock.decode(ids, skip_special_tokens=skip)
        assert tokenizer.all_special_ids == stock.all_special_ids
        for name in ("mask_token", "pad_token", "cls_token", "sep_token", "padding_side", "truncation_side"):
            assert getattr(tokenizer, name) == getattr(stock, name)


def test_a_tokenizer_that_is_code_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    for config in ({"auto_map": {"AutoTokenizer": [None, "evil.T"]}}, {"auto_map": ["evil.T", None]}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        for trust in (True, False):
            with pytest.raises(ValueError, match=r"code of its own \(.*evil\.T.*which is never run"):
                LangSAMPTokenizer.from_pretrained(tmp_path, trust_remote_code=trust)


def test_collators_keep_the_ids(tok):
    rows = [tok("Das Haus", lang="deu"), tok("Дом стоит у реки", lang="rus")]
    padded = DataCollatorWithPadding(tok, pad_to_multiple_of=8)([dict(row) for row in rows])
    assert padded["lang_ids"].tolist() == [DEU, RUS]
    assert padded["input_ids"].shape[1] % 8 == 0
    masked = DataCollatorForLanguageModeling(tok, mlm_probability=0.5)([dict(row) for row in rows])
    assert masked["script_ids"].tolist() == [LATN, CYRL]
    tagged = DataCollatorForTokenClassification(tok)([{**row, "labels": [0] * len(row["input_ids"])} for row in rows])
    assert tagged["lang_ids"].dtype == torch.int64


def test_the_default_language_is_saved_and_pickled(tok, tmp_path):
    tok.lang = "ru"
    assert tok("Дом")["lang_ids"] == RUS
    assert tok("Haus", lang="de")["lang_ids"] == DEU
    assert pickle.loads(pickle.dumps(tok))("Дом")["lang_ids"] == RUS
    tok.save_pretrained(tmp_path)
    assert LangSAMPTokenizer.from_pretrained(tmp_path).lang == "ru"
    assert LangSAMPTokenizer.from_pretrained(tmp_path, lang="jpn")("家は川")["lang_ids"] == JPN
    with pytest.raises(ValueError, match="nearest"):
        tok.lang = "xyz"
    assert tok.lang == "ru"


def test_made_from_a_stock_tokenizer(tiny_tokenizer_dir, tmp_path):
    tok = LangSAMPTokenizer.from_pretrained(tiny_tokenizer_dir, languages=["swh", "eng"], scripts=["Latn"])
    assert tok.languages == ["und", "swh", "eng"]
    assert tok("Habari", lang="swh_Latn")["lang_ids"] == 1
    tok.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 512
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (tmp_path / "tokenization_langsamp.py").exists()
    with pytest.raises(ValueError, match="malformed"):
        LangSAMPTokenizer.from_pretrained(tiny_tokenizer_dir, languages=["swahili"])


def test_without_tables_every_id_is_zero(tiny_tokenizer_dir):
    tok = LangSAMPTokenizer.from_pretrained(tiny_tokenizer_dir)
    assert tok.languages == []
    encoding = tok("Das Haus", lang="deu_Latn")
    assert (encoding["lang_ids"], encoding["script_ids"]) == (0, 0)


def test_an_unlimited_tokenizer_gets_the_limit_of_the_model(tiny_tokenizer_dir, tmp_path):
    config = json.loads((tiny_tokenizer_dir / "tokenizer_config.json").read_text())
    del config["model_max_length"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_bytes((tiny_tokenizer_dir / "tokenizer.json").read_bytes())
    assert LangSAMPTokenizer.from_pretrained(tmp_path).model_max_length == 512


def test_ten_thousand_languages_are_no_trouble(tiny_tokenizer_dir):
    codes = [a + b + c for a in ascii_lowercase for b in ascii_lowercase for c in ascii_lowercase]
    codes = [code for code in codes if code != "und" and parse_tag(code)[0] == code][:10_000]
    start = time.process_time()
    tok = LangSAMPTokenizer.from_pretrained(tiny_tokenizer_dir, languages=codes, scripts=["Latn"])
    assert tok(["Haus"] * 10_000, lang=codes)["lang_ids"] == list(range(1, 10_001))
    LangSAMPConfig(languages=codes)
    assert time.process_time() - start < 5  # quadratic took 20


def test_a_large_vocabulary_is_not_told_to_be_a_mistral_tokenizer(tmp_path, monkeypatch, caplog):
    """Transformers warns of every one of more than 100,000 pieces whose config.json names no version."""
    pieces = {piece: number for number, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])}
    pieces |= {f"w{number}": number for number in range(5, 100_010)}
    made = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert LangSAMPTokenizer.from_pretrained(tmp_path)("w7 w8")["input_ids"] == [7, 8]
    assert "regex" not in caplog.text
