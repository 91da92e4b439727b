"""Names come from other people's files: printed, they are letters, not commands to the terminal."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

# Controls but tab and line feed, line and paragraph separators, what turns the direction of the text round, and halves
# of surrogate pairs, which no file can hold.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with control characters spelled out: an escape becomes `\x1b`."""
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def one_line(value: object) -> str:
    """A name, or what a library says over several lines, on one line and without control characters."""
    return printable(" ".join(str(value).split()))


class Printable:
    """A stream that writes `printable` text; everything else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it."""
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def console() -> Iterator[None]:
    """While a command runs, what it prints and what our modules log (one short line each) is printable."""
    logger, handler = logging.getLogger("langsamp"), logging.StreamHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    logger.addHandler(handler)
    stdout: Any = Printable(sys.stdout)
    try:
        with redirect_stdout(stdout):
            yield
    finally:
        logger.removeHandler(handler)
