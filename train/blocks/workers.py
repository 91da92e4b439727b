"""Where text becomes token ids: worker processes, each with the tokenizer and the corpus, or this process alone.

Two kinds of work: a part is read where it is encoded (:meth:`Encoder.part`), or this process reads it and sends chunks
(:meth:`Encoder.chunk`), so that one file keeps all processes busy. Both are pure functions of their arguments.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from langsamp.core.files import temporary_beside
from langsamp.train.blocks.ledger import NOTHING, Totals
from langsamp.train.blocks.segment import Encoded, Worker
from langsamp.train.blocks.store import TOKEN, data_file
from langsamp.train.text.corpus import Corpus, Part, Report

CHUNK_CHARS = 1 << 19  # text encoded at once
SMALL = 8 * CHUNK_CHARS  # bytes of text of a part whose tokens are held in memory


@dataclass(frozen=True)
class EncodedPart:
    """What comes of a part: its chunks in order, and what reading it met."""

    chunks: list[Encoded]
    report: Report


@dataclass(frozen=True)
class ParkedPart:
    """What comes of a part whose tokens lie in a folder, in files as of a language called `name`."""

    name: str
    totals: Totals
    cached: bool
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


def totals(found: Encoded) -> Totals:
    """The sums over a chunk."""
    size = TOKEN.itemsize
    return Totals(found.documents, found.bytes, len(found.tokens) // size, len(found.heldout) // size, found.unknown)


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

    def chunk(self, documents: list[str], heldout_share: float) -> Encoded:
        """Encode a chunk."""
        return self._worker(documents, heldout_share)

    def part(
        self, part: Part, skip: int, heldout_share: float, parking: tuple[Path, str] | None = None
    ) -> EncodedPart | ParkedPart:
        """Read a part from document number `skip` on, and encode it.

        Args:
            part: which. skip: documents to leave out. heldout_share: see :meth:`chunk`.
            parking: folder and name for the tokens of a large part, which then are nowhere in memory as a whole.
        """
        before, self._corpus.report = self._corpus.report, Report()
        try:
            documents = islice(self._corpus.documents(part), skip, None)
            found = (self._worker(chunk, heldout_share) for chunk in chunks(documents))
            if parking is None:
                return EncodedPart(list(found), self._corpus.report)
            sums, cached = _park(found, *parking)
            return ParkedPart(parking[1], sums, cached, self._corpus.report)
        finally:
            self._corpus.report = before


def _park(found: Iterable[Encoded], folder: Path, name: str) -> tuple[Totals, bool]:
    """Write tokens to files, and return the sums over them."""
    sums, cached = NOTHING, True
    with ExitStack() as stack:
        paths = {kind: data_file(folder, name, kind) for kind in ("", "heldout_")}
        hidden = {kind: stack.enter_context(temporary_beside(path)) for kind, path in paths.items()}
        files = {kind: stack.enter_context(open(path, "xb")) for kind, path in hidden.items()}
        for chunk in found:
            files[""].write(chunk.tokens)
            files["heldout_"].write(chunk.heldout)
            sums, cached = sums.plus(totals(chunk)), cached and chunk.cached
        for kind, file in files.items():
            file.close()
            os.replace(hidden[kind], paths[kind])
    return sums, cached


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
        forks = sys.platform == "linux"  # elsewhere forking is unsafe or impossible, and each process loads its own
        if num_proc == 1 or forks:
            load(corpus, *worker)
            self._stack.callback(forget)
        if num_proc > 1:
            context = multiprocessing.get_context("fork" if forks else "spawn")
            arguments = () if forks else (corpus, *worker)
            self._pool = ProcessPoolExecutor(num_proc, context, start, arguments)
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
            return self._pool.submit(_call, method, *arguments)
        done: Future[Any] = Future()
        done.set_result(_call(method, *arguments))
        return done


_loaded: Encoder | None = None


def load(corpus: Corpus, tokenizer: Any, cached: bool, unknown: int | None) -> None:
    """Make this process ready. Done before forking, the children share its 300 MB (XLM-R's vocabulary)."""
    global _loaded
    _loaded = Encoder(corpus, tokenizer, cached, unknown)


def forget() -> None:
    """Free what :func:`load` made."""
    global _loaded
    _loaded = None


def start(*arguments: Any) -> None:
    """Set a worker process up; it ends itself when its parent is gone, even by SIGKILL.

    Args:
        arguments: those of :func:`load`, if this process was not forked from one that has done it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the work in order
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process: the processes are the parallelism
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if arguments:
        load(*arguments)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _call(method: str, *arguments: Any) -> Any:
    if _loaded is None:
        raise RuntimeError("workers.load was not called in this process.")
    return getattr(_loaded, method)(*arguments)
