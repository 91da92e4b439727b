"""One commit on the Hub, made at most once whatever happens to the answers: compare, upload, commit, tag."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from langsamp.core.manifest import MANIFEST_NAME, read_manifest
from langsamp.core.retry import ConflictError, HubError, TagTakenError, attempt, status_of
from langsamp.hub.remote import Digest, RemoteTree, fetch, read_tree, token_of
from langsamp.hub.staging import WEIGHTS

T = TypeVar("T")
_CONFLICT_STATUS = (409, 412)


@dataclass
class Target:
    """Where a push goes."""

    api: HfApi
    repo: str
    revision: str
    create_pr: bool
    message: str

    @property
    def place(self) -> str:
        """For messages."""
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"

    def attempt(self, call: Callable[[], T], what: str) -> T:
        """`langsamp.core.retry.attempt`, saying what happens where."""
        return attempt(call, f"{what} {self.place}", token_of(self.api))


@dataclass(frozen=True)
class Change:
    """From a commit on the Hub to what is wanted: names to add and to delete; false when there is nothing to do."""

    add: list[str]
    delete: list[str]
    wanted: dict[str, Digest]

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)

    def is_in(self, tree: RemoteTree) -> bool:
        """Whether a commit holds all that is wanted, and nothing that was to go."""
        return not tree.differing(self.wanted) and not any(name in tree.files for name in self.delete)


def prepare(target: Target, private: bool) -> RemoteTree:
    """Create the repository and the branch where they do not exist, and read the branch's head."""
    api = target.api
    if "/" not in target.repo:
        user = target.attempt(lambda: api.whoami(), "finding the user for")["name"]
        target.repo = f"{user}/{target.repo}"
    existed = target.attempt(lambda: api.repo_exists(target.repo), "looking for")
    if not existed:
        target.attempt(lambda: api.create_repo(target.repo, private=private or None, exist_ok=True), "creating")
    if not target.attempt(lambda: api.revision_exists(target.repo, target.revision), "looking for"):
        target.attempt(lambda: api.create_branch(target.repo, branch=target.revision, exist_ok=True), "making branch")
    head = read_tree(api, target.repo, target.revision)
    if private and existed and not head.private:
        raise ValueError(f"{target.repo} exists and is public; make it private in its settings first.")
    return head


def compare(target: Target, head: RemoteTree, wanted: dict[str, Digest]) -> Change:
    """What a commit on top of `head` has to do.

    Deleted are files of earlier pushes (the manifest there names them) that are no longer wanted, and other weights:
    a leftover ``model.safetensors`` would be loaded instead of new shards.
    """
    earlier: set[str] = set()
    if MANIFEST_NAME in head.files:
        try:
            earlier = set(read_manifest(fetch(target.api, head, MANIFEST_NAME).parent))
        except ValueError:
            earlier = set()  # not one of ours: then nothing is known about earlier pushes
    old_weights = {name for name in head.files if any(fnmatch(name, pattern) for pattern in WEIGHTS)}
    gone = ((earlier & set(head.files)) | old_weights) - set(wanted)
    return Change(head.differing(wanted), sorted(gone), wanted)


def make(target: Target, head: RemoteTree, change: Change, sources: dict[str, Path | bytes]) -> tuple[str, str]:
    """Upload and commit; the commit id and its address.

    The large files go first, each sent at most once: the Hub keeps what has arrived even when the commit never comes.
    The commit names its parent, so it cannot land on another; when its answer is lost, the branch is read again and
    the commit made again only if it is not there.

    Raises:
        ConflictError: the branch moved since `head` was read.
        HubError: see `attempt`.
    """
    api, pulls = target.api, _pulls(target) if target.create_pr else {}
    additions = [_addition(name, sources[name], change.wanted[name]) for name in change.add]
    target.attempt(
        lambda: api.preupload_lfs_files(
            target.repo, additions, revision=target.revision, create_pr=target.create_pr, free_memory=False
        ),
        "uploading to",
    )
    operations = [CommitOperationDelete(path_in_repo=name) for name in change.delete] + additions
    sent = False

    def once() -> tuple[str, str]:
        nonlocal sent
        if sent and (made := _made(target, head, change, pulls)):
            return made
        sent = True
        try:
            info = api.create_commit(
                target.repo, operations, commit_message=target.message, revision=target.revision,
                create_pr=target.create_pr, parent_commit=head.commit,
            )  # fmt: skip
        except HfHubHTTPError as error:
            if status_of(error) not in _CONFLICT_STATUS:
                raise
            made = _made(target, head, change, pulls)
            if made is None:
                raise ConflictError(
                    f"the Hub refuses the commit to {target.place} as conflicting; push again."
                ) from None
            return made
        return info.oid, info.pr_url or info.commit_url

    return target.attempt(once, "committing to")


def _addition(name: str, source: Path | bytes, digest: Digest) -> CommitOperationAdd:
    """One file of a commit; it must still be what was hashed for the manifest."""
    content = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    addition = CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
    if addition.upload_info.sha256.hex() != digest.sha256:
        raise ValueError(f"{name} changed while it was being pushed; push again when nothing writes to the folder.")
    return addition


def _made(target: Target, head: RemoteTree, change: Change, pulls: dict[str, str]) -> tuple[str, str] | None:
    """The commit (and its address) if it was made after all, None if nothing happened; else the branch moved."""
    api = target.api
    if target.create_pr:
        for ref, commit in _pulls(target).items():
            if ref not in pulls and change.is_in(read_tree(api, target.repo, commit)):
                return commit, f"{api.endpoint}/{target.repo}/discussions/{ref.rsplit('/', 1)[-1]}"
        return None
    now = read_tree(api, target.repo, target.revision)
    if now.commit == head.commit:
        return None
    log = [
        commit.commit_id
        for commit in target.attempt(lambda: api.list_repo_commits(target.repo, revision=now.commit), "reading")
    ]
    if head.commit in log[1:]:
        child = log[log.index(head.commit) - 1]  # the log runs from new to old
        if change.is_in(read_tree(api, target.repo, child)):
            return child, f"{api.endpoint}/{target.repo}/commit/{child}"
    raise conflict(target, head.commit, now)


def conflict(target: Target, expected: str, now: RemoteTree) -> ConflictError:
    """The error for a branch that is not where it should be."""
    return ConflictError(
        f"{target.place} has moved: it was at {expected[:8]}, now it is at {now.commit[:8]}, so somebody else has "
        f"committed; nothing was written. Look at the change and pull it, or push with --parent-commit {now.commit} "
        "to put this folder on top of it."
    )


def _pulls(target: Target) -> dict[str, str]:
    """Commit by name of every pull request's branch."""
    refs = target.attempt(
        lambda: target.api.list_repo_refs(target.repo, include_pull_requests=True), "listing pull requests of"
    )
    return {ref.ref: ref.target_commit for ref in refs.pull_requests or []}


def check_tag(target: Target, tag: str, commit: str | None) -> None:
    """Refuse a tag that names another commit, before anything is uploaded (`commit` None: one not made yet)."""
    found = _tags(target).get(tag)
    if found is not None and found != commit:
        raise TagTakenError(f"the tag {tag!r} of {target.repo} already names {found[:8]}; choose another tag.")


def tag(target: Target, name: str, commit: str) -> None:
    """Tag a commit; a tag that is there already must name it."""
    target.attempt(lambda: target.api.create_tag(target.repo, tag=name, revision=commit, exist_ok=True), "tagging")
    if _tags(target).get(name) != commit:
        raise HubError(f"{target.repo} was pushed as {commit[:8]}, but the tag {name!r} names another commit.")


def _tags(target: Target) -> dict[str, str]:
    refs = target.attempt(lambda: target.api.list_repo_refs(target.repo), "listing tags of")
    return {ref.name: ref.target_commit for ref in refs.tags}
