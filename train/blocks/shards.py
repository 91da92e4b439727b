"""Stores made in parts on many machines (``langsamp prepare --shard i/n``) become one store (``--merge``)."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

from langsamp.train.blocks.index import INDEX, StoreIndex
from langsamp.train.blocks.store import BlockStore
from langsamp.train.text.corpus import Corpus

_NAME = re.compile(r"shard-(\d+)-of-(\d+)")
_MERGED = ".merged-"  # before the name of a shard that is in the store and may go


def share(corpus: Corpus, i: int, n: int) -> list[str]:
    """The languages of shard ``i`` of ``n``: the largest first, each to the shard with the least text so far.

    A language is never cut in two; inside a language the processes of one machine share the work.

    Raises:
        ValueError: not 0 <= i < n.
    """
    if not 0 <= i < n:
        raise ValueError(f"shard {i}/{n}: the first number counts from 0 to {n - 1}.")
    loads = [0] * n
    mine: list[str] = []
    for language, size in sorted(corpus.sizes.items(), key=lambda item: (-item[1], item[0])):
        least = loads.index(min(loads))
        loads[least] += max(size, 1)
        if least == i:
            mine.append(language)
    return sorted(mine)


def shard_folder(output: Path, i: int, n: int) -> Path:
    """Where a shard is made: ``output/shard-i-of-n``."""
    return output / f"shard-{i}-of-{n}"


def merge(output: str | os.PathLike[str]) -> BlockStore:
    """Make one store of the finished shards in ``output/shard-*-of-n``, and remove them.

    The result is the store that one machine would have made. Killed half-way, call it again. Languages of a store that
    is already in ``output`` stay.

    Raises:
        FileNotFoundError: there are no shards, or some are missing or unfinished; they are named.
        ValueError: shards of different settings, or a language that is both in a shard and in the store.
    """
    target = Path(output).expanduser()
    if not list(target.glob("shard-*")) and _remove_merged(target):  # killed while it tidied up
        return BlockStore(target)
    shards = _complete_set(target)
    merged = _index(target, [store.index for store in shards])
    for store in shards:
        for file in sorted(store.path.iterdir()):
            if file.name != INDEX and not file.name.startswith("."):
                _copy(file, target / file.name)
    merged.write(target)
    result = BlockStore(target)
    for store in shards:
        os.replace(store.path, target / f"{_MERGED}{store.path.name}")
    _remove_merged(target)
    return result


def _remove_merged(target: Path) -> bool:
    """Delete the shards that are in the store; a hidden name marks them. Whether there were any."""
    found = list(target.glob(f"{_MERGED}shard-*"))
    for path in found:
        shutil.rmtree(path)
    return bool(found)


def _complete_set(target: Path) -> list[BlockStore]:
    """All shards that are not merged yet, opened; with the merged ones they must be a whole set."""
    found = {m.groups(): path for path in target.glob("shard-*") if (m := _NAME.fullmatch(path.name))}
    totals = {n for _, n in found}
    if len(totals) != 1:
        many = "no shards" if not totals else f"shards of different runs ({', '.join(sorted(totals))} parts)"
        raise FileNotFoundError(f"there are {many} in {target}; make them with langsamp prepare --shard i/n.")
    n = int(totals.pop())
    merged = {i for i in range(n) if (target / f"{_MERGED}shard-{i}-of-{n}").exists()}
    missing = [i for i in range(n) if (str(i), str(n)) not in found and i not in merged]
    if missing:
        raise FileNotFoundError(f"{target} lacks shards {', '.join(map(str, missing))} of {n}.")
    return [BlockStore(shard_folder(target, i, n)) for i in range(n) if (str(i), str(n)) in found]


def _index(target: Path, indices: list[StoreIndex]) -> StoreIndex:
    """The merged store.json."""
    old = StoreIndex.read(target) if (target / INDEX).exists() else replace(indices[0], languages={}, shard=None)
    languages, sources = dict(old.languages), set(old.source)
    for index in indices:
        for key in ("block_size", "heldout", "tokenizer"):
            if getattr(index, key) != getattr(old, key):
                raise ValueError(f"the shards in {target} differ in {key}; prepare them with the same settings.")
        for language, entry in index.languages.items():
            if languages.setdefault(language, entry) != entry:
                raise ValueError(
                    f"{language} is in the store in {target} and, different, in a shard; merge into another folder."
                )
        sources |= set(index.source)
    return replace(old, languages=dict(sorted(languages.items())), source=sorted(sources), complete=True)


def _copy(source: Path, target: Path) -> None:
    """A hard link where the file system can (the shard goes away afterwards), else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
