"""Token blocks on disk: what ``langsamp prepare`` makes and training reads, one memory-mapped array a language.

A store is a folder: ``store.json`` (tokenizer hash, block size, counts, sha256, source) and, for each language,
``deu_Latn.u32`` (little-endian uint32, ``<s> ... </s><s> ... </s>``, the last block filled up with the pad id) and,
if asked for, ``deu_Latn.heldout.u32``; ``deu_Latn.json`` says which parts of which corpus went in. Blocks never mix
languages. Next stop: :mod:`langsamp.train.batches.sampling` says which block comes when, and
:mod:`langsamp.train.batches.stream` makes batches of them::

    store = BlockStore("store")
    plan = Plan(store.counts, alpha=0.3, seed=42)
    collator = Collator(tokenizer, languages, scripts, seed=42)
    batch = collator([
        {"index": index, "language": language, "input_ids": store.block(language, block)}
        for index, language, block in plan.draws(range(start, start + 32))
    ])
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from langsamp.core.files import atomic_write
from langsamp.core.hub_names import HubName
from langsamp.train.blocks.index import INDEX, StoreIndex

TOKEN = np.dtype("<u4")


class BlockStore:
    """A finished store, opened for reading; cheap to open and to send to worker processes.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        index: the content of store.json.
        block_size: tokens a block.
        counts: ``lang_Script`` -> blocks to train on (held-out blocks are not among them). Only languages that have
            some.

    Raises:
        FileNotFoundError: no store there, or one that ``langsamp prepare`` has not finished.
        ValueError: a file is missing or has not the size that store.json gives, or the store is of another format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.index = StoreIndex.read(self.path)
        if not self.index.complete:
            raise FileNotFoundError(f"the store in {self.path} is unfinished; run the same langsamp prepare again.")
        self.block_size = self.index.block_size
        self.counts: dict[str, int] = {
            language: entry.blocks for language, entry in self.index.languages.items() if entry.blocks
        }
        self._maps: dict[tuple[str, str], np.ndarray] = {}
        for language, entry in self.index.languages.items():
            self._check_size(language, "", entry.blocks)
            self._check_size(language, "heldout_", entry.heldout_blocks)

    def _check_size(self, language: str, kind: str, blocks: int) -> None:
        file = data_file(self.path, language, kind)
        expected = blocks * self.block_size * TOKEN.itemsize
        actual = file.stat().st_size if file.exists() else 0
        if actual != expected:
            raise ValueError(
                f"{file} has {actual} bytes, but {INDEX} says {expected}: the store is damaged; delete the files of "
                f"{language} and run langsamp prepare again, or pull it again."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers open the files themselves instead of getting a copy of the arrays."""
        return (BlockStore, (self.path,))

    @property
    def languages(self) -> list[str]:
        """The languages with blocks to train on, sorted."""
        return sorted(self.counts)

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 of everything training depends on: tokenizer, block size and every language's blocks."""
        content = {language: entry.sha256 for language, entry in self.index.languages.items()}
        key = [self.index.tokenizer.sha256, self.block_size, sorted(content.items())]
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()

    def blocks(self, language: str) -> np.ndarray:
        """All blocks of a language, memory-mapped: uint32 of shape (blocks, block_size).

        Raises:
            KeyError: the store does not have the language.
        """
        return self._map(language, "")

    def block(self, language: str, i: int) -> np.ndarray:
        """One block: uint32 of shape (block_size,), a view of the map.

        Raises:
            KeyError: the store does not have the language.
            IndexError: no such block.
        """
        blocks = self._map(language, "")
        if not 0 <= i < len(blocks):
            raise IndexError(f"{language} has blocks 0 to {len(blocks) - 1}, not {i}.")
        return blocks[i]

    def heldout(self, language: str) -> np.ndarray:
        """The held-out blocks of a language: uint32 of shape (n, block_size); n is 0 if none were set aside."""
        return self._map(language, "heldout_")

    def _map(self, language: str, kind: str) -> np.ndarray:
        found = self._maps.get((language, kind))
        if found is None:
            if language not in self.index.languages:
                raise KeyError(f"the store in {self.path} has no language {language!r}.")
            entry = self.index.languages[language]
            shape = (entry.heldout_blocks if kind else entry.blocks, self.block_size)
            file = data_file(self.path, language, kind)
            found = np.memmap(file, TOKEN, "r", shape=shape) if shape[0] else np.empty(shape, TOKEN)
            self._maps[language, kind] = found
        return found

    def verify(self) -> None:
        """Read everything and compare with the sha256 sums in store.json.

        Raises:
            ValueError: a file is damaged; it is named.
        """
        for language, entry in self.index.languages.items():
            for kind, sha256 in (("", entry.sha256), ("heldout_", entry.heldout_sha256)):
                file = data_file(self.path, language, kind)
                if file_sha256(file) != sha256:
                    raise ValueError(f"{file} does not have the sha256 that {INDEX} gives; it is damaged.")


def data_file(folder: Path, language: str, kind: str = "") -> Path:
    """The file of a language's blocks; ``kind`` is "" or "heldout_"."""
    return folder / f"{language}{'.heldout' if kind else ''}.u32"


def file_sha256(path: Path) -> str:
    """The sha256 of a file in hex; of nothing if there is no file."""
    if not path.exists():
        return hashlib.sha256().hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def push_store(path: str | os.PathLike[str], repo: str, private: bool = False) -> str:
    """Upload a store as a Hub data set, store.json last, so that a reader never sees a store without its blocks.

    Returns:
        The address of the last commit.

    Raises:
        HubError: the Hub refused, or did not answer after several tries.
    """
    from huggingface_hub import HfApi

    from langsamp.core.retry import attempt

    store, api = BlockStore(path), HfApi()
    place: dict[str, Any] = {"repo_id": repo, "repo_type": "dataset"}
    blocks = partial(
        api.upload_folder,
        **place,
        folder_path=store.path,
        allow_patterns=["*.u32", "*.json"],
        ignore_patterns=[INDEX],
        commit_message=f"Add token blocks of {len(store.counts)} languages",
    )
    index = partial(api.upload_file, **place, path_or_fileobj=store.path / INDEX, path_in_repo=INDEX)
    attempt(lambda: api.create_repo(**place, private=private, exist_ok=True), f"creating the data set {repo}")
    for upload in (blocks, index):
        done = attempt(upload, f"uploading to the data set {repo}")
    return str(done)


def open_store(spec: str | os.PathLike[str]) -> BlockStore:
    """Open a store in a folder, or one on the Hub (``user/name`` or ``user/name@revision``), pulled into the cache.

    Raises:
        FileNotFoundError: neither a folder with a store nor a Hub data set.
        ValueError: the store is damaged.
    """
    from huggingface_hub import snapshot_download

    from langsamp.core.retry import from_hub

    text = os.fspath(spec)
    name = HubName.parse(text)
    if Path(text).expanduser().exists() or not name.is_data_set:
        return BlockStore(text)
    patterns = ["*.u32", "*.json"]
    place: dict[str, Any] = {"repo_type": "dataset", "revision": name.revision, "allow_patterns": patterns}
    try:
        folder = from_hub(lambda: snapshot_download(name.repo, **place), text)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Make a store with langsamp prepare.") from error
    store = BlockStore(folder)
    checked = store.path / ".verified"  # reading all of a large store takes minutes: once a download is enough
    if not checked.exists() or checked.read_text(encoding="utf-8") != store.fingerprint:
        store.verify()
        with suppress(OSError):  # a cache that others look after
            atomic_write(checked, store.fingerprint)
    return store
