"""Everything that a run on a GPU needs, in one folder small enough to be carried; made at home, opened there.

    python -m experiments.replication.gpu.bundle recipes/replication_gpu.yaml --data DIR --base ENCODER --output .bundle

The store's tokens are 16-bit, as the vocabulary is trimmed to fewer pieces than that can count; the encoder is in the
form of `weights.py`; sentences stay text. `site/` holds the few pure Python packages that a bare machine with torch and
transformers lacks.
"""

from __future__ import annotations

import argparse
import importlib.util
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import yaml
from transformers import XLMRobertaForMaskedLM

from langsamp.core.compute.kernels import usable_cpus
from langsamp.train.blocks.index import INDEX
from langsamp.train.blocks.prepare import open_tokenizer, prepare
from langsamp.train.blocks.store import BlockStore
from langsamp.train.text.open import open_corpus

from ..data import cut
from ..plan import Languages, Replication, read_plan
from ..start import HELDOUT_BLOCKS, from_encoder
from . import weights
from .unpack import ARCHIVES, KINDS, RECIPE, TOKENS, WEIGHTS

COPIED = ("seqeval", "langcodes", "datasets", "evaluate", "dill")  # pure Python, and not on a bare machine
FETCHED = ("multiprocess",)  # has a version for each Python
PYTHON = "3.12"  # the bare machine's
LEFT_OUT = shutil.ignore_patterns("__pycache__", "tests")
TASKS = ("bible_retrieval", "tatoeba", "sib200", "taxi1500", "pos", "ner/*")


def make(recipe: Path, size: str | None, data: Path, base: str, output: Path) -> None:
    """Write the bundle; a folder that is there is replaced.

    Args:
        recipe, size: see :func:`~experiments.replication.plan.read_plan`.
        data: folder with mlm and the evaluation sets.
        base: the pretrained encoder.
        output: the bundle's folder.

    Raises:
        ValueError: the trimmed vocabulary has more pieces than 16 bits can count.
    """
    plan = read_plan(recipe, size)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bundle-", dir=output.parent) as scratch:
        work = Path(scratch)
        cut(data, resolved(plan, data), plan.sizes, work)
        from_encoder(base, work, work / "first", plan.sizes.least)
        tokenizer = open_tokenizer(work / "first")
        if tokenizer.facts.vocab_size > 2**16:
            raise ValueError(
                f"{tokenizer.facts.vocab_size} pieces are more than 16 bits can count; raise `least` in {recipe}."
            )
        corpus = open_corpus(work / "corpus")
        store = prepare(corpus, tokenizer, work / "blocks", plan.sizes.block, heldout=HELDOUT_BLOCKS)
        _pack_store(store, work / "store")
        _pack_model(work / "first", work / "model")
        made = work / "made"
        made.mkdir()
        with ThreadPoolExecutor(usable_cpus()) as pool:
            list(pool.map(lambda name: _archive(work / name, made / f"{name}.tar.xz"), ARCHIVES))
        values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        (made / RECIPE).write_text(yaml.safe_dump({**values, "size": size}), encoding="utf-8")
        _packages(made / "site")
        shutil.rmtree(output, ignore_errors=True)
        made.rename(output)
    _tell(output, store)


def resolved(plan: Replication, data: Path) -> Languages:
    """The recipe's languages by name: all that have text or a test set."""
    who = plan.languages
    text = {path.stem for path in (data / "mlm").glob("*.parquet")}
    tested = {path.stem for task in TASKS for path in data.glob(f"{task}/*.parquet")}
    trained = tuple(sorted(tag for tag in text if who.trains(tag)))
    if who.trained:
        tested &= set(who.measured)
    return replace(who, trained=trained, untrained=tuple(sorted({*who.untrained, *tested} - {*trained})))


def _pack_store(store: BlockStore, folder: Path) -> None:
    """The index, and all blocks behind each other in its order."""
    folder.mkdir()
    parts = [getattr(store, "heldout" if kind else "blocks")(tag) for tag in store.index.languages for kind in KINDS]
    np.save(folder / TOKENS, np.concatenate(parts).astype(np.uint16))
    shutil.copy(store.path / INDEX, folder)


def _pack_model(source: Path, folder: Path) -> None:
    """The trimmed encoder with its head, and the tokenizer."""
    folder.mkdir()
    model = XLMRobertaForMaskedLM.from_pretrained(source)
    model.config.save_pretrained(folder)
    kept = dict(model.named_parameters())  # each once: the decoder is the word embeddings
    weights.pack({name: value.detach() for name, value in kept.items()}, folder / WEIGHTS)
    for file in source.glob("*token*.json"):
        shutil.copy(file, folder)


def _archive(folder: Path, file: Path) -> None:
    """A folder as a tar, packed as small as it goes; the same bytes from the same files."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
        return info

    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    with lzma.open(file, "wb", filters=filters) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, f"{folder.name}/{path.relative_to(folder)}", recursive=False, filter=plain)


def _packages(folder: Path) -> None:
    """What a bare machine lacks, as a folder for its path: copied from here, or fetched for its version of Python."""
    for name in COPIED:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(f"{name} is not installed here; a run needs it (pip install {name}).")
        place = Path(found.submodule_search_locations[0])
        for part in (place, *place.parent.glob(f"{name}-*.dist-info")):  # some ask for versions
            shutil.copytree(part, folder / part.name, ignore=LEFT_OUT)
    for name in FETCHED:
        wanted = f"{name}=={metadata.version(name)}"
        options = ["--quiet", "--no-deps", "--no-compile", "--only-binary=:all:", "--python-version", PYTHON]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), wanted]
        subprocess.run(command, check=True)


def _tell(output: Path, store: BlockStore) -> None:
    """What is in it, and how large that is."""
    tokens, pieces = sum(store.counts.values()) * store.block_size, store.index.tokenizer.vocab_size
    print(f"{len(store.counts)} languages, {tokens:,} tokens to train on, vocabulary {pieces:,}")
    total = 0
    for path in sorted(output.iterdir()):
        size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
        total += size
        print(f"{size / 2**20:8.2f} MiB  {path.name}")
    print(f"{total / 2**20:8.2f} MiB  {output}")


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--size", metavar="NAME", help="the recipe's values of that name, e.g. tiny")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR")
    parser.add_argument("--base", required=True, metavar="MODEL")
    parser.add_argument("--output", type=Path, default=Path(".bundle"), metavar="DIR")
    args = parser.parse_args(argv)
    make(args.recipe, args.size, args.data, args.base, args.output)


if __name__ == "__main__":
    main()
