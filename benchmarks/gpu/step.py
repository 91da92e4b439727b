"""The training step: the official way, stock transformers, ours without and with each fast part."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import torch

from langsamp.train.fast.gpu import PARTS, accelerate
from langsamp.train.fast.late import Late
from langsamp.train.fast.optimizer import fold_clip

from .measure import Bench, Row
from .models import LENGTH, make_batches, make_model

VOCAB, GLOT500 = 250_002, 401_145
FAST, STOCK = "ours, fast", "ours, stock step (--no-fast)"
OFFICIAL = "the official way: eager attention, fp16, plain cross entropy, foreach AdamW"
PLAIN = "stock XLMRobertaForMaskedLM: sdpa, bf16, logits everywhere, fused AdamW"


class Way:
    """One way to train: a model, its optimizer, and what a step does.

    Args:
        bench: the run.
        model: in training mode.
        ids: the model takes language and script ids.
        places: it is given the masked positions, and no mask where nothing is padded.
        amp: autocast's type, or None.
        fused: AdamW's update; else foreach.
        fold: clip inside it.
    """

    def __init__(
        self, bench: Bench, model: Any, *, ids: bool = True, places: bool = True,
        amp: torch.dtype | None = torch.bfloat16, fused: bool = True, fold: bool = True,
    ) -> None:  # fmt: skip
        self.bench, self.model, self.amp, self.fold = bench, model, amp, fold
        self.dropped = ([] if ids else ["lang_ids", "script_ids"]) + ([] if places else ["masked_positions"])
        self.places, self.late = places, Late()
        how = {"fused": True} if fused else {"foreach": True}
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, **how)
        scaled = amp == torch.float16 and bench.cuda
        self.scaler = torch.amp.GradScaler("cuda") if scaled else None

    def batch(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the model gets, on its way to the device."""
        names = [name for name in batch if name not in self.dropped]
        if self.places and bool(batch["attention_mask"].all()):
            names.remove("attention_mask")
        return {name: batch[name].to(self.bench.device, non_blocking=True) for name in names}

    def step(self, number: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One optimizer step; returns the loss, on the device."""
        given = self.batch(batch)
        with torch.autocast(self.bench.device.type, self.amp) if self.amp else nullcontext():
            loss = self.model(**given).loss
        parameters = list(self.model.parameters())
        if self.scaler:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            norm = fold_clip(self.optimizer, 1.0) if self.fold else torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            self.late.add("norm", norm, number)
            self.optimizer.step()
        self.model.zero_grad()
        list(self.late.read(number))
        return loss.detach()


def useful_flop(config: Any, blocks: int) -> float:
    """Floating-point operations of a step: encoder forward and backward, the head on masked positions."""
    hidden, wide, tokens = config.hidden_size, config.intermediate_size, blocks * LENGTH
    layer = 2 * (4 * hidden * hidden + 2 * hidden * wide) + 4 * LENGTH * hidden
    return 3 * tokens * (config.num_hidden_layers * layer + 0.15 * 2 * (hidden * config.vocab_size + hidden * hidden))


def measure(bench: Bench, way: Way, blocks: int, vocab: int, padded: int = 0) -> Row:
    """Warm up and time some steps."""
    row = timed(bench, way, make_batches(bench, blocks, vocab, padded=padded), 10)
    peak = bench.facts.get("peak_tflops")
    if not peak:  # the roofline was left out
        return row
    return {**row, "MFU": round(useful_flop(way.model.config, blocks) / row["ms"] / 1e9 / peak, 3)}


def timed(bench: Bench, way: Way, batches: list[dict[str, torch.Tensor]], count: int) -> Row:
    """Warm up and time ``count`` steps."""
    blocks, length = batches[0]["input_ids"].shape
    bench.reset_peak()
    start = time.perf_counter()
    loss = way.step(0, batches[0])
    value = float(loss)  # waits
    first = time.perf_counter() - start
    count = 2 if bench.tiny else count
    for number in range(1, count // 3 + 1):
        way.step(number, batches[number % 3])
    spans = bench.times(lambda number: way.step(number + 9, batches[number % 3]), count)
    ms = statistics.median(spans)
    return {
        "blocks": blocks, "ms": round(ms, 1), "ktok/s": round(blocks * length / ms, 1), "peak GB": bench.peak_gb(),
        "first step s": round(first, 1), "least-most": f"{min(spans):.1f}-{max(spans):.1f}", "loss": round(value, 3),
    }  # fmt: skip


def sizes(bench: Bench, *blocks: int) -> tuple[int, ...]:
    """Blocks a batch; a few where everything is tiny."""
    return tuple(2 + i for i, _ in enumerate(blocks)) if bench.tiny else blocks


def steps(bench: Bench) -> None:
    """The table at V = 250,002."""
    vocab = 5_003 if bench.tiny else VOCAB
    (blocks,) = sizes(bench, 64)
    ours = Ours(bench, vocab)
    ours.row(FAST, blocks, needs=40)
    ours.row(STOCK, blocks, parts=(), fold=False)
    ours.forget()
    for other in sizes(bench, 64, 32):
        bench.row("step", OFFICIAL, _official, bench, vocab, other, needs=12)
    bench.row("step", PLAIN, _plain, bench, vocab, *sizes(bench, 16), needs=12)
    for part in ("layers", "loss", "lookup"):
        ours.row(f"{FAST}, without {part}", blocks, parts=tuple(p for p in PARTS if p != part))
    ours.row(f"{FAST}, clipping apart", blocks, fold=False)
    ours.row(f"{FAST}, one row padded", blocks, padded=1, needs=25)


def variants(bench: Bench) -> None:
    """Other sizes, and what might be faster still."""
    vocab = 5_003 if bench.tiny else VOCAB
    (blocks,) = sizes(bench, 64)
    ours = Ours(bench, vocab)
    for other in sizes(bench, 8, 16, 32, 128):
        ours.row(FAST, other, needs=25)
        ours.row(STOCK, other, parts=(), fold=False)
    for kind in ("FLASH_ATTENTION", "CUDNN_ATTENTION"):
        ours.row(f"{FAST}, {kind} first", blocks, around=attention(kind), needs=30)
    without = tuple(part for part in PARTS if part != "attention")
    ours.row(f"{FAST}, one row padded, by a mask", blocks, padded=1, parts=without, needs=25)
    ours.row(f"{FAST}, all layers in one graph", blocks, parts=("loss", "lookup"), around=one_graph, needs=90)
    tuned = {"options": {"coordinate_descent_tuning": True}}
    ours.row(f"{FAST}, coordinate descent tuning", blocks, compiling=tuned, needs=60)
    ours.row(f"{FAST}, max-autotune", blocks, compiling={"mode": "max-autotune-no-cudagraphs"}, needs=150)


def _official(bench: Bench, vocab: int, blocks: int) -> Row:
    model = make_model(bench, vocab, "official", "eager")
    return measure(bench, Way(bench, model, places=False, amp=torch.float16, fused=False, fold=False), blocks, vocab)


def _plain(bench: Bench, vocab: int, blocks: int) -> Row:
    model = make_model(bench, vocab, "stock")
    return measure(bench, Way(bench, model, ids=False, places=False, fold=False), blocks, vocab)


def vocabulary(bench: Bench) -> None:
    """The table at Glot500's vocabulary."""
    vocab = 8_001 if bench.tiny else GLOT500
    ours = Ours(bench, vocab, "step at V = 401,145")
    (blocks,) = sizes(bench, 64)
    ours.row(FAST, blocks, needs=25)
    ours.row(STOCK, blocks, parts=(), fold=False)
    ours.forget()
    bench.row(ours.table, OFFICIAL, _official, bench, vocab, blocks, needs=12)


class Ours:
    """One model for all rows of ours: what is measured does not depend on its weights."""

    def __init__(self, bench: Bench, vocab: int, table: str = "step") -> None:
        self.bench, self.vocab, self.table = bench, vocab, table
        self.model: Any = None

    def forget(self) -> None:
        """Let its memory go."""
        self.model = None
        self.bench.free()

    def row(self, name: str, blocks: int, *, needs: float = 12.0, **how: Any) -> None:
        """Measure with some parts on; see :meth:`_measure`."""
        self.bench.row(self.table, name, partial(self._measure, blocks, **how), needs=needs)

    def _measure(
        self, blocks: int, parts: tuple[str, ...] = PARTS, fold: bool = True, padded: int = 0,
        around: Callable[[ExitStack, Any], None] | None = None, compiling: dict[str, Any] | None = None,
    ) -> Row:  # fmt: skip
        self.model = self.model or make_model(self.bench, self.vocab)
        self.model.zero_grad()
        with ExitStack() as stack:
            if around:
                around(stack, self.model)
            on: tuple[str, ...] = ()
            if parts:
                faster = accelerate(self.model, dtype=torch.bfloat16, parts=parts, compiling=compiling)
                on = stack.enter_context(faster)
            row = measure(self.bench, Way(self.bench, self.model, fold=fold), blocks, self.vocab, padded)
        lost = [part for part in parts if part not in on]
        return row | ({"off": " ".join(lost)} if lost else {})


def profile(bench: Bench) -> None:
    """Where the time of a fast step goes, kernel by kernel."""
    bench.row("profile", "all kernels", _profile, bench, needs=20)


def _profile(bench: Bench) -> Row:
    from torch.profiler import ProfilerActivity, profile

    vocab = 5_003 if bench.tiny else VOCAB
    (blocks,) = sizes(bench, 64)
    way, batches = Way(bench, make_model(bench, vocab)), make_batches(bench, blocks, vocab)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.cuda else [])]
    with accelerate(way.model, dtype=torch.bfloat16):
        for number in range(3):
            way.step(number, batches[number])
        bench.free()
        with profile(activities=kinds) as seen:
            for number in range(3):
                way.step(number, batches[number])
            bench.free()
    events = [e for e in seen.key_averages() if bench.cuda is (e.device_type != torch.autograd.DeviceType.CPU)]
    times = {e.key: (e.self_device_time_total if bench.cuda else e.self_cpu_time_total) / 3e3 for e in events}
    counts = {e.key: e.count / 3 for e in events}
    for name in sorted(times, key=times.__getitem__, reverse=True)[:40]:
        row = {"name": name[:90], "ms a step": round(times[name], 3), "calls": round(counts[name], 1)}
        bench.rows.setdefault("profile", []).append(row)
    return {"ms a step": round(sum(times.values()), 2), "calls": round(sum(counts.values()))}


def attention(first: str) -> Callable[[ExitStack, Any], None]:
    """Let torch take an attention of its first; graphs are traced anew, for it is chosen then."""

    def enter(stack: ExitStack, _: Any) -> None:
        from torch._functorch import config as functorch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        torch._dynamo.reset()
        stack.callback(torch._dynamo.reset)
        stack.enter_context(functorch.patch(enable_autograd_cache=False))
        others = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
        order = [getattr(SDPBackend, first), *(backend for backend in others if backend.name != first)]
        stack.enter_context(sdpa_kernel(order, set_priority=True))

    return enter


def one_graph(stack: ExitStack, model: Any) -> None:
    """Compile all layers together."""
    from langsamp.core.compute.kernels import patch

    encoder = model.base_model.encoder
    stack.enter_context(patch(encoder, "forward", torch.compile(encoder.forward, dynamic=False)))


def curves(bench: Bench) -> None:
    """The loss while training on learnable text: fast, and stock in several ways whose noise is the measure."""
    found: dict[str, list[float]] = {}
    ways: tuple[tuple[str, tuple[str, ...], str, int], ...] = (
        ("stock", (), "sdpa", 1), ("stock, other dropout", (), "sdpa", 2), ("stock, eager attention", (), "eager", 1),
        ("fast", PARTS, "sdpa", 1),
    )  # fmt: skip
    for name, *how in ways:
        bench.row("curves", name, _curve, bench, found, name, *how, needs=15)
    (bench.output / "curves.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


def _curve(
    bench: Bench, found: dict[str, list[float]], name: str, parts: tuple[str, ...], attention: str, seed: int
) -> Row:
    """Train; the losses go into ``found``."""
    vocab, count = (5_003, 4) if bench.tiny else (VOCAB, 100)
    (blocks,) = sizes(bench, 16)
    model = make_model(bench, vocab, attention=attention)
    way = Way(bench, model, fold=bool(parts))
    with ExitStack() as stack:
        if parts:
            stack.enter_context(accelerate(model, dtype=torch.bfloat16, parts=parts))
        torch.manual_seed(seed)
        losses = []
        for number, batch in enumerate(make_batches(bench, blocks, vocab, count, learnable=True)):
            for group in way.optimizer.param_groups:
                group["lr"] = 2e-4 * min(1, (number + 1) / 20)
            losses.append(way.step(number, batch))
        found[name] = torch.stack(losses).tolist()
    row = {"first": round(found[name][0], 4), "last 20": round(statistics.fmean(found[name][-20:]), 4)}
    if name != "stock" and "stock" in found:
        gaps = [abs(a - b) for a, b in zip(found[name], found["stock"])]
        row |= {"mean gap to stock": round(statistics.fmean(gaps), 4), "largest": round(max(gaps), 4)}
    return row
