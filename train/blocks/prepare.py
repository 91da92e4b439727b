"""``langsamp prepare`` as a function: corpus and tokenizer in, block store out; called again, it adds what is new.

The work is done by :mod:`langsamp.train.blocks.pipeline`; here the settings are checked and the index is written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from langsamp.core.compute.kernels import usable_cpus
from langsamp.core.files import held
from langsamp.train.blocks.cluster import ray_team
from langsamp.train.blocks.index import INDEX, StoreIndex, TokenizerFacts
from langsamp.train.blocks.ledger import Ledger
from langsamp.train.blocks.pipeline import Pipeline
from langsamp.train.blocks.store import BlockStore
from langsamp.train.blocks.workers import Pool
from langsamp.train.text.corpus import Corpus

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedTokenizer:
    """What preparing needs of a tokenizer.

    Attributes:
        backend: what cuts.
        facts: what the store remembers of it.
    """

    backend: Tokenizer
    facts: TokenizerFacts


def open_tokenizer(spec: str | os.PathLike[str]) -> LoadedTokenizer:
    """Load a tokenizer from a folder or the Hub (``user/name`` or ``user/name@revision``).

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is code of its own, or has no pad token.
    """
    from langsamp.core.model.tokenizer import load_tokenizer

    text = os.fspath(spec)
    return as_tokenizer(load_tokenizer(text), Path(text).name if Path(text).is_dir() else text)


def as_tokenizer(tokenizer: Any, name: str) -> LoadedTokenizer:
    """The same from a transformers tokenizer in memory, whose truncation and padding preparing switches off."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"the tokenizer {name!r} has no tokenizer.json; save it with a fast tokenizer class.")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer {name!r} has no pad token; last blocks could not be filled up.")
    facts = TokenizerFacts(
        name=name,
        sha256=tokenizer_hash(tokenizer),
        vocab_size=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        unk_id=tokenizer.unk_token_id,
    )
    return LoadedTokenizer(tokenizer.backend_tokenizer, facts)


def tokenizer_hash(tokenizer: Any) -> str:
    """A sha256 of all pieces and their ids: equal if and only if ids mean the same, in any library version."""
    by_id = sorted(tokenizer.get_vocab().items(), key=itemgetter(1, 0))
    return hashlib.sha256(json.dumps(by_id).encode()).hexdigest()


def prepare(
    corpus: Corpus,
    tokenizer: LoadedTokenizer | str | os.PathLike[str],
    output: str | os.PathLike[str],
    block_size: int = 512,
    num_proc: int | None = None,
    heldout: int = 0,
    ray: str | None = None,
    progress: bool = True,
    word_cache: bool = True,
) -> BlockStore:
    """Tokenise a corpus into a store, or add to a store what is new in the corpus.

    Args:
        corpus: where the text comes from (:func:`langsamp.train.text.open.open_corpus`).
        tokenizer: a folder, a Hub id, or what :func:`open_tokenizer` returned.
        output: the store's folder.
        block_size: tokens a block.
        num_proc: worker processes; None for one a usable core, 1 to work in this process.
        heldout: blocks a language to set aside for measuring the LM loss, roughly; at most a tenth of the documents.
            Documents are chosen by their content, so copies of one sentence never fall on both sides.
        ray: the address of a Ray cluster (:func:`langsamp.core.compute.cluster.session`) that is to do the work.
        progress: whether to show a bar.
        word_cache: False for the plain way (the ids are the same).

    Returns:
        The finished store.

    Raises:
        ValueError: the store was made with other settings, a part changed since it went in, or bad arguments.
        RuntimeError: another run is writing to this store, or a worker process died (what is done is kept).
        ImportError: `ray` is asked for and not installed.
    """
    if block_size < 8 or heldout < 0:
        raise ValueError(f"block_size {block_size} must be at least 8 and heldout {heldout} at least 0.")
    loaded = tokenizer if isinstance(tokenizer, LoadedTokenizer) else open_tokenizer(tokenizer)
    folder = Path(output).expanduser()
    with held(folder / ".lock", f"another langsamp prepare is writing to {folder}; wait for it or stop it."):
        index = _begin(folder, loaded, block_size, heldout, corpus.source)
        worker = (loaded.backend, word_cache, loaded.facts.unk_id)
        team = Pool(corpus, worker, num_proc or usable_cpus()) if ray is None else ray_team(corpus, worker, ray)
        with team as encoders:
            Pipeline(corpus, folder, index, progress).run(corpus.languages, encoders)
        _finish(folder, index)
    return BlockStore(folder)


def _begin(folder: Path, tokenizer: LoadedTokenizer, block_size: int, heldout: int, source: str) -> StoreIndex:
    """Check the settings against those of a store that is there, and mark the store unfinished."""
    index = StoreIndex(block_size=block_size, heldout=heldout, tokenizer=tokenizer.facts, source=[source])
    if (folder / INDEX).exists():
        old = StoreIndex.read(folder)
        same_pieces = replace(old.tokenizer, name=tokenizer.facts.name)  # which may have moved
        for key, before, now in (
            ("block_size", old.block_size, block_size),
            ("heldout", old.heldout, heldout),
            ("tokenizer", same_pieces, tokenizer.facts),
        ):
            if before != now:
                raise ValueError(
                    f"the store in {folder} was made with another {key} ({_short(before)}, now {_short(now)}); "
                    "give another --output or the old setting."
                )
        index = replace(index, source=sorted({*old.source, source}))
    index.write(folder)
    return index


def _short(value: int | TokenizerFacts) -> str:
    return f"{value.name}, {value.vocab_size} pieces" if isinstance(value, TokenizerFacts) else str(value)


def _finish(folder: Path, index: StoreIndex) -> None:
    """Collect the ledgers of all languages into store.json; all that they count is on the disk."""
    languages, owners, told = {}, dict[tuple[str, str], str](), set[tuple[str, str]]()
    for path in sorted(folder.glob("*_*.json")):
        ledger = Ledger.load(path)
        for part in ledger.done.items() if ledger is not None else ():
            pair = owners.setdefault(part, path.stem), path.stem
            if pair[0] != pair[1] and pair not in told:  # its name was taken for another language before
                logger.warning(
                    "%s went into %s and into %s; delete the files of the wrong one in %s and run again",
                    part[1], *pair, folder,
                )  # fmt: skip
                told.add(pair)
        if ledger is not None and ledger.sha256:
            languages[path.stem] = ledger.entry(index.block_size)
        else:
            logger.warning(
                "%s is left out: an earlier run that added to it was interrupted; run that one again", path.stem
            )
    replace(index, languages=languages, complete=True).write(folder)
