"""Rows fitted to text: better on text that was not fitted on or left alone, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from langsamp import LangSAMPForMaskedLM
from langsamp.core.model.fitting import Fit, fit_rows


@pytest.fixture
def model(tiny_model_dir):
    """With a decoder that tells pieces apart, as a trained one does."""
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        model.lm_head.decoder.weight *= 20
    return model


def batch(piece):
    ids = torch.full((4, 8), 40)
    labels = torch.full((4, 8), -100)
    labels[:, 2:5] = piece
    return {"input_ids": ids, "labels": labels, "lang_ids": torch.full((4,), 1), "script_ids": torch.full((4,), 2)}


def test_rows_learn_and_nothing_else_moves(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = {"lang_embeddings": 1, "script_embeddings": 2}
    start, end = fit_rows(model, rows, lambda step: batch(20), [batch(20)], Fit(20, 4, 0.3))
    assert end < start - 1
    for name, value in model.state_dict().items():
        row = rows.get(name.removesuffix(".weight"))
        moved = (value != before[name]).reshape(len(value), -1).any(1).nonzero().flatten().tolist()
        assert moved == ([] if row is None else [row]), name
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not model.training


def test_a_fit_that_hurts_is_not_kept(model, caplog):
    before = model.lang_embeddings.weight.detach().clone()
    start, end = fit_rows(model, {"lang_embeddings": 1}, lambda step: batch(20), [batch(30)], Fit(20, 4, 0.3))
    assert start == end
    assert torch.equal(model.lang_embeddings.weight, before)
    assert "worse" in caplog.text


def test_half_precision_rows_take_small_steps(model):
    model.half()
    start, end = fit_rows(model, {"lang_embeddings": 1}, lambda step: batch(20), [batch(20)], Fit(100, 4, 1e-2))
    assert end < start
    assert model.lang_embeddings.weight.dtype == torch.float16
