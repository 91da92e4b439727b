"""Classification inference against the official way: padded to 100 tokens, 32 sentences a batch, PyTorch's own kernels.

    python benchmarks/classification.py [--model MODEL] [--sentences 96] [--rounds 3]

Both ways run on the same weights in one process, in turns; medians of the rounds. Without --model a random model of
XLM-R base size is used, with sentence lengths like those of Taxi1500 (log-normal, mean 39 tokens, at most 100).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from langsamp.configuration_langsamp import LangSAMPConfig
from langsamp.core.runtime import resolve_model
from langsamp.eval.engines.predict import pad_batch, predict
from langsamp.modeling_langsamp import LangSAMPForSequenceClassification

CLASSES, LENGTH, BATCH = 6, 100, 32


def make_model(spec: str | None) -> LangSAMPForSequenceClassification:
    """The checkpoint with a random head, or a random model of base size (a small vocabulary will do)."""
    torch.manual_seed(0)
    if spec:
        return LangSAMPForSequenceClassification.from_pretrained(resolve_model(spec).path, num_labels=CLASSES).eval()
    config = LangSAMPConfig(vocab_size=5000, max_position_embeddings=514, type_vocab_size=1, num_labels=CLASSES)
    return LangSAMPForSequenceClassification(config).eval()


def make_inputs(count: int, top: int) -> list[list[int]]:
    """Token ids of sentences of realistic length."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(35), 0.45, count).astype(int), 5, LENGTH)
    return [[0, *rng.integers(5, top, size - 2).tolist(), 2] for size in lengths]


@torch.inference_mode()
def padded(model: LangSAMPForSequenceClassification, inputs: Sequence[Sequence[int]]) -> np.ndarray:
    """The official loop: file order, fixed length, fixed batch."""
    found = []
    for start in range(0, len(inputs), BATCH):
        batch = pad_batch([{"input_ids": ids} for ids in inputs[start : start + BATCH]], model.config.pad_token_id)
        ids = torch.full((len(batch["input_ids"]), LENGTH), model.config.pad_token_id)
        ids[:, : batch["input_ids"].shape[1]] = batch["input_ids"]
        mask = (ids != model.config.pad_token_id).long()
        found.append(model(input_ids=ids, attention_mask=mask).logits.float().numpy())
    return np.concatenate(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub id (default: random weights of base size)")
    parser.add_argument("--sentences", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = make_model(arguments.model)
    half = make_model(arguments.model).to(torch.bfloat16)
    inputs = make_inputs(arguments.sentences, min(5000, model.config.vocab_size))
    ways: dict[str, Callable[[], np.ndarray]] = {
        "padded to 100, batch 32": lambda: padded(model, inputs),
        "langsamp fp32": lambda: np.stack(predict(model, inputs)),
        "langsamp bf16": lambda: np.stack(predict(half, inputs)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    logits = {name: way() for name, way in ways.items()}  # also the warm-up
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    slow, *_ = ways
    mean = np.mean([len(ids) for ids in inputs])
    print(f"{len(inputs)} sentences, mean {mean:.0f} tokens, {torch.get_num_threads()} threads")
    print(f"{'':<26}{'sentences/s':>12}{'ratio':>8}{'max logit difference':>23}{'class changed':>15}")
    for name, seconds in times.items():
        speed = len(inputs) / statistics.median(seconds)
        ratio = statistics.median(a / b for a, b in zip(times[slow], seconds))
        difference = np.abs(logits[name] - logits[slow]).max()
        changed = int((logits[name].argmax(-1) != logits[slow].argmax(-1)).sum())
        print(f"{name:<26}{speed:>12.1f}{ratio:>8.2f}{difference:>23.1e}{changed:>15}")


if __name__ == "__main__":
    main()
