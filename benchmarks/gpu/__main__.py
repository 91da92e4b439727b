"""One NVIDIA GPU, measured from its ceilings to whole runs, in under eight minutes; nothing is downloaded.

    python -m benchmarks.gpu [--seconds 450] [--only step,commands] [--skip curves] [--output DIR] [--data CORPUS]
    python -m benchmarks.gpu --smoke                is every kernel right here? Half a minute

Parts run in the order of their importance. A row that fails, or for which no time is left, says so and the next goes
on; what was found is on the disk after every row (gpu.json), tables are printed last and written as gpu.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TITLES = {
    "smoke": "Errors against fp64, beside the stock way's",
    "roofline": "What the card can do",
    "step": "One training step, V = 250,002",
    "step at V = 401,145": "One training step, V = 401,145",
    "modernbert": "One training step, ModernBERT-base, V = 256,000",
    "head": "The head's loss, 4,992 masked tokens, V = 250,002, bf16",
    "commands": "The commands",
    "vectors": "Sentence vectors, layer 8 of the base model",
    "fine-tuning": "Fine-tuning as for SIB-200",
    "curves": "Loss over 100 steps of 16 blocks, learnable text",
    "profile": "Kernels of a fast step",
}
PARTS = (
    "roofline", "step", "commands", "stock", "vectors", "modernbert", "head", "profile", "vocabulary", "curves",
    "finetuning", "variants",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=450.0, help="for everything; parts without time are left out")
    parser.add_argument("--only", default="", help=f"parts, of {','.join(PARTS)}")
    parser.add_argument("--skip", default="", help="parts to leave out")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "gpu", help="for gpu.json, gpu.md")
    parser.add_argument("--data", type=Path, help="a corpus for the commands instead of made-up text")
    parser.add_argument("--smoke", action="store_true", help="only whether every kernel is right")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # on a CPU: does the benchmark work
    given = parser.parse_args(argv)
    unknown = sorted(set(_names(given.only) + _names(given.skip)) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; parts are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="langsamp-gpu-") as work:
        _importable(Path(work))
        return _measure(given, Path(work))


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _importable(work: Path) -> None:
    """Without an installation: let this process and its children find the package at the root."""
    if find_spec("langsamp") is None:
        (work / "langsamp").symlink_to(ROOT)
        sys.path.insert(0, str(work))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(work), os.environ.get("PYTHONPATH")]))


def _measure(given: argparse.Namespace, work: Path) -> int:
    """Run the parts; returns the exit code."""
    import torch
    import transformers

    if not (given.tiny or torch.cuda.is_available()):
        print("there is no NVIDIA GPU here", file=sys.stderr)
        return 1
    from . import commands, evaluation, head, modernbert, roofline, smoke, step
    from .measure import Bench, markdown

    bench = Bench(given.seconds, given.output, "cpu" if given.tiny else "cuda", given.tiny)
    card = "CPU" if given.tiny else torch.cuda.get_device_name()
    bench.note(card=card, torch=torch.__version__, transformers=transformers.__version__, cores=os.cpu_count())
    torch._dynamo.config.recompile_limit = 64  # as many shapes as no run has
    run = {
        "roofline": lambda: roofline.roofline(bench),
        "step": lambda: step.steps(bench),
        "commands": lambda: commands.commands(bench, work, given.data),
        "stock": lambda: commands.stock(bench, work),
        "vectors": lambda: evaluation.vectors(bench, work),
        "modernbert": lambda: modernbert.modernbert(bench),
        "head": lambda: head.head(bench),
        "profile": lambda: step.profile(bench),
        "vocabulary": lambda: step.vocabulary(bench),
        "curves": lambda: step.curves(bench),
        "finetuning": lambda: evaluation.finetuning(bench, work),
        "variants": lambda: step.variants(bench),
    }
    right = True
    if given.smoke:
        right = smoke.smoke(bench)
    for part in () if given.smoke else PARTS:
        if (not given.only or part in _names(given.only)) and part not in _names(given.skip):
            try:
                run[part]()
            except Exception as error:  # a part's own preparation; its rows are safe
                bench.note(**{f"{part} broke off": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
                bench.free()
    text = markdown(bench, TITLES)
    (given.output / "gpu.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
