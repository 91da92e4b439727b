"""A corpus in a local folder of any depth: ``deu_Latn.txt``, ``data/swh_Latn/train/000_00000.parquet``, ``sw.txt.xz``.

Which formats are read is in :mod:`langsamp.train.text.formats`, how names are understood in
:mod:`langsamp.core.language.names`. Archives are read in place. Whatever is left out is in the corpus's report.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

from langsamp.core.files import failed
from langsamp.core.language.names import marks, pair_side
from langsamp.core.manifest import measure
from langsamp.core.reading import binary, damage_named, is_archive, members, opened, unpacked_name
from langsamp.train.text.corpus import Corpus, Part, Reading, Report, clean
from langsamp.train.text.formats import FILES, STREAMS, Source

_INSTEAD = {
    ".xml": "XML; wikiextractor takes the text out of a dump of Wikipedia",
    ".tmx": "XML; write the text of each language to a file of its own, as OPUS has it under Moses",
}
_WIKI = re.compile(r"wiki_\d+")
# files that come with data sets and hold no text of their own, whatever language their folder is of
_BESIDE = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|citation|authors|vref|md5sums?|sha\d+sums?|urls|checksums?"
    r"|dataset_(info|infos|dict)|state|config|metadata|croissant|index)(\W.*)?|cache-.*\.arrow"
    r"|.*_\d+[KM]?-(words|co_n|co_s|inv_so|inv_w|sources|meta)\.txt",
    re.I,
)


class FolderCorpus(Corpus):
    """Local files.

    Text files hold one document or sentence a line; lines end with LF or CRLF; a byte order mark is dropped. The other
    formats hold the text in ``column`` (None: the first of :data:`langsamp.train.text.formats.COLUMNS`).
    """

    read_in_workers = True

    def __init__(self, folder: str | Path, how: Reading = Reading()) -> None:
        super().__init__(how)
        self.folder = Path(folder).expanduser().absolute()
        self.name = str(folder)

    @classmethod
    def of_file(cls, path: Path, language: str) -> FolderCorpus:
        """One file as a corpus of one language, whatever its name.

        Raises:
            ValueError: the file is of no format that is read.
        """
        corpus = cls(path.parent)
        part = Part(language, path.name, path.stat().st_size, str(path))
        if is_archive(path.name) or corpus._kind(part) is None:
            raise ValueError(f"{path} is none of {', '.join(sorted((*FILES, *STREAMS)))}, packed or not.")
        corpus.parts = {language: [part]}
        return corpus

    def check_seen(self, where: str) -> None:
        """See :meth:`Corpus.check_seen`."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{where} does not see the corpus {self.folder}; put it where all nodes see it")

    def _find(self) -> dict[str, list[Part]]:
        found: dict[str, list[Part]] = {}
        rejected: list[str] = []
        unpacked: dict[str, str] = {}
        for part in self._files():
            name, pieces = PurePosixPath(part.name).name, _pieces(part.name)
            twin = unpacked.setdefault(unpacked_name(part.name), part.name)
            if _BESIDE.fullmatch(name):
                self.report.left_out[part.name] = "comes with the data, no text"
            elif twin != part.name:
                self.report.left_out[part.name] = f"{twin}, packed"
            elif self._kind(part) is None:
                suffix = PurePosixPath(unpacked_name(name)).suffix.lower()
                self.report.left_out[part.name] = _INSTEAD.get(suffix, "no format that is read")
            elif why := self._selection.against(marks(pieces, self._selection.subsets)):
                self.report.left_out[part.name] = why
            else:
                try:
                    told = pair_side(unpacked_name(name)) or self._told(pieces)
                except ValueError as error:
                    rejected.append(f"{part.name} ({error})")
                    continue
                self._add(found, told, part)
        self._refuse(rejected, "files")
        return found

    def _files(self) -> Iterator[Part]:
        """All files, and those in archives, as parts whose language is still to be filled in."""
        for name, size, place in self._places():
            if not is_archive(name):
                yield Part("", name, size, place)
                continue
            for member, inner in members(place):
                if not any(re.match(r"\.[^.]|__MACOSX", piece) for piece in member.split("/")):
                    yield Part("", f"{name}/{member}", inner, place, member)

    def _places(self) -> Iterator[tuple[str, int, str]]:
        """Name below the folder, size and path of each file that is not hidden, in the order of the names."""
        for path in sorted(_walk(self.folder)):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file():
                yield name, path.stat().st_size, str(path)
            else:
                self.report.left_out[name] = "a link that leads nowhere" if path.is_symlink() else "no file"

    def _how(self, part: Part) -> str:
        """How a part is read, for its fingerprint."""
        return f"{self._kind(part)} {self._column or 'text'} {self._on_invalid}\n"

    def fingerprint(self, part: Part) -> str:
        """Sha256 of the file's bytes and of the way they are read."""
        how = self._how(part)
        if part.member:
            archive = measure(Path(part.detail)).sha256
            return hashlib.sha256(os.fsencode(f"{how}{archive} {part.member}")).hexdigest()
        with binary(part.detail) as file:
            return hashlib.file_digest(cast(Any, file), partial(hashlib.sha256, how.encode())).hexdigest()

    def _texts(self, part: Part, report: Report) -> Iterator[str]:
        where = part.detail if not part.member else f"{part.detail}/{part.member}"
        source = Source(where, part.language, self._column, self._on_invalid, self._selection, report)
        return clean(self._rows(part, source), part.language, self._on_invalid, report, where)

    def _rows(self, part: Part, source: Source) -> Iterator[Any]:
        how = self._kind(part) or ""
        with damage_named(source.where):
            if how in FILES:
                yield from FILES[how](part.detail, source)
            else:
                with opened(part.detail, part.member) as stream:
                    yield from STREAMS[how](stream, source)

    def _kind(self, part: Part) -> str | None:
        """How a file is read, a key of :data:`formats.FILES` or :data:`formats.STREAMS`; None for no format of text.

        Raises:
            ValueError: a packed Parquet file.
        """
        name = PurePosixPath(part.name).name
        inner = unpacked_name(name)
        suffix = os.path.splitext(inner)[1].lower()
        if suffix in FILES:
            if inner != name:
                raise ValueError(f"{part.detail}: {suffix} files are compressed inside; unpack it to {inner}.")
            return None if part.member else suffix
        if inner.lower().endswith("-sentences.txt"):
            return "-sentences.txt"
        if suffix in STREAMS:
            return suffix
        if _WIKI.fullmatch(inner):
            return "wiki"
        return ".txt" if pair_side(inner) or suffix[1:] in self._names else None


def _pieces(name: str) -> list[str]:
    """The folders of a path and the file's name without its format."""
    *folders, file = name.split("/")
    inner = unpacked_name(file)
    stem, suffix = os.path.splitext(inner)
    known = suffix.lower() in FILES or suffix.lower() in STREAMS
    # an archive in the path is a folder
    return [*(re.sub(r"(\.txt)?\.(zip|tar)$", "", unpacked_name(name)) for name in folders), stem if known else inner]


def _walk(folder: Path) -> Iterator[Path]:
    """What is in a folder and not hidden, through links too, but never round in circles.

    Raises:
        OSError: a folder cannot be read.
    """
    for place, folders, files in os.walk(folder, followlinks=True, onerror=failed):
        if os.path.realpath(place) in map(os.path.realpath, Path(place).parents):
            folders[:] = []
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))
