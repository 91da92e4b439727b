"""The corpus that a name means: the built-in ``cldr``, a folder, or a Hub data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from langsamp.train.text.cldr import CldrCorpus
from langsamp.train.text.corpus import Corpus
from langsamp.train.text.folder import FolderCorpus
from langsamp.train.text.hub import HubCorpus


def open_corpus(
    spec: str | os.PathLike[str],
    only: Iterable[str] | None = None,
    column: str = "text",
    on_invalid: str = "replace",
    split: str = "train",
) -> Corpus:
    """The corpus that ``--corpus`` names.

    Args:
        spec: ``cldr``, a folder, or a Hub data set (``user/name`` or ``user/name@revision``) with one configuration a
            language.
        only: the languages wanted, as people type them; None for all.
        column: the column or JSON field that holds the text.
        on_invalid: what to do with a text that is not valid Unicode: ``replace`` the bad bytes by U+FFFD or ``skip``
            the whole line; both are counted in ``corpus.counts``.
        split: the split of a Hub data set.

    Raises:
        FileNotFoundError: no such folder, and not a Hub id either.
        ValueError: a name that is no language (it is named), or an unknown ``on_invalid``.
    """
    if on_invalid not in ("replace", "skip"):
        raise ValueError(f"on_invalid is {on_invalid!r}; it can be 'replace' or 'skip'.")
    text = os.fspath(spec)
    if text == "cldr":
        return CldrCorpus(only)
    path = Path(text).expanduser()
    if path.is_dir():
        return FolderCorpus(path, only, column, on_invalid)
    if path.exists():
        raise FileNotFoundError(f"{text!r} is a file; a corpus is a folder with one file a language, as deu_Latn.txt.")
    repo, _, revision = text.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise FileNotFoundError(f"there is no folder {text!r}, and it is no Hub data set (user/name), nor 'cldr'.")
    return HubCorpus(repo, revision or None, only, column, on_invalid, split)
