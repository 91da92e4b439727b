"""What fine-tuning leaves out changes nothing: pieces that no text holds, the order within an update, saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.engines import RECIPE, features, job, score
from transformers import set_seed

from langsamp.eval.engines import finetune as module
from langsamp.eval.engines import predict as predicting
from langsamp.eval.engines.finetune import finetune
from langsamp.eval.engines.predict import pad_batch, predict
from langsamp.eval.engines.training import ByLength, PieceTable, micro_batch
from langsamp.modeling_langsamp import LangSAMPForSequenceClassification, LangSAMPForTokenClassification


@pytest.fixture
def without_dropout(tiny_xlmr_dir, tmp_path):
    """The tiny model whose steps hold no chance, so that two ways to make them can be compared."""
    model = LangSAMPForSequenceClassification.from_pretrained(tiny_xlmr_dir)
    model.config.update({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    model.base_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_equal_to_plain_steps_with_all_pieces(without_dropout, tmp_path, kind):
    """Torch alone: whole updates at once, the whole table trained, AdamW and clipping as the protocol has them."""
    data, steps = features(kind), 6  # three updates an epoch, the last of 6 examples
    folder, _ = finetune(job(without_dropout, kind), data, data, lambda *_: 0.5, tmp_path)
    found = module.MODELS[kind].from_pretrained(folder)

    set_seed(1)
    cls = {"sequence": LangSAMPForSequenceClassification, "token": LangSAMPForTokenClassification}[kind]
    model = cls.from_pretrained(without_dropout, num_labels=3).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    order = ByLength([len(feature["input_ids"]) for feature in data], 8, 1)
    first = None
    for number in range(steps):
        if number % 3 == 0:
            epoch = list(order)
        batch = pad_batch([data[i] for i in epoch[8 * (number % 3) : 8 * (number % 3) + 8]], 1)
        labels = batch.pop("labels").flatten()
        logits = model(**batch).logits.reshape(len(labels), 3)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - number / steps)
        optimizer.step()
        optimizer.zero_grad()
        if number == 2:  # equal scores: the first model is kept, that of the first epoch
            first = {name: value.clone() for name, value in model.state_dict().items()}
    assert first is not None
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, first[name], atol=2e-5, rtol=1e-4, msg=name)
    untouched = sorted(set(range(154)) - {piece for feature in data for piece in feature["input_ids"]})
    before = LangSAMPForSequenceClassification.from_pretrained(without_dropout).get_input_embeddings().weight
    assert torch.equal(found.get_input_embeddings().weight[untouched], before[untouched])


def test_a_table_of_pieces_computes_what_the_whole_one_does(tiny_xlmr_dir):
    model = LangSAMPForSequenceClassification.from_pretrained(tiny_xlmr_dir).eval()
    ids = [[0, 9, 150, 1, 7, 2], [0, 2]]
    batch = pad_batch([{"input_ids": row} for row in ids], 1, multiple=8)
    assert batch["input_ids"].shape == (2, 8)
    whole = model(**batch).logits
    weight = model.get_input_embeddings().weight.clone()
    table = PieceTable(model, [{"input_ids": row} for row in ids])
    small = pad_batch(table.renumbered([{"input_ids": row} for row in ids]), 1, multiple=8)
    assert model.get_input_embeddings().num_embeddings == 6
    torch.testing.assert_close(model(**small).logits, whole)
    with torch.no_grad():
        model.get_input_embeddings().weight[-1] += 1  # piece 150
    table.restore()
    weight[150] += 1
    torch.testing.assert_close(model.get_input_embeddings().weight, weight)


def test_updates_hold_the_same_examples_sorted_by_length():
    lengths = [9, 1, 5, 5, 7, 2, 8, 3, 4, 6]
    order = ByLength(lengths, 4, seed=3)
    first, second = list(order), list(order)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == list(ByLength(lengths, 4, seed=3))
    for start in (0, 4, 8):
        part = [lengths[i] for i in first[start : start + 4]]
        assert part == sorted(part)


def test_a_card_takes_as_much_of_an_update_as_fits(tiny_xlmr_dir, monkeypatch):
    config = LangSAMPForSequenceClassification.from_pretrained(tiny_xlmr_dir).config
    config.update({"hidden_size": 768, "num_hidden_layers": 12})
    card, recipe = torch.device("cuda"), replace(RECIPE, batch_size=8, accumulation=4, max_length=256)

    def gigabytes(size):
        card = type("Card", (), {"total_memory": size * 1e9})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)

    gigabytes(80)
    assert micro_batch(recipe, config, card) == 32
    gigabytes(16)
    assert micro_batch(recipe, config, card) == 16
    gigabytes(2)
    assert micro_batch(recipe, config, card) == 8
    assert micro_batch(recipe, config, torch.device("cpu")) == 8


def test_it_tells_its_steps_and_leaves_one_folder(tiny_xlmr_dir, tmp_path):
    told = []
    data = features("sequence")
    folder, _ = finetune(job(tiny_xlmr_dir), data, data, score, tmp_path, told.append)
    assert told[-1] == "fine-tuning, step 6 of 6"
    assert [path.name for path in (tmp_path / "finetuned").iterdir()] == [folder.name]


def test_predictions_of_a_batch_that_does_not_fit_are_those_of_its_halves(tiny_xlmr_dir, monkeypatch):
    """Other processes may use the card, too."""
    model = LangSAMPForTokenClassification.from_pretrained(tiny_xlmr_dir, num_labels=3)
    inputs = [feature["input_ids"] for feature in features("token")]
    whole, forward, sizes = predict(model, inputs), predicting.last_hidden_state, []

    def small(encoder, texts):
        sizes.append(len(texts.lengths))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(encoder, texts)

    monkeypatch.setattr(predicting, "last_hidden_state", small)
    for found, expected in zip(predict(model, inputs), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sizes[0] == len(inputs)
    assert max(sizes[1:]) <= len(inputs) // 2 + 1
