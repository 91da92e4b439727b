"""Where export, convert and add-language put their result: a folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langsamp.core.files import atomic_write, temporary_beside
from langsamp.core.manifest import write_manifest
from langsamp.safe_files import read_json

HANDLER = "handler.py"
GITIGNORE = """# the state of the run, which is not the model: git and the Hub leave it out
checkpoint-*/
.saving/
.langsamp*
.*.partial
"""


def must_be_new(path: str | os.PathLike[str]) -> Path:
    """The path, if there is nothing at it but perhaps an empty folder; to be asked before long work too.

    Raises:
        FileExistsError: there is.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already; give a new folder, or remove that one first.")
    return target


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary sibling to fill, which gets its name when everything has gone well and vanishes when not.

    Raises:
        FileExistsError: there is something at the path already; nothing of it is ever overwritten.
        DiskFullError: there is no room for it.
    """
    target = must_be_new(path).resolve()  # a link, or ".", stays what it is
    with temporary_beside(target) as temporary:
        temporary.mkdir(parents=True)
        yield temporary
        if any(temporary.glob("*.safetensors")):
            add_pooling(temporary)
        write_manifest(temporary)
        if target.is_dir():
            target.rmdir()
        os.replace(temporary, target)


def add_pooling(folder: str | Path) -> list[str]:
    """Make a checkpoint folder a sentence-transformers one: the mean over all tokens of the last layer, with specials.

    Without these files sentence-transformers, text-embeddings-inference and others take the vector of ``<s>``, which no
    masked LM has trained.

    Returns:
        The names of the files.
    """
    folder = Path(folder)
    config, path = read_json(folder / "config.json"), folder / "tokenizer_config.json"
    longest = (read_json(path) if path.is_file() else {}).get("model_max_length") or 512
    kinds = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"))
    modes = ("cls_token", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    pooling = {"word_embedding_dimension": config["hidden_size"], "pooling_mode_mean_tokens": True}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": i, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (name, path, kind) in enumerate(kinds)
        ],
        "1_Pooling/config.json": {**pooling, "include_prompt": True, **{f"pooling_mode_{m}": False for m in modes}},
        "sentence_bert_config.json": {"max_seq_length": longest if longest < 10**6 else 512, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {}, "similarity_fn_name": "cosine"},
    }
    for name, content in files.items():
        atomic_write(folder / name, json.dumps(content, indent=2) + "\n")
    return list(files)


def add_gitignore(folder: str | Path) -> None:
    """Make a run's folder fit for `hf upload` and git as it is: trainer state and lock stay behind."""
    path = Path(folder) / ".gitignore"
    if not path.exists():
        atomic_write(path, GITIGNORE)


def add_handler(folder: str | Path) -> Path:
    """Copy the Inference Endpoints handler into a checkpoint folder; it works on its own there."""
    return atomic_write(Path(folder) / HANDLER, (Path(__file__).parents[1] / "hub" / HANDLER).read_bytes())
