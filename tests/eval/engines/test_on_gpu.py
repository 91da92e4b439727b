"""On a card the encoder, prediction and fine-tuning give the numbers of the CPU."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from support.engines import HOSTILE, IDS, RECIPE, features, job, score

from langsamp.core.compute.crew import Crew, Job, Machine
from langsamp.eval.engines import training
from langsamp.eval.engines.encoder import Encoder, batch_tokens
from langsamp.eval.engines.finetune import Tuned, finetune
from langsamp.eval.engines.packed import Texts, varlen_works
from langsamp.eval.engines.predict import predict
from langsamp.modeling_langsamp import LangSAMPForSequenceClassification, LangSAMPForTokenClassification

pytestmark = pytest.mark.gpu
CARD = torch.device("cuda")


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_call_of_attention_serves_texts_of_all_lengths(dtype, size):
    assert varlen_works(CARD, dtype, size)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("layers", ["last", "all"])
def test_fp32_vectors_are_those_of_the_cpu(tiny_model_dir, layers, special):
    here = Encoder(tiny_model_dir, layers, special_tokens=special, device="cpu").encode(HOSTILE)
    there = Encoder(tiny_model_dir, layers, special_tokens=special, device="cuda").encode(HOSTILE)
    np.testing.assert_allclose(there, here, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("tf32", 1e-2), ("bfloat16", 5e-2)])
def test_rounded_vectors_are_near(tiny_model_dir, dtype, tolerance):
    exact = Encoder(tiny_model_dir, "last", device="cuda").encode(HOSTILE)
    switch = torch.backends.cuda.matmul
    precision = getattr(switch, "fp32_precision", None)
    rounded = Encoder(tiny_model_dir, "last", device="cuda", dtype=dtype).encode(HOSTILE)
    assert np.abs(rounded - exact).max() < tolerance * np.abs(exact).max()
    assert getattr(switch, "fp32_precision", None) == precision


def test_vectors_do_not_depend_on_order_or_on_what_is_asked_first(tiny_model_dir):
    texts = [f"{'word ' * (n % 7)}{n}" for n in range(200)]
    encoder = Encoder(tiny_model_dir, (2,), max_tokens=128, device="cuda")
    forward, backward = encoder.encode(texts), encoder.encode(texts[::-1])
    assert (forward == backward[:, ::-1]).all()


def test_means_and_first_tokens(tiny_model_dir):
    here, there = Texts(IDS, torch.device("cpu")), Texts(IDS, CARD)
    hidden = torch.randn(len(here.flat), 8)
    for special in (0, 1):
        torch.testing.assert_close(there.means(hidden.cuda(), special).cpu(), here.means(hidden, special))
    torch.testing.assert_close(there.first(hidden.cuda()).cpu(), here.first(hidden))


def test_a_batch_fits_the_card(tiny_model_dir):
    config = Encoder(tiny_model_dir, "last", device="cuda").model.config
    config.update({"hidden_size": 768, "intermediate_size": 3072})
    tokens = batch_tokens(config, CARD, torch.float32)
    assert tokens >= 4096
    assert tokens * 768 * 4 < torch.cuda.get_device_properties(CARD).total_memory / 4


@pytest.mark.parametrize("cls", [LangSAMPForSequenceClassification, LangSAMPForTokenClassification])
def test_predictions_are_those_of_the_cpu(tiny_xlmr_dir, cls):
    torch.manual_seed(0)
    model = cls.from_pretrained(tiny_xlmr_dir, num_labels=4).eval()
    inputs = [feature["input_ids"] for feature in features("sequence")]
    here = predict(model, inputs)
    for a, b in zip(predict(model.cuda(), inputs), here):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16"])
def test_fine_tuning_learns(tiny_xlmr_dir, tmp_path, dtype, compiled, monkeypatch):
    monkeypatch.setattr(training, "COMPILED_FROM", 1 if compiled else 10**9)
    rng = np.random.default_rng(0)
    data = [{"input_ids": [0, *rng.integers(20, 60, size=4), 5 + i % 3, 2], "labels": i % 3} for i in range(60)]
    recipe = type(RECIPE)(3e-3, epochs=30, batch_size=4, accumulation=2, max_length=20)
    tuned = Tuned(job(tiny_xlmr_dir, recipe=recipe, dtype=dtype), lambda: (data[:45], data[45:]), score, tmp_path)
    assert tuned.trained[1] > 0.9
    predicted = [int(logits.argmax()) for logits in tuned.predict([feature["input_ids"] for feature in data[45:]])]
    assert np.mean([a == feature["labels"] for a, feature in zip(predicted, data[45:])]) > 0.8


def test_compiled_layers_change_nothing(tiny_xlmr_dir, tmp_path, monkeypatch, caplog):
    """Without dropout; and the compiler did not fail."""
    model = LangSAMPForSequenceClassification.from_pretrained(tiny_xlmr_dir)
    model.config.update({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    model.base_model.save_pretrained(tmp_path / "model")
    weights = []
    for updates in (10**9, 1):
        monkeypatch.setattr(training, "COMPILED_FROM", updates)
        data = features("sequence")
        folder, _ = finetune(job(tmp_path / "model"), data, data, lambda *_: 0.5, tmp_path / str(updates))
        weights.append(LangSAMPForSequenceClassification.from_pretrained(folder).state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=2e-5, rtol=1e-3, msg=name)
    assert "without compiled layers" not in caplog.text


class Looker:
    """What a worker process sees."""

    def cards(self):
        return torch.cuda.device_count(), torch.cuda.get_device_name()


def test_a_worker_sees_its_own_card(tmp_path):
    crew = Crew(Machine(1), partial(Looker))
    try:
        [(_, (count, name))] = crew.results([Job("look", 0, "cards", ())])
    finally:
        crew.close()
    assert count == 1
    assert name == torch.cuda.get_device_name()
