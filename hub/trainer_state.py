"""Optimizer, scheduler and random state of a run on their way through the Hub, as safetensors instead of pickles.

The Trainer writes ``optimizer.pt``, ``scheduler.pt`` and ``rng_state*.pth``. A push with trainer state turns each into
``<name>.safetensors`` (tensors, and the structure round them as JSON in the header); a pull turns them back.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from langsamp.core.files import temporary_beside
from langsamp.core.manifest import MANIFEST_NAME, verify_manifest, write_manifest
from langsamp.hub.staging import MODEL, check_publishable, code_files, matches

if TYPE_CHECKING:  # else where it is needed: most pushes and pulls have no trainer state and need not wait for it
    import torch

CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
PACKED = re.compile(r"^(?:checkpoint-\d+/)?(optimizer\.pt|scheduler\.pt|scaler\.pt|rng_state\w*\.pth)\.safetensors$")
_PICKLED = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")
_KEPT = (*MODEL, "trainer_state.json", "langsamp_run.json")
_STRUCTURE = "structure"


def pack(folder: str | os.PathLike[str], scratch: str | os.PathLike[str]) -> dict[str, Path]:
    """The newest whole ``checkpoint-N`` of a folder, or the folder if it is one, as files for the Hub by name.

    Args:
        folder: the folder of a run, or a checkpoint with trainer state in it.
        scratch: where converted files are written.

    Raises:
        FileNotFoundError: the folder has no checkpoint, none that is whole, or one without its code.
        ValueError: a state file holds something other than tensors, numbers, text and containers of them, or a text
            file holds an access token.
    """
    root = Path(folder)
    checkpoint = root if (root / "trainer_state.json").is_file() else _newest(root)
    code = code_files(checkpoint) if (checkpoint / "config.json").is_file() else []
    staged = {}
    for path in sorted(path for path in checkpoint.iterdir() if path.is_file()):
        name = path.relative_to(root).as_posix()
        if any(path.match(pattern) for pattern in _PICKLED):
            check_publishable(root, name)
            staged[f"{name}.safetensors"] = Path(scratch) / f"{path.name}.safetensors"
            _to_safetensors(path, staged[f"{name}.safetensors"])
        elif path.name in code or any(matches(path.name, pattern) for pattern in _KEPT):
            check_publishable(root, name)
            staged[name] = path
    return staged


def unpack(folder: str | os.PathLike[str], fetched: Container[str], removed: Iterable[str]) -> None:
    """Turn packed state files of a pulled folder back into what the Trainer reads.

    Args:
        folder: the pulled folder.
        fetched: names that are new; of the others, what was unpacked before is kept.
        removed: names that are gone; what was unpacked of them, often the largest files of all, goes too.
    """
    root = Path(folder)
    checkpoints = set()
    for path in (root / name for name in removed if PACKED.match(name)):
        path.with_suffix("").unlink(missing_ok=True)
        if path.parent != root:  # made here, by the pull before
            (path.parent / MANIFEST_NAME).unlink(missing_ok=True)
            with suppress(OSError):  # something else is in it
                path.parent.rmdir()
    for path in sorted([*root.glob("*.safetensors"), *root.glob("checkpoint-*/*.safetensors")]):
        name = path.relative_to(root).as_posix()
        target = path.with_name(path.name.removesuffix(".safetensors"))
        if PACKED.match(name) and (name in fetched or not target.exists()):
            import torch

            with temporary_beside(target) as temporary:
                torch.save(_from_safetensors(path), temporary)
                os.replace(temporary, target)
            checkpoints |= {path.parent} - {root}  # the root's manifest came from the Hub
    for checkpoint in checkpoints:
        write_manifest(checkpoint)


def _newest(root: Path) -> Path:
    found = [(int(match[1]), path) for path in root.glob("checkpoint-*") if (match := CHECKPOINT.match(path.name))]
    problems: list[str] = []
    for _, path in sorted(found, reverse=True):
        problems = verify_manifest(path) if (path / MANIFEST_NAME).is_file() else []
        if not problems and (path / "trainer_state.json").is_file():
            return path
    reason = f" that is whole ({problems[0]})" if problems else ""
    raise FileNotFoundError(f"{root} has no checkpoint-N with trainer state{reason}; push without trainer state.")


def _to_safetensors(source: Path, target: Path) -> None:
    """Read a state file without running any code from it, and write it as safetensors."""
    import torch
    from safetensors.torch import save_file

    allowed = [np.ndarray, np.dtype, np.dtypes.UInt32DType, _numpy_reconstruct()]
    tensors: dict[str, torch.Tensor] = {}
    try:
        with torch.serialization.safe_globals(allowed):  # numpy's random state, as the Trainer itself allows
            state = torch.load(source, map_location="cpu", weights_only=True)
        structure = json.dumps(_encode(state, tensors))
    except OSError:
        raise
    except Exception as error:  # a torn pickle may raise anything
        reason = f"it holds {error}" if isinstance(error, TypeError) else "it is torn, or there is code in it"
        raise ValueError(f"{source} does not go to the Hub: {reason}; push without trainer state.") from None
    with temporary_beside(target) as temporary:  # which says where the disk is full
        save_file(tensors, temporary, metadata={_STRUCTURE: structure})
        os.replace(temporary, target)


def _from_safetensors(source: Path) -> Any:
    with safe_open(source, framework="pt") as file:
        structure = (file.metadata() or {}).get(_STRUCTURE)
        if structure is None:
            raise ValueError(f"{source} was not written by langsamp push; remove it from the repository.")
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    return _decode(json.loads(structure), tensors)


def _encode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A JSON tree for a value; tensors and arrays go to `tensors` under a running number."""
    import torch

    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.Tensor, np.ndarray)):
        key = str(len(tensors))
        tensors[key] = torch.as_tensor(value).detach().clone().contiguous()
        return {"array" if isinstance(value, np.ndarray) else "tensor": key}
    if isinstance(value, dict):
        return {"dict": [[_encode(key, tensors), _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_encode(item, tensors) for item in value]}
    raise TypeError(f"a {type(value).__name__}")


def _decode(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The value that `_encode` was given."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
    items = [_decode(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _numpy_reconstruct() -> Any:
    """The function that rebuilds an array; it moved in numpy 2."""
    core = getattr(np, "_core", None) or np.core
    return core.multiarray._reconstruct
