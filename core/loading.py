"""What a command loads before it works: modules, a tokenizer."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def loading() -> Iterator[None]:
    """Without collections of garbage, and with an interrupt (Ctrl-C) put off to the end; the second one comes through.

    Collections look again and again at half a million new objects, all of which stay: a quarter of the time that torch,
    transformers or a tokenizer of 250,000 pieces needs. An interrupt within an import may be lost, or come out of it as
    another error.
    """
    collects, interrupts = gc.isenabled(), list[tuple[Any, ...]]()
    usual = signal.getsignal(signal.SIGINT)
    waits = callable(usual) and threading.current_thread() is threading.main_thread()

    def put_off(*given: Any) -> None:
        interrupts.append(given)
        if len(interrupts) > 1 and callable(usual):
            usual(*given)

    gc.disable()
    if waits:
        signal.signal(signal.SIGINT, put_off)
    try:
        yield
    finally:
        if collects:
            gc.enable()
        if waits:
            signal.signal(signal.SIGINT, usual)
        if len(interrupts) == 1 and callable(usual):
            usual(*interrupts[0])
