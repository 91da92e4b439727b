"""The client's cache as a Hub without a network: which commit a revision was last seen at, and that commit's files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from langsamp.core.files import COMMIT, SHA256, atomic_write
from langsamp.core.retry import HubError
from langsamp.hub.remote import RemoteFile, RemoteTree, digest_file


def remember_revision(repo: str, revision: str, commit: str) -> None:
    """Note which commit a branch or tag is at, as the client does, so that it can be resolved without a network.

    A cache that cannot be written stays as it is.
    """
    if revision != commit:
        with suppress(OSError):
            atomic_write(_folder(repo) / "refs" / revision, commit)


def cached_tree(repo: str, revision: str) -> RemoteTree:
    """The files of a repository that the cache holds at a revision.

    A file of the cache is a link to its content, which is named by the hash that the Hub told; so what was damaged
    since shows without a network.

    Raises:
        HubError: the cache does not know this repository or revision.
    """
    folder = _folder(repo)
    ref = folder / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    snapshot = folder / "snapshots" / commit
    if not COMMIT.match(commit) or not snapshot.is_dir():
        raise HubError(
            f"{repo}@{revision} is not in the cache ({folder.parent}) and the Hub is out of reach; pull it once online."
        )
    paths = [path for path in snapshot.rglob("*") if path.is_file()]
    files = {path.relative_to(snapshot).as_posix(): path for path in sorted(paths)}
    return RemoteTree(repo, commit, False, {name: _described(name, path) for name, path in files.items()})


def cached_path(tree: RemoteTree, name: str) -> Path:
    """Where the cache keeps a file, after comparing its content with its hash.

    Raises:
        HubError: the content is damaged.
    """
    path = _folder(tree.repo) / "snapshots" / tree.commit / name
    if not tree.files[name].is_content(digest_file(path)):
        raise HubError(f"{name} of {tree.repo} is damaged in the cache ({path}); pull again with a network.")
    return path


def _described(name: str, path: Path) -> RemoteFile:
    """A file of the cache in the terms of the Hub."""
    content, size = path.resolve().name, path.stat().st_size
    if path.is_symlink() and SHA256.match(content):
        return RemoteFile(name, size, "", content)
    if path.is_symlink() and COMMIT.match(content):
        return RemoteFile(name, size, content)
    return RemoteFile(name, size, digest_file(path).oid)  # a cache without links (Windows): only the manifest can tell


def _folder(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
