"""What 10,000 rows in the language table cost over 10, in one base-size training step.

Two measurements: whole steps in alternation on one model whose table is exchanged (honest but noisy: the difference is
far below a step's own spread), and alone the parts that depend on the rows: lookup, its gradient, norm, AdamW.

    python -m benchmarks.languages [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from typing import Any

from .common import machine, spread, table, timed
from .step import make_batches, make_model, step

SIZES = (10, 10_000)


def table_only(rows: int, tokens: int = 307) -> float:
    """Milliseconds of everything in a step that depends on the number of rows: median of 21."""
    import torch
    from torch import nn

    from langsamp.train.fast.optimizer import fold_clip

    lookup = nn.Embedding(rows, 768)
    optimizer = torch.optim.AdamW(lookup.parameters(), fused=True)
    ids, grad = torch.randint(0, rows, (tokens,)), torch.randn(tokens, 768)

    def run() -> None:
        lookup(ids).backward(grad)
        fold_clip(optimizer, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        run()
    return statistics.median(timed(run)[0] for _ in range(21)) * 1e3


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(argv)

    import torch
    from torch import nn

    from langsamp.train.fast.cpu import accelerate

    model = make_model("fast", languages=SIZES[0])
    tables = {rows: nn.Embedding(rows, 768) for rows in SIZES}
    optimizers: dict[int, Any] = {}
    for rows, lookup in tables.items():
        model.lang_embeddings = lookup
        optimizers[rows] = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    batch = make_batches(1)[0] | {"lang_ids": torch.tensor([1, 4, 7, 9])}
    times: dict[int, list[float]] = {rows: [] for rows in SIZES}
    print(machine())
    with ExitStack() as stack:
        stack.enter_context(accelerate(model))
        for turn in range(args.rounds + 1):
            for rows in SIZES if turn % 2 else SIZES[::-1]:
                model.lang_embeddings = tables[rows]
                seconds, _ = timed(lambda r=rows: step("fast", model, optimizers[r], batch))
                if turn:  # the first warms up
                    times[rows].append(seconds)
        alone = {rows: table_only(rows) for rows in SIZES}
    ratios = [b / a for a, b in zip(*times.values())]
    fastest = min(times[SIZES[0]])
    share = (alone[SIZES[1]] - alone[SIZES[0]]) / 1e3 / fastest
    rows_out = [[f"{rows:,}", spread(times[rows]), f"{alone[rows]:.2f}"] for rows in SIZES]
    table("Rows in the language table", ["rows", "s / step", "ms for the table alone"], rows_out)
    print(f"\nWhole steps, 10,000 over 10: {spread(ratios, 3)}")
    print(f"The table alone: {100 * share:.2f} % of the fastest step ({fastest:.2f} s)")


if __name__ == "__main__":
    main()
