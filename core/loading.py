"""What a command loads before it works: modules, a tokenizer."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Without collections of garbage, which look again and again at half a million new objects, all of which stay.

    They take a quarter of the time that torch, transformers or a tokenizer of 250,000 pieces needs.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
