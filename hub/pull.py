"""Hub to folder: resolve to one commit, fetch what differs, verify every file, put all of it in place or nothing."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock
from huggingface_hub import HfApi, constants

from langsamp.core.hub_names import HubName
from langsamp.core.manifest import MANIFEST_NAME
from langsamp.core.retry import HubError, IncompletePushError, UnreachableError, attempt
from langsamp.hub import trainer_state
from langsamp.hub.apply import apply, plan_changes
from langsamp.hub.cache import cached_path, cached_tree, remember_revision
from langsamp.hub.remote import RemoteTree, Synced, digest_file, fetch, read_record, read_tree, token_of, write_record
from langsamp.hub.selection import Selection, check_manifest, must_agree, select, unfinished
from langsamp.safe_files import first_problem, read_json

logger = logging.getLogger(__name__)
_HISTORY = 20  # commits that `last_good` looks at


@dataclass(frozen=True)
class PullResult:
    """What a pull did: the folder now equals `commit` of `repo`, except for `kept` (documents edited here)."""

    repo: str
    commit: str
    folder: Path
    fetched: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # pickles and the like; never downloaded
    verified: bool = False  # against a manifest; always against the Hub's own hashes


@dataclass(frozen=True)
class _Source:
    """A repository at a commit: its list of files, and where their content comes from."""

    api: HfApi
    tree: RemoteTree
    offline: bool

    def get(self, name: str) -> Path:
        """A local path with the content of a file, verified by the hash that the Hub told."""
        if self.offline:
            return cached_path(self.tree, name)
        return fetch(self.api, self.tree, name)


def pull(
    repo: str,
    folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    strict: bool = False,
    last_good: bool = False,
    token: str | None = None,
) -> PullResult:
    """Make a folder equal a repository at one commit; a second pull fetches only what differs or is damaged.

    Every file is compared with the hash the Hub tells and with the manifest. Without a network the cache serves, with
    the same checks (HF_ENDPOINT and HF_HUB_CACHE say where Hub and cache are). The commit is noted in
    ``.langsamp_hub.json``, so that a later push knows what it builds on.

    Args:
        repo: ``user/name`` or ``user/name@revision``.
        folder: made when it does not exist.
        revision: branch, tag or commit; default ``main``.
        strict: refuse a repository that has no manifest (third-party models) instead of warning.
        last_good: when the revision is not a finished push, go back to the newest commit that is.
        token: access token; default HF_TOKEN or the one stored by ``hf auth login``.

    Raises:
        IncompletePushError: the repository does not agree with its manifest.
        HubError: the Hub refuses or does not answer, a file stays damaged, a name leaves the folder, the weights are
            pickles, or the disk is full; the folder is as it was.
    """
    repo, suffix = HubName.parse(repo)
    revision = revision or suffix or "main"
    root = Path(folder)
    with _alone(root):
        return _pull(HfApi(token=token), repo, root, revision, strict, last_good)


def _pull(api: HfApi, repo: str, root: Path, revision: str, strict: bool, last_good: bool) -> PullResult:
    """`pull`, when nobody else pulls into the folder."""
    source = _resolve(api, repo, revision)
    source, selection, verified = _newest_good(source, strict) if last_good else (source, *_examine(source, strict))
    tree = source.tree
    before = read_record(root)
    plan = plan_changes(root, tree, selection.wanted, before)
    files = {name: digest_file(root / name) for name in selection.wanted if name not in plan.fetch + plan.keep}
    files |= {name: before.files[name] for name in plan.keep if before}
    record = Synced(repo, revision, tree.commit, files)
    fetched = apply(root, tree, plan, source.get, record)
    record = Synced(repo, revision, tree.commit, {**files, **fetched})
    if record != before:
        write_record(root, record)
    if not source.offline and not last_good:
        remember_revision(repo, revision, tree.commit)
    trainer_state.unpack(root, fetched, plan.remove)
    return PullResult(repo, tree.commit, root, plan.fetch, plan.remove, plan.keep, selection.refused, verified)


def _alone(folder: Path) -> FileLock:
    """A lock for a folder, kept in the cache: the processes of a parallel run all fetch the same checkpoint."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    path = Path(constants.HF_HUB_CACHE) / ".locks" / "langsamp" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:  # a cache that others look after
        path = Path(tempfile.gettempdir()) / f"langsamp-{name}.lock"
    return FileLock(path)


def _resolve(api: HfApi, repo: str, revision: str) -> _Source:
    """The commit that a revision is at now; without a network, the one it was last seen at."""
    if not constants.HF_HUB_OFFLINE:
        try:
            return _Source(api, read_tree(api, repo, revision), offline=False)
        except UnreachableError as error:
            try:
                tree = cached_tree(repo, revision)
            except HubError:
                raise error from None
            logger.warning("%s Taking %s@%s from the cache, which may be old.", error, repo, tree.commit[:8])
            return _Source(api, tree, offline=True)
    return _Source(api, cached_tree(repo, revision), offline=True)


def _examine(source: _Source, strict: bool) -> tuple[Selection, bool]:
    """Decide what to pull and whether it is a finished push; small files are read for that, weights are not."""
    tree = source.tree
    selection = select(tree)
    manifest = source.get(MANIFEST_NAME) if MANIFEST_NAME in tree.files else None
    entries = check_manifest(tree, selection, manifest, strict)
    for name, entry in entries.items():
        small = name in selection.wanted and must_agree(name) and tree.files[name].sha256 is None
        if small and digest_file(source.get(name)).sha256 != entry.sha256:
            raise unfinished(tree, f"{name} is not the file of the manifest (other sha256)")
    try:
        problem = first_problem(lambda name: read_json(source.get(name)) if name in selection.wanted else None)
    except ValueError as error:
        problem = str(error).rstrip(".")
    if problem:
        raise HubError(f"{tree.repo}@{tree.commit[:8]} is refused: {problem}.")
    return selection, manifest is not None


def _newest_good(source: _Source, strict: bool) -> tuple[_Source, Selection, bool]:
    """Go back from a commit to the newest one that is a finished push."""
    first: IncompletePushError | None = None
    for candidate in _history(source):
        try:
            selection, verified = _examine(candidate, strict)
        except IncompletePushError as error:
            first = first or error
            continue
        if verified or first is None:
            if first is not None:
                logger.warning("%s Taking %s instead.", first, candidate.tree.commit[:8])
            return candidate, selection, verified
    raise first or HubError(f"{source.tree.repo} has no finished push in its last {_HISTORY} commits.")


def _history(source: _Source) -> Iterator[_Source]:
    """A commit and those before it; offline, the commit alone."""
    yield source
    if source.offline:
        return
    api, tree = source.api, source.tree
    log = attempt(
        lambda: api.list_repo_commits(tree.repo, revision=tree.commit), f"reading the log of {tree.repo}", token_of(api)
    )
    for commit in log[1:_HISTORY]:
        yield _Source(api, read_tree(api, tree.repo, commit.commit_id), offline=False)
