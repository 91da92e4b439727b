"""The engine of ``langsamp prepare``: parts to the workers, token ids back in order, onto disk by one writer.

Memory stays flat whatever the size of the corpus: a window of work is under way and nothing else is held. Killed at any
point, the next run goes on after the last commit; parts that are in are not read again.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

from langsamp.core.reading import unpacked_name
from langsamp.train.blocks.index import StoreIndex
from langsamp.train.blocks.ledger import LanguageWriter
from langsamp.train.blocks.segment import Encoded
from langsamp.train.blocks.workers import CHUNK_CHARS, SMALL, EncodedPart, Team, chunks
from langsamp.train.text.corpus import Corpus, Part

logger = logging.getLogger(__name__)

_COMMIT_SECONDS = 10.0  # work lost by a kill or a power cut, at most
_BYTES_A_TOKEN = 4  # a guess, to choose how much to hold out before the text is read
_MOST_HELD_OUT = 0.1  # of the documents of a language
_PACKED = 3  # bytes of text a byte of a compressed file, about
_WINDOW = 8  # chunks under way for each worker process
_PARKING = ".parked-"  # begins the name of the folder for tokens of large parts

T = TypeVar("T")
Step = tuple[int, Callable[[], None]]  # how many chunks it waits for, about, and what is done then


class Pipeline:
    """One run over a corpus.

    Args:
        corpus: where the text comes from.
        folder: the store.
        index: the store's settings, as in store.json.
        progress: whether to show a bar.
    """

    def __init__(self, corpus: Corpus, folder: Path, index: StoreIndex, progress: bool) -> None:
        self._corpus = corpus
        self._folder = folder.absolute()
        self._index = index
        self._committed = time.monotonic()
        self._finished: list[LanguageWriter] = []
        self._parking = self._folder / f"{_PARKING}{secrets.token_hex(4)}"
        self._bar = tqdm(
            total=sum(corpus.sizes.values()) or None,
            unit="B",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else 30,  # a log file is read later
            disable=not progress,
        )
        self._left = 0  # bytes of the part at hand that the bar has not seen
        self._workers = ""
        self._plain = False

    def run(self, languages: list[str], team: Team) -> None:
        """Do the languages.

        Raises:
            ValueError: a part changed since it went in, or its text cannot be read.
            RuntimeError: a worker process died; what is done is kept.
        """
        self._languages = {language: number for number, language in enumerate(languages, 1)}
        team.tell = self._hear
        self._sweep()
        try:
            self._parking.mkdir()
            self._in_order(self._steps(languages, team), _WINDOW * team.size)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died (out of memory?); run the same command again, it goes on where it stopped."
            ) from error
        finally:
            self._bar.close()
            self._sweep()
            self._commit()

    def _sweep(self) -> None:
        """Remove parked tokens, also those of a run that was killed."""
        for folder in self._folder.glob(f"{_PARKING}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _hear(self, who: str) -> None:
        self._workers = f", {who}"

    def _in_order(self, steps: Iterator[Step], window: int) -> None:
        """Carry out the steps in order, but each only when work for ``window`` chunks is known: the workers have it."""
        waiting: deque[Step] = deque()
        under_way = 0
        for step in steps:
            waiting.append(step)
            under_way += step[0]
            while under_way > window:
                chunks, act = waiting.popleft()
                under_way -= chunks
                act()
        for _, act in waiting:
            act()

    def _steps(self, languages: list[str], team: Team) -> Iterator[Step]:
        """Hand the corpus to the workers, and yield what is to be done with what comes back, in order."""
        parts = _ahead(self._fingerprints(languages, team), _WINDOW * team.size)
        for writer, rows in groupby(parts, itemgetter(0)):
            changed = False
            for fingerprint, part in self._todo(writer, ((future.result(), part) for _, part, future in rows)):
                changed = True
                yield from self._part_steps(writer, fingerprint, part, team)
            yield 0, partial(self._end_language, writer, changed)

    def _fingerprints(self, languages: list[str], team: Team) -> Iterator[tuple[LanguageWriter, Part, Future[str]]]:
        """All parts, one that was interrupted first in its language."""
        for language in languages:
            writer = self._writer(language)
            started = writer.ledger.current.name if writer.ledger.current else None
            for part in sorted(self._corpus.parts[language], key=lambda part: self._name(part) != started):
                if self._corpus.read_in_workers and not part.member:
                    yield writer, part, team.submit(part, "fingerprint", part)
                else:
                    future = Future[str]()
                    future.set_result(self._corpus.fingerprint(part))
                    yield writer, part, future

    def _writer(self, language: str) -> LanguageWriter:
        size = sum(map(_text_size, self._corpus.parts[language]))
        wanted = self._index.heldout * self._index.block_size * _BYTES_A_TOKEN
        share = min(_MOST_HELD_OUT, wanted / size) if size else min(0.001, wanted)
        return LanguageWriter(self._folder, language, self._index.block_size, self._index.tokenizer.pad_id, share)

    def _todo(self, writer: LanguageWriter, parts: Iterable[tuple[str, Part]]) -> Iterator[tuple[str, Part]]:
        """The parts that are not in yet."""
        taken, names = dict(writer.ledger.done), set(writer.ledger.done.values())
        current = writer.ledger.current
        for fingerprint, part in parts:
            name = self._name(part)
            if current is not None and current.fingerprint != fingerprint:
                writer.take_back()
            current = None
            if fingerprint in taken:
                if taken[fingerprint] != name:
                    logger.warning("%s has the same text as %s: left out", part.name, taken[fingerprint])
                self._bar.update(part.size)
                continue
            if name in names:
                raise ValueError(
                    f"{part.name} changed since it went into {self._folder}; delete {writer.language}.* there to "
                    f"prepare {writer.language} anew, or give another --output."
                )
            taken[fingerprint] = name
            yield fingerprint, part

    def _name(self, part: Part) -> str:
        return f"{self._corpus.source}/{part.name}"

    def _part_steps(self, writer: LanguageWriter, fingerprint: str, part: Part, team: Team) -> Iterator[Step]:
        current, share = writer.ledger.current, writer.ledger.heldout_share
        skip = current.documents if current is not None and current.fingerprint == fingerprint else 0
        yield 0, partial(self._begin_part, writer, fingerprint, part)
        size = _text_size(part)
        if not (self._corpus.read_in_workers and team.takes(size)):
            for chunk in chunks(islice(self._corpus.documents(part), skip, None)):
                yield 1, partial(self._append_part, writer, team.submit(part, "chunk", chunk, share))
        elif team.parks and size > SMALL:
            future = team.submit(part, "part", part, skip, share, (self._parking, fingerprint))
            yield 1, partial(self._append_part, writer, future)
        else:
            future = team.submit(part, "part", part, skip, share)
            yield 1 + size // CHUNK_CHARS, partial(self._append_part, writer, future)
        yield 0, partial(self._end_part, writer)

    def _append_part(self, writer: LanguageWriter, future: Future[EncodedPart]) -> None:
        """Wait for a part, or a chunk of one, and write it."""
        found = future.result()
        self._corpus.report.add(found.report)
        for chunk in found.chunks:
            self._append(writer, chunk)

    def _append(self, writer: LanguageWriter, chunk: Encoded) -> None:
        if not chunk.cached and not self._plain:
            self._plain = True
            logger.info("this tokenizer takes the plain way (no word cache)")
        writer.append(chunk.tokens, chunk.heldout, chunk.totals)
        seen = min(chunk.totals.bytes, self._left) if self._bar.total else chunk.totals.bytes
        self._left -= seen
        self._bar.set_postfix_str(
            f"{writer.language}, {self._languages[writer.language]} of {len(self._languages)}{self._workers}", False
        )
        self._bar.update(seen)
        if self._due():
            self._commit(writer)

    def _due(self) -> bool:
        return time.monotonic() - self._committed > _COMMIT_SECONDS

    def _commit(self, *unfinished: LanguageWriter) -> None:
        """Make what was written count."""
        LanguageWriter.commit([*self._finished, *unfinished])
        self._finished.clear()
        self._committed = time.monotonic()

    def _begin_part(self, writer: LanguageWriter, fingerprint: str, part: Part) -> None:
        writer.begin(fingerprint, self._name(part))
        self._left = part.size

    def _end_part(self, writer: LanguageWriter) -> None:
        writer.part_done()
        self._bar.update(self._left if self._bar.total else 0)

    def _end_language(self, writer: LanguageWriter, changed: bool) -> None:
        if changed or not writer.finished:
            writer.finish()
            self._finished.append(writer)
            if self._due():
                self._commit()
        totals = writer.ledger.totals
        if totals.heldout_tokens and not totals.tokens:
            logger.warning(
                "%s: all of its %d documents are held out, none is left to train on; prepare it without --heldout",
                writer.language,
                totals.documents,
            )


def _ahead(rows: Iterator[T], count: int) -> Iterator[T]:
    """The rows, each when `count` more have been asked for."""
    waiting: deque[T] = deque()
    for row in rows:
        waiting.append(row)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _text_size(part: Part) -> int:
    """Bytes of text in a part, about."""
    packed = part.name.endswith(".parquet") or (not part.member and unpacked_name(part.name) != part.name)
    return part.size * _PACKED if packed else part.size
