"""Masked-LM loss: equal to the whole model with its logits, sentence by sentence; the ids matter and only the ids."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from langsamp import LangSAMPForMaskedLM
from langsamp.core.runtime import resolve_model
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.task import Context
from langsamp.eval.tasks.lm import LM, Scorer, rows_of


@pytest.fixture
def data(tmp_path, texts):
    (tmp_path / "mlm").mkdir()
    for tag, lines in {**texts, "swe_Latn": ["Huset ligger vid floden."]}.items():
        pq.write_table(
            pa.table({"text": [*lines, " ", None, "\ud800".encode("utf-8", "replace").decode()]}),
            tmp_path / f"mlm/{tag}.parquet",
        )
    return tmp_path


def context(model, data, **settings):
    return Context(resolve_model(model), EvalData(data), data / "out", progress=False, **settings)


def compute(settings, tags):
    return {
        (record.code, record.metric, record.seed): record
        for unit in LM.units(settings, tags)
        for record in LM.compute(settings, unit)
    }


def naive_loss(folder, scorer, tag, seed, lang, script):
    """One sentence at a time through the whole model: full logits, log-softmax by hand."""
    model = LangSAMPForMaskedLM.from_pretrained(folder).eval()
    ids = scorer._texts(tag)
    total, count = 0.0, 0
    for text, where in zip(ids, scorer.masks(ids, tag, seed)):
        masked = text.copy()
        masked[where] = scorer.roles.mask_token_id
        with torch.no_grad():
            logits = (
                model(torch.tensor([masked.tolist()]), lang_ids=torch.tensor([lang]), script_ids=torch.tensor([script]))
                .logits[0]
                .double()
            )
        for position in where.tolist():
            row = logits[position].tolist()
            total += math.log(sum(math.exp(value) for value in row)) - row[text[position]]
            count += 1
    return total / count, count


def test_equals_the_whole_model(data, tiny_model_dir):
    settings = context(tiny_model_dir, data, seeds=(1,))
    found = compute(settings, ["deu_Latn", "ell_Grek"])
    scorer = Scorer(settings)
    config = scorer.model.config
    for tag in ("deu_Latn", "ell_Grek"):
        lang, script = config.languages.index(tag[:3]), config.scripts.index(tag[4:])
        for metric, rows in (("loss", (lang, script)), ("loss_missing", (0, 0))):
            value, count = naive_loss(tiny_model_dir, scorer, tag, 1, *rows)
            assert found[tag, metric, 1].value == pytest.approx(value, abs=2e-5)
            assert found[tag, metric, 1].n == count
        wrong = scorer._wrong((lang, script), (1, 2))
        assert len(wrong) == 5
        assert all(a not in (0, lang) and b not in (0, script) for a, b in wrong)
        assert len({found[tag, metric, 1].value for metric in ("loss", "loss_missing", "loss_wrong")}) == 3


def test_wrong_is_the_mean_of_the_draws(data, tiny_model_dir, monkeypatch):
    settings = context(tiny_model_dir, data, seeds=(1,))
    monkeypatch.setattr(Scorer, "_wrong", lambda self, right, seed: [(1, 1), (2, 2)])
    found = compute(settings, ["rus_Cyrl"])["rus_Cyrl", "loss_wrong", 1].value
    scorer = Scorer(settings)
    expected = np.mean([naive_loss(tiny_model_dir, scorer, "rus_Cyrl", 1, row, row)[0] for row in (1, 2)])
    assert found == pytest.approx(expected, abs=2e-5)


def test_the_seed_fixes_the_masks(data, tiny_model_dir):
    once = compute(context(tiny_model_dir, data, seeds=(1, 2)), ["eng_Latn"])
    again = compute(context(tiny_model_dir, data, seeds=(2, 1)), ["deu_Latn", "eng_Latn"])
    assert {key: again[key] for key in once} == once
    assert once["eng_Latn", "loss", 1].value != once["eng_Latn", "loss", 2].value
    assert compute(context(tiny_model_dir, data), ["eng_Latn"])["eng_Latn", "loss", 42]


def test_models_and_languages_without_rows_have_one_loss(data, tiny_model_dir, tiny_xlmr_dir):
    assert {metric for _, metric, _ in compute(context(tiny_xlmr_dir, data), ["deu_Latn"])} == {"loss"}
    # Swedish has no row, but Latin has one: the script counts
    plain = context(tiny_model_dir, data)
    assert rows_of(plain, "swe_Latn", ["und", "deu"], ["Zyyy", "Latn"]) == (0, 1)
    assert rows_of(plain, "swe_Latn", [], []) == (0, 0)
    assert rows_of(plain, "zho_Hans", ["und", "zho"], ["Zyyy", "Hani"]) == (1, 1)
    assert rows_of(plain, "cmn_Hans", ["und", "zho"], ["Zyyy", "Hani"]) == (1, 1)
    assert rows_of(plain, "arz_Arab", ["und", "ara"], ["Zyyy", "Arab"]) == (0, 1)
    told = context(tiny_model_dir, data, options={"same_as": ["arz=ar"]})
    assert rows_of(told, "arz_Arab", ["und", "ara"], ["Zyyy", "Arab"]) == (1, 1)
    found = compute(context(tiny_model_dir, data), ["swe_Latn"])
    assert found["swe_Latn", "loss", 42].value != found["swe_Latn", "loss_missing", 42].value


def test_masks_are_those_of_pretraining(data, tiny_model_dir):
    """About 15 % of the ordinary tokens, the same ones whatever else is measured; specials never."""
    scorer = Scorer(context(tiny_model_dir, data))
    long = np.tile(np.arange(4, 104), 40)
    ids = [np.array([0, 5, 6, 7, 2]), np.array([0, 2]), long, long]
    masks = scorer.masks(ids, "deu_Latn", 1)
    assert len(masks[1]) == 0
    assert 0.13 < len(masks[2]) / 4000 < 0.17
    assert all(ids[n][mask].min(initial=9) > 3 for n, mask in enumerate(masks))
    assert not np.array_equal(masks[2], masks[3]), "the same text a second time has masks of its own"
    assert all((a == b).all() for a, b in zip(scorer.masks(ids[:2], "deu_Latn", 1), masks))
    assert (
        len(scorer.masks(ids, "eng_Latn", 1)[2]) != len(masks[2])
        or (scorer.masks(ids, "eng_Latn", 1)[2] != masks[2]).any()
    )


def test_no_text_at_all(tmp_path, tiny_model_dir):
    (tmp_path / "mlm").mkdir()
    pq.write_table(pa.table({"text": ["", " ", "</s>"]}), tmp_path / "mlm/deu_Latn.parquet")
    with pytest.raises(DataError, match=r"mlm/deu_Latn has no text"):
        compute(context(tiny_model_dir, tmp_path), ["deu_Latn"])


def test_folder_of_held_out_text(data, tiny_model_dir):
    settings = context(tiny_model_dir, data)
    assert len(LM.languages(settings)) == 7
    (data / "lm").mkdir()
    (data / "mlm/deu_Latn.parquet").rename(data / "lm/deu_Latn.parquet")
    assert LM.languages(context(tiny_model_dir, data)) == ["deu_Latn"]
    assert len(LM.languages(context(tiny_model_dir, data, options={"text": "mlm"}))) == 6
    (data / "lm").rename(data / "sib200")
    (data / "mlm").rename(data / "other")
    assert LM.languages(context(tiny_model_dir, data)) == ["deu_Latn"]


def test_a_language_under_another_code_has_the_row_of_its_own(data, tiny_model_dir, tmp_path, caplog):
    """FineWeb2 writes swh and arb, Glot500 swa and ara: the loss with that row, and a word about it."""
    from langsamp import LangSAMPConfig, LangSAMPTokenizer

    folder = tmp_path / "model"
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    renamed = {"deu": "swa", "rus": "ara"}
    model.config.languages = [renamed.get(code, code) for code in model.config.languages]
    model.save_pretrained(folder)
    LangSAMPTokenizer.from_pretrained(tiny_model_dir, languages=model.config.languages[1:]).save_pretrained(folder)
    assert "swa" in LangSAMPConfig.from_pretrained(folder).languages
    for tag in ("swh_Latn", "apc_Arab"):
        pq.write_table(pa.table({"text": ["Das Haus steht am Fluss."]}), data / f"mlm/{tag}.parquet")
    with caplog.at_level("INFO"):
        found = compute(context(folder, data), ["swh_Latn", "apc_Arab"])
    assert len({found["swh_Latn", metric, 42].value for metric in ("loss", "loss_missing", "loss_wrong")}) == 3
    assert "the row of swa is used for swh" in caplog.text
    assert "no row for apc; to use that of ara: --same-as apc=ara" in caplog.text
    assert ("apc_Arab", "loss_missing", 42) not in found
    told = compute(context(folder, data, options={"same_as": ["apc=ara"]}), ["apc_Arab"])
    assert told["apc_Arab", "loss", 42].value != told["apc_Arab", "loss_missing", 42].value
