"""``langsamp prepare`` as a function: corpus and tokenizer in, block store out; called again, it adds what is new.

The work is done by :mod:`langsamp.train.blocks.pipeline`; here the settings are checked and the index is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from langsamp.core.kernels import usable_cpus
from langsamp.core.runtime import atomic_write
from langsamp.train.blocks.ledger import Ledger
from langsamp.train.blocks.pipeline import Pipeline
from langsamp.train.blocks.shards import shard_folder, share
from langsamp.train.blocks.store import INDEX, SCHEMA, BlockStore, read_index
from langsamp.train.text.corpus import Corpus


@dataclass(frozen=True)
class Tokenizer:
    """What preparing needs of a tokenizer: the whole of it as JSON, what to call it, and its ids.

    Attributes:
        json: ``tokenizers.Tokenizer.to_str()``.
        about: name, vocab_size, pad_id, unk_id and the sha256 of its pieces and their ids (:func:`tokenizer_hash`).
    """

    json: str
    about: dict[str, Any]


def load_tokenizer(spec: str | os.PathLike[str]) -> Tokenizer:
    """Load a tokenizer from a folder or the Hub (``user/name`` or ``user/name@revision``).

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is code of its own, or has no pad token.
    """
    from langsamp.core.tokenizer import load_tokenizer as load

    text = os.fspath(spec)
    return as_tokenizer(load(text), Path(text).name if Path(text).is_dir() else text)


def as_tokenizer(tokenizer: Any, name: str) -> Tokenizer:
    """The same from a transformers tokenizer in memory."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"the tokenizer {name!r} has no tokenizer.json; save it with a fast tokenizer class.")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer {name!r} has no pad token; last blocks could not be filled up.")
    about = {
        "name": name,
        "sha256": tokenizer_hash(tokenizer),
        "vocab_size": len(tokenizer),
        "pad_id": tokenizer.pad_token_id,
        "unk_id": tokenizer.unk_token_id,
    }
    return Tokenizer(tokenizer.backend_tokenizer.to_str(), about)


def tokenizer_hash(tokenizer: Any) -> str:
    """A sha256 of all pieces and their ids: equal if and only if ids mean the same, in any library version."""
    pieces = sorted(tokenizer.get_vocab().items(), key=itemgetter(1, 0))
    return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()


def prepare(
    corpus: Corpus,
    tokenizer: Tokenizer | str | os.PathLike[str],
    output: str | os.PathLike[str],
    block_size: int = 512,
    num_proc: int | None = None,
    heldout: int = 0,
    shard: tuple[int, int] | None = None,
    progress: bool = True,
    word_cache: bool = True,
) -> BlockStore:
    """Tokenise a corpus into a store, or add to a store what is new in the corpus.

    Args:
        corpus: where the text comes from (:func:`langsamp.train.text.corpus.open_corpus`).
        tokenizer: a folder, a Hub id, or what :func:`load_tokenizer` returned.
        output: the store's folder.
        block_size: tokens a block.
        num_proc: worker processes; None for one a usable core, 1 to work in this process.
        heldout: blocks a language to set aside for measuring the LM loss, roughly; at most a tenth of the documents.
            Documents are chosen by their content, so copies of one sentence never fall on both sides.
        shard: (i, n): do the i-th of n parts of the languages, counted from 0, into ``output/shard-i-of-n``; see
            :func:`langsamp.train.blocks.shards.merge`.
        progress: whether to show bars.
        word_cache: False for the plain way (the ids are the same).

    Returns:
        The finished store.

    Raises:
        ValueError: the store was made with other settings, a part changed since it went in, or bad arguments.
        RuntimeError: another run is writing to this store, or a worker process died (what is done is kept).
    """
    if block_size < 8 or heldout < 0:
        raise ValueError(f"block_size {block_size} must be at least 8 and heldout {heldout} at least 0.")
    languages = corpus.languages if shard is None else share(corpus, *shard)
    loaded = tokenizer if isinstance(tokenizer, Tokenizer) else load_tokenizer(tokenizer)
    folder = Path(output).expanduser() if shard is None else shard_folder(Path(output).expanduser(), *shard)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            index = _begin(folder, loaded, block_size, heldout, corpus.name, shard)
            pipeline = Pipeline(corpus, folder, index, progress)
            pipeline.run(languages, (loaded.json, word_cache, loaded.about["unk_id"]), num_proc or usable_cpus())
            _finish(folder, index)
    except Timeout:
        raise RuntimeError(f"another langsamp prepare is writing to {folder}; wait for it or stop it.") from None
    return BlockStore(folder)


def _begin(
    folder: Path, tokenizer: Tokenizer, block_size: int, heldout: int, source: str, shard: tuple[int, int] | None
) -> dict[str, Any]:
    """Check the settings against those of a store that is there, and mark the store unfinished."""
    settings: dict[str, Any] = {"block_size": block_size, "heldout": heldout, "tokenizer": tokenizer.about}
    sources = [Path(source).name if Path(source).is_dir() else source]
    if (folder / INDEX).exists():
        old = read_index(folder)
        old["tokenizer"]["name"] = tokenizer.about["name"]  # the same pieces may have moved
        for key, value in settings.items():
            if old[key] != value:
                raise ValueError(
                    f"the store in {folder} was made with another {key} ({_short(old[key])}, now {_short(value)}); "
                    "give another --output or the old setting."
                )
        sources = sorted({*old["source"], *sources})
    index = {"schema": SCHEMA, "complete": False, **settings, "source": sources, "shard": shard, "languages": {}}
    atomic_write(folder / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def _short(value: Any) -> str:
    return f"{value['name']}, {value['vocab_size']} pieces" if isinstance(value, dict) else str(value)


def _finish(folder: Path, index: dict[str, Any]) -> None:
    """Collect the ledgers of all languages into store.json."""
    for path in sorted(folder.glob("*_*.json")):
        ledger = Ledger.load(path)
        if ledger is not None and ledger.sha256:
            index["languages"][path.stem] = ledger.entry(index["block_size"])
    index["complete"] = True
    atomic_write(folder / INDEX, json.dumps(index, indent=1) + "\n")
