"""A new language: old rows and the encoder bit for bit as before, config and tokenizer in step, a fit that helps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.checkpoints.add_language import Fit, add_language, read_blocks, same_script
from langsamp.core.manifest import verify_manifest
from langsamp.eval.results.card.card import write_card
from langsamp.train.blocks.prepare import prepare
from langsamp.train.text.open import open_corpus

OLD = ["und", "deu", "ell", "eng", "hin", "jpn", "rus"]


def load(folder):
    return LangSAMPForMaskedLM.from_pretrained(folder).eval(), LangSAMPTokenizer.from_pretrained(folder)


def old_parts_equal(before, after):
    ours = after.state_dict()
    for key, value in before.state_dict().items():
        assert torch.equal(ours[key][: len(value)] if value.dim() else ours[key], value), key


def test_like_a_relative(tiny_model_dir, tmp_path):
    done = add_language(str(tiny_model_dir), tmp_path / "out", "nld_Latn", like="deu")
    assert (done.language, done.lang_id, done.start) == ("nld_Latn", 7, "like deu")
    before, (after, tokenizer) = load(tiny_model_dir)[0], load(tmp_path / "out")
    old_parts_equal(before, after)
    assert torch.equal(after.lang_embeddings.weight[7], before.lang_embeddings.weight[1])
    assert after.config.languages == tokenizer.languages == [*OLD, "nld"]
    assert tokenizer("Het huis", lang="nl")["lang_ids"] == 7
    assert verify_manifest(tmp_path / "out") == []
    batch = tokenizer(["Das Haus"], lang="deu", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(after(**batch).logits, before(**batch).logits)


def test_the_new_checkpoint_loads_through_both_doors(tiny_model_dir, tmp_path, run_fresh):
    add_language(str(tiny_model_dir), tmp_path / "out", "nld_Latn", like="deu")
    printed = run_fresh(
        "from transformers import AutoModelForMaskedLM, AutoTokenizer\n"
        f"p = {str(tmp_path / 'out')!r}\n"
        "t = AutoTokenizer.from_pretrained(p, trust_remote_code=True)\n"
        "m = AutoModelForMaskedLM.from_pretrained(p, trust_remote_code=True)\n"
        "print(m.lang_embeddings.weight.shape[0], t('x', lang='nld_Latn')['lang_ids'])\n"
        "print(type(AutoModelForMaskedLM.from_pretrained(p)).__name__)\n"
    )
    assert printed.split() == ["8", "7", "XLMRobertaForMaskedLM"]


def test_a_language_in_a_new_script(tiny_model_dir, tmp_path):
    add_language(str(tiny_model_dir), tmp_path / "out", "heb_Hebr")
    model, tokenizer = load(tmp_path / "out")
    assert model.config.scripts[-1] == tokenizer.scripts[-1] == "Hebr"
    assert tokenizer("שלום", lang="heb")["script_ids"] == len(model.config.scripts) - 1
    assert torch.equal(model.script_embeddings.weight[-1], model.script_embeddings.weight[0])
    old_parts_equal(load(tiny_model_dir)[0], model)


def test_mean_of_the_script(tiny_model_dir, tmp_path):
    relatives = same_script(str(tiny_model_dir), "nld_Latn")
    assert relatives == ["deu", "eng"]
    add_language(str(tiny_model_dir), tmp_path / "out", "nld_Latn", script_mean=relatives)
    before, after = load(tiny_model_dir)[0].lang_embeddings.weight, load(tmp_path / "out")[0].lang_embeddings.weight
    torch.testing.assert_close(after[7], (before[1] + before[3]) / 2)
    with pytest.raises(ValueError, match="no language of this model is written in Thai"):
        same_script(str(tiny_model_dir), "tha_Thai")


def test_script_of_the_training_data_counts_more_than_the_usual_one(tiny_model_dir, tmp_path):
    add_language(str(tiny_model_dir), tmp_path / "a", "nld_Latn", like="deu")
    sampling = [{"language": "rus_Latn", "blocks": 1, "probability": 1.0}, {"language": "zul_Latn", "blocks": 1}]
    (tmp_path / "a" / "training.json").write_text(json.dumps({"sampling": sampling}))
    assert same_script(str(tmp_path / "a"), "fra_Latn") == ["rus"]


@pytest.mark.parametrize(
    ("language", "like", "message"),
    [
        ("deu_Latn", None, "has row 1 already"),
        ("de", "eng", "has row 1 already"),
        ("nld_Latn", "fra", "'fra' has no row in this model; nearest"),
        ("xx", None, "no ISO 639-1 code"),
        ("qqqq", None, "not a language tag"),
    ],
)
def test_errors_leave_nothing(tiny_model_dir, tmp_path, language, like, message):
    with pytest.raises(ValueError, match=message):
        add_language(str(tiny_model_dir), tmp_path / "out", language, like=like)
    assert not list(tmp_path.iterdir())


def test_adding_twice_is_an_error(tiny_model_dir, tmp_path):
    add_language(str(tiny_model_dir), tmp_path / "one", "nld_Latn", like="deu")
    with pytest.raises(ValueError, match="'nld' has row 7 already"):
        add_language(str(tmp_path / "one"), tmp_path / "two", "nld_Latn", like="deu")
    add_language(str(tmp_path / "one"), tmp_path / "two", "fra_Latn", like="nld")
    assert load(tmp_path / "two")[0].config.languages == [*OLD, "nld", "fra"]


def test_hand_written_card_and_training_record_come_along(tiny_model_dir, tmp_path):
    add_language(str(tiny_model_dir), tmp_path / "one", "nld_Latn", like="deu")
    (tmp_path / "one" / "training.json").write_text('{"steps": 7}')
    card = write_card(tmp_path / "one")
    card.write_text(card.read_text().replace("<!-- end notes", "mine 🦜\n<!-- end notes"))
    add_language(str(tmp_path / "one"), tmp_path / "two", "fra_Latn", like="nld")
    text = (tmp_path / "two" / "README.md").read_text()
    assert "mine 🦜" in text
    assert "| steps | 7 |" in text
    assert "`fra`" in text


def blocks_of(tokenizer, texts, n=24, size=16):
    """Blocks as ``langsamp prepare`` makes them."""
    ids = [i for text in texts for i in tokenizer(text)["input_ids"]] * 40
    return np.array(ids[: n * size], dtype=np.uint32).reshape(n, size)


@pytest.fixture
def telling_model_dir(tiny_model_dir, tmp_path):
    """The tiny model with a decoder that tells pieces apart, as a trained one does."""
    model, tokenizer = load(tiny_model_dir)
    with torch.no_grad():
        model.lm_head.decoder.weight *= 20
    model.save_pretrained(tmp_path / "telling")
    tokenizer.save_pretrained(tmp_path / "telling")
    return tmp_path / "telling"


def test_fitted_row(telling_model_dir, tmp_path):
    before, _ = load(telling_model_dir)
    blocks = np.full((24, 16), 20, dtype=np.uint32)  # a language of one word
    fit = Fit(steps=25, batch_size=4, learning_rate=0.3)
    done = add_language(str(telling_model_dir), tmp_path / "out", "mar_Deva", like="deu", blocks=blocks, fit=fit)
    assert done.loss_fitted < done.loss_start - 1
    after = load(tmp_path / "out")[0]
    old_parts_equal(before, after)
    assert not torch.equal(after.lang_embeddings.weight[7], before.lang_embeddings.weight[1])
    again = add_language(str(telling_model_dir), tmp_path / "again", "mar_Deva", like="deu", blocks=blocks, fit=fit)
    assert again.loss_fitted == done.loss_fitted
    assert torch.equal(load(tmp_path / "again")[0].lang_embeddings.weight, after.lang_embeddings.weight)


def test_fitted_row_without_a_script_table(tiny_model_dir, texts, tmp_path):
    model, tokenizer = load(tiny_model_dir)
    blocks = blocks_of(tokenizer, texts["hin_Deva"])
    model.config.scripts, model.script_embeddings, tokenizer.scripts = [], None, []
    model.save_pretrained(tmp_path / "in")
    tokenizer.save_pretrained(tmp_path / "in")
    done = add_language(str(tmp_path / "in"), tmp_path / "out", "mar_Deva", blocks=blocks, fit=Fit(steps=2))
    assert done.loss_fitted is not None
    assert load(tmp_path / "out")[0].config.scripts == []


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (np.zeros((1, 8), dtype=np.uint32), "at least 2 blocks"),
        (np.zeros(8, dtype=np.uint32), "at least 2 blocks"),
        (np.full((4, 8), 10**6, dtype=np.uint32), "another tokenizer"),
    ],
)
def test_blocks_that_cannot_be_used(tiny_model_dir, tmp_path, blocks, message):
    with pytest.raises(ValueError, match=message):
        add_language(str(tiny_model_dir), tmp_path / "out", "mar_Deva", like="hin", blocks=blocks)
    assert not list(tmp_path.iterdir())


def test_blocks_of_a_store(texts, tiny_tokenizer_dir, tmp_path):
    """What `langsamp prepare` made is read; what was damaged since is not."""
    for language, sentences in texts.items():
        (tmp_path / f"corpus/{language}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / f"corpus/{language}.txt").write_text("\n".join(sentences * 5), encoding="utf-8")
    prepare(open_corpus(tmp_path / "corpus"), tiny_tokenizer_dir, tmp_path / "store", 16, num_proc=1, progress=False)
    blocks = read_blocks(tmp_path / "store", "rus_Cyrl")
    assert blocks.shape[1] == 16
    assert blocks[0, 0] == 0  # <s>
    with pytest.raises(ValueError, match=r"no blocks of rue_Cyrl; nearest: .*rus_Cyrl"):
        read_blocks(tmp_path / "store", "rue_Cyrl")
    with pytest.raises(FileNotFoundError, match=r"no store\.json"):
        read_blocks(tmp_path / "gone", "rus_Cyrl")
    with open(tmp_path / "store/rus_Cyrl.u32", "ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="the store is damaged"):
        read_blocks(tmp_path / "store", "rus_Cyrl")


def test_a_relative_without_a_row_is_told_with_the_nearest(tiny_model_dir, tmp_path):
    with pytest.raises(ValueError, match="'fra' has no row in this model; nearest: "):
        add_language(str(tiny_model_dir), tmp_path / "out", "nld_Latn", script_mean=["deu", "fra"])
