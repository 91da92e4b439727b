"""The held-out loss: a language's number is the model's own loss on its blocks, whatever shares a batch with them."""

from __future__ import annotations

import json

import pytest
import torch
from support.card import Unasked, unasked

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.train.batches.stream import Collator
from langsamp.train.heldout import HeldOut


@pytest.fixture
def parts(tiny_model_dir, small_store, tmp_path):
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    collate = Collator(
        LangSAMPTokenizer.from_pretrained(tiny_model_dir),
        model.config.languages,
        model.config.scripts,
        seed=3,
        positions=1,
    )

    def measure(batch_size=4, rank=0, world=1, blocks=2):
        heldout = HeldOut(small_store, collate, tmp_path, blocks, batch_size, rank, world)
        return heldout, heldout(model, 5) if world == 1 else heldout._measure(model)

    return model, collate, measure, tmp_path / "heldout.jsonl"


def records(path):
    return {(r["language"], r["metric"]): r for r in map(json.loads, path.read_text().splitlines())}


def test_a_step_that_is_measured_again_replaces_its_lines_and_torn_ones_go(parts):
    *_, measure, path = parts
    measure()
    fresh = path.read_text()
    earlier = fresh.splitlines(keepends=True)[0].replace('"step-5"', '"step-50"')
    path.write_text(earlier + fresh + fresh[:70])
    measure()
    assert path.read_text() == earlier + fresh


def test_numbers_are_the_models_own_losses(parts, small_store):
    model, collate, measure, path = parts
    heldout, means = measure()
    found = records(path)
    model.eval()
    for number, language in enumerate(heldout.languages):
        blocks = small_store.heldout(language)[:2]

        def ids_of(other, blocks=blocks, number=number):
            samples = [
                {"index": number * 1_000_003 + i, "language": other, "input_ids": b} for i, b in enumerate(blocks)
            ]
            return collate(samples)

        batch, wrong = ids_of(language), ids_of(heldout._other(language))
        zeros = {name: torch.zeros_like(batch[name]) for name in ("lang_ids", "script_ids")}
        tries = {"loss": batch, "loss_missing": {**batch, **zeros}, "loss_wrong": wrong}
        for metric, given in tries.items():
            with torch.no_grad():
                record = found[language[:3], metric]
                assert record["value"] == pytest.approx(float(model(**given).loss), abs=2e-6), (language, metric)
                assert record["n"] == int((batch["labels"] != -100).sum())
    for metric in means:
        values = [r["value"] for (_, name), r in found.items() if name == metric]
        assert means[metric] == pytest.approx(sum(values) / len(values))
    assert len({r["value"] for r in found.values()}) == len(found), "masks and ids differ between languages"


def test_batches_change_nothing(parts):
    _, _, measure, path = parts
    measure(batch_size=1)
    one = records(path)
    measure(batch_size=64)
    many = records(path)
    assert one.keys() == many.keys()
    assert all(one[key]["value"] == pytest.approx(many[key]["value"], abs=2e-6) for key in one)


def test_processes_share_the_languages(parts):
    _, _, measure, path = parts
    heldout, _ = measure()
    shares = [measure(rank=rank, world=2)[1] for rank in (0, 1)]
    assert [*shares[0], *shares[1]] == heldout.languages[::2] + heldout.languages[1::2]
    for language, losses in {**shares[0], **shares[1]}.items():
        assert losses["loss"] == pytest.approx(records(path)[language[:3], "loss"]["value"], abs=2e-6)


def test_the_model_is_left_as_it_was(parts):
    model, _, measure, _ = parts
    model.train()
    measure()
    assert model.training
    assert "forward" not in vars(model)


def test_the_encoder_runs_once_a_block(parts):
    model, _, measure, _ = parts
    seen = []
    model.base_model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(len(args[0])), with_kwargs=True)
    heldout, _ = measure(batch_size=5)
    assert sum(seen) == len(list(heldout._samples()))


@unasked
def test_a_card_is_not_waited_for_until_the_end(parts):
    """Blocks without padding, about which the stock encoder asks."""
    model, _, measure, _ = parts
    model.check_ids = False  # as in a run
    with Unasked():
        _, losses = measure(rank=0, world=2, blocks=1)
    assert len(losses) == 3
