"""Which files of a repository are pulled, and whether they are a finished push; decided before any weight comes."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from langsamp.core.files import UNSAFE_WEIGHTS
from langsamp.core.manifest import MANIFEST_NAME, RECORD_NAME, FileEntry, bad_name, is_loaded, read_manifest
from langsamp.core.retry import HubError, IncompletePushError
from langsamp.hub.apply import STAGING
from langsamp.hub.remote import RemoteTree

logger = logging.getLogger(__name__)
RUN_FILES = ("trainer_state.json", "langsamp_run.json")
_RESERVED = {".git", STAGING}  # files there would change a repository round the folder, or other files of the pull
CHECKPOINT_FILE = re.compile(r"^checkpoint-\d+/")


@dataclass(frozen=True)
class Selection:
    """Names to pull, and names that are refused: pickles and weights of other frameworks."""

    wanted: list[str]
    refused: list[str]


def select(tree: RemoteTree) -> Selection:
    """Sort the files of a repository into wanted and refused.

    Raises:
        HubError: a name leaves the folder or lies where none belongs, or the only weights are in a format that can run
            code.
    """
    for name in tree.files:
        problem = bad_name(name)
        if problem:
            raise HubError(f"{tree.repo}@{tree.commit[:8]} is refused: {problem}.")
        if _RESERVED & set(PurePosixPath(name.lower()).parts):
            raise HubError(f"{tree.repo}@{tree.commit[:8]} is refused: the entry {name!r} is not part of a model.")
    refused = [name for name in tree.files if _is_unsafe(name)]
    wanted = [name for name in tree.files if not _is_unsafe(name) and name != RECORD_NAME]
    if refused and not any(name.endswith(".safetensors") for name in wanted):
        raise HubError(
            f"{tree.repo} has weights only as {refused[0]}, a format that can run code when it is read; safetensors "
            "only. Convert it first (huggingface.co/spaces/safetensors/convert)."
        )
    if refused:
        logger.info("%s: not downloaded, because such files can run code: %s.", tree.repo, ", ".join(refused))
    return Selection(wanted, refused)


def check_manifest(tree: RemoteTree, selection: Selection, manifest: Path | None, strict: bool) -> dict[str, FileEntry]:
    """Compare a repository with its manifest as far as the Hub's own list of files tells; the manifest's entries.

    Documents (the card, results, plots) may differ: people edit cards on the website. Whatever is loaded may not.

    Args:
        tree: the repository at a commit.
        selection: what will be pulled of it.
        manifest: the downloaded manifest, None when the repository has none.
        strict: refuse a repository without a manifest, and files to be loaded that it does not name.

    Raises:
        HubError: `strict`, and there is no manifest or it leaves out a file.
        IncompletePushError: the files are not those of the manifest.
    """
    at = f"{tree.repo}@{tree.commit[:8]}"
    if manifest is None:
        if strict:
            raise HubError(f"{at} has no {MANIFEST_NAME}, so nothing says that it is whole; refused (strict).")
        logger.warning("%s has no %s (not made by langsamp): only the Hub's hashes are checked.", at, MANIFEST_NAME)
        return {}
    try:
        entries = read_manifest(manifest.parent)
    except ValueError as error:
        raise IncompletePushError(f"{at} is refused: {error}") from None
    for name, entry in entries.items():
        problem = None if name in selection.refused or _is_unsafe(name) else _problem(tree, name, entry)
        if problem and must_agree(name):
            raise unfinished(tree, problem)
        if problem:
            logger.warning("%s: %s; it was changed on the Hub after the push.", at, problem)
    unnamed = [name for name in selection.wanted if is_loaded(name) and name not in entries and name != MANIFEST_NAME]
    if strict and unnamed:
        raise HubError(f"{at} holds {unnamed[0]}, which its manifest does not name; refused (strict).")
    return entries


def unfinished(tree: RemoteTree, problem: str) -> IncompletePushError:
    """The error for a repository that does not agree with its manifest."""
    return IncompletePushError(
        f"{tree.repo}@{tree.commit[:8]} is not a finished push: {problem}. Pull an earlier revision (--last-good finds "
        "the newest whole one), or push again."
    )


def must_agree(name: str) -> bool:
    """Whether a file has to be the one of the manifest: what is loaded, and the state of a run."""
    return is_loaded(name) or CHECKPOINT_FILE.match(name) is not None or name in RUN_FILES


def _problem(tree: RemoteTree, name: str, entry: FileEntry) -> str | None:
    """What the Hub's list of files says against an entry of the manifest."""
    file = tree.files.get(name)
    if file is None:
        return f"{name} is missing"
    if file.size != entry.size:
        return f"{name} has {file.size} bytes, its manifest says {entry.size}"
    if file.sha256 and file.sha256 != entry.sha256:
        return f"{name} is not the file of the manifest (other sha256)"
    return None


def _is_unsafe(name: str) -> bool:
    """Whether reading a file of this name may run code."""
    return any(fnmatch(name.lower().rsplit("/", 1)[-1], pattern) for pattern in UNSAFE_WEIGHTS)
