"""A corpus in an object store that fsspec knows: ``s3://bucket/text``, ``gs://...``, ``hf://datasets/user/name``.

Files are read as in a folder (:mod:`langsamp.train.text.folder`), where they are encoded; nothing is kept on the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langsamp.core.plain import one_line
from langsamp.train.text.corpus import Part, Reading
from langsamp.train.text.folder import FolderCorpus

_VERSIONS = ("ETag", "etag", "md5Hash", "blob_id")  # what stores call the name of a file's content


class BucketCorpus(FolderCorpus):
    """Files below a URL."""

    def __init__(self, url: str, how: Reading = Reading()) -> None:
        super().__init__("", how)
        self.name = url.rstrip("/")

    def _store(self) -> tuple[Any, str]:
        """The store and the path in it; fsspec keeps one for each process, as connections survive no fork."""
        from fsspec.core import url_to_fs

        store, root = url_to_fs(self.name)
        return store, root

    def check_seen(self, where: str) -> None:
        """Any node sees a store; what it may not read is told by name when it is read."""

    def _places(self) -> Iterator[tuple[str, int, str]]:
        with _named(f"{self.name} cannot be listed"):
            store, root = self._store()
            found = store.find(root, detail=True)
        for path, facts in sorted(found.items()):
            name = path.removeprefix(root).lstrip("/")
            if not any(piece.startswith(".") for piece in name.split("/")):
                yield name, facts["size"] or 0, store.unstrip_protocol(path)

    def fingerprint(self, part: Part) -> str:
        """Of what the store says of the file's content, and of the way it is read: the bytes are not fetched for it."""
        with _named(f"{part.detail} cannot be read"):
            store, _ = self._store()
            facts = store.info(part.detail)
        version = next((str(facts[name]) for name in _VERSIONS if facts.get(name)), None) or store.ukey(part.detail)
        return hashlib.sha256(os.fsencode(f"{self._how(part)}{version} {part.member}")).hexdigest()


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Tell in one sentence what a store or fsspec has raised.

    Raises:
        ImportError: the package for such stores is not installed. OSError: whatever else it was.
    """
    try:
        yield
    except ImportError as error:
        package = getattr(error.__cause__, "name", None)
        raise ImportError(f"{what}: {f'pip install {package}' if package else error}") from error
    except Exception as error:  # stores have errors of their own, such as of missing credentials
        text = f"{what}: {one_line(error)}; look whether it is there and your credentials for it are set"
        raise OSError(text) from error
