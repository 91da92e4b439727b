"""Commands of the training side: ``prepare``. Thin: arguments in, one call of a documented function, a summary out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``langsamp prepare``."""
    parser.add_argument(
        "--corpus", help="'cldr', a folder of deu_Latn.{txt,jsonl,parquet}[.gz|.zst], or a Hub data set"
    )
    parser.add_argument("--tokenizer", help="folder or Hub id (user/name@revision)")
    parser.add_argument("--output", required=True, help="folder of the store; what is in it already is added to")
    parser.add_argument("--languages", nargs="+", help="only these (deu_Latn, de, ...)")
    parser.add_argument("--block-size", type=int, default=512, help="tokens a block (default: 512)")
    parser.add_argument("--num-proc", type=int, help="worker processes (default: one a core)")
    parser.add_argument("--heldout", type=int, default=0, help="blocks a language to set aside for the LM loss, about")
    parser.add_argument("--column", default="text", help="column or JSON field with the text (default: text)")
    parser.add_argument("--split", default="train", help="split of a Hub data set (default: train)")
    parser.add_argument(
        "--on-invalid", choices=["replace", "skip"], default="replace", help="texts that are not valid UTF-8"
    )
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="make part I of N (0/8 ... 7/8), for many machines")
    parser.add_argument("--merge", action="store_true", help="make one store of the finished shards in --output")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the store as a Hub data set when it is done")
    parser.add_argument("--private", action="store_true", help="make the Hub data set private")


def _shard(text: str) -> tuple[int, int]:
    """``2/8`` -> (2, 8)."""
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 0 <= I < N, as 0/8")
    return int(first), int(second)


def _run_prepare(arguments: argparse.Namespace) -> int:
    """Run ``langsamp prepare``."""
    from .corpus import open_corpus
    from .prepare import prepare
    from .shards import merge
    from .store import push_store

    if arguments.merge:
        store = merge(arguments.output)
    elif not (arguments.corpus and arguments.tokenizer):
        raise ValueError("langsamp prepare needs --corpus and --tokenizer (or --merge).")
    else:
        corpus = open_corpus(
            arguments.corpus, arguments.languages, arguments.column, arguments.on_invalid, arguments.split
        )
        store = prepare(
            corpus,
            arguments.tokenizer,
            arguments.output,
            block_size=arguments.block_size,
            num_proc=arguments.num_proc,
            heldout=arguments.heldout,
            shard=arguments.shard,
        )
    print(_summary(store.meta))
    if arguments.push_to_hub:
        print(f"pushed: {push_store(store.path, arguments.push_to_hub, arguments.private)}")
    return 0


def _summary(meta: dict[str, Any]) -> str:
    """What is in a store, in a few lines."""
    rows = meta["languages"]

    def total(name: str) -> int:
        return sum(row[name] for row in rows.values())

    tokens = total("tokens")
    lines = [
        f"{len(rows)} languages, {total('documents'):,} documents, {total('bytes') / 1e6:,.1f} MB of text",
        f"{tokens:,} tokens in {total('blocks'):,} blocks of {meta['block_size']}, "
        f"{total('heldout_blocks'):,} blocks held out",
        f"{total('unknown') / max(tokens, 1):.2%} of the tokens are unknown to the tokenizer {meta['tokenizer']['name']}",
    ]
    foreign = {name: row["unknown"] / max(row["tokens"], 1) for name, row in rows.items()}
    worst = sorted((name for name in foreign if foreign[name] > 0.05), key=lambda name: -foreign[name])
    if worst:
        named = ", ".join(f"{name} ({foreign[name]:.0%})" for name in worst[:8])
        lines.append(f"over 5 % unknown in {len(worst)} languages: {named}; langsamp extend-vocab would help")
    return "\n".join(lines)


Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]

COMMANDS: dict[str, Command] = {
    "prepare": ("turn a corpus into token blocks, or add what is new in it", _add_prepare, _run_prepare),
}
