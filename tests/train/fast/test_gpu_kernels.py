"""The fused loss of a GPU, on one or in Triton's interpreter (TRITON_INTERPRET=1, which test_gpu.py sets)."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("needs an NVIDIA GPU (make test-gpu), or TRITON_INTERPRET=1", allow_module_level=True)
pytest.importorskip("triton")

from support.models import assert_same, gradients, make, make_batch  # noqa: E402

from langsamp.train.fast import gpu_head  # noqa: E402
from langsamp.train.fast.gpu import accelerate  # noqa: E402
from langsamp.train.fast.gpu_kernels import MULTIPLE, log_sum_exp, to_gradient  # noqa: E402

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [pytest.mark.gpu] if not INTERPRETED else []
ENDS = ("loss", "lookup")


def problem(rows, vocab, dtype, spread=5.0):
    """Padded logits on the device, padded bias, targets of which some do not count, and logits + bias in fp64."""
    generator = torch.Generator().manual_seed(rows)
    width = -(-vocab // MULTIPLE) * MULTIPLE
    logits = torch.zeros(rows, width, dtype=dtype)
    logits[:, :vocab] = (torch.randn(rows, vocab, generator=generator) * spread).to(dtype)
    bias = torch.full((width,), float("-inf"))
    bias[:vocab] = torch.randn(vocab, generator=generator)
    targets = torch.randint(vocab, (rows,), generator=generator)
    targets[::3] = -100
    return logits.to(DEVICE), bias.to(DEVICE), targets.to(DEVICE), logits[:, :vocab].double() + bias[:vocab].double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "vocab"), [(1, 5), (7, 1000), (70, 5001), (3, 20000)])
@pytest.mark.parametrize("spread", [5.0, 1000.0])
def test_both_passes_against_fp64(rows, vocab, dtype, spread):
    logits, bias, targets, exact = problem(rows, vocab, dtype, spread)
    sums = log_sum_exp(logits, bias)
    torch.testing.assert_close(sums.double().cpu(), exact.logsumexp(1), rtol=1e-6, atol=1e-5)
    expected = exact.softmax(1)
    counts = (targets >= 0).cpu()
    expected[counts, targets.cpu()[counts]] -= 1
    expected = expected * 0.37 * counts[:, None]
    columns = to_gradient(logits, bias, targets, sums, torch.tensor(0.37, device=DEVICE))
    bf16 = 2**-7 if INTERPRETED else 2**-8  # the interpreter cuts numbers off where a GPU rounds them
    rounding = {torch.float32: 1e-5 * spread / 5, torch.float16: 1e-3, torch.bfloat16: 1.1 * bf16}[dtype]
    torch.testing.assert_close(logits[:, :vocab].double().cpu(), expected, rtol=rounding, atol=1e-5 * spread / 5)
    torch.testing.assert_close(columns[:vocab].double().cpu(), expected.sum(0), rtol=1e-4, atol=1e-5 * spread / 5)
    assert not logits[:, vocab:].any()
    assert not columns[vocab:].any()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_makes_a_loss_that_is_not(poison):
    logits, bias, *_ = problem(6, 3000, torch.float32)
    logits[2, 2900] = poison
    sums = log_sum_exp(logits, bias)
    assert sums.isfinite().tolist() == [row != 2 for row in range(6)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_fused_loss_is_as_near_to_fp64_as_the_stock_one(dtype):
    assert gpu_head.disagreement(DEVICE, dtype) is None


def test_a_kernel_that_computes_something_else_is_noticed(monkeypatch, caplog):
    monkeypatch.setattr(gpu_head, "to_gradient", lambda logits, *rest: logits.sum(0))
    with accelerate(make().to(DEVICE), parts=ENDS) as on:
        assert on == ("lookup",)
    assert "off by" in caplog.text


def on_device(batch):
    return {name: value.to(DEVICE) for name, value in batch.items()}


def flat(batch, multiple=16):
    """The batch with the places of its labels, filled up, as the collator gives them for a GPU."""
    places = (batch["labels"].flatten() != -100).nonzero().squeeze(1)
    fill = torch.full((-len(places) % multiple,), -1, device=places.device)
    return {**batch, "masked_positions": torch.cat([places, fill])}


@pytest.mark.parametrize("filled", [False, True])
def test_loss_and_all_gradients_equal_the_stock_ones(filled):
    """Also with what the Trainer does: several backward passes, one divisor for all, a scaled loss."""
    model, batches = make().to(DEVICE), [on_device(make_batch(seed)) for seed in (1, 2, 3)]
    items = sum((b["labels"] != -100).sum() for b in batches)
    stock_loss, stock = gradients(model, *batches, scale=0.25, num_items_in_batch=items)
    with accelerate(model, parts=ENDS) as on:
        assert on == ENDS
        loss, quick = gradients(model, *map(flat, batches) if filled else batches, scale=0.25, num_items_in_batch=items)
    assert loss == pytest.approx(stock_loss, rel=1e-6)
    assert_same(stock, quick)


def test_several_processes_get_the_gradient_through_autograd(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    model, batch, seen = make().to(DEVICE), on_device(make_batch()), []
    _, stock = gradients(model, batch)
    model.get_output_embeddings().weight.register_hook(lambda grad: seen.append(grad.shape))
    with accelerate(model, parts=ENDS) as on:
        assert on == ("loss",)
        _, quick = gradients(model, batch)
    assert seen
    assert_same(stock, quick)


def test_bf16_is_as_close_as_the_stock_models_autocast():
    model, batch = make().to(DEVICE), on_device(make_batch())
    exact_loss, exact = gradients(model, batch)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        _, stock = gradients(model, batch)
        with accelerate(model, parts=ENDS, dtype=torch.bfloat16) as on:
            assert on == ENDS
            loss, quick = gradients(model, flat(batch))
    assert loss == pytest.approx(exact_loss, rel=1e-3)

    def error(gradient):
        norm = torch.stack([(gradient[n] - exact[n]).norm() for n in exact]).norm()
        return float(norm / torch.stack([g.norm() for g in exact.values()]).norm())

    assert error(quick) < (1.5 if INTERPRETED else 1.1) * error(stock)  # see above


def test_rows_that_do_not_fit_into_memory_take_the_models_own_loss(monkeypatch, caplog):
    model, batch = make().to(DEVICE), on_device(make_batch())
    _, stock = gradients(model, batch)
    tried = []

    def full(x, *_):
        tried.append(len(x))
        raise torch.OutOfMemoryError

    with accelerate(model, parts=ENDS):
        monkeypatch.setattr(gpu_head.HeadLoss, "apply", full)
        for _ in range(2):
            _, quick = gradients(model, batch)
            assert_same(stock, quick)
    assert len(tried) == 1
    assert "no memory" in caplog.text


def test_a_frozen_vocabulary_and_a_batch_without_labels():
    model, batch = make().to(DEVICE), on_device(make_batch())
    with accelerate(model, parts=ENDS):
        loss, _ = gradients(model, {**batch, "labels": torch.full_like(batch["labels"], -100)})
        assert loss == [0.0]
        model.zero_grad()
        model.get_output_embeddings().weight.requires_grad_(False)
        model(**batch).loss.backward()
    assert model.get_output_embeddings().weight.grad is None
    assert model.roberta.encoder.layer[0].output.dense.weight.grad.any()


def test_the_gradient_of_the_vocabulary_goes_with_a_head_without_bias():
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(300, 16, generator=generator).to(DEVICE))
    features = torch.randn(9, 16, generator=generator).to(DEVICE).requires_grad_()
    targets = torch.randint(300, (9,), generator=generator).to(DEVICE)
    nn.functional.cross_entropy(features @ weight.t(), targets, reduction="sum").backward()
    expected = [weight.grad, features.grad]
    weight.grad = features.grad = None
    loss = gpu_head.fast_loss(None, gpu_head.Owner(weight))
    loss(features, weight, None, targets).backward()
    for found, stock in zip([weight.grad, features.grad], expected):
        torch.testing.assert_close(found, stock, rtol=1e-5, atol=1e-5)


def test_losses_measured_are_those_of_every_row():
    model = make().to(DEVICE).eval()
    hidden, targets = torch.randn(9, model.config.hidden_size).to(DEVICE), torch.arange(9, device=DEVICE) * 3
    with torch.no_grad():
        expected = model.token_losses(hidden, targets)
        with accelerate(model, parts=ENDS):
            torch.testing.assert_close(model.token_losses(hidden, targets), expected, rtol=1e-5, atol=1e-5)
