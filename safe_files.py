"""Checks on the small files of a checkpoint, made before anything large is read.

They may name weights in plain ``*.safetensors`` beside them, nothing elsewhere and no code; and tables that agree.
transformers reads whatever an index or a config names, a pickle under a harmless name and a file of another folder too.
"""

import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from .language_codes import UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT

UNKNOWN = {"languages": UNKNOWN_LANGUAGE, "scripts": UNKNOWN_SCRIPT}  # row 0 of each table
INDEX = "model.safetensors.index.json"
PLACE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
LARGEST_JSON = 1 << 26  # bytes; a config has thousands, the index or manifest of the largest models a few million
_FILES_OF_A_TOKENIZER = ("tokenizer_file", "vocab_file", "merges_file", "gguf_file")


def check_names(checkpoint: "str | PathLike", **kwargs: Any) -> None:
    """Refuse a model folder or Hub model whose small files contradict each other or lead away from its safetensors.

    Args:
        checkpoint: the folder, or the name on the Hub.
        kwargs: as given to ``from_pretrained``; those that say where to look are used.

    Raises:
        FileNotFoundError: a local folder holds no safetensors weights.
        ValueError: what names what, and the file.
    """
    where = {key: kwargs[key] for key in PLACE if kwargs.get(key) is not None}
    folder = Path(str(checkpoint), where.get("subfolder", ""))
    if folder.is_file() and folder.suffix != ".safetensors":
        raise ValueError(f"{folder} is no safetensors file; other formats can run code when loaded.")
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        others = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
        found = f"only {', '.join(others)}, which can run code when loaded" if others else "no weights at all"
        raise FileNotFoundError(f"{folder} holds {found}; a model.safetensors is needed.")
    variant = f".{kwargs['variant']}" if kwargs.get("variant") else ""
    problem = first_problem(lambda name: _read(checkpoint, name, where), INDEX.replace(".index", f".index{variant}"))
    if problem:
        raise ValueError(f"{checkpoint} is refused: {problem}.")


def first_problem(read: "Callable[[str], dict[str, Any] | None]", index: str = INDEX) -> "str | None":
    """What is wrong with the small files of a checkpoint, in one sentence without an end; None where all is well.

    Args:
        read: name of a file -> the JSON object in it, None where there is no such file.
        index: the name of the index of shards.
    """
    config = read("config.json") or {}
    for name in (index, "config.json", "adapter_config.json"):
        if problem := named_elsewhere(name, config if name == "config.json" else read(name)):
            return f"{name} {problem}"
    tokenizer = read("tokenizer_config.json")
    if problem := named_elsewhere("tokenizer_config.json", tokenizer):
        return f"tokenizer_config.json {problem}"
    tables = [_tables(content) for content in (config, tokenizer or {})]
    return tables_disagree(*tables) if all(tables) else None


def _tables(content: "dict[str, Any]") -> "dict[str, list]":
    """The tables that stand in a file, with row 0 even where they were written by hand without."""
    found = {}
    for kind in UNKNOWN:
        if rows := content.get(kind):
            rows = rows if isinstance(rows, list) else [rows]
            found[kind] = rows if rows[0] == UNKNOWN[kind] else [UNKNOWN[kind], *rows]
    return found


def tables_disagree(model: "Mapping[str, list]", tokenizer: "Mapping[str, list]") -> "str | None":
    """The first row where a tokenizer's tables are not those of a model, in words; None where its ids mean its rows.

    Args:
        model: ``languages`` and ``scripts``, with row 0; one that is missing or empty makes ids of its kind void.
        tokenizer: the same of the tokenizer.
    """
    for kind in UNKNOWN:
        ours, theirs = list(model.get(kind) or []), list(tokenizer.get(kind) or [])
        for row in range(max(len(ours), len(theirs)) if ours else 0):
            mine, other = (table[row] if row < len(table) else "nothing" for table in (ours, theirs))
            if mine != other:
                return (
                    f"the tokenizer's {kind} disagree with the model's: row {row} is {other!r} in the tokenizer and "
                    f"{mine!r} in the model; make the tokenizer with {kind}=model.config.{kind}"
                )
    return None


def named_elsewhere(name: str, content: "dict[str, Any] | None") -> "str | None":
    """What a JSON file of a checkpoint names that is not read: "names weights in '../x'"; None where all is well.

    Args:
        name: of the file: an index of shards, config.json, tokenizer_config.json or adapter_config.json.
        content: None for a file that is not there.
    """
    if content is None:
        return None
    weights: list[Any] = []
    if ".index." in name:
        shards = content.get("weight_map")
        if not isinstance(shards, dict):
            return "has no weight_map, so it is no index of shards; save it again"
        weights = list(shards.values())
    elif name == "config.json":
        weights = [content["transformers_weights"]] if content.get("transformers_weights") else []
        for key in ("attn_implementation", "_attn_implementation"):
            if "/" in str(content.get(key) or ""):
                return f"takes its attention from code on the Hub ({content[key]!r}), which is never run"
    elif name == "tokenizer_config.json":
        files = [key for key in _FILES_OF_A_TOKENIZER if content.get(key)]
        return f"names a file of its own choice ({files[0]}: {content[files[0]]!r})" if files else None
    else:
        return "makes it an adapter to another model; load that one and put the adapter on it with peft"
    wrong = [shard for shard in weights if not is_plain_safetensors(shard)]
    return f"names weights in {wrong[0]!r}, which is no *.safetensors file beside it" if wrong else None


def is_plain_safetensors(name: Any) -> bool:
    """Whether something is the name of a safetensors file, without a folder in it."""
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\:\0")


def read_json(path: "str | PathLike") -> "dict[str, Any]":
    """The JSON object in a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, of another kind, nested without end, or larger than any config.
    """
    path = Path(path)
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, far more than such a file holds.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}); download or save it again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(content).__name__}; download or save it again.")
    return content


def _read(checkpoint: "str | PathLike", name: str, where: "dict[str, Any]") -> "dict[str, Any] | None":
    """The JSON object in a file of a folder or a Hub model; None where there is no such file."""
    folder = Path(str(checkpoint), where.get("subfolder", ""))
    path = folder / name
    if not folder.exists():
        from transformers.utils.hub import cached_file  # here: commands that load no model import this file too

        what = ("missing_entries", "connection_errors", "gated_repo")
        quiet = {f"_raise_exceptions_for_{kind}": False for kind in what}
        path = Path(cached_file(str(checkpoint), name, **quiet, **where) or path)
    return read_json(path) if path.is_file() else None
