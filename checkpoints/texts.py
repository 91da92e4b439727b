"""Plain texts for export and checks: one file, a corpus folder with one file a language, or a Hub data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_READERS = {".txt": "text", ".jsonl": "json", ".parquet": "parquet"}
_PACKED = (".gz", ".zst")


def read_texts(corpus: str, language: str) -> Iterator[str]:
    """The texts of one language, streamed.

    Args:
        corpus: a file ``*.{txt,jsonl,parquet}[.gz|.zst]`` (a text a line, or the column ``text``), a folder with
            ``deu_Latn.*``, or a Hub data set with one config a language.
        language: ``deu_Latn``.

    Raises:
        FileNotFoundError: no such file, or the folder has none for the language. ValueError: a file of another kind.
    """
    from datasets import load_dataset

    path = Path(corpus).expanduser()
    if not path.exists():
        if corpus.count("/") != 1 or path.is_absolute():
            raise FileNotFoundError(f"{corpus!r} is neither a file, a folder nor a Hub data set.")
        rows = load_dataset(corpus, language, split="train", streaming=True)
    else:
        file = _file_of(path, language) if path.is_dir() else path
        rows = load_dataset(_reader(file), data_files=str(file), split="train", streaming=True)
    return (row["text"] for row in rows if row["text"])


def _file_of(folder: Path, language: str) -> Path:
    found = sorted(path for path in folder.iterdir() if path.name.split(".")[0] == language)
    if not found:
        raise FileNotFoundError(f"{folder} has no file of {language}; it would be named {language}.txt, for example.")
    return found[0]


def _reader(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in _PACKED]
    if not suffixes or suffixes[-1] not in _READERS:
        raise ValueError(f"{path} is not one of {', '.join(_READERS)} (with {' or '.join(_PACKED)} or without).")
    return _READERS[suffixes[-1]]
