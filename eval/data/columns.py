"""What evaluation data is, wherever it comes from: columns by name, splits, and the error for what is unusable."""

from __future__ import annotations

from typing import Any

Columns = dict[str, list[Any]]

# Names that data sets use for the same thing; the first is ours.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "index_id", "sentence_id", "verse_id", "idx"),
    "text": ("text", "sentence", "sentence1", "verse"),
    "english": ("english", "translation", "sentence2"),
    "label": ("label", "labels", "category", "topic"),
    "tokens": ("tokens", "words"),
    "ner_tags": ("ner_tags", "tags"),
    "upos": ("upos", "pos_tags"),
    "split": ("split",),
}

# What the tasks read in a folder.
_READ: dict[str, tuple[str, ...]] = {
    "sib200": ("text", "label"),
    "taxi1500": ("text", "label"),
    "tatoeba": ("text", "english"),
    "ner": ("tokens", "ner_tags"),
    "pos": ("tokens", "upos"),
}


def columns_of(folder: str) -> tuple[str, ...]:
    """What a row of a folder has besides id and split: `ner/wikiann` -> ("tokens", "ner_tags")."""
    return _READ.get(folder.partition("/")[0], ("text",))


class DataError(ValueError):
    """Data that a task cannot use; the message names the file and the remedy."""


def shape(*columns: str) -> str:
    """What a file with these columns looks like, for errors."""
    if {"tokens", "ner_tags", "upos"} & set(columns):
        tags = "upos" if "upos" in columns else "ner_tags"
        return f"wanted: lines word<TAB>tag with a blank line between sentences, or columns tokens and {tags}"
    names = [name for name in columns if name not in ("id", "split")]
    return f"wanted: columns {' and '.join(names)} (parquet, jsonl, tsv or csv with a header)"
