"""Files as streams of bytes, packed or in archives, and what to say of bytes that are not UTF-8.

The readers of corpora and of evaluation data stand on this; nothing is ever unpacked onto the disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from langsamp.core.files import is_url
from langsamp.core.manifest import not_fetched
from langsamp.core.plain import one_line

_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")  # UTF-32's little-endian mark begins like UTF-16's
_CONTROLS = bytes([*range(9), *range(14, 32)])
CHUNK = 1 << 20  # bytes read at once

# what a damaged or truncated file raises; an OSError with a number is the disk's or the system's trouble
_STORE = (PermissionError, FileNotFoundError, ConnectionError, TimeoutError)  # an object store's say so without one
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, pa.ArrowException)


def _arrow(codec: str) -> Callable[[Any], BinaryIO]:
    # zstandard's reader takes a file that was cut off for a shorter one; Arrow's refuses it
    return lambda stream: cast(BinaryIO, pa.input_stream(stream, compression=codec))


_UNPACK: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bgz": gzip.open,
    ".xz": lzma.LZMAFile,
    ".lzma": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
    ".zst": _arrow("zstd"),
    ".zstd": _arrow("zstd"),
    ".lz4": _arrow("lz4"),
}
_SHORT = {".tgz": ".tar.gz", ".txz": ".tar.xz", ".tbz2": ".tar.bz2", ".tzst": ".tar.zst"}


def unpacked_name(name: str) -> str:
    """A file's name without what says how it is packed: ``sw.txt.xz`` -> ``sw.txt``."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in _SHORT:
        return f"{stem}.tar"
    return stem if suffix.lower() in _UNPACK else name


def is_archive(name: str) -> bool:
    """Whether a file holds files: ``.zip``, ``.tar`` and packed tar."""
    return unpacked_name(name).lower().endswith((".tar", ".zip"))


def binary(place: str | Path) -> BinaryIO:
    """A file, or what a URL of any store that fsspec knows names, as it is; it can be jumped about in.

    Raises:
        ValueError: it only stands for a file that is still to be fetched (Git LFS).
        ImportError: the package for the store is not installed; it is named.
        ConnectionError: the store's own errors, such as of missing credentials.
    """
    if not is_url(os.fspath(place)):
        if pointer := not_fetched(Path(place)):
            raise ValueError(f"{place}: {pointer.partition(': ')[2]}.")
        return open(place, "rb")
    import fsspec

    try:
        return cast(BinaryIO, fsspec.open(place, "rb").open())
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:
        raise ConnectionError(f"cannot be read ({one_line(error)})") from error


def members(place: str | Path) -> list[tuple[str, int]]:
    """The files in an archive with their sizes in bytes, in its order.

    Raises:
        ValueError: the archive is damaged or truncated.
    """
    with damage_named(place):
        if unpacked_name(os.fspath(place)).lower().endswith(".zip"):
            with binary(place) as raw, zipfile.ZipFile(raw) as archive:
                return [(entry.filename, entry.file_size) for entry in archive.infolist() if not entry.is_dir()]
        with opened(place) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            return [(entry.name, entry.size) for entry in tar if entry.isfile()]


@contextmanager
def opened(place: str | Path, member: str = "") -> Iterator[BinaryIO]:
    """A file (a path or a URL), or a member of an archive, as a stream of its unpacked bytes; read strictly forward.

    Raises:
        ValueError: the archive has no such member, or it is encrypted.
    """
    name = os.path.basename(os.fspath(place))
    if not member:
        packing = _SHORT.get(os.path.splitext(name)[1].lower(), name)
        with binary(place) as raw, _unpack(raw, packing) as stream:
            yield stream
    elif unpacked_name(name).lower().endswith(".zip"):
        with binary(place) as raw, zipfile.ZipFile(raw) as archive:
            try:
                inner = archive.open(member)
            except (KeyError, RuntimeError) as error:  # RuntimeError: it needs a password
                raise ValueError(f"{place}: {member} cannot be read ({error}); unpack it yourself.") from error
            with inner, _unpack(cast(BinaryIO, inner), member) as stream:
                yield stream
    else:
        with opened(place) as outer, tarfile.open(fileobj=outer, mode="r|") as tar:
            found = next((tar.extractfile(entry) for entry in tar if entry.name == member), None)
            if found is None:
                raise ValueError(f"{place} has no member {member}; it changed while it was read.")
            with _unpack(cast(BinaryIO, found), member) as stream:
                yield stream


@contextmanager
def _unpack(stream: BinaryIO, name: str) -> Iterator[BinaryIO]:
    unpack = _UNPACK.get(os.path.splitext(name)[1].lower())
    if unpack is None:
        yield stream
    else:
        with unpack(stream) as inner:
            yield inner


@contextmanager
def damage_named(where: str | Path) -> Iterator[None]:
    """Turn what a damaged or truncated file raises into one sentence that names it.

    Raises:
        ValueError: the content is damaged.
        OSError: the disk or the system is to blame.
    """
    try:
        yield
    except DAMAGE as error:
        if getattr(error, "errno", None):
            raise
        if isinstance(error, _STORE):
            raise type(error)(f"{where}: {one_line(error)}") from error
        raise ValueError(f"{where} is damaged or truncated ({one_line(error)}); copy it again.") from error


def without_mark(head: bytes, where: str | Path) -> bytes:
    """The first bytes of a text without a byte order mark.

    Raises:
        ValueError: it is UTF-16 or UTF-32, by its mark or by its bytes.
    """
    sample = head[:4096]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))  # half of UTF-16 in most alphabets, none in a text
    if head.startswith(_UTF_16) or (len(sample) >= 32 and controls > len(sample) / 8):
        raise ValueError(f"{where} is UTF-16 or UTF-32, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW.")
    return head.removeprefix(_BOM)


def not_utf8(where: str | Path, invalid: int, lines: int) -> ValueError:
    """The error for a text most of which is not UTF-8."""
    return ValueError(
        f"{where} is not UTF-8: {invalid} of the first {lines} lines are invalid. Convert it from the encoding it is "
        "in: iconv -f windows-1251 (or whatever it is) -t UTF-8 OLD > NEW."
    )


def read_text(path: Path) -> str:
    """The whole of a small text file, unpacked.

    Raises:
        ValueError: it is damaged or not UTF-8.
    """
    with damage_named(path), opened(path) as stream:
        data = without_mark(stream.read(), path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {number} is not UTF-8; convert it: iconv -f ENCODING -t UTF-8.") from error
