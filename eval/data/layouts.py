"""Where evaluation data lies: which files below a folder belong to which language and split.

Files are found as they are handed out: a file a language (`deu_Latn.parquet`, `test-deu_Latn.tsv`, `eng_train.tsv`), a
folder a language (`ace_Arab/test.tsv`, `swa/dev.txt`, `de/train`), a folder a split (`devtest/swh_Latn.devtest`),
releases of Universal Dependencies and UNER, parallel files (`tatoeba.ara-eng.ara`), `newstest2019-ref.deu.txt`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from langsamp.core.language.languages import WIKIPEDIA
from langsamp.core.language.names import SPLITS, Told, find_language, language_in, marks, pair_side, script_told
from langsamp.core.reading import unpacked_name
from langsamp.eval.data.columns import DataError, columns_of
from langsamp.eval.data.formats import LINES, SUFFIXES, sample

logger = logging.getLogger(__name__)

_TREEBANK = re.compile(r"([a-z]{2,3})_\w+-ud-(train|dev|test)[\w-]*")
_BANKS = ("UD_", "UNER_", "ud-treebanks", "universal-")  # folders of a release, and not a data set of their own
_WIKIANN = re.compile(r"wiki-?ann|pan-?x", re.I)
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_BESIDE = re.compile(r"(readme|licen[cs]e|labels|stats)\b", re.I)
_SECOND = re.compile(r"\bref-[2-9]\b")  # another translation of the same sentences
_SIDE = re.compile(r"(.+\.)?([\w@]+)-([\w@]+)\.([\w@]+)")
ENGLISH = "eng"


@dataclass(frozen=True)
class File:
    """A file of one language; `split` is what its name tells, `english` the other side of a parallel corpus."""

    path: Path
    split: str | None = None
    english: Path | None = None
    many: bool = False  # one of many that are read below each other: a treebank, a shard


def data_sets(root: Path, task: str) -> list[str]:
    """The sub-folders of a task's folder that are data sets of their own: neither a language's nor a split's."""
    folder = root / task
    if "/" in task or not _is_tagged(task) or not folder.is_dir():
        return []
    found = [
        path.name for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith((".", *_BANKS))
    ]
    return [name for name in found if language_in(name) is None and name.lower() not in SPLITS]


def find(root: Path, folder: str) -> dict[str, list[File]]:
    """Tag -> its files, in the order of their names; what is left out is named in the log.

    Raises:
        DataError: two files are one language and split.
    """
    place, tagged = root / folder, _is_tagged(folder)
    apart = {place / name for name in data_sets(root, folder)}
    found: dict[str, dict[str | None, list[tuple[Told, File]]]] = {}
    strange: list[str] = []
    for path in _walk(place):
        if any(parent in apart for parent in path.parents):
            continue
        pieces = _pieces(path.relative_to(place))
        told, file = _told(path, folder, pieces)
        if file is None or not _is_data(path, tagged, told):
            continue
        if told is None:
            strange.append(path.relative_to(place).as_posix())
            continue
        tag = f"{told.language}_{told.script or script_told(told, sample(path, tagged))}"
        found.setdefault(tag, {}).setdefault(file.split, []).append((told, file))
    if strange:
        logger.warning("%s: left out, the name tells no language: %s", folder, ", ".join(strange))
    return {
        tag: [file for files in splits.values() for file in _choose(folder, tag, files)]
        for tag, splits in found.items()
    }


def _is_tagged(folder: str) -> bool:
    """Whether it holds tagged words: then its sub-folders are data sets of their own."""
    return "tokens" in columns_of(folder)


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(piece.startswith(".") for piece in path.relative_to(folder).parts):
            yield path


def _pieces(path: Path) -> list[str]:
    """The folders and the file's name without what says its format."""
    inner = unpacked_name(path.name)
    suffix = Path(inner).suffix
    known = suffix.lower() in SUFFIXES or suffix.lower() in LINES
    return [*path.parts[:-1], inner.removesuffix(suffix) if known else inner]


def _is_data(path: Path, tagged: bool, told: Told | None) -> bool:
    """Whether a file holds data at all; one without a suffix is WikiANN's, if its name tells a language and a split."""
    inner = unpacked_name(path.name)
    suffix = Path(inner).suffix.lower()
    if suffix in SUFFIXES or suffix in LINES or pair_side(inner):
        return not _BESIDE.match(path.name)
    return tagged and told is not None and not suffix and bool(marks([path.name]))


def _told(path: Path, folder: str, pieces: list[str]) -> tuple[Told | None, File | None]:
    """The language of a file and how it is to be read; no file where it belongs to another one's reading."""
    bank = _TREEBANK.match(path.name)
    if bank:
        return language_in(bank[1]), File(path, bank[2], many=True)
    if pair_side(inner := unpacked_name(path.name)) and (side := _SIDE.fullmatch(inner)):
        other = side[2] if side[4] == side[3] else side[3]
        partner = path.with_name(path.name[: side.start(4)] + other + path.name[side.end(4) :])
        told, other_told = language_in(side[4]), language_in(other)
        if told and other_told and partner.exists():
            if told.language == ENGLISH != other_told.language:
                return told, None  # read with its partner
            return told, File(path, english=partner if other_told.language == ENGLISH else None)
        return told, File(path)
    split = next(iter(sorted(marks(pieces) & {"train", "dev", "test"})), None)
    if split is None and Path(unpacked_name(path.name)).suffix in (".dev", ".devtest"):
        split = "dev" if path.suffix == ".dev" else "test"
    names = {name: tag for name, tag in WIKIPEDIA.items() if tag} if _WIKIANN.search(folder) else None
    try:
        told = find_language(pieces, names)
    except ValueError as error:
        raise DataError(f"{path}: {error}; move it into a folder of its language") from error
    return told, File(path, split, many=bool(_SHARD.search(path.name)))


def _choose(folder: str, tag: str, files: list[tuple[Told, File]]) -> list[File]:
    """The files of one language and split that are read: all of a kind, else the plainest name."""
    left = [row for row in files if not (row[0].region or _SECOND.search(row[1].path.name))] or files
    exact = [row for row in left if _pieces(Path(row[1].path.name))[0] == tag]
    if len(left) > 1 and len(exact) == 1:
        left = exact
    if len(left) > 1 and not all(file.many for _, file in left):
        names = ", ".join(file.path.name for _, file in left)
        raise DataError(f"{folder} has several files for {tag}, {names}; keep one of them there")
    kept = [file for _, file in left]
    others = [file.path.name for _, file in files if file not in kept]
    if others:
        logger.warning("%s: left out, %s is read for %s: %s", folder, kept[0].path.name, tag, ", ".join(others))
    return kept
