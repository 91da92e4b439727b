"""Is every kernel right on this card? Errors against fp64 beside those of the stock way, in less than half a minute."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from langsamp.train.fast import gpu_attention, gpu_head
from langsamp.train.fast.ends import Owner
from langsamp.train.fast.gpu import accelerate

from .measure import Bench, Row
from .models import make_batches, make_model, make_modernbert
from .step import Way

HALVES = (torch.bfloat16, torch.float16)


def smoke(bench: Bench) -> bool:
    """Check, print, and say whether all is well."""
    checks: dict[str, tuple[Callable[..., Row], tuple[Any, ...]]] = {}
    for dtype in (torch.float32, *HALVES):
        checks[f"head, small, {dtype}"] = _head, (bench, dtype)
    for dtype in HALVES if bench.cuda else ():
        for window in (None, 6):
            checks[f"attention of padded rows{', windows' if window else ''}, {dtype}"] = (
                _attention,
                (bench, dtype, window),
            )
    checks["dropout in it"] = _dropout, (bench,)
    checks["head, V = 250,002, bf16"] = _large_head, (bench,)
    for dtype in (torch.float32, torch.bfloat16):
        for padded in (0, 1):
            checks[f"whole model, {dtype}, {'padded' if padded else 'full'}"] = _model, (bench, dtype, padded)
    for padded in (0, 1):
        name = f"whole ModernBERT, bf16, {'padded' if padded else 'full'}"
        checks[name] = _model, (bench, torch.bfloat16, padded, make_modernbert)
    checks["waiting for the GPU in a step"] = _waits, (bench,)
    checks["cuDNN attention"] = _cudnn, (bench,)
    for name, (function, given) in checks.items():
        bench.row("smoke", name, _told, function, *given, needs=20)
    bad = [row["name"] for row in bench.rows["smoke"] if row.get("verdict") != "right"]
    print("all right" if not bad else f"NOT right: {'; '.join(bad)}", flush=True)
    return not bad


def _told(function: Callable[..., Row], *given: Any) -> Row:
    """A check's row; what goes wrong is printed whole, for nobody will be there to look closer."""
    try:
        row = function(*given)
    except Exception:
        traceback.print_exc()
        raise
    return row if "verdict" in row else {"verdict": "right", **row}


def _judged(errors: dict[str, tuple[float, float]], factor: float = 1.5, least: float = 2e-6) -> Row:
    """Ours beside the stock error of each tensor."""
    row: Row = {name: f"{ours:.1e} (stock {stock:.1e})" for name, (ours, stock) in errors.items()}
    right = all(ours <= factor * stock + least for ours, stock in errors.values())
    return {"verdict": "right" if right else "WRONG", **row}


def _head(bench: Bench, dtype: torch.dtype) -> Row:
    return _judged(gpu_head.check(bench.device, dtype))


def _attention(bench: Bench, dtype: torch.dtype, window: int | None) -> Row:
    error = gpu_attention.check(bench.device, dtype, window)
    return {"verdict": "right" if error < 2e-2 else "WRONG", "largest error": f"{error:.1e}"}


def _dropout(bench: Bench) -> Row:
    """With all values 1 attention gives the share of probability that dropout kept, scaled: 1 on average."""
    if not bench.cuda:
        return {"verdict": "right", "note": "needs a GPU"}
    q = torch.randn(16, 12, 512, 64, device=bench.device, dtype=torch.bfloat16)
    ends = gpu_attention.sequence_ends(torch.ones(16, 512, device=bench.device))
    out = gpu_attention.attend(q, q * 0, q * 0 + 1, ends, 0.1, None).float()
    mean, deviation = float(out.mean()), float(out.std())
    right = abs(mean - 1) < 2e-3 and 0.005 < deviation < 0.05
    return {"verdict": "right" if right else "WRONG", "mean": round(mean, 5), "deviation": round(deviation, 5)}


def _large_head(bench: Bench) -> Row:
    """At the real width, where a wrong offset would show, against fp64 on the card."""
    rows, vocab, hidden = (70, 3001, 64) if bench.tiny else (640, 250_002, 768)
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(vocab, hidden, device=bench.device) * 0.05)
    b = nn.Parameter(torch.randn(vocab, device=bench.device) * 0.1)
    x = torch.randn(rows, hidden, device=bench.device).requires_grad_()
    targets = torch.randint(vocab, (rows,), device=bench.device)
    targets[-5:], targets[0] = -100, vocab - 1

    def run(ours: bool, kind: torch.dtype) -> dict[str, Tensor]:
        leaves = [t.detach().to(kind).requires_grad_() for t in (w, b, x)]
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=kind == torch.float32):
            if ours:
                owner = Owner(leaves[0]).pad_to(gpu_head.MULTIPLE)
                loss = gpu_head.HeadLoss.apply(leaves[2], leaves[1], None, owner, targets)
            else:
                logits = nn.functional.linear(leaves[2], leaves[0], leaves[1])
                loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
        (loss / rows).backward()
        grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
        return dict(zip(("loss", "weight", "bias", "features"), [loss.detach(), *grads]))

    exact = run(False, torch.float64)
    errors = {}
    for ours in (True, False):
        found = run(ours, torch.float32)
        errors[ours] = {n: float((found[n].double() - e).norm() / e.norm()) for n, e in exact.items()}
    pairs = {name: (errors[True][name], errors[False][name]) for name in exact}
    return _judged(pairs, factor=1.5 if bench.cuda else 2.5, least=1e-5)  # the interpreter cuts numbers off


def _model(bench: Bench, dtype: torch.dtype, padded: int, make: Callable[..., Any] = make_model) -> Row:
    """All parts together on few layers without dropout: gradients against fp64, norm over norm."""
    vocab = 5_003
    config_bench = Bench(1e9, bench.output, bench.device.type, tiny=True)
    model = make(config_bench, vocab, **({"dropout": 0.0} if make is make_model else {}))
    batch = {n: t.to(bench.device) for n, t in make_batches(config_bench, 4, vocab, 1, padded)[0].items()}
    if not padded:
        del batch["attention_mask"]

    def gradients(fast: bool, kind: torch.dtype) -> dict[str, Tensor]:
        model.to(kind).zero_grad()
        with torch.autocast(bench.device.type, dtype, enabled=dtype != torch.float32 and kind == torch.float32):
            if fast:
                with accelerate(model, dtype=dtype) as on:
                    model(**batch).loss.backward()
                    parts.append(on)
            else:
                model(**batch).loss.backward()
        return {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}

    parts: list[tuple[str, ...]] = []
    exact = gradients(False, torch.float64)
    size = torch.stack([e.norm() for e in exact.values()]).norm()

    def error(found: dict[str, Tensor]) -> float:
        return float(torch.stack([(found[n] - e).norm() for n, e in exact.items()]).norm() / size)

    fast, stock = error(gradients(True, torch.float32)), error(gradients(False, torch.float32))
    return _judged({"gradients": (fast, stock)}, factor=1.25) | {"on": " ".join(parts[0])}


def _waits(bench: Bench) -> Row:
    """Where a step makes the host wait for the card, as torch warns of it."""
    if not bench.cuda:
        return {"verdict": "right", "note": "needs a GPU"}
    vocab = 20_000
    way = Way(bench, make_model(bench, vocab))
    batches = make_batches(bench, 48, vocab)  # more than 3,072 masked tokens: the tables' gradient takes another way
    with accelerate(way.model, dtype=torch.bfloat16), warnings.catch_warnings(record=True) as caught:
        for number in range(3):
            way.step(number, batches[number])
        torch.cuda.synchronize()
        warnings.simplefilter("always")
        caught.clear()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            way.step(3, batches[0])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchron" in str(w.message))
    return {"verdict": "right" if not places else "it waits", "where": dict(places)}


def _cudnn(bench: Bench) -> Row:
    """CuDNN's attention, which the benchmark tries as a variant, forward and backward."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if not bench.cuda:
        return {"verdict": "right", "note": "needs a GPU"}
    torch.manual_seed(0)
    tensors = [torch.randn(4, 512, 12, 64, device=bench.device).transpose(1, 2) for _ in range(4)]

    def run(backend: SDPBackend, dtype: torch.dtype) -> list[Tensor]:
        q, k, v, d = (t.to(torch.bfloat16).to(dtype).requires_grad_() for t in tensors)
        with sdpa_kernel(backend):
            out = nn.functional.scaled_dot_product_attention(q, k, v)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), d)]

    exact = run(SDPBackend.MATH, torch.float64)
    errors = {}
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        found = run(backend, torch.bfloat16)
        errors[backend] = max(float((f.double() - e).norm() / e.norm()) for f, e in zip(found, exact))
    q = tensors[0].to(torch.bfloat16)
    mask = torch.ones(4, 1, 512, 512, dtype=torch.bool, device=bench.device)
    chosen = [SDPBackend(torch._fused_sdp_choice(q, q, q, m, 0.1)).name for m in (None, mask)]
    pair = errors[SDPBackend.CUDNN_ATTENTION], errors[SDPBackend.FLASH_ATTENTION]
    return _judged({"cuDNN against flash": pair}) | {"torch takes": chosen[0], "with a mask": chosen[1]}
