"""Where a model lives and what it runs on: names to folders, the device; for train, eval and hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import torch

from langsamp.core.files import COMMIT, UNSAFE_WEIGHTS
from langsamp.core.hub_names import HubName
from langsamp.core.manifest import damaged, not_whole, refused

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
        if problem := not_whole(path):
            raise RuntimeError(f"{problem}.")
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
    if problems := wrong():
        for name in problems:
            with suppress(OSError):
                (folder / name).resolve().unlink()
                (folder / name).unlink()
        folder = _download(repo, revision, files)
    if problems := wrong():
        raise _not_whole(repo, folder.name, next(iter(problems.values())))
    _check_small_files(folder, repo)
    return ModelSource(folder, repo, folder.name if COMMIT.match(folder.name) else revision)


def _not_whole(repo: str, commit: str, problem: str) -> Exception:
    """The error for files that a download does not mend: the Hub has no others, or was not asked."""
    from huggingface_hub import HfApi

    from langsamp.core.retry import HubError, attempt

    try:
        attempt(lambda: HfApi().model_info(repo, revision=commit), f"reading {repo}", tries=1)
    except HubError as error:
        return FileNotFoundError(f"the cache does not hold all of {repo!r} ({problem}): {error}")
    return RuntimeError(
        f"model {repo!r} at {commit[:8]} is not a finished push ({problem}); take an earlier revision "
        f"({repo}@REVISION), or have it pushed again."
    )


def _download(repo: str, revision: str | None, files: Sequence[str] | None) -> Path:
    """The client's cached folder of a repository at a commit; trainer state below ``checkpoint-N`` stays on the Hub."""
    from huggingface_hub import snapshot_download

    from langsamp.core.retry import HubError, UnreachableError, attempt, not_here

    left, wanted = [*UNSAFE_WEIGHTS, "checkpoint-*/*"], list(files) if files is not None else None
    get = partial(snapshot_download, repo, revision=revision, allow_patterns=wanted, ignore_patterns=left)
    name = str(HubName(repo, revision))
    try:
        return Path(attempt(get, f"downloading {name}", tries=3))
    except HubError as error:
        with suppress(Exception):  # whatever the client says then, it is not in the cache
            if isinstance(error, UnreachableError):
                folder = get(local_files_only=True)
                logger.warning("%s Taking %s from the cache, which may be old.", error, name)
                return Path(folder)
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
