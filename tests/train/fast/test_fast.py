"""Fast CPU training: the same values and gradients as the stock model's, on both dropouts, and gone afterwards."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from support.models import BATCH, LENGTH, assert_same, gradients, make, make_batch
from torch import nn

from langsamp import LangSAMPForMaskedLM
from langsamp.train.fast import cpu as fast
from langsamp.train.fast import cpu_head as fast_head
from langsamp.train.fast.cpu import accelerate
from langsamp.train.fast.cpu_layer import Dropout, draw_seed, keep_mask, keep_scale
from langsamp.train.fast.optimizer import fold_clip

EVERYTHING = {"layers", "loss", "lookup"}


def plain_loss(features, weight, bias, targets):
    return nn.functional.cross_entropy(nn.functional.linear(features, weight, bias), targets, reduction="sum")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("checkpoint_layers", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_loss_and_all_gradients_equal_the_stock_ones(attention, padding, checkpoint_layers, dtype, tolerance):
    model, batch = make(attention=attention).to(dtype), make_batch(padding=padding)
    model.summed_loss = plain_loss
    stock_loss, stock = gradients(model, batch)
    with accelerate(model, checkpoint_layers=checkpoint_layers) as on:
        assert set(on) >= EVERYTHING
        loss, quick = gradients(model, batch)
    assert model.summed_loss is plain_loss
    assert loss == pytest.approx(stock_loss, rel=tolerance)
    assert_same(stock, quick, tolerance)


def test_accumulation_scaling_and_num_items():
    """What the Trainer does: several backward passes, one divisor for all, a scaled loss."""
    model, batches = make(), [make_batch(1), make_batch(2), make_batch(3)]
    items = torch.tensor(sum(int((b["labels"] != -100).sum()) for b in batches))
    stock_loss, stock = gradients(model, *batches, scale=0.25, num_items_in_batch=items)
    with accelerate(model):
        loss, quick = gradients(model, *batches, scale=0.25, num_items_in_batch=items)
    assert loss == pytest.approx(stock_loss, rel=1e-6)
    assert_same(stock, quick)


def test_bf16_autocast_is_as_close_as_the_stock_models_autocast():
    model, batch = make(), make_batch()
    exact_loss, exact = gradients(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        _, stock = gradients(model, batch)
        with accelerate(model):
            loss, quick = gradients(model, batch)
    assert loss == pytest.approx(exact_loss, rel=1e-3)

    def error(gradient):
        norm = torch.stack([(gradient[n] - exact[n]).norm() for n in exact]).norm()
        return float(norm / torch.stack([g.norm() for g in exact.values()]).norm())

    assert error(quick) < max(1.5 * error(stock), 0.01)


def test_a_batch_without_a_labelled_token():
    model, batch = make(), make_batch()
    batch["labels"][:] = -100
    with accelerate(model):
        loss, quick = gradients(model, batch)
    assert loss == [0.0]
    assert all(not gradient.any() for gradient in quick.values())


def test_a_loss_that_is_never_sent_backward_leaves_no_gradient():
    model = make()
    with accelerate(model):
        assert model(**make_batch()).loss > 0
        assert model.roberta.embeddings.word_embeddings.weight.grad is None


def test_everything_is_as_before_afterwards():
    model = make(dropout=0.1)
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    keys = list(model.state_dict())
    with pytest.raises(KeyError), accelerate(model):
        assert list(model.state_dict()) == keys
        raise KeyError
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert model.summed_loss is LangSAMPForMaskedLM.summed_loss
    copy.deepcopy(model)


def test_evaluation_inside_runs_the_stock_layers(monkeypatch):
    model, batch = make(dropout=0.1), make_batch()
    expected = model.eval()(**{k: v for k, v in batch.items() if k != "labels"}).logits
    with accelerate(model):
        monkeypatch.setattr(fast.FastLayer, "apply", None)
        with torch.no_grad():
            logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
            assert model(**batch).loss > 0
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_hidden_states_and_attentions_are_still_there():
    model, batch = make(attention="eager"), make_batch()
    with accelerate(model):
        hidden = model(**batch, output_hidden_states=True).hidden_states
        attentions = model(**batch, output_attentions=True).attentions
    assert len(hidden) == 3
    assert len(attentions) == 2
    assert attentions[0].shape == (BATCH, 4, LENGTH, LENGTH)


def test_dropout_follows_torchs_generator_and_recomputes_the_same():
    model, batch = make(dropout=0.1), make_batch()
    runs = []
    for checkpoint_layers in (False, False, True):
        with accelerate(model, checkpoint_layers=checkpoint_layers):
            torch.manual_seed(7)
            loss, quick = gradients(model, batch)
            runs.append((loss, quick))
            other, _ = gradients(model, batch)
            assert other != loss
    assert runs[0][0] == runs[1][0] == runs[2][0]
    for name in runs[0][1]:
        assert torch.equal(runs[0][1][name], runs[1][1][name]), name
    assert_same(runs[0][1], runs[2][1])


def test_gradients_with_dropout_are_those_of_the_function_that_ran():
    """Along a random direction the loss changes as the gradient says, the masks being the same (same seed)."""
    model, batch = make(dropout=0.2).double(), make_batch()
    with accelerate(model):

        def loss():
            torch.manual_seed(3)
            return model(**batch).loss

        model.zero_grad()
        loss().backward()
        direction = {n: torch.randn_like(p) for n, p in model.named_parameters()}
        slope = sum(float((p.grad * direction[n]).sum()) for n, p in model.named_parameters())
        values = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter += step * direction[name]
            values.append(float(loss().detach()))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=2e-2)


@pytest.mark.parametrize("p", [0.1, 0.5, 1 / 3])
def test_masks_keep_the_right_share_independently(p):
    keep = keep_mask((500, 1000), p, 1).float()
    n = keep.numel()
    assert keep.mean().item() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / n) ** 0.5 + 2**-16)
    centred = keep - keep.mean()
    for lag in (1, 2, 3, 4, 1000):  # four elements share a draw
        flat = centred.flatten()
        correlation = float((flat[:-lag] * flat[lag:]).mean() / flat.var())
        assert abs(correlation) < 4 / n**0.5
    assert not torch.equal(keep, keep_mask((500, 1000), p, 2).float())
    assert keep_scale(p) == pytest.approx(1 / (1 - p), rel=1e-4)


def test_masks_of_odd_sizes_and_no_dropout():
    assert keep_mask((3, 5, 7), 0.1, 0).shape == (3, 5, 7)
    assert keep_mask((3,), 0.0, 0) is None
    x = torch.ones(10_001, requires_grad=True)
    torch.manual_seed(0)
    y = Dropout.apply(x, 0.25)
    y.sum().backward()
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(x.grad, y.detach())
    state = torch.get_rng_state()
    first = draw_seed()
    torch.set_rng_state(state)
    assert draw_seed() == first


def test_frozen_parameters_get_no_gradient():
    model, batch = make(), make_batch()
    model.roberta.encoder.layer[0].requires_grad_(False)
    model.roberta.embeddings.word_embeddings.weight.requires_grad_(False)
    with accelerate(model):
        model(**batch).loss.backward()
    frozen = {n for n, p in model.named_parameters() if p.grad is None}
    assert frozen == {n for n, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) == 17


def test_hooks_on_the_vocabulary_matrix_are_still_called():
    model, batch, seen = make(), make_batch(), []
    weight = model.roberta.embeddings.word_embeddings.weight
    handle = weight.register_hook(lambda grad: seen.append(grad.shape))
    with accelerate(model):
        model(**batch).loss.backward()
    assert seen
    handle.remove()
    weight.register_post_accumulate_grad_hook(lambda p: seen.append("after"))
    with accelerate(model):
        model(**batch).loss.backward()
    assert seen[-1] == "after"


def test_more_logits_than_fit_take_the_models_own_loss(monkeypatch):
    model, batch = make(), make_batch()
    stock_loss, stock = gradients(model, batch)
    monkeypatch.setattr(fast, "LOGITS_KEPT", 10)
    monkeypatch.setattr(fast_head.HeadLoss, "apply", None)
    with accelerate(model):
        loss, quick = gradients(model, batch)
    assert loss == pytest.approx(stock_loss, rel=1e-6)
    assert_same(stock, quick)


def test_several_processes_keep_the_gradients_where_ddp_sees_them(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    model, batch = make(), make_batch()
    _, stock = gradients(model, batch)
    with accelerate(model) as on:
        assert "loss" not in on
        assert "lookup" not in on
        _, quick = gradients(model, batch)
    assert_same(stock, quick)


def test_unknown_architectures_keep_their_layers():
    model, batch = make(hidden_act="relu"), make_batch()
    _, stock = gradients(model, batch)
    with accelerate(model) as on:
        assert "layers" not in on
        _, quick = gradients(model, batch)
    assert_same(stock, quick)


def test_a_layer_that_computes_something_else_is_noticed(monkeypatch):
    model = make()
    layer = model.roberta.encoder.layer[0]
    monkeypatch.setattr(layer.output.LayerNorm, "forward", lambda x: x)
    with accelerate(model) as on:
        assert "layers" not in on


def test_other_devices_are_left_alone():
    model = make().to("meta")
    with accelerate(model) as on:
        assert on == ()


def test_folding_the_clip_equals_clipping_first():
    torch.manual_seed(0)
    stock = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5))
    quick, plain = copy.deepcopy(stock), copy.deepcopy(stock)
    optimizers = [
        torch.optim.AdamW(
            [{"params": m[0].parameters(), "weight_decay": 0.1}, {"params": m[1].parameters(), "lr": 3e-3}],
            lr=1e-2, weight_decay=0.0, fused=fused,
        )
        for m, fused in ((stock, False), (quick, True), (plain, False))
    ]  # fmt: skip
    for step in range(20):
        x = torch.randn(8, 20) * (5 if step % 2 else 0.05)  # clipped and not clipped
        for model in (stock, quick, plain):
            model.zero_grad()
            model(x).square().mean().backward()
        norm = nn.utils.clip_grad_norm_(stock.parameters(), 1.0)
        folded = [float(fold_clip(optimizer, 1.0)) for optimizer in optimizers[1:]]
        assert folded == pytest.approx([norm.item()] * 2, rel=1e-5)
        for optimizer in optimizers:
            optimizer.step()
    for a, b, c in zip(stock.parameters(), quick.parameters(), plain.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)
        assert torch.equal(a, c)  # no fused kernel: ordinary clipping


def test_a_norm_that_is_not_finite_changes_no_weight():
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    before = layer.weight.detach().clone()
    for poison, same in ((float("nan"), True), (float("inf"), True), (0.0, False)):
        layer.zero_grad()
        layer(torch.ones(1, 4)).sum().backward()
        layer.weight.grad[0, 0] += poison
        norm = fold_clip(optimizer, 1.0)
        assert bool(norm.isfinite()) is not same
        optimizer.step()
        assert torch.equal(layer.weight, before) is same


@pytest.mark.parametrize("kwargs", [{"use_reentrant": False}, {"use_reentrant": True}])
@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_with_the_models_own_gradient_checkpointing(kwargs, checkpoint_layers):
    model, batch = make(dropout=0.1), make_batch()
    with accelerate(model):
        torch.manual_seed(1)
        expected_loss, expected = gradients(model, batch)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    with accelerate(model, checkpoint_layers=checkpoint_layers):
        torch.manual_seed(1)
        loss, quick = gradients(model, batch)
    assert loss == expected_loss
    assert_same(expected, quick)


def test_the_trainer_ends_at_the_same_weights(tmp_path):
    from transformers import Trainer, TrainingArguments

    data = [{k: v[i] for k, v in make_batch(seed).items()} for seed in range(4) for i in range(BATCH)]
    ends = []
    for quick in (False, True):
        model = make()
        arguments = TrainingArguments(
            str(tmp_path), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2, use_cpu=True,
            save_strategy="no", report_to=[], learning_rate=1e-3, disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        with accelerate(model) if quick else contextlib.nullcontext():
            result = Trainer(model, arguments, train_dataset=data).train()
        ends.append((result.training_loss, {n: p.detach() for n, p in model.named_parameters()}))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-6)
    for name, parameter in ends[0][1].items():
        if "key.bias" not in name:  # no gradient but rounding noise, which Adam scales up
            torch.testing.assert_close(parameter, ends[1][1][name], rtol=0, atol=5e-5)
