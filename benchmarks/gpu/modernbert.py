"""ModernBERT as large as mmBERT-base: LangSAMP's fast step beside the stock masked LM, short and long blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from langsamp.train.fast.gpu import PARTS, accelerate

from .measure import Bench, Row
from .models import make_batches, make_modernbert
from .step import Way, timed

OURS = "LangSAMP, fast"
STOCK = "stock ModernBertForMaskedLM: sdpa, bf16, its head on masked positions, fused AdamW"
DENSE = "stock, logits everywhere (its default)"


def modernbert(bench: Bench) -> None:
    """The table: ours and stock at each length, then stock as it comes, on a quarter of the tokens."""
    vocab, lengths = (5_003, (64, 256)) if bench.tiny else (256_000, (512, 8192))
    tokens = 512 if bench.tiny else 32_768
    speeds: dict[int, float] = {}
    models: dict[bool, Any] = {}
    for length in lengths:
        row = partial(bench.row, "modernbert", needs=60 if bench.tiny else 13)  # a CPU's compiler
        row(f"{OURS}, {length}", _ours, bench, models, vocab, length, tokens // length, speeds)
        row(f"{STOCK}, {length}", _stock, bench, models, vocab, length, tokens // length, speeds)
    for length in lengths:
        blocks = max(1, tokens // length // 4)
        bench.row(
            "modernbert", f"{DENSE}, {length}", _stock, bench, models, vocab, length, blocks, speeds, False, needs=5
        )


def _ours(
    bench: Bench, models: dict[bool, Any], vocab: int, length: int, blocks: int, speeds: dict[int, float]
) -> Row:  # fmt: skip
    model = _only(bench, models, vocab, stock=False)
    with accelerate(model, dtype=torch.bfloat16) as on:
        row = timed(bench, Way(bench, model), make_batches(bench, blocks, vocab, length=length), 6)
    speeds[length] = row["ktok/s"]
    lost = [part for part in PARTS if part not in on]
    return row | ({"off": " ".join(lost)} if lost else {})


def _stock(
    bench: Bench, models: dict[bool, Any], vocab: int, length: int, blocks: int, speeds: dict[int, float],
    sparse: bool = True,
) -> Row:  # fmt: skip
    model = _only(bench, models, vocab, stock=True)
    model.sparse_prediction = sparse
    way = Way(bench, model, ids=False, places=False, fold=False)
    row = timed(bench, way, make_batches(bench, blocks, vocab, length=length), 6)
    return row | ({"ours is faster by": round(speeds[length] / row["ktok/s"], 2)} if length in speeds else {})


def _only(bench: Bench, models: dict[bool, Any], vocab: int, stock: bool) -> Any:
    """The model of a kind, alone on the card: the other's memory would count as this one's."""
    if stock not in models:
        models.clear()
        bench.free()
        models[stock] = make_modernbert(bench, vocab, stock)
    models[stock].zero_grad()
    return models[stock]
