"""Where a run starts: rows follow their pieces, tables follow the store's languages."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from support.families import stock_model, train_tokenizer
from tokenizers import Tokenizer

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.core.model.vocabulary import carry_rows, extend, trim
from langsamp.train.start import starting_model

LANGUAGES = ["rus_Cyrl", "deu_Latn", "srp_Cyrl", "srp_Latn"]


def logits(model, tokenizer, text="Das Haus steht am <mask>."):
    batch = tokenizer(text, return_tensors="pt")
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return model.eval()(**batch).logits[0]


def test_stock_base_gets_sorted_tables_and_keeps_its_predictions(tiny_xlmr_dir):
    model, tokenizer = starting_model(tiny_xlmr_dir, LANGUAGES)
    assert model.config.languages == ["und", "deu", "rus", "srp"] == tokenizer.languages
    assert model.config.scripts == ["Zyyy", "Cyrl", "Latn"] == tokenizer.scripts
    assert model.dtype == torch.float32
    assert not model.lang_embeddings.weight.any()
    baseline, plain = starting_model(tiny_xlmr_dir, LANGUAGES, lang=False, script=False)
    assert baseline.lang_embeddings is None
    assert baseline.script_embeddings is None
    assert plain.languages == []
    assert torch.equal(logits(model, tokenizer), logits(baseline, plain))


def test_ablations_have_one_table(tiny_xlmr_dir):
    assert starting_model(tiny_xlmr_dir, LANGUAGES, lang=False)[0].lang_embeddings is None
    assert starting_model(tiny_xlmr_dir, LANGUAGES, script=False)[0].script_embeddings is None


def test_text_of_unknown_language_has_the_unknown_row(tiny_xlmr_dir):
    model, _ = starting_model(tiny_xlmr_dir, ["und_Latn", "deu_Latn", "deu_Zyyy"])
    assert model.config.languages == ["und", "deu"]
    assert model.config.scripts == ["Zyyy", "Latn"]


def test_random_start_is_seeded(tiny_xlmr_dir):
    a, b, c = (
        starting_model(tiny_xlmr_dir, LANGUAGES, table_init=0.02, seed=s)[0].lang_embeddings.weight for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert 0.01 < float(a.detach().std()) < 0.03


def test_langsamp_base_keeps_rows_and_adds_missing_ones_as_unknown(tiny_model_dir):
    base = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    model, tokenizer = starting_model(tiny_model_dir, ["cym_Latn", "deu_Latn", "kat_Geor"])
    assert model.config.languages == [*base.config.languages, "cym", "kat"] == tokenizer.languages
    assert model.config.scripts == [*base.config.scripts, "Geor"]
    assert torch.equal(model.lang_embeddings.weight[:-2], base.lang_embeddings.weight)
    assert torch.equal(model.lang_embeddings.weight[-1], base.lang_embeddings.weight[0])
    assert torch.equal(model.script_embeddings.weight[-1], base.script_embeddings.weight[0])
    model.config.check_tokenizer(tokenizer)


def test_languages_of_the_base_that_will_not_be_trained_are_told(tiny_model_dir, caplog):
    starting_model(tiny_model_dir, ["cym_Latn", "deu_Latn"])
    assert "text in 1 of the base's 6 languages; the rows of the other 5 are kept" in caplog.text
    assert "text in 1 of the base's 5 scripts" in caplog.text
    caplog.clear()
    starting_model(tiny_model_dir, ["deu_Latn", "ell_Grek", "eng_Latn", "hin_Deva", "jpn_Jpan", "rus_Cyrl"])
    assert "of the base's" not in caplog.text


def test_a_language_that_the_base_knows_under_another_code_is_told(tiny_model_dir, tmp_path, caplog):
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    model.config.languages = [{"hin": "swa"}.get(code, code) for code in model.config.languages]
    model.save_pretrained(tmp_path)
    LangSAMPTokenizer.from_pretrained(tiny_model_dir, languages=model.config.languages).save_pretrained(tmp_path)
    starting_model(tmp_path, ["swh_Latn", "deu_Latn"])
    assert (
        "swh gets a row of its own beside the base's swa; to train that row instead: --same-as swh=swa" in caplog.text
    )


def test_langsamp_base_as_an_ablation(tiny_model_dir):
    assert starting_model(tiny_model_dir, LANGUAGES, lang=False, script=False)[0].lang_embeddings is None
    with pytest.raises(ValueError, match="same --no-lang/--no-script"):
        starting_model(tiny_model_dir, LANGUAGES, script=False)


def test_another_vocabulary_takes_rows_by_piece_never_by_id(tiny_xlmr_dir, tmp_path):
    """Glot500's tokenizer moves <mask> to the end; the official code then gave its row to the first new piece."""
    old = load_tokenizer(tiny_xlmr_dir)
    vocab = old.get_vocab()
    smaller = trim(old, [i for i in vocab.values() if i % 3])  # every id moves, <mask> too
    bigger = extend(smaller, ["▁Häuser", "ↀ"], [-5.0, -9.0])
    bigger.save_pretrained(tmp_path / "tok")
    base, _ = starting_model(tiny_xlmr_dir, ())
    model, tokenizer = starting_model(tiny_xlmr_dir, (), tmp_path / "tok")
    assert tokenizer.mask_token_id != old.mask_token_id
    rows, old_rows = model.get_input_embeddings().weight, base.get_input_embeddings().weight
    bias, old_bias = model.lm_head.decoder.bias, base.lm_head.decoder.bias
    for piece, i in tokenizer.get_vocab().items():
        if piece in vocab:
            assert torch.equal(rows[i], old_rows[vocab[piece]]), piece
            assert bias[i] == old_bias[vocab[piece]]
    parts = [t.id for t in old.backend_tokenizer.model.tokenize("▁Häuser") if t.id != old.unk_token_id]
    assert torch.allclose(rows[tokenizer.convert_tokens_to_ids("▁Häuser")], old_rows[parts].mean(0))
    assert rows[tokenizer.convert_tokens_to_ids("ↀ")].isfinite().all()
    assert len(rows) == len(tokenizer) == model.config.vocab_size == len(bias)
    assert model.lm_head.decoder.weight is model.get_input_embeddings().weight


def test_rows_that_pad_the_matrix_go_and_the_others_stay(tiny_xlmr_dir, tmp_path):
    """Some models round the size of their vocabulary up."""
    base, tokenizer = starting_model(tiny_xlmr_dir, ())
    size = len(tokenizer)
    plain = {name: value.clone() for name, value in base.state_dict().items()}
    base.resize_token_embeddings(size + 7)
    base.save_pretrained(tmp_path / "padded")
    tokenizer.save_pretrained(tmp_path / "padded")
    model, _ = starting_model(tmp_path / "padded", LANGUAGES)
    assert model.config.vocab_size == size
    for name, value in plain.items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.lm_head.decoder.weight is model.get_input_embeddings().weight


def test_new_rows_at_random_are_seeded_and_small(tiny_xlmr_dir):
    old = load_tokenizer(tiny_xlmr_dir)
    new = extend(old, ["▁Häuser", "▁Flüsse"], [-5.0, -5.0])
    a, b, c = (carry_rows(starting_model(tiny_xlmr_dir, ())[0], old, new, "random", seed) for seed in (1, 1, 2))
    rows = [model.get_input_embeddings().weight[-2:] for model in (a, b, c)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert float(rows[0].detach().std()) < 0.04


def test_trimmed_model_predicts_the_same_among_its_pieces(tiny_xlmr_dir):
    model, tokenizer = starting_model(tiny_xlmr_dir, ())
    text = "Das Haus steht am <mask>."
    small = trim(tokenizer, tokenizer(text)["input_ids"])
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(small.convert_ids_to_tokens(i)) for i in range(len(small))])
    before = logits(model, tokenizer, text)[:, ids]
    after = logits(carry_rows(model, tokenizer, small), small, text)
    assert len(small) < len(tokenizer) / 4
    assert torch.equal(before, after)


def test_an_untied_decoder_and_another_padding_id_go_along_where_positions_do_not_depend_on_it(texts, tmp_path):
    """ModernBERT with a decoder of its own: both tables keep each piece's row, whatever the ids."""
    tokenizer = train_tokenizer("modernbert", [text for lines in texts.values() for text in lines])
    folder = stock_model("modernbert", tokenizer, tmp_path / "base", tie_word_embeddings=False)
    model, own = starting_model(folder, LANGUAGES)
    state = json.loads(own.backend_tokenizer.to_str())
    vocabulary = {piece: (i + 1) % len(own) for piece, i in state["model"]["vocab"].items()}
    state["model"]["vocab"] = vocabulary
    for token in state["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    for token in state["post_processor"]["special_tokens"].values():
        token["ids"] = [vocabulary[name] for name in token["tokens"]]
    roles = {f"{role}_token": getattr(own, f"{role}_token") for role in ("bos", "eos", "cls", "sep", "pad", "mask")}
    moved = LangSAMPTokenizer(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **roles)
    text = "Das Haus steht am <mask>."
    before = logits(model, own, text)
    after = logits(carry_rows(model, own, moved), moved, text)
    assert model.config.pad_token_id == moved.pad_token_id == own.pad_token_id + 1
    assert torch.equal(before, after[:, [(i + 1) % len(own) for i in range(len(own))]])


def test_errors(tiny_xlmr_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        starting_model(tmp_path / "nowhere", LANGUAGES)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_xlmr_dir, broken)
    (broken / "tokenizer.json").unlink()
    (broken / "tokenizer_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer"):
        starting_model(broken, LANGUAGES)
    tokenizer = load_tokenizer(tiny_xlmr_dir)
    with pytest.raises(ValueError, match="as many scores"):
        extend(tokenizer, ["a"], [])
    with pytest.raises(ValueError, match="2 pieces are in the vocabulary already or given twice"):
        extend(tokenizer, ["<mask>", "ↀ", "ↀ"], [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="outside the vocabulary"):
        trim(tokenizer, [10**6])


def test_only_unigram_can_be_changed(tiny_xlmr_dir, tmp_path):
    folder = tmp_path / "bpe"
    shutil.copytree(tiny_xlmr_dir, folder)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"] = {"type": "BPE", "vocab": {"a": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "<pad>": 4}, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(ValueError, match="only Unigram"):
        trim(LangSAMPTokenizer.from_pretrained(folder), [0])


def test_another_padding_id_is_refused(tiny_xlmr_dir, tmp_path):
    folder = tmp_path / "pad"
    shutil.copytree(tiny_xlmr_dir, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["pad_token"] = "<unk>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    model, old = starting_model(tiny_xlmr_dir, ())
    with pytest.raises(ValueError, match="positions depend on it"):
        carry_rows(model, old, LangSAMPTokenizer.from_pretrained(folder))
