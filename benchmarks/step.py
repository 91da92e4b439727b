"""One training step at base size, ours beside the stock way: seconds, tokens a second, peak memory.

12 layers of 768, vocabulary 250,002, 4 x 512 tokens, 15 % masked, dropout 0.1, clip 1.0, AdamW; random weights. Every
variant runs in a process of its own (the allocator and the peak are the process's), the variants in turn, in rounds.

    python -m benchmarks.step [--rounds 3] [--steps 2] [--variants plain,fast,...]
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any

from .common import machine, peak_gb, run_worker, spread, table, timed

VOCAB, BATCH, LENGTH = 250_002, 4, 512
VARIANTS = {
    "stock": "(a) stock XLMRobertaForMaskedLM, logits at every position, the Trainer's default optimizer",
    "plain": "(b) head on masked positions, F.cross_entropy, eager attention, AdamW loop: the official step",
    "plain-bf16": "(b) under bf16 autocast",
    "fast": "ours, fp32",
    "fast-no-routing": "ours, fp32, without the oneDNN routing (what CPUs not made by AMD get)",
    "fast-bf16": "ours, bf16 autocast",
    "small": "ours, fp32, least memory (checkpoint_layers)",
}


def make_model(variant: str, dropout: float = 0.1, languages: int = 609, layers: int = 12) -> Any:
    """A base-size model with random weights, in training mode."""
    import torch
    from transformers import XLMRobertaForMaskedLM

    from langsamp import LangSAMPConfig, LangSAMPForMaskedLM

    torch.manual_seed(0)
    codes = [a + b + c for a in LETTERS for b in LETTERS for c in LETTERS if a + b + c != "und"][:languages]
    config = LangSAMPConfig(
        vocab_size=VOCAB, hidden_size=768, num_hidden_layers=layers, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        languages=codes, scripts=["Latn", "Cyrl", "Arab"], table_initializer_range=0.02,
    )  # fmt: skip
    if variant == "stock":
        return XLMRobertaForMaskedLM._from_config(config).train()
    attention = "eager" if variant.startswith("plain") else "sdpa"
    model = LangSAMPForMaskedLM._from_config(config, attn_implementation=attention).train()
    if variant.startswith("plain"):
        model.summed_loss = plain_loss
    return model


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def plain_loss(features: Any, weight: Any, bias: Any, targets: Any) -> Any:
    """The head and its loss as one writes them first."""
    from torch.nn import functional

    return functional.cross_entropy(functional.linear(features, weight, bias), targets, reduction="sum")


def make_batches(count: int, ids: bool = True) -> list[dict[str, Any]]:
    """Batches of random tokens, masked by DataCollatorForLanguageModeling (before the clock starts)."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    vocabulary = {str(i): i for i in range(VOCAB - 1)} | {"<mask>": VOCAB - 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="3")), mask_token="<mask>", pad_token="1"
    )
    collator = DataCollatorForLanguageModeling(tokenizer)
    torch.manual_seed(1)
    batches = []
    for _ in range(count):
        tokens = torch.randint(4, VOCAB - 1, (BATCH, LENGTH))
        batch = dict(collator([{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in tokens]))
        if ids:
            batch |= {"lang_ids": torch.randint(1, 600, (BATCH,)), "script_ids": torch.randint(1, 4, (BATCH,))}
        batches.append(batch)
    return batches


def make_optimizer(variant: str, model: Any) -> Any:
    """(b) has torch's plain loop; all others the fused AdamW that the Trainer takes by default."""
    import torch

    plain = {"foreach": False, "fused": False} if variant.startswith("plain") else {"fused": True}
    return torch.optim.AdamW(model.parameters(), lr=5e-5, **plain)


def step(variant: str, model: Any, optimizer: Any, batch: dict[str, Any]) -> float:
    """One whole optimizer step; returns the loss."""
    import torch

    from langsamp.train.fast.optimizer import fold_clip

    with torch.autocast("cpu", torch.bfloat16, enabled=variant.endswith("bf16")):
        loss = model(**batch).loss
    loss.backward()
    if variant in ("stock", "plain", "plain-bf16"):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    else:
        fold_clip(optimizer, 1.0)
    optimizer.step()
    model.zero_grad()
    return loss.item()


def worker(variant: str, steps: int) -> None:
    """Warm up with one step, time the others, print one line of JSON."""
    from langsamp.train.fast.cpu import accelerate

    model = make_model(variant)
    batches = make_batches(steps + 1, ids=variant != "stock")
    optimizer = make_optimizer(variant, model)
    with ExitStack() as stack:
        on = ()
        if variant.startswith(("fast", "small")):
            on = stack.enter_context(accelerate(model, checkpoint_layers=variant == "small"))
        loss = step(variant, model, optimizer, batches[0])
        times = [timed(lambda b=batch: step(variant, model, optimizer, b)) for batch in batches[1:]]
    wall, cpu = zip(*times)
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak_gb(), "loss": loss, "on": on}))


def equality() -> dict[str, Any]:
    """Dropout off, fp32: loss and gradients of ours against (b), and of both against fp64.

    Errors are the largest over a tensor's elements, divided by its largest gradient; the worst tensor counts. Two exact
    fp32 computations differ by the rounding of both, so the error of (b) itself is the measure of what can be expected.
    """
    from langsamp.train.fast.cpu import accelerate

    model, batch = make_model("plain", dropout=0.0), make_batches(1)[0]

    def run() -> tuple[float, dict[str, Any]]:
        loss = model(**batch).loss
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        model.zero_grad()
        return loss.item(), gradients

    plain_value, plain = run()
    with accelerate(model):
        our_value, ours = run()
    model.double()
    exact_value, exact = run()
    return {
        "loss": {"(b)": plain_value, "ours": our_value, "fp64": exact_value},
        "ours against (b)": worst_error(ours, plain),
        "(b) against fp64": worst_error(plain, exact),
        "ours against fp64": worst_error(ours, exact),
    }


def worst_error(gradients: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """The worst tensor, and how many are within 2e-6 of their maximum."""
    errors = {}
    for name, expected in reference.items():
        # the gradient of a key's bias is 0 in exact arithmetic: its rounding noise is held against the query's bias
        largest = reference[name.replace("self.key.bias", "self.query.bias")].abs().max()
        errors[name] = float((gradients[name] - expected).abs().max() / largest)
    worst = max(errors, key=errors.__getitem__)
    within = sum(error <= 2e-6 for error in errors.values())
    return {"error": float(f"{errors[worst]:.2g}"), "in": worst, "within 2e-6": f"{within} of {len(errors)} tensors"}


def main(argv: list[str] | None = None) -> None:
    """Run the rounds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="timed steps a process, after one to warm up")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--worker", choices=[*VARIANTS, "equality"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker == "equality":
        print(json.dumps(equality()))
        return
    if args.worker:
        worker(args.worker, args.steps)
        return
    names = args.variants.split(",")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    print(f"{machine()}")
    for _ in range(args.rounds):
        for name in names:
            env = {"LANGSAMP_FAST_MATMUL": "0"} if name == "fast-no-routing" else {}
            results[name].append(run_worker("benchmarks.step", "--worker", name, "--steps", str(args.steps), env=env))
            print(f"  {name}: {results[name][-1]}", flush=True)
    report(results)
    print("\nDropout off, fp32:")
    for what, value in run_worker("benchmarks.step", "--worker", "equality").items():
        print(f"* {what}: {value}")


def report(results: dict[str, list[dict[str, Any]]]) -> None:
    """Seconds a step, and ratios round by round (so that a busy machine slows both sides of a ratio)."""
    rows = []
    for name, runs in results.items():
        wall = [s for run in runs for s in run["wall"]]
        middle = [sum(run["wall"]) / len(run["wall"]) for run in runs]
        cells = [VARIANTS[name], spread(wall), f"{BATCH * LENGTH / (sum(middle) / len(middle)):.0f}"]
        for reference in ("plain", "stock"):
            cells.append(ratio(results.get(reference), runs, "wall"))
        cells += [ratio(results.get("plain"), runs, "cpu"), spread([run["peak"] for run in runs])]
        rows.append(cells)
    header = ["variant", "s / step", "tokens / s", "speed, (b) = 1", "speed, (a) = 1", "CPU time, (b) = 1", "peak GB"]
    table("Training step, 4 x 512 tokens, base size", header, rows)
    used = {name: runs[-1]["on"] for name, runs in results.items() if runs[-1]["on"]}
    print("\nIn place:", "; ".join(f"{name}: {', '.join(on)}" for name, on in used.items()))
    print('"matmul" (fp32 products through oneDNN) is what only AMD CPUs get; "heap" needs glibc.')


def ratio(reference: list[dict[str, Any]] | None, runs: list[dict[str, Any]], clock: str) -> str:
    """How many times faster than the reference in the same round: median [least-greatest]."""
    if not reference:
        return "-"
    mean = [sum(run[clock]) / len(run[clock]) for run in runs]
    other = [sum(run[clock]) / len(run[clock]) for run in reference]
    return spread([a / b for a, b in zip(other, mean)])


if __name__ == "__main__":
    main()
