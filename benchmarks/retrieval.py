"""Sentence retrieval against the naive protocol: sentences a second, and whether the rankings are the same.

Naive, as the official scripts do it: batches of 128 in file order, padded to the longest, all 12 layers run and pooled,
English encoded again for every language. Ours is `langsamp.eval`: stop at layer 8, English once, packed by length, fast
exact kernels. One process, the ways in turn, medians. Without --model a random model of XLM-R base size is used, on
sentences of random words whose lengths are those of Bible verses (log-normal, median 39 tokens, at most 90).

    python -m benchmarks.retrieval [--model MODEL --data DIR] [--languages 3] [--sentences 128] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import XLMRobertaConfig, XLMRobertaModel, logging

from langsamp.core.runtime import resolve_model
from langsamp.eval.data.sets import EvalData
from langsamp.eval.engines.encoder import Encoder, Pool, load_backend
from langsamp.eval.tasks.retrieval import SR_BIBLE
from langsamp.eval.tasks.similarity import cosine

from .common import machine, make_tokenizer, spread, table

LAYER, BATCH, WORDS, TOP = 8, 128, 5000, 10
Files = list[tuple[list[str], list[str]]]  # a language: its sentences and their English translations


def make_model(folder: Path) -> Path:
    """A base-size XLM-R with random weights and a tokenizer of one token a word."""
    torch.manual_seed(0)
    make_tokenizer(folder, [f"w{number}" for number in range(WORDS)])
    config = XLMRobertaConfig(vocab_size=WORDS + 32, max_position_embeddings=514, type_vocab_size=1)
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def make_files(languages: int, sentences: int) -> Files:
    """Random sentences; every language has the same English side, as in the Bible task."""
    rng = np.random.default_rng(0)

    def side() -> list[str]:
        lengths = np.clip(rng.lognormal(np.log(37), 0.4, sentences).astype(int), 5, 88)
        return [" ".join(f"w{number}" for number in rng.integers(WORDS, size=length)) for length in lengths]

    english = side()
    return [(side(), english) for _ in range(languages)]


def read_files(data: str, languages: int, sentences: int) -> Files:
    """Real verses of the first languages of a data folder."""
    source = EvalData(data)
    tags = [tag for tag in source.languages(SR_BIBLE.folder) if tag != "eng_Latn"][:languages]
    found = [SR_BIBLE.pairs(source, tag) for tag in tags]
    return [(texts[:sentences], english[:sentences]) for texts, english in found]


class Naive:
    """The protocol as one writes it first, with stock classes."""

    def __init__(self, folder: Path) -> None:
        logging.set_verbosity_error()
        self.model = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, dtype="float32").eval()
        self.tokenizer = load_backend(folder, 512)
        self.tokenizer.enable_padding(pad_id=1, pad_token="<pad>")

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors (n, hidden) of layer 8, after all layers were run and pooled."""
        found = []
        for start in range(0, len(texts), BATCH):
            batch = self.tokenizer.encode_batch(texts[start : start + BATCH])
            ids = torch.tensor([encoding.ids for encoding in batch])
            mask = torch.tensor([encoding.attention_mask for encoding in batch])
            with torch.no_grad():
                states = self.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-12:]
            weights = mask[..., None].float()
            pooled = [(state * weights).sum(1) / weights.sum(1) for state in states]
            found.append(pooled[LAYER - 1].numpy())
        return np.concatenate(found)

    def __call__(self, files: Files) -> np.ndarray:
        """Top-10 candidates of each English query: (languages, sentences, 10)."""
        return np.stack([top(self.encode(english), self.encode(texts)) for texts, english in files])


def ours(encoder: Encoder, files: Files) -> np.ndarray:
    """The same rankings from the encoder and its pool of English sentences."""
    pool = Pool(encoder, files[0][1])
    return np.stack([top(pool.vectors(english)[0], encoder.encode(texts)[0]) for texts, english in files])


def top(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Numbers of the nearest candidates (n, 10) by cosine, the nearest first."""
    return np.argsort(-cosine(queries, candidates), axis=1, kind="stable")[:, :TOP]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub id (default: random weights of base size)")
    parser.add_argument("--data", help="evaluation data folder with bible_retrieval (needs --model)")
    parser.add_argument("--languages", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = resolve_model(arguments.model).path if arguments.model else make_model(Path(folder))
        size = arguments.languages, arguments.sentences
        files = read_files(arguments.data, *size) if arguments.data else make_files(*size)
        ways: dict[str, Callable[[Files], np.ndarray]] = {
            "naive: batch 128, padded, all layers, fp32": Naive(path),
            "langsamp fp32": partial(ours, Encoder(path, (LAYER,))),
            "langsamp bf16": partial(ours, Encoder(path, (LAYER,), dtype="bfloat16")),
        }
        report(ways, files, arguments.rounds)


def report(ways: dict[str, Callable[[Files], np.ndarray]], files: Files, rounds: int) -> None:
    """Run the ways in turn and print medians; a sentence counts once for each side of each language."""
    first = [(texts[:8], english[:8]) for texts, english in files]
    for way in ways.values():
        way(first)  # warm-up
    found: dict[str, np.ndarray] = {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter(), time.process_time()
            found[name] = way(files)
            seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    naive = next(iter(ways))
    count = sum(len(texts) + len(english) for texts, english in files)
    rows = []
    for name, times in seconds.items():
        wall = [each[0] for each in times]
        ratios = [statistics.median(b[k] / a[k] for a, b in zip(times, seconds[naive])) for k in (0, 1)]
        changed = int((found[name] != found[naive]).sum())
        rows.append([name, spread([count / second for second in wall], 1), f"{ratios[0]:.2f}", f"{ratios[1]:.2f}",
                     f"{changed} of {found[naive].size}"])  # fmt: skip
    header = ["way", "sentences/s", "ratio", "ratio of CPU time", "top-10 cells changed"]
    table(f"Sentence retrieval: {len(files)} languages x {len(files[0][0])} pairs, layer {LAYER}", header, rows)
    print("\n" + machine())


if __name__ == "__main__":
    main()
