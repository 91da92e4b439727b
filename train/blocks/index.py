"""What ``store.json`` says: settings, tokenizer, and each language's counts, sums and parts; read and written here.

It is rewritten whole at the start and the end of every ``langsamp prepare``; `complete` tells a finished store.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from langsamp.core.files import atomic_write
from langsamp.core.typed import from_json
from langsamp.language_codes import LANGUAGE_PATTERN, SCRIPT_PATTERN
from langsamp.safe_files import read_json

SCHEMA = 1
INDEX = "store.json"


@dataclass(frozen=True, kw_only=True)
class TokenizerFacts:
    """What a store remembers of its tokenizer; `sha256` is of the pieces and their ids, in any library version."""

    name: str
    sha256: str
    vocab_size: int
    pad_id: int
    unk_id: int | None


@dataclass(frozen=True, kw_only=True)
class LanguageEntry:
    """One language of a store.

    Attributes:
        documents, bytes: of its text, held-out documents included; bytes of UTF-8.
        tokens, heldout_tokens: without padding.
        unknown: unknown tokens among those to train on.
        blocks, heldout_blocks: of the store's block size, the last one padded.
        sha256, heldout_sha256: of the files of blocks; of nothing where there are none.
        parts: which parts of which corpora went in.
    """

    documents: int
    bytes: int
    tokens: int
    heldout_tokens: int
    unknown: int
    blocks: int
    heldout_blocks: int
    sha256: str
    heldout_sha256: str
    parts: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StoreIndex:
    """The content of ``store.json``.

    Attributes:
        schema: the format, `SCHEMA`.
        complete: whether the store is finished.
        block_size: tokens a block.
        heldout: blocks a language to hold out, as asked for.
        tokenizer: what the text was cut with.
        source: the corpora that went in.
        languages: ``lang_Script`` -> entry; empty while the store is unfinished.
    """

    schema: int = SCHEMA
    complete: bool = False
    block_size: int
    heldout: int = 0
    tokenizer: TokenizerFacts
    source: list[str] = field(default_factory=list)
    languages: dict[str, LanguageEntry] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> StoreIndex:
        """The index of a store.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is not JSON, of another format, or an entry is missing or of the wrong kind; it is named.
        """
        path = folder / INDEX
        if not path.is_file():
            raise FileNotFoundError(f"there is no {INDEX} in {folder}; make a store with langsamp prepare.")
        try:
            found = read_json(path)
            if found.get("schema") != SCHEMA:
                raise ValueError(f"{path} is not a store of format {SCHEMA}")
            index = from_json(cls, found, path)
            for name in index.languages:  # and so files
                language, _, script = name.partition("_")
                if not (LANGUAGE_PATTERN.fullmatch(language) and SCRIPT_PATTERN.fullmatch(script)):
                    raise ValueError(f"{path}: {name!r} is not a language tag like deu_Latn")
            if index.block_size < 1 or any(
                min(entry.blocks, entry.heldout_blocks, entry.tokens) < 0 for entry in index.languages.values()
            ):
                raise ValueError(f"{path} has a size below zero")
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise ValueError(f"{reason}; pull the store again, or make a new one with langsamp prepare.") from None
        return index

    def write(self, folder: Path) -> None:
        """Write ``store.json`` whole or not at all."""
        atomic_write(folder / INDEX, json.dumps(asdict(self), indent=1) + "\n")
