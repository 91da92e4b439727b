"""Where a model lives and what it runs on: names to folders, the device; for train, eval and hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch

from langsamp.core.files import COMMIT, UNSAFE_WEIGHTS
from langsamp.core.hub_names import HubName
from langsamp.core.manifest import MANIFEST_NAME, cut_off, damaged, refused

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSource:
    """A model on the local disk: its folder, the name it was asked for by, and the Hub commit it was taken at."""

    path: Path
    name: str
    revision: str | None = None


def resolve_model(spec: str | os.PathLike[str], files: Sequence[str] | None = None) -> ModelSource:
    """Turn MODEL (a folder, a Hub id, or ``repo@revision``) into a local folder.

    A Hub id is resolved to one commit and downloaded as a whole, code files included, so that whatever is loaded from
    the folder later is pinned to that commit. Weights in formats that can run code are never downloaded.

    Where there is a manifest, the files to be loaded are compared with it (a few tenths of a second a gigabyte).

    Args:
        spec: what was asked for.
        files: patterns of the files that are needed of a Hub repository (a tokenizer comes without weights).

    Raises:
        FileNotFoundError: the folder or the repository does not exist.
        RuntimeError: what is there is damaged or only half written; the file is named.
        ValueError: a file of it names weights or files elsewhere, or its tokenizer's tables are not the model's.
    """
    text = os.fspath(spec)
    path = Path(text).expanduser()
    if path.is_dir():
        if problems := damaged(path):
            raise RuntimeError(
                f"{path} is not a whole checkpoint ({next(iter(problems.values()))}): saving or copying was cut off, "
                f"or a file was changed; restore it or, if the change is yours, delete {path / MANIFEST_NAME}."
            )
        if problems := cut_off(path):
            raise RuntimeError(
                f"{path} is not a whole checkpoint ({next(iter(problems.values()))}): saving or copying was cut off; "
                "download or save it again."
            )
        _check_small_files(path, text)
        return ModelSource(path, path.resolve().name)
    if path.exists():
        raise FileNotFoundError(f"{text!r} is a file; give the folder that holds config.json and model.safetensors.")
    name = HubName.parse(text)
    if not name.is_model:
        raise FileNotFoundError(
            f"there is no folder {text!r}, and it is not a Hub id (user/name or user/name@revision)."
        )
    return _snapshot(name.repo, name.revision, files)


def _check_small_files(folder: Path, name: str) -> None:
    """Nothing in a folder makes a loader read anything but its own safetensors, and its tables agree."""
    if problem := refused(folder):
        raise ValueError(f"{name} is refused: {problem}.")


def _snapshot(repo: str, revision: str | None, files: Sequence[str] | None) -> ModelSource:
    """Download a Hub model at one commit into the cache; what arrives or lies there damaged is fetched once more."""

    def wrong() -> dict[str, str]:
        found = damaged(folder).items()
        return {name: why for name, why in found if any(fnmatch(name, pattern) for pattern in files or ["*"])}

    folder = _download(repo, revision, files)
    problems = wrong()
    if problems:
        for name in problems:
            with suppress(OSError):
                (folder / name).resolve().unlink()
                (folder / name).unlink()
        folder = _download(repo, revision, files)
        problems = wrong()
    if problems:
        raise RuntimeError(
            f"model {repo!r} at {folder.name[:8]} is not a finished push ({next(iter(problems.values()))}); take an "
            f"earlier revision ({repo}@REVISION), or have it pushed again."
        )
    _check_small_files(folder, repo)
    return ModelSource(folder, repo, folder.name if COMMIT.match(folder.name) else revision)


def _download(repo: str, revision: str | None, files: Sequence[str] | None) -> Path:
    """The client's cached folder of a repository at a commit; trainer state below ``checkpoint-N`` stays on the Hub."""
    from huggingface_hub import snapshot_download

    from langsamp.core.retry import HubError, UnreachableError, attempt, not_here

    def get(local: bool) -> Path:
        left = [*UNSAFE_WEIGHTS, "checkpoint-*/*"]
        wanted = list(files) if files is not None else None
        return Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=wanted, ignore_patterns=left, local_files_only=local
            )
        )

    name = str(HubName(repo, revision))
    try:
        return attempt(lambda: get(local=False), f"downloading {name}", tries=3)
    except HubError as error:
        with suppress(Exception):  # whatever the client says then, it is not in the cache
            if isinstance(error, UnreachableError):
                folder = get(local=True)
                logger.warning("%s Taking %s from the cache, which may be old.", error, name)
                return folder
        raise not_here(name, error) from None


def pick_device(name: str | None = None) -> torch.device:
    """The device to run on: the one named, else CUDA, else Apple's MPS, else the CPU."""
    if name:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
