"""A bundle opened where the run is; what it looks like, which `bundle.py` reads, too."""

from __future__ import annotations

import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from langsamp.train.blocks.index import INDEX, StoreIndex
from langsamp.train.blocks.store import TOKEN, BlockStore, data_file

from ..plan import Replication, read_plan
from . import weights

RECIPE = "recipe.yaml"
ARCHIVES = ("store", "model", "test")
TOKENS, WEIGHTS = "tokens.npy", "weights.safetensors"
KINDS = ("", "heldout_")  # of blocks


def open_bundle(bundle: Path, work: Path) -> tuple[Replication, BlockStore]:
    """Unpack into `work`: `first` (model and tokenizer), `store`, `test`; done once.

    Raises:
        FileNotFoundError: there is no bundle.
    """
    if not (bundle / RECIPE).is_file():
        raise FileNotFoundError(f"there is no bundle in {bundle}; make one with experiments.replication.gpu.bundle.")
    size = yaml.safe_load((bundle / RECIPE).read_text(encoding="utf-8"))["size"]
    if not (work / "store" / INDEX).exists():
        with ThreadPoolExecutor(len(ARCHIVES)) as pool:
            list(pool.map(lambda name: _extract(bundle / f"{name}.tar.xz", work), ARCHIVES))
        model = XLMRobertaForMaskedLM(XLMRobertaConfig.from_pretrained(work / "model"))
        model.load_state_dict(weights.unpack(work / "model" / WEIGHTS), strict=False)
        model.save_pretrained(work / "first")
        for file in (work / "model").glob("*token*.json"):
            shutil.copy(file, work / "first")
        _unpack_store(work / "store")
    return read_plan(bundle / RECIPE, size), BlockStore(work / "store")


def _unpack_store(folder: Path) -> None:
    """The files that a :class:`BlockStore` reads; the index becomes a store's last."""
    tokens = np.load(folder / TOKENS, mmap_mode="r")
    first = 0
    for tag, entry in StoreIndex.read(folder).languages.items():
        for kind in KINDS:
            count = entry.heldout_blocks if kind else entry.blocks
            data_file(folder, tag, kind).write_bytes(tokens[first : first + count].astype(TOKEN).tobytes())
            first += count


def _extract(file: Path, folder: Path) -> None:
    with tarfile.open(file, "r:xz") as tar:
        tar.extractall(folder, filter="data")
