"""The engine of ``langsamp prepare``: documents in chunks to worker processes, token ids back in order, onto disk.

Memory stays flat whatever the size of the corpus: a window of a few chunks is under way and nothing else is held.
Killed at any point, the next run goes on after the last commit; parts that are in are not read again.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from langsamp.train.blocks.ledger import LanguageWriter, Totals
from langsamp.train.blocks.segment import Encoded, Worker, encode_chunk, forget_worker, load_worker, start_worker
from langsamp.train.blocks.store import TOKEN
from langsamp.train.text.corpus import Corpus, Part

log = logging.getLogger(__name__)

_CHUNK_CHARS = 1 << 19  # text sent to a worker at once
_COMMIT_SECONDS = 10.0  # work lost by a kill, at most
_BYTES_A_TOKEN = 4  # a guess, to choose how much to hold out before the text is read
_MOST_HELD_OUT = 0.1  # of the documents of a language
_COMPRESSED = (".parquet", ".gz", ".zst")
_PACKED = 3  # bytes of text a byte of a compressed file, about

Encode = Callable[[list[str], float], "Future[Encoded]"]


class Pipeline:
    """One run over a corpus.

    Args:
        corpus: where the text comes from.
        folder: the store.
        index: the store's settings, as in store.json.
        progress: whether to show bars.
    """

    def __init__(self, corpus: Corpus, folder: Path, index: dict[str, Any], progress: bool) -> None:
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

    def run(self, languages: list[str], worker: tuple[str, bool, int | None], num_proc: int) -> None:
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
        with ExitStack() as stack:
            stack.callback(self._all.close)
            stack.callback(self._one.close)
            encode = _in_this_process(worker) if num_proc == 1 else _in_a_pool(worker, num_proc, stack)
            try:
                self._in_order(self._steps(languages, encode), 2 * num_proc + 2)
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "a worker process died (out of memory?); run the same command again, it goes on where it stopped."
                ) from error

    def _in_order(self, steps: Iterator[Callable[[], None]], window: int) -> None:
        """Carry out the steps in order, but each only when ``window`` more are known: the workers have them then."""
        waiting: deque[Callable[[], None]] = deque()
        for step in steps:
            waiting.append(step)
            if len(waiting) > window:
                waiting.popleft()()
        while waiting:
            waiting.popleft()()

    def _steps(self, languages: list[str], encode: Encode) -> Iterator[Callable[[], None]]:
        """Read the corpus, hand chunks to the workers, and yield what is to be done with them, in order."""
        for language in languages:
            writer = self._writer(language)
            todo = self._todo(writer, language)
            yield partial(self._begin_language, writer)
            for fingerprint, part in todo:
                yield from self._part_steps(writer, fingerprint, part, encode)
            yield partial(self._end_language, writer, bool(todo))

    def _writer(self, language: str) -> LanguageWriter:
        size = sum(
            part.size * (_PACKED if part.name.endswith(_COMPRESSED) else 1) for part in self._corpus.parts[language]
        )
        wanted = self._index["heldout"] * self._index["block_size"] * _BYTES_A_TOKEN
        share = min(_MOST_HELD_OUT, wanted / size) if size else min(0.001, wanted)
        return LanguageWriter(
            self._folder, language, self._index["block_size"], self._index["tokenizer"]["pad_id"], share
        )

    def _todo(self, writer: LanguageWriter, language: str) -> list[tuple[str, Part]]:
        """The parts that are not in yet, one that was interrupted first."""
        ledger, todo = writer.ledger, []
        taken = dict(ledger.done)
        for part in self._corpus.parts[language]:
            fingerprint = self._corpus.fingerprint(part)
            if fingerprint in taken:
                if taken[fingerprint] != self._name(part):
                    log.warning("%s has the same text as %s: left out", part.name, taken[fingerprint])
                continue
            if self._name(part) in ledger.done.values():
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

    def _part_steps(
        self, writer: LanguageWriter, fingerprint: str, part: Part, encode: Encode
    ) -> Iterator[Callable[[], None]]:
        current = writer.ledger.current
        skip = current.documents if current is not None and current.fingerprint == fingerprint else 0
        yield partial(writer.begin, fingerprint, self._name(part))
        documents = islice(self._corpus.documents(part), skip, None)
        for chunk in _chunks(documents):
            encoded = encode(chunk, writer.ledger.heldout_share)
            yield partial(self._append, writer, encoded)
        yield writer.part_done

    def _append(self, writer: LanguageWriter, future: Future[Encoded]) -> None:
        """Wait for a chunk and write it."""
        found = future.result()
        if not found.cached and not self._plain:
            self._plain = True
            log.info("this tokenizer takes the plain way (no word cache)")
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
            log.warning(
                "%s: all of its %d documents are held out, none is left to train on; prepare it without --heldout",
                writer.language,
                totals.documents,
            )
        self._all.update()


def _chunks(documents: Iterator[str]) -> Iterator[list[str]]:
    """Lists of documents of about half a million characters; a longer document is a chunk of its own."""
    chunk: list[str] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if size >= _CHUNK_CHARS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _in_a_pool(worker: tuple[str, bool, int | None], num_proc: int, stack: ExitStack) -> Encode:
    """Start the worker processes; they end with the stack."""
    forks = sys.platform == "linux"  # elsewhere forking is unsafe or impossible, and each process loads its own
    if forks:
        load_worker(*worker)
        stack.callback(forget_worker)
    context = multiprocessing.get_context("fork" if forks else "spawn")
    pool = ProcessPoolExecutor(num_proc, context, start_worker, () if forks else worker)
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    return lambda documents, share: pool.submit(encode_chunk, documents, share)


def _in_this_process(arguments: tuple[str, bool, int | None]) -> Encode:
    worker = Worker(*arguments)

    def encode(documents: list[str], share: float) -> Future[Encoded]:
        done: Future[Encoded] = Future()
        done.set_result(worker(documents, share))
        return done

    return encode
