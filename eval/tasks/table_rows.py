"""The language and script tables of a checkpoint, without loading the model: what donors and the embedding map read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import safe_open

from langsamp.core.language.languages import normalize_tag
from langsamp.core.model.config import read_config

KEYS = {"languages": "lang_embeddings.weight", "scripts": "script_embeddings.weight"}
SIGMAS = 4.0  # how far a row's norm may be from that of a random row and still count as one


@dataclass(frozen=True)
class TableRows:
    """A table without its unknown row: `names[i]` is the code of `vectors[i]`; rows started as N(0, `init`^2)."""

    names: list[str]
    vectors: np.ndarray
    init: float

    @cached_property
    def untrained(self) -> np.ndarray:
        """(rows,) True where the norm test says that no training has touched the row, see `untrained_rows`."""
        return untrained_rows(self.vectors, self.init)

    @property
    def trained(self) -> TableRows:
        """The other rows."""
        keep = ~self.untrained
        return TableRows([name for name, kept in zip(self.names, keep) if kept], self.vectors[keep], self.init)

    def row(self, name: str | None) -> np.ndarray | None:
        """The vector of a code, None without one."""
        return self.vectors[self.names.index(name)] if name in self.names else None


def read_rows(folder: Path, kind: str) -> TableRows | None:
    """The table "languages" or "scripts" of a model folder; None if the model has none (a stock XLM-R, an ablation).

    Raises:
        ValueError: the table and the names in the configuration differ in number.
    """
    config = read_config(folder)
    names = list(getattr(config, kind))
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:  # "pt": numpy knows no bfloat16
            if KEYS[kind] in file.keys():  # noqa: SIM118 (not a dict)
                vectors = file.get_tensor(KEYS[kind]).float().numpy()
                if len(vectors) != len(names):
                    raise ValueError(
                        f"{folder}: {len(vectors)} rows of {kind} but {len(names)} names in config.json: save it again"
                    )
                return TableRows(names[1:], vectors[1:], float(config.table_initializer_range))
    return None


def untrained_rows(vectors: np.ndarray, init: float) -> np.ndarray:
    """Which rows (n, d) no training has touched. True where any of these holds:

    - the row is zero, as rows start when `init` is 0;
    - the row is an exact copy: of two equal rows the later one (a copy made for a new language), of three or more all
      (zero rows from which `fold_unknown` has taken the unknown row away);
    - `init` > 0 and the row looks like a draw from N(0, init^2): its norm is within 4 deviations of init * sqrt(d)
      (a random row's norm has the deviation init / sqrt(2)), and so is its projection on the mean of the other rows
      (deviation init), which training moves together.
    """
    norms = np.linalg.norm(vectors, axis=1)
    _, first, group, count = np.unique(vectors, axis=0, return_index=True, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    copy = (first[group] != np.arange(len(vectors))) | (count[group] >= 3)
    found = (norms == 0) | copy
    if init > 0 and len(vectors) > 1:
        others = (vectors.sum(0) - vectors) / (len(vectors) - 1)
        along = np.einsum("nd,nd->n", vectors, others) / np.maximum(np.linalg.norm(others, axis=1), 1e-30)
        usual = np.abs(norms - init * math.sqrt(vectors.shape[1])) < SIGMAS * init / math.sqrt(2)
        found |= usual & (np.abs(along) < SIGMAS * init)
    return found


def likely_tag(language: str) -> str:
    """`deu` -> `deu_Latn`: with the script CLDR finds likely, which may not be that of the training text."""
    try:
        return normalize_tag(language)
    except ValueError:
        return language
