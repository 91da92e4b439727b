"""What a store knows about one language while it is being made: enough to go on after a kill at any point.

The data file of a language is a plain token stream that only grows. The ledger (``deu_Latn.json``) says how much of
it counts; whatever lies beyond was written by a run that died before saying so and is cut off.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from langsamp.core.files import atomic_writes, to_disk
from langsamp.core.typed import from_json
from langsamp.safe_files import read_json
from langsamp.train.blocks.index import LanguageEntry
from langsamp.train.blocks.segment import NOTHING, Totals
from langsamp.train.blocks.store import TOKEN, data_file, file_sha256


@dataclass
class Ledger:
    """The state of one language.

    Attributes:
        heldout_share: the share of documents set aside, fixed when the language is first met.
        totals: what counts of the data files.
        done: parts that are in, fingerprint -> name.
        current: the part being read: its fingerprint, its name, how many documents of it are in, and the totals
            from before it (to take it back out if it changes under way).
        sha256, heldout_sha256: of the padded data files; empty while the language is unfinished.
    """

    heldout_share: float
    totals: Totals
    done: dict[str, str]
    current: Current | None
    sha256: str
    heldout_sha256: str

    @classmethod
    def load(cls, path: Path) -> Ledger | None:
        """Read a ledger; None if there is none.

        Raises:
            ValueError: it is not JSON, or an entry is missing or of the wrong kind; it is named.
        """
        if not path.exists():
            return None
        try:
            return from_json(cls, read_json(path), path)
        except ValueError as error:
            reason = str(error).removesuffix("; write it again").rstrip(".")
            raise ValueError(f"{reason}; delete {path.with_suffix('')}.* and run langsamp prepare again.") from None

    def entry(self, block_size: int) -> LanguageEntry:
        """What store.json says about the language."""
        return LanguageEntry(
            **asdict(self.totals),
            blocks=-(-self.totals.tokens // block_size),
            heldout_blocks=-(-self.totals.heldout_tokens // block_size),
            sha256=self.sha256,
            heldout_sha256=self.heldout_sha256,
            parts=sorted(self.done.values()),
        )


@dataclass(frozen=True)
class Current:
    """A part that is partly in."""

    fingerprint: str
    name: str
    documents: int
    before: Totals


class LanguageWriter:
    """Appends to the data files of one language and keeps its ledger."""

    def __init__(self, folder: Path, language: str, block_size: int, pad_id: int, heldout_share: float) -> None:
        self.language = language
        self._folder = folder
        self._block_size = block_size
        self._pad_id = pad_id
        self._files: dict[str, BinaryIO] = {}
        self.ledger = Ledger.load(self._path) or Ledger(heldout_share, NOTHING, {}, None, "", "")

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.language}.json"

    @property
    def _data(self) -> list[Path]:
        return [data_file(self._folder, self.language, kind) for kind in ("", "heldout_")]

    def begin(self, fingerprint: str, name: str) -> None:
        """Begin a part, or go on with it."""
        if self.ledger.current is None:
            self.ledger.current = Current(fingerprint, name, 0, self.ledger.totals)

    def take_back(self) -> None:
        """Remove what is in of a part that was never finished and will not be gone on with."""
        if self.ledger.current is not None:
            self.ledger.totals = self.ledger.current.before
            self.ledger.current = None

    @property
    def finished(self) -> bool:
        """Whether the files are whole: filled up to full blocks and summed up."""
        sizes = (("", self.ledger.totals.tokens), ("heldout_", self.ledger.totals.heldout_tokens))
        return bool(self.ledger.sha256) and all(
            _size(data_file(self._folder, self.language, kind)) == -(-count // self._block_size) * self._block_size * 4
            for kind, count in sizes
        )

    def append(self, tokens: bytes | Path, heldout: bytes | Path, totals: Totals) -> None:
        """Write tokens, or move those in a file; they count from the next :meth:`commit` on."""
        self.ledger.sha256 = self.ledger.heldout_sha256 = ""
        for kind, data in (("", tokens), ("heldout_", heldout)):
            if isinstance(data, Path):
                with open(data, "rb") as source:
                    shutil.copyfileobj(source, self._open(kind), 1 << 24)
                data.unlink()
            elif data:
                self._open(kind).write(data)
        if self.ledger.current is not None:
            read = self.ledger.current.documents + totals.documents
            self.ledger.current = replace(self.ledger.current, documents=read)
        self.ledger.totals = self.ledger.totals.plus(totals)

    def _open(self, kind: str) -> BinaryIO:
        """The data file, cut to what counts and positioned at its end.

        Raises:
            RuntimeError: the file is shorter than the ledger says (a disk that lost data in a crash).
        """
        file = self._files.get(kind)
        if file is None:
            path = data_file(self._folder, self.language, kind)
            counted = (self.ledger.totals.heldout_tokens if kind else self.ledger.totals.tokens) * TOKEN.itemsize
            if _size(path) < counted:
                raise RuntimeError(
                    f"{path} has lost data; delete {self._folder / self.language}.* and run langsamp prepare again."
                )
            file = self._files[kind] = open(path, "ab")  # noqa: SIM115 (closed by finish())
            file.truncate(counted)
        return file

    @staticmethod
    def commit(writers: Sequence[LanguageWriter]) -> None:
        """Make everything appended so far count: first the data reach the disk, then the ledgers that say so."""
        for writer in writers:
            for file in writer._files.values():
                file.flush()
        to_disk(file for writer in writers for file in writer._data if file.exists())
        atomic_writes({writer._path: json.dumps(asdict(writer.ledger), indent=1) + "\n" for writer in writers})

    def part_done(self) -> None:
        """Note that the current part is in."""
        current = self.ledger.current
        if current is not None:
            self.ledger.done[current.fingerprint] = current.name
            self.ledger.current = None

    def finish(self) -> None:
        """Fill up the last blocks, sum up the files and close them; this counts from the next :meth:`commit` on."""
        sums = []
        for kind, count in (("", self.ledger.totals.tokens), ("heldout_", self.ledger.totals.heldout_tokens)):
            missing = -count % self._block_size
            file = self._open(kind)
            file.write(np.full(missing, self._pad_id, TOKEN).tobytes())
            file.close()
            path = data_file(self._folder, self.language, kind)
            sums.append(file_sha256(path))
            if not count:
                path.unlink()
        self._files.clear()
        self.ledger.sha256, self.ledger.heldout_sha256 = sums


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
