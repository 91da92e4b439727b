"""The engine of ``langsamp prepare``: parts to the workers, token ids back in order, onto disk by one writer.

Memory stays flat whatever the size of the corpus: a window of work is under way and nothing else is held. Killed at any
point, the next run goes on after the last commit; parts that are in are not read again.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from langsamp.core.reading import unpacked_name
from langsamp.train.blocks.index import StoreIndex
from langsamp.train.blocks.ledger import LanguageWriter, Totals
from langsamp.train.blocks.segment import Encoded
from langsamp.train.blocks.store import TOKEN
from langsamp.train.blocks.workers import CHUNK_CHARS, EncodedPart, Pool, chunks
from langsamp.train.text.corpus import Corpus, Part

logger = logging.getLogger(__name__)

_COMMIT_SECONDS = 10.0  # work lost by a kill, at most
_BYTES_A_TOKEN = 4  # a guess, to choose how much to hold out before the text is read
_MOST_HELD_OUT = 0.1  # of the documents of a language
_PACKED = 3  # bytes of text a byte of a compressed file, about
_SMALL = 8 * CHUNK_CHARS  # bytes of text of a part that is read where it is encoded
_WINDOW = 8  # chunks under way for each worker process

Step = tuple[int, Callable[[], None]]  # how many chunks it waits for, about, and what is done then


class Pipeline:
    """One run over a corpus.

    Args:
        corpus: where the text comes from.
        folder: the store.
        index: the store's settings, as in store.json.
        progress: whether to show bars.
    """

    def __init__(self, corpus: Corpus, folder: Path, index: StoreIndex, progress: bool) -> None:
        self._corpus = corpus
        self._folder = folder
        self._index = index
        self._source = Path(corpus.name).name if Path(corpus.name).is_dir() else corpus.name
        self._committed = time.monotonic()
        self._all = tqdm(desc="languages", unit="", disable=not progress)
        # the bar of the language at hand is for people who watch; a log file gets the other one only
        watched = progress and sys.stderr.isatty()
        self._one = tqdm(unit="B", unit_scale=True, leave=False, disable=not watched)
        self._plain = False

    def run(self, languages: list[str], worker: tuple[Any, bool, int | None], num_proc: int) -> None:
        """Do the languages, with that many worker processes (1: in this process).

        Args:
            languages: which.
            worker: the arguments of :class:`langsamp.train.blocks.segment.Worker`.
            num_proc: worker processes.

        Raises:
            ValueError: a part changed since it went in, or its text cannot be read.
            RuntimeError: a worker process died; what is done is kept.
        """
        self._all.reset(len(languages))
        try:
            with Pool(self._corpus, worker, num_proc) as pool:
                self._in_order(self._steps(languages, pool), _WINDOW * num_proc)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died (out of memory?); run the same command again, it goes on where it stopped."
            ) from error
        finally:
            self._all.close()
            self._one.close()

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

    def _steps(self, languages: list[str], pool: Pool) -> Iterator[Step]:
        """Hand the corpus to the workers, and yield what is to be done with what comes back, in order."""
        for language in languages:
            writer = self._writer(language)
            todo = self._todo(writer, language)
            yield 0, partial(self._begin_language, writer)
            for fingerprint, part in todo:
                yield from self._part_steps(writer, fingerprint, part, pool)
            yield 0, partial(self._end_language, writer, bool(todo))

    def _writer(self, language: str) -> LanguageWriter:
        size = sum(map(_text_size, self._corpus.parts[language]))
        wanted = self._index.heldout * self._index.block_size * _BYTES_A_TOKEN
        share = min(_MOST_HELD_OUT, wanted / size) if size else min(0.001, wanted)
        return LanguageWriter(self._folder, language, self._index.block_size, self._index.tokenizer.pad_id, share)

    def _todo(self, writer: LanguageWriter, language: str) -> list[tuple[str, Part]]:
        """The parts that are not in yet, one that was interrupted first."""
        ledger, todo = writer.ledger, []
        taken, names = dict(ledger.done), set(ledger.done.values())
        for part in self._corpus.parts[language]:
            fingerprint = self._corpus.fingerprint(part)
            if fingerprint in taken:
                if taken[fingerprint] != self._name(part):
                    logger.warning("%s has the same text as %s: left out", part.name, taken[fingerprint])
                continue
            if self._name(part) in names:
                raise ValueError(
                    f"{part.name} changed since it went into {self._folder}; delete {language}.* there to prepare "
                    f"{language} anew, or give another --output."
                )
            taken[fingerprint] = self._name(part)
            todo.append((fingerprint, part))
        if ledger.current is not None:
            started = ledger.current.fingerprint
            todo.sort(key=lambda row: row[0] != started)  # stable: the others keep their order
            if not todo or todo[0][0] != started:
                writer.take_back()
        return todo

    def _name(self, part: Part) -> str:
        return f"{self._source}/{part.name}"

    def _part_steps(self, writer: LanguageWriter, fingerprint: str, part: Part, pool: Pool) -> Iterator[Step]:
        current, share = writer.ledger.current, writer.ledger.heldout_share
        skip = current.documents if current is not None and current.fingerprint == fingerprint else 0
        yield 0, partial(writer.begin, fingerprint, self._name(part))
        size = _text_size(part)
        if self._corpus.read_in_workers and size <= _SMALL:
            yield 1 + size // CHUNK_CHARS, partial(self._append_part, writer, pool.part(part, skip, share))
        else:
            for chunk in chunks(islice(self._corpus.documents(part), skip, None)):
                yield 1, partial(self._append_chunk, writer, pool.chunk(chunk, share))
        yield 0, writer.part_done

    def _append_part(self, writer: LanguageWriter, future: Future[EncodedPart]) -> None:
        """Wait for a part and write it."""
        found = future.result()
        self._corpus.report.add(found.report)
        for chunk in found.chunks:
            self._append(writer, chunk)

    def _append_chunk(self, writer: LanguageWriter, future: Future[Encoded]) -> None:
        """Wait for a chunk and write it."""
        self._append(writer, future.result())

    def _append(self, writer: LanguageWriter, found: Encoded) -> None:
        if not found.cached and not self._plain:
            self._plain = True
            logger.info("this tokenizer takes the plain way (no word cache)")
        size = TOKEN.itemsize
        sums = Totals(
            found.documents, found.bytes, len(found.tokens) // size, len(found.heldout) // size, found.unknown
        )
        writer.append(found.tokens, found.heldout, sums)
        self._one.update(found.bytes)
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            writer.commit()
            self._committed = time.monotonic()

    def _begin_language(self, writer: LanguageWriter) -> None:
        parts = self._corpus.parts[writer.language]
        plain = all(part.name.endswith(".txt") for part in parts)
        self._one.reset(sum(part.size for part in parts) if plain else None)
        self._one.set_description(writer.language, refresh=False)

    def _end_language(self, writer: LanguageWriter, changed: bool) -> None:
        if changed or not writer.finished:
            writer.finish()
        totals = writer.ledger.totals
        if totals.heldout_tokens and not totals.tokens:
            logger.warning(
                "%s: all of its %d documents are held out, none is left to train on; prepare it without --heldout",
                writer.language,
                totals.documents,
            )
        self._all.update()


def _text_size(part: Part) -> int:
    """Bytes of text in a part, about."""
    packed = part.name.endswith(".parquet") or (not part.member and unpacked_name(part.name) != part.name)
    return part.size * _PACKED if packed else part.size
