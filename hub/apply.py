"""The last step of a pull: new files are gathered beside the folder's own, then put in place, the manifest last.

Killed at any point, the folder either is as it was or says that it is unfinished: its record is marked first, and its
manifest is the last file to change.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from langsamp.core.files import DISK_FULL, to_disk
from langsamp.core.manifest import MANIFEST_NAME, is_loaded, unsafe_name
from langsamp.core.retry import HubError
from langsamp.hub.remote import Digest, RemoteTree, Synced, digest_file, write_record

logger = logging.getLogger(__name__)
STAGING = ".langsamp_pull"


@dataclass(frozen=True)
class Changes:
    """What to do to a folder: names to fetch, local edits to keep as they are, edits to set aside, names to remove."""

    fetch: list[str]
    keep: list[str]
    set_aside: list[str]
    remove: list[str]


def plan_changes(folder: Path, tree: RemoteTree, wanted: Iterable[str], record: Synced | None) -> Changes:
    """Compare a folder with the wanted files of a commit, without the network.

    A document that was edited here is kept while it has not changed on the Hub since the last pull; when both changed,
    the Hub's is taken and the local one set aside as ``<name>.orig``. Files to be loaded are always the Hub's.

    Raises:
        HubError: a file would have to be written through a symbolic link, or something else is in its place.
    """
    before = record.files if record and record.repo == tree.repo else {}
    wanted = sorted(wanted)
    fetch, keep, aside = [], [], []
    for name in wanted:
        problem = unsafe_name(folder, name)
        if problem:
            raise HubError(f"{folder} is not written to: {problem}.")
        path = folder / name
        here = digest_file(path) if path.is_file() else None
        if here and tree.files[name].is_content(here):
            continue
        edited = here is not None and before.get(name) != here
        if edited and not is_loaded(name) and name in before and tree.files[name].is_content(before[name]):
            keep.append(name)
            continue
        fetch.append(name)
        if edited and not is_loaded(name):
            aside.append(name)
    gone = [name for name, digest in before.items() if name not in wanted and _is(folder, name, digest)]
    for name in fetch:
        path = folder / name
        around = [*path.rglob("*"), *(parent for parent in path.parents if parent.is_relative_to(folder))]
        stays = [other for other in around if other.is_file() and other.relative_to(folder).as_posix() not in gone]
        if stays:
            raise HubError(f"{folder} is not written to: {stays[0]} is in the way of {name}; move it elsewhere.")
    return Changes(fetch, keep, aside, gone)


def apply(
    folder: Path, tree: RemoteTree, plan: Changes, get: Callable[[str], Path], record: Synced
) -> dict[str, Digest]:
    """Bring the files of a plan into the folder; the digests of what was fetched.

    Args:
        folder: made when it does not exist.
        tree: the commit the files are of.
        plan: from `plan_changes`.
        get: name -> a local path with the verified content.
        record: what the folder will equal; written before (as incomplete) and after.

    Raises:
        HubError: not enough space; the folder is as it was.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = folder / STAGING
        staging.unlink() if staging.is_symlink() else shutil.rmtree(staging, ignore_errors=True)
        _check_space(folder, sum(tree.files[name].size for name in plan.fetch))
        fetched = {name: _gather(get(name), staging / name, tree, name) for name in plan.fetch}
        to_disk(staging / name for name in plan.fetch)
        if plan.fetch or plan.remove:
            write_record(folder, replace(record, complete=False))
            _put(folder, staging, plan)
        return fetched
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise HubError(
            f"pulling {tree.repo} into {folder} failed: the disk is full ({error.strerror}); the files there are "
            "as they were. Make room and pull again."
        ) from None
    finally:
        shutil.rmtree(folder / STAGING, ignore_errors=True)
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _gather(source: Path, target: Path, tree: RemoteTree, name: str) -> Digest:
    """Copy a file next to its place and hash the copy, so that what is put in place is what was verified."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    digest = digest_file(target)
    if not tree.files[name].is_content(digest):
        raise HubError(f"{name} changed while it was copied to {target.parent}; is the disk damaged? Pull again.")
    return digest


def _put(folder: Path, staging: Path, plan: Changes) -> None:
    """Remove what is gone and folders that are empty then, put the gathered files in place, the manifest last."""
    for name in plan.remove:
        (folder / name).unlink(missing_ok=True)
        for parent in Path(name).parents[:-1]:
            with suppress(OSError):  # it still holds something
                (folder / parent).rmdir()
    for name in plan.set_aside:
        logger.warning("%s was changed here and on the Hub; yours is kept as %s.orig.", folder / name, name)
        os.replace(folder / name, folder / f"{name}.orig")
    for name in sorted(plan.fetch, key=lambda name: name == MANIFEST_NAME):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, folder / name)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free")


def _is(folder: Path, name: str, digest: Digest) -> bool:
    """Whether a file is there, inside the folder, with this content."""
    path = folder / name
    return unsafe_name(folder, name) is None and path.is_file() and digest_file(path) == digest
