"""Where text becomes token ids: worker processes, each with the tokenizer and the corpus, or this process alone.

Two kinds of work: a small part is read where it is encoded (:func:`encode_part`); of a large one the reader sends
chunks (:func:`encode_chunk`), so that one file keeps all processes busy. Both are pure functions of their arguments.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

from langsamp.train.blocks.segment import Encoded, Worker
from langsamp.train.text.corpus import Corpus, Part, Report

CHUNK_CHARS = 1 << 19  # text encoded at once


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


class Pool:
    """A few processes, or none (`num_proc` 1): then the work is done when it is submitted.

    Args:
        corpus: where parts are read from.
        worker: the arguments of :class:`langsamp.train.blocks.segment.Worker`.
        num_proc: how many processes.
    """

    def __init__(self, corpus: Corpus, worker: tuple[Any, bool, int | None], num_proc: int) -> None:
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

    def chunk(self, documents: list[str], heldout_share: float) -> Future[Encoded]:
        """:func:`encode_chunk`, somewhere."""
        return self._submit(encode_chunk, documents, heldout_share)

    def part(self, part: Part, skip: int, heldout_share: float) -> Future[EncodedPart]:
        """:func:`encode_part`, somewhere."""
        return self._submit(encode_part, part, skip, heldout_share)

    def _submit(self, function: Any, *arguments: Any) -> Future[Any]:
        if self._pool is not None:
            return self._pool.submit(function, *arguments)
        done: Future[Any] = Future()
        done.set_result(function(*arguments))
        return done


_loaded: tuple[Worker, Corpus] | None = None


def load(corpus: Corpus, tokenizer: Any, cached: bool, unknown: int | None) -> None:
    """Make this process ready. Done before forking, the children share its 300 MB (XLM-R's vocabulary)."""
    global _loaded
    _loaded = Worker(tokenizer, cached, unknown), corpus


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


def _ready() -> tuple[Worker, Corpus]:
    if _loaded is None:
        raise RuntimeError("workers.load was not called in this process.")
    return _loaded


def encode_chunk(documents: list[str], heldout_share: float) -> Encoded:
    """Encode a chunk with the process's tokenizer."""
    return _ready()[0](documents, heldout_share)


def encode_part(part: Part, skip: int, heldout_share: float) -> EncodedPart:
    """Read a part with the process's corpus, from document number `skip` on, and encode it."""
    worker, corpus = _ready()
    before, corpus.report = corpus.report, Report()
    try:
        documents = islice(corpus.documents(part), skip, None)
        found = [worker(chunk, heldout_share) for chunk in chunks(documents)]
        return EncodedPart(found, corpus.report)
    finally:
        corpus.report = before
