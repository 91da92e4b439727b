"""What of a folder belongs on the Hub: the checkpoint and its documents, each file named on purpose, nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import get_token

from langsamp.core.facts import FACTS
from langsamp.core.manifest import leads_out, not_whole, refused
from langsamp.safe_files import read_json

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
MODEL = (
    *WEIGHTS,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "modules.json",  # the next four: what sentence-transformers reads of an exported encoder
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*/config.json",
)
DOCUMENTS = (
    "README.md",
    "LICENSE",
    "NOTICE",
    "results.jsonl",
    FACTS,
    "report.html",
    "requirements.txt",
    "plots/*.png",
    "plots/*.svg",
    ".eval_results/*.yaml",
)
_CODE = re.compile(r"^\s*from\s+\.(\w+)\s+import", re.MULTILINE)
_SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
_TEXT = (".json", ".jsonl", ".md", ".py", ".yaml", ".html", ".txt")


def stage(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The files of a checkpoint folder that belong on the Hub, by their name there, after checking that they are whole.

    Tests, caches, optimizer state, pickles and whatever else lies in the folder stay where they are.

    Raises:
        FileNotFoundError: no folder, no config.json, no safetensors weights, or a shard or code file is missing.
        ValueError: the folder is half-written (truncated weights, files that disagree with its own manifest), its
            auto_map names code of another repository, a file leads out of the folder by a symbolic link, or a text file
            holds an access token.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root} to push.")
    names = [name for name in _files(root) if any(matches(name, pattern) for pattern in (*MODEL, *DOCUMENTS))]
    names += [name for name in code_files(root) if name not in names]
    if problem := not_whole(root):
        raise ValueError(f"{problem} and push again.")
    if problem := refused(root):
        raise ValueError(f"{root} is not pushed: {problem}.")
    _check_weights(root, names)
    for name in names:
        check_publishable(root, name)
    return {name: root / name for name in sorted(names)}


def left_out(folder: str | os.PathLike[str], taken: Container[str]) -> list[str]:
    """Files of the folder (and one level below) that a push leaves behind, hidden ones aside; for the listing."""
    return [name for name in _files(Path(folder)) if name not in taken and not name.startswith((".", "__pycache__"))]


def _files(root: Path) -> list[str]:
    """Files at the root and one folder below, where everything that belongs on the Hub lies."""
    found = [path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_file()]
    return sorted(path.relative_to(root).as_posix() for path in found)


def matches(name: str, pattern: str) -> bool:
    """fnmatch, but ``*`` does not cross a folder."""
    return name.count("/") == pattern.count("/") and fnmatch(name, pattern)


def code_files(root: Path) -> list[str]:
    """The code files that ``trust_remote_code=True`` runs: those of the auto_map and what they import beside them."""
    found: list[str] = []
    wanted = ["handler"] if (root / "handler.py").is_file() else []
    for name in ("config.json", "tokenizer_config.json"):
        for target in _auto_map(root, name):
            if "--" in target:
                raise ValueError(f"{root / name} takes its code from another repository ({target!r}); {_mended(root)}.")
            wanted.append(target.split(".")[0])
    while wanted:
        module = wanted.pop()
        path = root / f"{module}.py"
        if path.name in found:
            continue
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, but config.json or other code names it; {_mended(root)}.")
        found.append(path.name)
        wanted += _CODE.findall(path.read_text(encoding="utf-8"))
    return found


def _mended(root: Path) -> str:
    return f"`langsamp convert {root} NEW` writes it anew with its code beside the weights"


def _auto_map(root: Path, name: str) -> list[str]:
    """The class names in the auto_map of a config file."""
    path = root / name
    if not path.is_file():
        if name == "config.json":
            raise FileNotFoundError(f"{root} has no config.json: it is not a checkpoint folder.")
        return []
    try:
        values = dict(read_json(path).get("auto_map") or {}).values()
    except TypeError as error:
        raise ValueError(f"{path} has an auto_map that is none ({error}); save the model again.") from None
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [str(item) for item in flat if item]


def _check_weights(root: Path, names: list[str]) -> None:
    """Weights must be there, as safetensors."""
    if "model.safetensors.index.json" in names and "model.safetensors" not in names:
        index = read_json(root / "model.safetensors.index.json")
        missing = sorted(set(index["weight_map"].values()) - set(names))
        if missing:
            raise FileNotFoundError(f"{root} has no {missing[0]}, but its index names it; save the model again.")
    elif "model.safetensors" not in names:
        raise FileNotFoundError(
            f"{root} has no model.safetensors: only safetensors weights are pushed, never .bin, .pt or .pkl; "
            "save with save_pretrained."
        )


def check_publishable(root: Path, name: str) -> None:
    """Refuse to publish what lies elsewhere, or an access token that found its way into a text file.

    Raises:
        ValueError: a symbolic link out of the folder, or the token's file.
    """
    path = root / name
    if leads_out(root, name):
        raise ValueError(
            f"{path} is or goes through a symbolic link out of the folder (to {path.resolve()}), and what lies there "
            "is not pushed; put a copy in its place if it belongs to the checkpoint."
        )
    if not name.endswith(_TEXT) or name == "tokenizer.json":
        return
    content, token = path.read_bytes(), get_token()
    if _SECRET.search(content) or (token and len(token) > 8 and token.encode() in content):
        raise ValueError(f"{path} contains a Hugging Face access token; remove it before pushing.")
