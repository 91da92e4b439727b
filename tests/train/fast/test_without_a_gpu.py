"""What can be known of the GPU's code without one: it compiles for every card, and a step waits for nothing."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from support.card import CARD, blank, numberless, place, unasked
from support.models import assert_same, gradients, make, make_batch, make_modernbert
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from langsamp.train import fast
from langsamp.train.fast.gpu import accelerate
from langsamp.train.fast.late import Late
from langsamp.train.fast.optimizer import fold_clip

ENDS = ("loss", "lookup")


class Launches:
    """In a kernel's place: keeps what it would have been launched with."""

    def __init__(self, kernel):
        self.kernel, self.given = kernel, []

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.given.append((args, kwargs))


def compiled(kernel, args, kwargs, capability):
    """A kernel compiled for a card as Triton does at its launch: numbers that 16 divides are known to be so."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}
    constants = {name: value for name, value in kwargs.items() if name in kernel.arg_names}
    options = {name: value for name, value in kwargs.items() if name not in constants}
    signature, known = dict.fromkeys(constants, "constexpr"), {}
    for name, value in zip(kernel.arg_names, args):
        number = value.data_ptr() if isinstance(value, torch.Tensor) else value
        signature[name] = types[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if number % 16 == 0:
            known[(kernel.arg_names.index(name),)] = [["tt.divisibility", 16]]
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, places, known)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("capability", [75, 80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_kernels_compile_for_every_card(capability, dtype, monkeypatch, tmp_path):
    """With the arguments that a step gives them; no register spills, and little of a multiprocessor's shared memory."""
    import triton

    from langsamp.train.fast import gpu_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    rows, width = 4992 // 64, 250_112
    logits, bias = torch.zeros(rows, width, dtype=dtype), torch.zeros(width)
    targets, sums = torch.zeros(rows, dtype=torch.long), torch.zeros(rows)
    for name, given in (("_sum_exp_kernel", ()), ("_gradient_kernel", (targets, sums, torch.zeros(())))):
        launches = Launches(getattr(gpu_kernels, name))
        monkeypatch.setattr(gpu_kernels, name, launches)
        (gpu_kernels.to_gradient if given else gpu_kernels.log_sum_exp)(logits, bias, *given)
        found = compiled(launches.kernel, *launches.given[0], capability)
        (tmp_path / "cubin").write_bytes(found.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        said = subprocess.run(
            [tool, "-res-usage", tmp_path / "cubin"], capture_output=True, text=True, check=True
        ).stdout
        assert " STACK:0 " in said, said
        assert " LOCAL:0 " in said, said
        assert found.metadata.shared <= 16 * 1024
        assert found.metadata.num_warps == launches.given[0][1]["num_warps"]


@pytest.fixture
def head(monkeypatch):
    """The module of the fused loss, with plain torch for its two passes."""
    passes = ModuleType("passes")
    passes.MULTIPLE = 128
    passes.log_sum_exp = lambda logits, bias: (logits.float() + bias).logsumexp(1)

    def to_gradient(logits, bias, targets, log_sums, scale):
        d = (logits.float() + bias - log_sums[:, None]).exp()
        d = d.scatter_add_(1, targets.clamp(min=0)[:, None], torch.full_like(d[:, :1], -1)) * scale
        return logits.copy_(d * (targets >= 0)[:, None]).float().sum(0)

    passes.to_gradient = to_gradient
    monkeypatch.setitem(sys.modules, fast.__name__ + ".gpu_kernels", passes)
    spec = find_spec(fast.__name__ + ".gpu_head")
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(fast, "gpu_head", module, raising=False)
    spec.loader.exec_module(module)
    return module


def for_a_card(batch):
    """As the collator makes it for a GPU."""
    places = (batch["labels"].flatten() != -100).nonzero().squeeze(1)
    batch = {**batch, "masked_positions": torch.cat([places, torch.full((-len(places) % 16,), -1)])}
    del batch["attention_mask"]
    return batch


def test_loss_and_gradients_of_the_fused_head_are_the_stock_ones(head):
    """What is around the two passes, whose own test needs Triton."""
    model, batch = make(), make_batch()
    _, stock = gradients(model, batch)
    assert head.disagreement(torch.device("cpu"), torch.float32) is None
    with accelerate(model, parts=ENDS) as on:
        assert on == ENDS
        _, quick = gradients(model, batch)
    assert_same(stock, quick)


def test_losses_measured_with_the_fused_head_are_the_stock_ones(head, monkeypatch):
    model, rows = make().eval(), []
    monkeypatch.setattr(head, "_losses", lambda *given, real=head._losses: [rows.append(given), real(*given)][1])
    hidden, targets = torch.randn(9, model.config.hidden_size), torch.arange(9) * 3
    expected = model.token_losses(hidden, targets)
    with accelerate(model, parts=ENDS):
        rows.clear()
        torch.testing.assert_close(model.token_losses(hidden, targets), expected)
        assert not rows  # somebody may want their gradient
        with torch.no_grad():
            torch.testing.assert_close(model.token_losses(hidden, targets), expected)
        assert len(rows) == 1


@unasked
@pytest.mark.parametrize("parts", [(), ENDS])
@pytest.mark.parametrize("maker", [make, make_modernbert])
def test_a_step_waits_for_nothing_and_has_nothing_on_another_device(maker, parts, head, monkeypatch):
    monkeypatch.setattr(head, "disagreement", lambda *_: None)  # it looks at numbers, before the first step
    model, batch, late = maker(), for_a_card(make_batch(padding=False)), Late()
    model.check_ids = False
    with numberless(), ExitStack() as stack:
        place(model)
        if parts:
            assert stack.enter_context(accelerate(model, parts=parts)) == parts
        optimizer = torch.optim.AdamW(model.parameters())
        optimizer.param_groups[0]["fused"] = True
        for step in range(2):
            loss = model(**blank(batch), num_items_in_batch=torch.zeros((), device=CARD)).loss
            loss.backward()
            late.add("loss", loss, step)
            late.add("norm", fold_clip(optimizer, 1.0), step)
        found = {p.grad.device for p in model.parameters()} | {optimizer.grad_scale.device, optimizer.found_inf.device}
        assert found == {CARD}


@unasked
def test_the_check_of_ids_would_wait():
    """That the test above can fail."""
    model, batch = make(), for_a_card(make_batch(padding=False))
    with numberless():
        place(model)
        with pytest.raises(DataDependentOutputException):
            model(**blank(batch))
        model.check_ids = False
        del batch["masked_positions"]
        with pytest.raises(DynamicOutputShapeException):
            model(**blank(batch))


def test_a_number_arrives_behind_the_work_of_its_own_card(monkeypatch):
    """Of several cards the current one need not be where a number is made."""
    events = []
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: SimpleNamespace(record_event=lambda: events.append(device))
    )
    with numberless():
        Late().add("loss", torch.zeros((), device="cuda:1"), 0)
    assert events == [torch.device("cuda:1")]
