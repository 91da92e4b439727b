"""Folder to Hub: stage, upload what is new, make one commit with the manifest in it, check that it arrived."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi

from langsamp.core.files import COMMIT
from langsamp.core.manifest import MANIFEST_NAME, FileEntry, manifest_text
from langsamp.core.retry import HubError
from langsamp.hub import commit as commits
from langsamp.hub import trainer_state
from langsamp.hub.commit import Change, Target
from langsamp.hub.remote import Digest, Synced, digest_bytes, digest_file, read_record, read_tree, write_record
from langsamp.hub.staging import stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushResult:
    """What a push did. `commit` is None after a dry run; `created` is False when everything was there already."""

    repo: str
    commit: str | None
    url: str
    files: dict[str, int]  # size in bytes by name: all that belongs to this folder on the Hub
    uploaded: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    created: bool = False


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    with_trainer_state: bool = False,
    dry_run: bool = False,
    parent_commit: str | None = None,
    message: str = "Push with langsamp",
    token: str | None = None,
) -> PushResult:
    """Push a checkpoint folder to the Hub as one commit; safe to repeat after any interruption.

    Large files go first and are not sent again once they have arrived; then one commit brings everything in, the
    manifest with it, so that a reader sees all of a push or nothing. An unchanged folder makes no commit.

    Args:
        folder: the checkpoint; `langsamp.hub.staging` says what is taken of it.
        repo: ``user/name`` (or ``name``); created when it does not exist.
        private: create it as a private repository.
        revision: the branch, created from main when it does not exist; default ``main``.
        create_pr: open a pull request instead of committing to the branch.
        tag: name the commit with a tag.
        with_trainer_state: also push the newest ``checkpoint-N`` with optimizer and scheduler, for resuming.
        dry_run: only say what would be pushed; no network.
        parent_commit: the commit that the branch must be at; default the one this folder was last pushed to or pulled
            from, else whatever is there now.
        message: the title of the commit.
        token: access token; default HF_TOKEN or the one stored by ``hf auth login``.

    Raises:
        FileNotFoundError, ValueError: the folder is not a whole checkpoint (see `stage`), or the options disagree.
        ConflictError: the branch has moved; nothing was written.
        HubError: the Hub refused, or did not answer after several tries.
    """
    if tag and create_pr:
        raise ValueError("a pull request cannot be tagged; tag after it is merged.")
    if revision and COMMIT.match(revision):
        raise ValueError(f"revision {revision!r} is a commit; push to a branch.")
    with tempfile.TemporaryDirectory() as scratch:
        staged = stage(folder)
        if with_trainer_state:
            staged |= trainer_state.pack(folder, scratch)
        digests, sources = _describe(staged)
        api = HfApi(token=token)
        if dry_run:
            return PushResult(repo, None, f"{api.endpoint}/{repo}", _sizes(digests))
        target = Target(api, repo, revision or "main", create_pr, message)
        return _push(Path(folder), target, digests, sources, private=private, parent=parent_commit, tag=tag)


def _push(
    folder: Path,
    target: Target,
    digests: dict[str, Digest],
    sources: dict[str, Path | bytes],
    *,
    private: bool,
    parent: str | None,
    tag: str | None,
) -> PushResult:
    """Everything that needs the network."""
    head = commits.prepare(target, private)
    change = commits.compare(target, head, digests)
    parent = parent or _recorded_commit(folder, target)
    if change and parent and parent != head.commit:
        raise commits.conflict(target, parent, head)
    if tag:
        commits.check_tag(target, tag, None if change else head.commit)
    commit, url = head.commit, f"{target.api.endpoint}/{target.repo}/tree/{head.commit}"
    if change:
        commit, url = commits.make(target, head, change, sources)
        _check_arrived(target, commit, change)
    if tag:
        commits.tag(target, tag, commit)
    if not target.create_pr:
        _remember(folder, target, commit, digests)
    return PushResult(
        target.repo, commit, url, _sizes(digests), sorted(change.add), sorted(change.delete), created=bool(change)
    )


def _describe(staged: dict[str, Path]) -> tuple[dict[str, Digest], dict[str, Path | bytes]]:
    """Hashes and contents of what goes to the Hub, the manifest last."""
    digests = {name: digest_file(path) for name, path in staged.items()}
    text = manifest_text({name: FileEntry(digest.sha256, digest.size) for name, digest in digests.items()}).encode()
    return {**digests, MANIFEST_NAME: digest_bytes(text)}, {**staged, MANIFEST_NAME: text}


def _sizes(digests: dict[str, Digest]) -> dict[str, int]:
    return {name: digest.size for name, digest in digests.items()}


def _recorded_commit(folder: Path, target: Target) -> str | None:
    """The commit this folder was last in step with, while the repository still knows it.

    A folder that was in step with another branch says nothing about this one; a tag or a commit does.
    """
    record = read_record(folder)
    if target.create_pr or record is None or record.repo != target.repo:
        return None
    if record.revision != target.revision:
        refs = target.attempt(lambda: target.api.list_repo_refs(target.repo), "listing branches of")
        if record.revision in {branch.name for branch in refs.branches}:
            return None
    known = target.attempt(lambda: target.api.revision_exists(target.repo, record.commit), "looking into")
    return record.commit if known else None  # unknown: the repository was deleted and made again


def _check_arrived(target: Target, commit: str, change: Change) -> None:
    """The commit on the Hub must hold every file as it is here, by hash, and nothing that was to go."""
    arrived = read_tree(target.api, target.repo, commit)
    wrong = arrived.differing(change.wanted) + [name for name in change.delete if name in arrived.files]
    if wrong:
        raise HubError(
            f"commit {commit[:8]} of {target.place} does not hold what was pushed ({', '.join(wrong[:5])}); "
            "if a .gitignore in the repository leaves them out, remove it there and push again."
        )


def _remember(folder: Path, target: Target, commit: str, digests: dict[str, Digest]) -> None:
    """Note the commit beside the files; a folder that cannot be written to has been pushed all the same."""
    try:
        write_record(folder, Synced(target.repo, target.revision, commit, digests))
    except OSError as error:
        logger.warning("pushed, but the commit could not be noted in %s (%s).", folder, error)
