"""Text to blocks, megabytes a second: ``langsamp prepare`` beside ``datasets.map`` of tokenizer and group_texts.

    python -m benchmarks.prepare [--corpus SRC] [--tokenizer TOK] [--languages N] [--rounds 3] [--num-proc 2]

Both ways read the same text files, alternate within each round and write to a fresh folder; start-up of workers and
cold caches are counted. "CPU" is user and system time of all processes, which other work on the machine disturbs less.
The plain way's blocks are compared with ours as far as it keeps them in step: up to its first dropped remainder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .common import machine, spread, table

BLOCK = 512


def write_files(source: str, most: int, folder: Path) -> dict[str, Path]:
    """The largest languages of a corpus as text files; returns their paths."""
    from langsamp.train.text.open import open_corpus

    corpus = open_corpus(source)
    folder.mkdir(parents=True)
    largest = sorted(corpus.sizes, key=lambda language: (-corpus.sizes[language], language))[: most or None]
    files = {}
    for language in sorted(largest):
        files[language] = folder / f"{language}.txt"
        lines = [text.replace("\n", " ").strip() for part in corpus.parts[language] for text in corpus.documents(part)]
        files[language].write_text("\n".join(line for line in lines if line) + "\n", encoding="utf-8")
    return files


def plain_way(files: dict[str, Path], tokenizer: Any, folder: Path, num_proc: int) -> dict[str, np.ndarray]:
    """What run_mlm.py and the official code do: map the tokenizer, map group_texts, 1,000 rows at a time."""
    from datasets import load_dataset

    def tokenize(rows: dict[str, list]) -> Any:
        return tokenizer(rows["text"], return_special_tokens_mask=True)

    def group(rows: dict[str, list]) -> dict[str, list]:
        joined = {name: [item for row in column for item in row] for name, column in rows.items()}
        total = len(joined["input_ids"]) // BLOCK * BLOCK
        return {name: [row[i : i + BLOCK] for i in range(0, total, BLOCK)] for name, row in joined.items()}

    found = {}
    for language, file in files.items():
        data = load_dataset("text", data_files=str(file), split="train", cache_dir=str(folder / "cache"))
        options = {"batched": True, "num_proc": num_proc, "load_from_cache_file": False}
        data = data.map(tokenize, remove_columns=["text"], **options)
        found[language] = data.map(group, **options)
    return found


def our_way(files: dict[str, Path], tokenizer: Any, folder: Path, num_proc: int) -> Any:
    """One call of :func:`langsamp.train.blocks.prepare.prepare`."""
    from langsamp.train.blocks.prepare import as_tokenizer, prepare
    from langsamp.train.text.open import open_corpus

    source = next(iter(files.values())).parent
    return prepare(
        open_corpus(source), as_tokenizer(tokenizer, "bench"), folder / "store", BLOCK, num_proc, progress=False
    )


def measure(way: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    """Wall and CPU seconds (children included) in a fresh folder, and what came out."""
    with tempfile.TemporaryDirectory() as name:
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        found = way(*arguments[:2], Path(name), arguments[2])
        wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
        if isinstance(found, dict):
            found = {language: np.array(rows["input_ids"], np.uint32) for language, rows in found.items()}
        else:
            found = {language: np.array(found.blocks(language)) for language in found.languages}
    return wall, cpu, found


def in_step(plain: np.ndarray, ours: np.ndarray) -> int:
    """How many first blocks are equal."""
    n = min(len(plain), len(ours))
    different = np.flatnonzero((plain[:n] != ours[:n]).any(axis=1))
    return int(different[0]) if len(different) else n


def batches(tokenizer: Any, store_path: Path, rounds: int = 200) -> list[tuple[str, float, float]]:
    """Milliseconds to make a batch of 32 x 512, rows read and collated: ours, and transformers' collator on a list."""
    from transformers import DataCollatorForLanguageModeling

    from langsamp.train.batches.sampling import Plan
    from langsamp.train.batches.stream import Collator
    from langsamp.train.blocks.store import BlockStore

    store = BlockStore(store_path)
    plan = Plan(store.counts, 0.3)
    codes = sorted({language.split("_")[0] for language in store.languages})
    scripts = sorted({language.split("_")[1] for language in store.languages})
    ours = Collator(tokenizer, ["und", *codes], ["Zyyy", *scripts], lang_dropout=0.1)
    stock = DataCollatorForLanguageModeling(tokenizer)
    mask = set(tokenizer.all_special_ids)
    rows = [store.block(language, block).tolist() for _, language, block in plan.draws(range(32))]
    listed = [
        {"input_ids": r, "attention_mask": [1] * len(r), "special_tokens_mask": [int(i in mask) for i in r]}
        for r in rows
    ]

    def make_ours(start: int) -> None:
        picks = plan.draws(range(start, start + 32))
        ours([{"index": i, "language": tag, "input_ids": store.block(tag, block)} for i, tag, block in picks])

    times: dict[str, list[float]] = {"ours": [], "transformers": []}
    for number in range(rounds):
        for name, make, argument in (("ours", make_ours, number * 32), ("transformers", stock, listed)):
            start = time.perf_counter()
            make(argument)
            times[name].append(1000 * (time.perf_counter() - start))
    return [(name, statistics.median(rows), float(np.quantile(rows, 0.9))) for name, rows in times.items()]


def main(argv: list[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="cldr")
    parser.add_argument("--tokenizer", help="folder or Hub id; by default a vocabulary of 12,000 pieces is trained")
    parser.add_argument("--languages", type=int, default=8, help="that many of the largest; 0 for all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-proc", type=int, default=2)
    arguments = parser.parse_args(argv)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # both ways run processes, one thread each
    from datasets import disable_progress_bars
    from transformers import AutoTokenizer

    disable_progress_bars()
    scratch = Path(tempfile.mkdtemp())
    try:
        files = write_files(arguments.corpus, arguments.languages, scratch / "text")
        megabytes = sum(file.stat().st_size for file in files.values()) / 1e6
        if arguments.tokenizer is None:
            from langsamp.train.vocab.new import new_tokenizer

            texts = {language: file.read_text(encoding="utf-8").split("\n") for language, file in files.items()}
            arguments.tokenizer = str(new_tokenizer(texts, 12_000, scratch / "tokenizer"))
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
        results: dict[str, list[tuple[float, float, Any]]] = {"plain": [], "ours": []}
        for _ in range(arguments.rounds):
            for name, way in (("plain", plain_way), ("ours", our_way)):
                results[name].append(measure(way, files, tokenizer, arguments.num_proc))
        report(results, megabytes, len(files), arguments.num_proc)
        our_way(files, tokenizer, scratch, arguments.num_proc)
        rows = [[name, f"{median:.2f}", f"{slow:.2f}"] for name, median, slow in batches(tokenizer, scratch / "store")]
        table("A batch of 32 x 512", ["way", "median ms", "90 % ms"], rows)
    finally:
        shutil.rmtree(scratch)


def report(results: dict[str, list[tuple[float, float, Any]]], megabytes: float, languages: int, num_proc: int) -> None:
    """Print the comparison; stop if blocks that should be equal are not."""
    plain, ours = results["plain"], results["ours"]
    rows = []
    for name, found in (("datasets.map + group_texts", plain), ("langsamp prepare", ours)):
        wall, cpu = [megabytes / row[0] for row in found], [megabytes / row[1] for row in found]
        rows.append([name, spread(wall), spread(cpu), f"{sum(len(b) for b in found[0][2].values()):,}"])
    title = f"{megabytes:.1f} MB, {languages} languages, {num_proc} processes ({machine()})"
    table(title, ["way", "MB/s", "MB/CPU-s", "blocks"], rows)
    wall_ratio = [p[0] / o[0] for p, o in zip(plain, ours)]
    cpu_ratio = [p[1] / o[1] for p, o in zip(plain, ours)]
    print(f"\nours : plain, by round: {spread(wall_ratio)} in wall time, {spread(cpu_ratio)} in CPU time")
    same = {language: in_step(blocks, ours[0][2][language]) for language, blocks in plain[0][2].items()}
    # each process of the plain way drops a remainder of its own
    whole = {language: max(1, len(blocks) // num_proc - 1) for language, blocks in plain[0][2].items()}
    short = [language for language, n in same.items() if n < min(whole[language], 10)]
    if short:
        raise SystemExit(f"blocks differ from the start in {', '.join(short)}")
    print(f"{sum(same.values()):,} blocks equal before the plain way's first dropped remainder")


if __name__ == "__main__":
    main()
