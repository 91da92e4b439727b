"""The commands as a user types them, each in a process of its own: ``prepare`` and ``train``, from text to a model."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from langsamp.train.callbacks import read_log

from ..common import make_tokenizer
from .measure import Bench, Row
from .models import LENGTH, LETTERS
from .step import VOCAB


def commands(bench: Bench, work: Path, data: Path | None) -> None:
    """Prepare a store, train with everything that a run has."""
    base, store = work / "base", work / "store"
    bench.row("commands", "a base model and text", _make, bench, base, work / "text", data, needs=20)
    corpus = data or work / "text"
    bench.row("commands", "langsamp prepare", _prepare, corpus, base, store, needs=30)
    steps, blocks = (8, 2) if bench.tiny else (200, 64)
    shared = {"max_steps": steps, "save_steps": steps // 2, "eval_strategy": "steps", "eval_steps": 3 * steps // 4}
    bench.row("commands", f"langsamp train, {steps} steps of {blocks} x {LENGTH}, a save, a held-out evaluation",
              _train, bench, work, blocks, shared, needs=55)  # fmt: skip


def stock(bench: Bench, work: Path) -> None:
    """Train the stock step on the same store, for comparison."""
    steps, blocks = (8, 2) if bench.tiny else (60, 64)
    options = {"max_steps": steps, "save_strategy": "no", "fast": False}
    bench.row("commands", f"langsamp train --no-fast, {steps} steps", _train, bench, work, blocks, options, needs=45)


def _make(bench: Bench, base: Path, text: Path, data: Path | None) -> Row:
    """A tokenizer of 250,002 pieces with a random model for it, and text in 442 languages that there are not."""
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    pieces = 5_003 if bench.tiny else VOCAB
    words = [LETTERS[a] + LETTERS[b] + LETTERS[c] + LETTERS[d] for a in range(26) for b in range(26)
             for c in range(26) for d in range(26)][: pieces - 5 - 27]  # fmt: skip
    make_tokenizer(base, words)
    torch.manual_seed(0)
    size = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    config = XLMRobertaConfig(
        vocab_size=pieces, max_position_embeddings=LENGTH + 2, type_vocab_size=1, layer_norm_eps=1e-5,
        **(size if bench.tiny else {}),
    )  # fmt: skip
    with bench.device:
        model = XLMRobertaForMaskedLM(config)
    model.to("cpu").save_pretrained(base)
    if data is None:
        make_text(text, words[:50_000], *((4, 3_000) if bench.tiny else (442, 40_000)))
    return {"pieces": pieces}


def make_text(folder: Path, words: list[str], languages: int, tokens: int) -> None:
    """Sentences of words, p ~ 1 / rank; language codes from the range that ISO 639-3 leaves to everybody."""
    random, vocabulary = np.random.default_rng(0), np.array(words)
    codes = [f"q{a}{b}_Latn" for a in LETTERS[:20] for b in LETTERS][:languages]
    folder.mkdir(parents=True, exist_ok=True)
    for code in codes:
        drawn = vocabulary[np.floor(np.exp(random.random(tokens) * np.log(len(words)))).astype(int) - 1]
        lines = [" ".join(drawn[start : start + 25]) for start in range(0, tokens, 25)]
        (folder / f"{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _prepare(corpus: Path, base: Path, store: Path) -> Row:
    given = {"--corpus": corpus, "--tokenizer": base, "--output": store, "--heldout": 2, "--num-proc": os.cpu_count()}
    seconds = run("prepare", *(word for pair in given.items() for word in pair))
    size = sum(path.stat().st_size for path in corpus.iterdir() if path.is_file()) / 1e6
    return {"s": round(seconds, 1), "MB of text": round(size, 1)}


def _train(bench: Bench, work: Path, blocks: int, given: dict[str, Any]) -> Row:
    """Train, and read speeds and pauses off the log, which has an entry every five steps, however the command ended."""
    output = work / ("stock" if given.get("fast") is False else "fast")
    log, start, trouble = output / "train.jsonl", time.perf_counter(), None
    every = 1 if bench.tiny else 5
    usual = {"per_device_train_batch_size": blocks, "per_device_eval_batch_size": blocks, "bf16": bench.cuda,
             "logging_steps": every, "heldout_blocks": 2, "dataloader_num_workers": 4, "disable_tqdm": True,
             "use_cpu": not bench.cuda}  # fmt: skip
    options = [word for name, value in {**usual, **given}.items() for word in (f"--{name}", str(value).lower())]
    try:
        run("train", "--base", work / "base", "--store", work / "store", "--output", output, *options)
    except RuntimeError as error:  # perhaps only for want of a package for the model's card
        trouble = error
    seconds = time.perf_counter() - start
    marks = [(entry["step"], entry["seconds"]) for entry in read_log(log) if "loss" in entry]
    if trouble and len(marks) < 3:
        raise trouble
    pauses = {"save s": given.get("save_steps"), "held-out s": given.get("eval_steps")}
    row = {"s": round(seconds, 1), "before and after training s": round(seconds - marks[-1][1], 1)}
    row |= speeds(marks, blocks, {name: at for name, at in pauses.items() if at})
    return row | ({"ended badly": " ".join(str(trouble)[-200:].split())} if trouble else {})


def speeds(marks: list[tuple[int, float]], blocks: int, pauses: dict[str, int]) -> Row:
    """What a log says of a run.

    Args:
        marks: (step, seconds since the start of training), in order.
        blocks: a step.
        pauses: names of what comes after a step, and that step.

    Returns:
        ktok/s in the steady state, from the second mark to the end, and with the first steps; the start before the
        first mark; for each pause, how much longer the span after its step took than others.
    """
    spans = {a[0]: (b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(marks)}  # seconds a step from that mark on
    steady = statistics.median(spans.values())
    tokens, (last, end) = blocks * LENGTH / 1e3, marks[-1]
    row = {
        "steady ktok/s": round(tokens / steady, 1),
        "ktok/s with pauses": round(tokens * (last - marks[1][0]) / (end - marks[1][1]), 1),
        "with the first steps": round(tokens * last / end, 1), "first steps s": round(marks[0][1], 1),
    }  # fmt: skip
    for name, step in pauses.items():
        after = min((b[0] - a[0], spans[a[0]]) for a, b in pairwise(marks) if a[0] <= step < b[0])
        row[name] = round(after[0] * (after[1] - steady), 2)
    return row


def run(*words: Any) -> float:
    """Run ``langsamp`` with these words in a new process; returns its seconds.

    Raises:
        RuntimeError: it failed; the end of what it said is in the message.
    """
    start = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "langsamp", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    if done.returncode:
        said = (done.stdout + done.stderr)[-1500:]
        raise RuntimeError(f"langsamp {words[0]} ended with {done.returncode}: ... {said}")
    return time.perf_counter() - start
