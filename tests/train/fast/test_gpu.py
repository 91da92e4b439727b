"""The fast step of a GPU as far as it can be seen without one: a small backend compiles, Triton is interpreted."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from support.models import assert_same, gradients, make, make_batch, make_eurobert, make_modernbert
from transformers import XLMRobertaModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from langsamp import LangSAMPForMaskedLM
from langsamp.train.fast import gpu_attention
from langsamp.train.fast.gpu import accelerate
from langsamp.train.fast.late import Late

FAMILIES = {"local": make_modernbert, "grouped": make_eurobert}
KERNELS = Path(__file__).with_name("test_gpu_kernels.py")


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.slow
def test_the_kernels_in_tritons_interpreter():
    """In a process of its own: Triton reads the variable when it is first imported."""
    env = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(KERNELS)]
    done = subprocess.run(command, env=env, cwd=KERNELS.parents[3], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


class Graphs:
    """A backend for torch.compile that runs the captured code as it is and counts the graphs."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


@pytest.fixture
def graphs():
    torch._dynamo.reset()
    yield Graphs()
    torch._dynamo.reset()


def test_one_graph_serves_all_layers_and_the_gradients_are_the_stock_ones(graphs):
    model, batches = make(), [make_batch(seed) for seed in (1, 2)]
    stock_loss, stock = gradients(model, *batches)
    with accelerate(model, parts=("layers", "lookup"), compiling={"backend": graphs}) as on:
        assert on == ("lookup", "layers")
        loss, quick = gradients(model, *batches)
        assert graphs.count == 2  # the embeddings, a layer
    assert loss == pytest.approx(stock_loss, rel=1e-6)
    assert_same(stock, quick)


def test_a_short_run_is_not_worth_a_compiler(graphs):
    model = make()
    with accelerate(model, parts=("layers",), compiling={"backend": graphs}, tokens=1e6) as on:
        assert on == ()
    with accelerate(model, parts=("layers",), compiling={"backend": graphs}, tokens=1e12) as on:
        assert on == ("layers",)


def test_evaluation_runs_the_stock_code(graphs):
    model, batch = make(dropout=0.1), make_batch()
    expected = model.eval()(**batch).loss
    with accelerate(model, parts=("layers", "lookup"), compiling={"backend": graphs}), torch.no_grad():
        assert torch.equal(model(**batch).loss, expected)
        model.train()
        model(**batch)
    assert graphs.count == 0


def test_everything_is_as_before_afterwards(graphs):
    model = make(dropout=0.1)
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(KeyError), accelerate(model, parts=("lookup", "layers"), compiling={"backend": graphs}):
        assert model.roberta.encoder.layer[0].forward.__name__ in vars(model.roberta.encoder.layer[0])
        raise KeyError
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert model.summed_loss is LangSAMPForMaskedLM.summed_loss


def test_a_compiler_that_fails_leaves_the_stock_layers(graphs, caplog):
    def broken(graph, inputs):
        raise RuntimeError("no such architecture: sm_999\nand much more")

    model, batch = make(), make_batch()
    stock_loss, stock = gradients(model, batch)
    with accelerate(model, parts=("layers",), compiling={"backend": broken}):
        for _ in range(2):
            loss, quick = gradients(model, batch)
            assert loss == stock_loss
            assert_same(stock, quick, 0)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.split()[0] for line in warnings] == ["XLMRobertaEmbeddings", "XLMRobertaLayer"]
    assert all("sm_999" in line and "\n" not in line for line in warnings)


def test_a_graph_that_fails_later_leaves_the_stock_layers(graphs, caplog):
    """The graph for padded batches comes when the first of them does."""

    def until_then(graph, inputs):
        if graphs.count == 2:
            raise RuntimeError("too many registers")
        return graphs(graph, inputs)

    model, full, padded = make(), make_batch(padding=False), make_batch()
    del full["attention_mask"]
    _, stock = gradients(model, padded)
    with accelerate(model, parts=("layers",), compiling={"backend": until_then}):
        gradients(model, full)
        assert graphs.count == 2
        assert "torch.compile" not in caplog.text
        _, quick = gradients(model, padded)
    assert_same(stock, quick)
    assert "too many registers" in caplog.text


@pytest.mark.skipif(find_spec("triton") is not None and torch.cuda.is_available(), reason="Triton works here")
def test_a_part_that_cannot_be_had_is_named_and_the_others_stay(graphs, caplog):
    """Without Triton, or without a GPU for it, the loss stays the model's own."""
    model, batch = make(), make_batch()
    _, stock = gradients(model, batch)
    with accelerate(model, compiling={"backend": graphs}) as on:
        assert on == ("lookup", "layers")
        _, quick = gradients(model, batch)
    assert_same(stock, quick)
    assert "without the part 'loss'" in caplog.text


@pytest.mark.parametrize("kwargs", [{"use_reentrant": False}, {"use_reentrant": True}])
def test_with_the_models_own_gradient_checkpointing(graphs, kwargs):
    model, batch = make(), make_batch()
    _, expected = gradients(model, batch)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    with accelerate(model, parts=("layers", "lookup"), compiling={"backend": graphs}):
        for _ in range(2):
            _, quick = gradients(model, batch)
            assert_same(expected, quick)


def by_sequence(
    q, k, v, starts, _, longest, __, dropout, *rest, scale=None, window_size_left=None, window_size_right=None,
    scaled=torch.nn.functional.scaled_dot_product_attention,
):  # fmt: skip
    """What the flash kernel computes, a sequence at a time."""
    out = []
    assert window_size_left == window_size_right
    for start, end in itertools.pairwise(starts.tolist()):
        assert 0 <= end - start <= longest
        assert q.shape[-1] % 8 == 0, "head_size must be a multiple of 8"
        parts = [t[start:end].transpose(0, 1).repeat_interleave(q.shape[1] // t.shape[1], 0) for t in (q, k, v)]
        at = torch.arange(end - start)
        near = None if window_size_left is None else (at[:, None] - at).abs() <= window_size_left
        out.append(scaled(*parts, near, scale=scale).transpose(0, 1))
    return (torch.cat(out),)


def test_rows_of_a_padded_batch_are_two_sequences_each():
    mask = torch.ones(4, 6, dtype=torch.long)
    mask[0, 4:] = mask[2, :2] = mask[3] = 0
    assert gpu_attention.sequence_ends(mask).tolist() == [0, 4, 6, 12, 12, 14, 18, 24, 24]


@pytest.mark.skipif("kwargs" not in XLMRobertaModel.forward.__code__.co_varnames, reason="transformers 4 has no way in")
@pytest.mark.parametrize("kind", ["padded", "local layers, padded", "local layers, full", "grouped heads, padded"])
def test_no_batch_needs_a_mask(monkeypatch, kind):
    """Grouped heads are those of EuroBERT: one of key and value serves several of the query."""
    maker = next((maker for word, maker in FAMILIES.items() if word in kind), make)
    model = maker(**({} if "local" in kind else {"hidden_size": 128, "num_attention_heads": 2}))
    batch = make_batch(padding="padded" in kind)
    if "full" in kind:
        del batch["attention_mask"]
    _, exact = gradients(model, batch)

    def error(found):
        return float(torch.stack([(found[n] - exact[n]).norm() / (1e-6 + exact[n].norm()) for n in exact]).mean())

    with torch.autocast("cpu", torch.bfloat16):
        _, stock = gradients(model, batch)
        monkeypatch.setattr(gpu_attention, "_flash", by_sequence)
        with accelerate(model, dtype=torch.bfloat16, parts=("attention",)) as on:
            assert on == ("attention",)
            monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", without_mask)
            _, quick = gradients(model, batch)
            monkeypatch.undo()
            model.eval()
            assert model(**batch).loss > 0  # evaluation keeps its mask
    assert error(quick) < 1.2 * error(stock)


@pytest.mark.skipif("kwargs" not in XLMRobertaModel.forward.__code__.co_varnames, reason="transformers 4 has no way in")
def test_attention_that_the_kernel_does_not_know_stays_stock(monkeypatch, caplog):
    """The kernel is tried with the model's own heads, not in the first padded batch."""
    monkeypatch.setattr(gpu_attention, "_flash", by_sequence)
    with accelerate(make(hidden_size=48), dtype=torch.bfloat16, parts=("attention",)) as on:
        assert on == ()
    assert "multiple of 8" in caplog.text


def without_mask(*args, attn_mask=None, scaled=torch.nn.functional.scaled_dot_product_attention, **kwargs):
    assert attn_mask is None
    return scaled(*args, **kwargs)


def test_attention_that_computes_something_else_is_noticed(monkeypatch, caplog):
    monkeypatch.setattr(gpu_attention, "_flash", lambda q, *rest, **kwargs: (q,))
    stock = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with accelerate(make(), dtype=torch.bfloat16, parts=("attention",)) as on:
        assert on == ()
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is stock
    assert "without the part 'attention'" in caplog.text


def test_numbers_on_the_host_are_read_at_once_and_in_order():
    late = Late()
    late.add("loss", torch.tensor(2.0), 7)
    late.add("norm", float("nan"), 7)
    (first, second) = late.read(7)
    assert first == ("loss", 7, 2.0)
    assert second[:2] == ("norm", 7)
    assert second[2] != second[2]
    assert list(late.read()) == []
