"""The corpus that a name means: the built-in ``cldr``, a folder, a file, or a Hub data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from langsamp.core.files import is_url
from langsamp.core.hub_names import HubName
from langsamp.core.reading import read_text
from langsamp.train.text.bucket import BucketCorpus
from langsamp.train.text.corpus import Corpus, Reading
from langsamp.train.text.folder import FolderCorpus
from langsamp.train.text.hub import HubCorpus


def open_corpus(
    spec: str | os.PathLike[str],
    only: Iterable[str] | None = None,
    column: str | None = None,
    on_invalid: str = "replace",
    split: str = "train",
    names: Mapping[str, str] | None = None,
) -> Corpus:
    """The corpus that ``--corpus`` names.

    Args:
        spec: ``cldr``, a folder, the URL of one in an object store, or a Hub data set (``user/name`` or
            ``user/name@revision``) with one configuration a language.
        only: the languages wanted, as people type them; None for all.
        column: the column or JSON field that holds the text; None: the first there is of ``text``, ``content``, ...
        on_invalid: what to do with a text that is not valid Unicode: ``replace`` the bad bytes by U+FFFD or ``skip``
            the whole line; both are counted in ``corpus.report``.
        split: the splits and marked subsets to read, ``train``, ``train+dev``, ``train+noisy``; the others are left
            out and named in ``corpus.report``.
        names: what names of files, folders and configurations that are no codes stand for, ``{"swahili": "swh"}``.

    Raises:
        FileNotFoundError: no such folder, and not a Hub id either.
        ValueError: a name that is no language (it is named), or an unknown ``on_invalid``.
    """
    if on_invalid not in ("replace", "skip"):
        raise ValueError(f"on_invalid is {on_invalid!r}; it can be 'replace' or 'skip'.")
    how, text = Reading(only, column, on_invalid, split, names), os.fspath(spec)
    if text == "cldr":
        from langsamp.train.text.cldr import CldrCorpus  # babel takes its time, and is needed for this corpus only

        return CldrCorpus(how)
    if is_url(text):
        return BucketCorpus(text, how)
    path = Path(text).expanduser()
    if path.is_dir():
        return FolderCorpus(path, how)
    if path.exists():
        raise FileNotFoundError(f"{text!r} is a file; a corpus is a folder with one file a language, as deu_Latn.txt.")
    name = HubName.parse(text)
    if not name.is_data_set:
        raise FileNotFoundError(f"there is no folder {text!r}, and it is no Hub data set (user/name), nor 'cldr'.")
    return HubCorpus(name, how)


def read_texts(spec: str | os.PathLike[str], language: str) -> Iterator[str]:
    """The texts of one language, streamed.

    Args:
        spec: a corpus as for :func:`open_corpus`, or one file, which then is of that language whatever its name.
        language: ``deu_Latn``.

    Raises:
        FileNotFoundError: no such file or corpus.
        ValueError: it has no text of the language, or cannot be read.
    """
    path = Path(spec).expanduser()
    corpus = FolderCorpus.of_file(path, language) if path.is_file() else open_corpus(spec, only=[language])
    return (text for name in corpus.languages for text in corpus.texts(name))


def read_names(given: Iterable[str]) -> dict[str, str]:
    """What ``--names`` says: ``swahili=swh`` each, or a file of lines with a name, a tab or ``=``, and a language.

    Raises:
        ValueError: neither; the line is named.
    """
    found: dict[str, str] = {}
    for word in given:
        path = Path(word).expanduser()
        for line in read_text(path).splitlines() if path.is_file() else [word]:
            name, _, tag = line.replace("\t", "=", 1).partition("=")
            if not (name.strip() and tag.strip()):
                raise ValueError(f"--names {word}: write NAME=LANG, as swahili=swh, not {line!r}.")
            found[name.strip()] = tag.strip()
    return found
