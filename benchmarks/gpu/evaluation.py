"""Evaluation on a GPU: sentence vectors the naive way and ours, and fine-tuning with a plain Trainer and with ours."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from langsamp.core.runtime import ModelSource
from langsamp.eval.engines.encoder import Encoder
from langsamp.eval.engines.finetune import finetune
from langsamp.eval.engines.recipe import Job
from langsamp.eval.tasks.classify import SIB200

from ..retrieval import LAYER, WORDS, make_files, make_model
from .measure import Bench, Row

NAIVE = "naive: batches of 128 in file order, padded, all layers, fp32"


def vectors(bench: Bench, work: Path) -> None:
    """Sentences a second for layer 8 of a base-size model."""
    folder = work / "encoder"
    folder.mkdir(parents=True, exist_ok=True)
    make_model(folder)
    few, many = (64, 96) if bench.tiny else (4096, 20_000)
    texts = make_files(1, many)[0][0]
    found: dict[str, np.ndarray] = {}
    bench.row("vectors", NAIVE, _naive, bench, folder, texts[:few], found, torch.float32, needs=15)
    half = NAIVE.replace("fp32", "bf16")
    bench.row("vectors", half, _naive, bench, folder, texts[:few], found, torch.bfloat16, needs=8)
    for dtype in ("float32", *(("tf32",) if bench.cuda else ()), "bfloat16"):
        bench.row("vectors", f"ours {dtype}", _ours, bench, folder, texts, found, dtype, needs=12)


def _naive(bench: Bench, folder: Path, texts: list[str], found: dict[str, np.ndarray], dtype: torch.dtype) -> Row:
    from transformers import XLMRobertaModel

    from langsamp.eval.engines.encoder import load_backend

    model = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False).to(bench.device).eval()
    tokenizer = load_backend(folder, 512)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")

    def encode(some: list[str]) -> np.ndarray:
        rows = []
        for start in range(0, len(some), 128):
            batch = tokenizer.encode_batch(some[start : start + 128])
            ids = torch.tensor([encoding.ids for encoding in batch], device=bench.device)
            mask = torch.tensor([encoding.attention_mask for encoding in batch], device=bench.device)
            with torch.no_grad(), torch.autocast(bench.device.type, dtype, enabled=dtype != torch.float32):
                states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[LAYER].float()
            rows.append(((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).cpu().numpy())
        return np.concatenate(rows)

    return _timed(bench, encode, texts, found, NAIVE if dtype == torch.float32 else str(dtype))


def _ours(bench: Bench, folder: Path, texts: list[str], found: dict[str, np.ndarray], dtype: str) -> Row:
    encoder = Encoder(str(folder), (LAYER,), dtype=dtype, device=bench.device.type)
    return _timed(bench, lambda some: encoder.encode(some)[0], texts, found, dtype)


def _timed(bench: Bench, encode: Any, texts: list[str], found: dict[str, np.ndarray], name: str) -> Row:
    """Encode once to warm up and once on the clock; the error is against the naive vectors in fp32."""
    encode(texts[:512])
    start = time.perf_counter()
    found[name] = encode(texts)
    rate = len(texts) / (time.perf_counter() - start)
    row: Row = {"sentences/s": round(rate), "sentences": len(texts)}
    exact = found.get(NAIVE)
    if exact is not None:
        row["largest error"] = f"{np.abs(found[name][: len(exact)] - exact).max() / np.abs(exact).max():.1e}"
    first = next((r for r in bench.rows.get("vectors", []) if r["name"] == NAIVE and "sentences/s" in r), None)
    return row | ({"times naive": round(rate / first["sentences/s"], 1)} if first else {})


def finetuning(bench: Bench, work: Path) -> None:
    """SIB-200's recipe on data of its size, fewer epochs: a plain Trainer in bf16, ours in bf16 and fp32."""
    folder = work / "encoder"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_model(folder)
    count, epochs = (24, 1) if bench.tiny else (701, 8)
    random = np.random.default_rng(0)

    def features(size: int) -> list[dict[str, Any]]:
        lengths = np.clip(random.lognormal(np.log(37), 0.4, size).astype(int), 5, 150)
        rows = [[0, *random.integers(4, WORDS, length).tolist(), 2] for length in lengths]
        return [{"input_ids": row, "labels": int(row[1]) % 7} for row in rows]

    train, dev = features(count), features(max(8, count // 7))
    bench.row("fine-tuning", "a plain Trainer, bf16", _plain, bench, folder, train, dev, epochs, needs=30)
    for dtype in ("bfloat16", "float32"):
        bench.row("fine-tuning", f"ours, {dtype}", _tuned, folder, train, dev, epochs, dtype, needs=30)


def _plain(bench: Bench, folder: Path, train: list[Any], dev: list[Any], epochs: int) -> Row:
    from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

    from langsamp.eval.engines.predict import pad_batch

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=7)
    recipe = SIB200.recipe
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, num_train_epochs=epochs, per_device_train_batch_size=recipe.batch_size, bf16=True,
            gradient_accumulation_steps=recipe.accumulation, learning_rate=recipe.learning_rate, eval_strategy="epoch",
            save_strategy="epoch", report_to=[], disable_tqdm=True, logging_strategy="no", use_cpu=not bench.cuda,
        )  # fmt: skip
        trainer = Trainer(model, arguments, lambda rows: pad_batch(rows, 1), train, dev)
        start = time.perf_counter()
        trainer.train()
        return _seconds(time.perf_counter() - start, len(train) * epochs)


def _tuned(folder: Path, train: list[Any], dev: list[Any], epochs: int, dtype: str) -> Row:
    recipe = replace(SIB200.recipe, epochs=epochs)
    labels = tuple(f"topic {number}" for number in range(7))
    job = Job(ModelSource(folder, "random"), "sequence", "sib200", "eng_Latn", 42, labels, recipe, dtype)
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        finetune(job, train, dev, lambda found, wanted: float((found == wanted).mean()), Path(output))
        return _seconds(time.perf_counter() - start, len(train) * epochs)


def _seconds(seconds: float, examples: int) -> Row:
    return {"s": round(seconds, 1), "examples/s": round(examples / seconds)}
