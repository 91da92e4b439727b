"""Where text becomes token ids: worker processes, each with the tokenizer and the corpus, or this process alone.

Two kinds of work: a part is read where it is encoded (:meth:`Encoder.part`), or this process reads it and sends chunks
(:meth:`Encoder.chunk`), so that one file keeps all processes busy. Both are pure functions of their arguments.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from langsamp.core.compute import crew
from langsamp.core.files import temporary_beside
from langsamp.train.blocks.segment import NOTHING, Encoded, Worker
from langsamp.train.blocks.store import data_file
from langsamp.train.text.corpus import Corpus, Part, Report

CHUNK_CHARS = 1 << 19  # text encoded at once
SMALL = 8 * CHUNK_CHARS  # bytes of text of a part whose tokens are held in memory


@dataclass(frozen=True)
class EncodedPart:
    """What comes of a part: its chunks in order, and what reading it met."""

    chunks: list[Encoded]
    report: Report


def chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    """Lists of documents of about half a million characters; a longer document is a chunk of its own."""
    chunk: list[str] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if size >= CHUNK_CHARS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class Encoder:
    """A tokenizer and a corpus to read from.

    Args:
        corpus: where parts are read from.
        worker: the arguments of :class:`langsamp.train.blocks.segment.Worker`.
    """

    def __init__(self, corpus: Corpus, *worker: Any) -> None:
        self._worker, self._corpus = Worker(*worker), corpus

    def fingerprint(self, part: Part) -> str:
        """See :meth:`Corpus.fingerprint`."""
        return self._corpus.fingerprint(part)

    def chunk(self, documents: list[str], heldout_share: float) -> EncodedPart:
        """Encode a chunk that has been read elsewhere."""
        return EncodedPart([self._worker(documents, heldout_share)], Report())

    def part(self, part: Part, skip: int, heldout_share: float, parking: tuple[Path, str] | None = None) -> EncodedPart:
        """Read a part and encode it.

        Args:
            part: which.
            skip: documents to leave out at its start.
            heldout_share: of the documents.
            parking: folder and name for the tokens of a large part, which then are nowhere in memory as a whole.
        """
        before, self._corpus.report = self._corpus.report, Report()
        try:
            documents = islice(self._corpus.documents(part), skip, None)
            found = (self._worker(chunk, heldout_share) for chunk in chunks(documents))
            return EncodedPart(list(found) if parking is None else [_park(found, *parking)], self._corpus.report)
        finally:
            self._corpus.report = before


def _park(found: Iterable[Encoded], folder: Path, name: str) -> Encoded:
    """The chunks as one whose tokens lie in files, as of a language called `name`."""
    sums, cached = NOTHING, True
    paths = [data_file(folder, name, kind) for kind in ("", "heldout_")]
    with ExitStack() as stack:
        hidden = [stack.enter_context(temporary_beside(path)) for path in paths]
        files = [stack.enter_context(open(path, "xb")) for path in hidden]
        for chunk in found:
            for file, tokens in zip(files, (chunk.tokens, chunk.heldout)):
                file.write(tokens)  # type: ignore[arg-type]  # bytes, from our own worker
            sums, cached = sums.plus(chunk.totals), cached and chunk.cached
        for file, path, target in zip(files, hidden, paths):
            file.close()
            os.replace(path, target)
    return Encoded(paths[0], paths[1], sums, cached)


class Team(Protocol):
    """Who encodes: the processes of a :class:`Pool`, or of a cluster (:mod:`langsamp.train.blocks.cluster`)."""

    size: int  # how many
    parks: bool  # whether tokens of large parts are passed on in files
    tell: Callable[[str], None]  # hears how many work

    def takes(self, size: int) -> bool:
        """Whether a part with so many bytes of text is read where it is encoded."""
        ...

    def submit(self, part: Part, method: str, *arguments: Any) -> Future[Any]:
        """A method of an :class:`Encoder`, somewhere; the part is for messages."""
        ...


class Pool:
    """A few processes, or none (`num_proc` 1): then the work is done when it is submitted.

    Args:
        corpus: where parts are read from.
        worker: the arguments of :class:`langsamp.train.blocks.segment.Worker`.
        num_proc: how many processes.
    """

    parks = False

    def __init__(self, corpus: Corpus, worker: tuple[Any, bool, int | None], num_proc: int) -> None:
        self.size = num_proc
        self.tell: Callable[[str], None] = lambda text: None
        self._stack = ExitStack()
        self._pool: ProcessPoolExecutor | None = None
        self._watched = False
        forks = sys.platform == "linux"  # elsewhere forking is unsafe or impossible, and each process loads its own
        make = partial(Encoder, corpus, *worker)
        if num_proc == 1 or forks:  # the children share its 300 MB (XLM-R's vocabulary)
            crew.hold(make)
            self._stack.callback(crew.hold, lambda: None)
        if num_proc > 1:
            context = multiprocessing.get_context("fork" if forks else "spawn")
            self._pool = ProcessPoolExecutor(num_proc, context, start, () if forks else (make,))
            self._stack.callback(self._pool.shutdown, wait=True, cancel_futures=True)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def takes(self, size: int) -> bool:
        """Small ones."""
        return size <= SMALL

    def submit(self, part: Part, method: str, *arguments: Any) -> Future[Any]:
        """See :class:`Team`."""
        if self._pool is not None:
            future = self._pool.submit(crew.call, method, *arguments)
            if not self._watched:
                self._stack.enter_context(crew.watched(self._pool))
                self._watched = True
            return future
        done: Future[Any] = Future()
        done.set_result(crew.call(method, *arguments))
        return done


def start(*make: Callable[[], Any]) -> None:
    """Set a worker process up; `make` makes its encoder, unless it was forked from one that has it."""
    crew.follow()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process: the processes are the parallelism
    for function in make:
        crew.hold(function)
