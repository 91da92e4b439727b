"""What the benchmarks share: workers in processes of their own, rounds in alternation, medians with their spread."""

from __future__ import annotations

import json
import os
import resource
import statistics
import string
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def run_worker(module: str, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run ``python -m module arguments`` in a new process and parse the JSON of its last line.

    Raises:
        RuntimeError: the worker failed; its last lines are in the message.
    """
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}, capture_output=True, text=True,
    )  # fmt: skip
    if result.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_gb() -> float:
    """Peak resident memory of this process so far, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``median [least-greatest]``."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n## {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def machine() -> str:
    """One line on what this ran on, load included."""
    import torch
    import transformers

    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, load average {load}"
    )


def make_tokenizer(folder: Path, words: list[str]) -> None:
    """An XLM-R tokenizer with these words, the letters, and nothing else."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    scored = [(piece, 0.0) for piece in specials] + [("▁" + word, -10.0) for word in words]
    letters = [(letter, -14.0) for letter in "▁" + string.ascii_lowercase]
    tokenizer = Tokenizer(models.Unigram([*scored, *letters], unk_id=3))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens([*specials, AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
             "pad_token": "<pad>", "mask_token": "<mask>", "tokenizer_class": "XLMRobertaTokenizerFast"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "model_max_length": 512}), encoding="utf-8")
