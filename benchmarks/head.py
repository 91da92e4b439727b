"""The masked-LM head's loss and gradients at vocabulary 250,002: seconds, and memory beyond the weight gradient.

Three ways: as one writes it first (F.cross_entropy of F.linear), the model's chunked loss, and the one that
langsamp.train.fast.cpu puts in place. Every measurement is a process of its own, the ways in turn, in rounds.

    python -m benchmarks.head [--rounds 3] [--tokens 307,2458]
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any

from .common import machine, peak_gb, run_worker, spread, table, timed
from .step import VOCAB, plain_loss

WAYS = {"plain": "F.cross_entropy", "chunked": "the model's chunked loss", "fast": "langsamp.train.fast.cpu"}


def worker(way: str, tokens: int, bf16: bool) -> None:
    """Loss and gradients three times, the first to warm up; memory is the rise of the peak less the weight gradient."""
    import torch

    from langsamp.core.compute.kernels import fast_matmul, keep_heap
    from langsamp.modeling_langsamp import linear_cross_entropy
    from langsamp.train.fast.cpu_head import LOGITS_KEPT, HeadLoss, Owner

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.empty(VOCAB, 768).normal_(std=0.02))
    bias = torch.zeros(VOCAB, requires_grad=True)
    features = torch.randn(tokens, 768, requires_grad=True)
    targets = torch.randint(0, VOCAB, (tokens,))
    before = peak_gb()
    functions: dict[str, Any] = {
        "plain": lambda: plain_loss(features, weight, bias, targets),
        "chunked": lambda: linear_cross_entropy(features, weight, bias, targets),
        "fast": lambda: (
            HeadLoss.apply(features, bias, Owner(weight), targets)
            if tokens * VOCAB <= LOGITS_KEPT
            else linear_cross_entropy(features, weight, bias, targets)
        ),
    }

    def run() -> None:
        weight.grad = bias.grad = features.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = functions[way]() / tokens
        loss.backward()

    with ExitStack() as stack:
        if way == "fast":
            stack.enter_context(fast_matmul())
            keep_heap()
        run()
        memory = peak_gb() - before - weight.nbytes / 1e9
        times = [timed(run) for _ in range(2)]
    print(json.dumps({"wall": min(t[0] for t in times), "cpu": min(t[1] for t in times), "memory": memory}))


def main(argv: list[str] | None = None) -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", default="307,2458")
    parser.add_argument("--worker", nargs=3, metavar=("WAY", "TOKENS", "TYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        worker(args.worker[0], int(args.worker[1]), args.worker[2] == "bf16")
        return
    print(machine())
    rows = []
    for tokens in args.tokens.split(","):
        for kind in ("fp32", "bf16"):
            rounds = [
                {way: run_worker("benchmarks.head", "--worker", way, tokens, kind) for way in WAYS}
                for _ in range(args.rounds)
            ]
            for way, title in WAYS.items():
                runs = [r[way] for r in rounds]
                speed = [r["plain"]["wall"] / r[way]["wall"] for r in rounds]
                memory = spread([run["memory"] for run in runs])
                rows.append([tokens, kind, title, spread([run["wall"] for run in runs]), spread(speed), memory])
    header = ["tokens", "type", "way", "seconds", "speed", "GB beyond the weight gradient"]
    table("Masked-LM head: loss and gradients, vocabulary 250,002", header, rows)


if __name__ == "__main__":
    main()
