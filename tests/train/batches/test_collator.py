"""Batches: masking as BERT's, a function of (seed, index) only; language rows, dropout and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from langsamp.train.batches.stream import Collator

LANGUAGES = ["und", "deu", "eng", "zho"]
SCRIPTS = ["Zyyy", "Hani", "Latn"]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_dir):
    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


def _samples(tokenizer, n, length=128, language="deu_Latn", first=0):
    rng = np.random.default_rng(0)
    ordinary = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    rows = []
    for i in range(n):
        ids = rng.choice(ordinary, length).astype(np.uint32)
        ids[0], ids[length // 2], ids[-1] = 0, 2, 2
        rows.append({"index": first + i, "language": language, "input_ids": ids})
    return rows


def test_masking_rates(tokenizer):
    samples = _samples(tokenizer, 800)
    batch = Collator(tokenizer, seed=1)(samples)
    ids = torch.from_numpy(np.stack([sample["input_ids"] for sample in samples]).astype(np.int64))
    chosen = batch["labels"] != -100
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    n = int((~special).sum())
    assert chosen.sum() / n == pytest.approx(0.15, abs=0.004)
    masked = batch["input_ids"] == tokenizer.mask_token_id
    kept = chosen & (batch["input_ids"] == ids)
    assert masked.sum() / chosen.sum() == pytest.approx(0.8, abs=0.01)
    assert kept.sum() / chosen.sum() == pytest.approx(0.1 + 0.1 / len(tokenizer), abs=0.01)
    assert not (chosen & special).any(), "special tokens are never chosen"
    assert (batch["labels"][chosen] == ids[chosen]).all()
    assert (batch["input_ids"][~chosen] == ids[~chosen]).all()
    swapped = chosen & ~masked & ~kept
    assert not torch.isin(batch["input_ids"][swapped], torch.tensor(tokenizer.all_special_ids)).any()
    assert len(batch["input_ids"][swapped].unique()) > 0.8 * len(tokenizer), "any ordinary piece can come"


def test_a_sample_is_masked_alike_in_any_batch(tokenizer):
    collator = Collator(tokenizer, LANGUAGES, SCRIPTS, seed=3, lang_dropout=0.5)
    samples = _samples(tokenizer, 16)
    whole = collator(samples)
    again = Collator(tokenizer, LANGUAGES, SCRIPTS, seed=3, lang_dropout=0.5)(samples[5:9])
    for name, value in again.items():
        assert torch.equal(whole[name][5:9], value), name
    other = Collator(tokenizer, LANGUAGES, SCRIPTS, seed=4)(samples)
    assert not torch.equal(whole["labels"], other["labels"])
    later = [{**sample, "index": sample["index"] + 1000} for sample in samples]
    assert not torch.equal(whole["labels"], collator(later)["labels"]), "dynamic: another visit, another mask"


def test_padding(tokenizer):
    samples = _samples(tokenizer, 2, 40)
    samples[0]["input_ids"] = samples[0]["input_ids"][:25]
    samples[1]["input_ids"][30:] = tokenizer.pad_token_id  # a last block of the store
    batch = Collator(tokenizer, seed=1)(samples)
    assert batch["attention_mask"].sum(1).tolist() == [25, 30]
    assert (batch["labels"][0, 25:] == -100).all()
    assert (batch["labels"][1, 30:] == -100).all()
    assert (batch["input_ids"][0, 25:] == tokenizer.pad_token_id).all()


def test_language_rows_and_dropout(tokenizer):
    samples = _samples(tokenizer, 3000, 8)
    for sample in samples[::3]:
        sample["language"] = "zho_Hans"
    batch = Collator(tokenizer, LANGUAGES, SCRIPTS)(samples)
    assert batch["lang_ids"][:4].tolist() == [3, 1, 1, 3]
    assert batch["script_ids"][:4].tolist() == [1, 2, 2, 1], "Hans is served by Hani where that is the table's row"
    batch = Collator(tokenizer, LANGUAGES, SCRIPTS, lang_dropout=0.2)(samples)
    unknown = batch["lang_ids"] == 0
    assert torch.equal(unknown, batch["script_ids"] == 0), "the pair is dropped together"
    assert unknown.float().mean() == pytest.approx(0.2, abs=0.03)


def test_ablations_get_no_ids_they_have_no_table_for(tokenizer):
    samples = _samples(tokenizer, 2, 8)
    assert "lang_ids" not in Collator(tokenizer, [], SCRIPTS)(samples)
    assert set(Collator(tokenizer)(samples)) == {"input_ids", "attention_mask", "labels"}


def test_tensors_are_what_models_expect(tokenizer):
    batch = Collator(tokenizer, LANGUAGES, SCRIPTS)(_samples(tokenizer, 2, 8))
    assert {value.dtype for value in batch.values()} == {torch.int64}
    assert batch["lang_ids"].shape == (2,)


def test_extreme_probabilities(tokenizer):
    samples = _samples(tokenizer, 2, 16)
    assert (Collator(tokenizer, mlm_probability=0.0)(samples)["labels"] == -100).all()
    everything = Collator(tokenizer, mlm_probability=1.0)(samples)["labels"]
    assert (everything != -100).sum() == 2 * 13


def test_errors_name_the_thing(tokenizer):
    samples = _samples(tokenizer, 1, 8)
    with pytest.raises(ValueError, match=r"'deu'.*nearest"):
        Collator(tokenizer, ["und", "eng", "dan"], SCRIPTS)(samples)
    with pytest.raises(ValueError, match="'Latn'"):
        Collator(tokenizer, LANGUAGES, ["Zyyy", "Cyrl"])(samples)
    samples[0]["input_ids"][3] = len(tokenizer)
    with pytest.raises(ValueError, match="another tokenizer"):
        Collator(tokenizer)(samples)
    with pytest.raises(ValueError, match="lang_dropout is 2"):
        Collator(tokenizer, lang_dropout=2)

    class NoMask:
        mask_token_id, pad_token_id = None, 1

    with pytest.raises(ValueError, match="no mask"):
        Collator(NoMask())


def test_a_language_can_train_the_row_of_another_code(tokenizer):
    collate = Collator(tokenizer, LANGUAGES, SCRIPTS, seed=1, same_as={"cmn": "zho"})
    batch = collate(_samples(tokenizer, 1, language="cmn_Hans") + _samples(tokenizer, 1, language="deu_Latn"))
    assert batch["lang_ids"].tolist() == [3, 1]
    with pytest.raises(ValueError, match="no row for it; nearest: zho,"):
        Collator(tokenizer, LANGUAGES, SCRIPTS)(_samples(tokenizer, 1, language="cmn_Hans"))
