"""What a part of a corpus costs the driver of ``langsamp prepare``, time and memory; the corpus of up to 2 TB is faked.

    python -m benchmarks.parts [--parts 10000 100000 200000] [--ray ADDRESS]

1,000 languages of Zipfian size in parts of 10 MB, whose reading yields one line. ``ms a part`` is CPU time of the
driver, with Ray's threads in it; without ``--ray`` the encoding is in it as well. Each size has a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

from langsamp.train.text.corpus import Corpus, Part, Report

from .common import machine, peak_gb, run_worker, table

LANGUAGES = 1000
PART = 10_000_000  # bytes


class FakeCorpus(Corpus):
    """Parts without files."""

    name = "fake"
    read_in_workers = True

    def __init__(self, parts: int) -> None:
        super().__init__()
        self._count = parts

    def _find(self) -> dict[str, list[Part]]:
        tags = [f"{''.join(letters)}_Latn" for letters in islice(product(ascii_lowercase, repeat=3), LANGUAGES)]
        weights = [1 / rank for rank in range(1, LANGUAGES + 1)]
        found = {}
        for tag, weight in zip(tags, weights):
            names = (f"{tag}/{n:06d}.jsonl" for n in range(max(1, round(self._count * weight / sum(weights)))))
            found[tag] = [Part(tag, name, PART, f"/corpus/{name}") for name in names]
        return found

    def fingerprint(self, part: Part) -> str:
        """Of the name."""
        return hashlib.sha256(part.name.encode()).hexdigest()

    def _texts(self, part: Part, report: Report) -> Iterator[str]:
        yield f"The house in {part.name} stands by the river."


def worker(parts: int, ray: str | None) -> dict[str, float]:
    """Prepare one corpus in this process."""
    from langsamp.train.blocks.prepare import as_tokenizer, prepare
    from langsamp.train.vocab.new import new_tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = new_tokenizer({"eng_Latn": ["The house stands by the river."] * 9}, 60, Path(name, "tokenizer"))
        from transformers import AutoTokenizer

        tokenizer, corpus = as_tokenizer(AutoTokenizer.from_pretrained(folder), "fake"), FakeCorpus(parts)
        before = peak_gb()
        count = sum(map(len, corpus.parts.values()))
        wall, cpu = time.perf_counter(), time.process_time()
        store = prepare(corpus, tokenizer, Path(name, "store"), 512, 1, ray=ray, progress=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert sum(entry.documents for entry in store.index.languages.values()) == count
    return {"parts": count, "wall": wall, "cpu": cpu, "before": before, "peak": peak_gb()}


def main(argv: list[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, nargs="+", default=[10_000, 100_000, 200_000])
    parser.add_argument("--ray", metavar="ADDRESS")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker is not None:
        print(json.dumps(worker(arguments.worker, arguments.ray)))
        return
    rows = []
    for parts in arguments.parts:
        options = ["--ray", arguments.ray] if arguments.ray else []
        found = run_worker("benchmarks.parts", "--worker", str(parts), *options)
        rows.append(
            [
                f"{found['parts']:,.0f}",
                f"{found['parts'] * PART / 1e12:.1f} TB",
                f"{1000 * found['cpu'] / found['parts']:.2f}",
                f"{1000 * found['wall'] / found['parts']:.2f}",
                f"{found['before'] * 1000:.0f}",
                f"{found['peak'] * 1000:.0f}",
            ]
        )
    title = f"The driver of langsamp prepare{' --ray' if arguments.ray else ''} ({machine()})"
    table(title, ["parts", "stands for", "ms a part", "wall ms a part", "MB at the start", "MB at the peak"], rows)


if __name__ == "__main__":
    main()
