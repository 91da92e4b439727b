"""Where a model lives and what it runs on: names to folders, the device, atomic files; for train, eval and hub."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

COMMIT = re.compile(r"^[0-9a-f]{40}$")
UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5", "*.msgpack", "*.onnx")


@dataclass(frozen=True)
class ModelSource:
    """A model on the local disk: its folder, the name it was asked for by, and the Hub commit it was taken at."""

    path: Path
    name: str
    revision: str | None = None


def resolve_model(spec: str | os.PathLike[str]) -> ModelSource:
    """Turn MODEL (a folder, a Hub id, or ``repo@revision``) into a local folder.

    A Hub id is resolved to one commit and downloaded as a whole, code files included, so that whatever is loaded from
    the folder later is pinned to that commit. Weights in formats that can run code are never downloaded.

    Raises:
        FileNotFoundError: the folder or the repository does not exist.
    """
    text = os.fspath(spec)
    path = Path(text).expanduser()
    if path.is_dir():
        return ModelSource(path, path.resolve().name)
    if path.exists():
        raise FileNotFoundError(f"{text!r} is a file; give the folder that holds config.json and model.safetensors.")
    repo, _, revision = text.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo):
        raise FileNotFoundError(
            f"there is no folder {text!r}, and it is not a Hub id (user/name or user/name@revision)."
        )
    return _snapshot(repo, revision or None)


def _snapshot(repo: str, revision: str | None) -> ModelSource:
    """Download a Hub model at one commit into the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, ignore_patterns=list(UNSAFE_WEIGHTS)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"model {repo!r}{at} is neither a local folder nor on the Hub as seen from here ({reason}); "
            "check the name, the revision, HF_TOKEN and HF_ENDPOINT."
        ) from error
    commit = folder.name if COMMIT.match(folder.name) else revision
    return ModelSource(folder, repo, commit)


def pick_device(name: str | None = None) -> torch.device:
    """The device to run on: the one named, else CUDA, else Apple's MPS, else the CPU."""
    if name:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write a file whole or not at all: a temporary sibling, then a rename; a reader never sees a part."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode("utf-8") if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def _umask() -> int:
    """The process's file mode mask (mkstemp makes files private; what we write is as shareable as any other file)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
