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


class DataError(ValueError):
    """Data that a task cannot use; the message names the file and the remedy."""


def shape(*columns: str) -> str:
    """What a file with these columns looks like, for errors."""
    if {"tokens", "ner_tags", "upos"} & set(columns):
        tags = "upos" if "upos" in columns else "ner_tags"
        return f"wanted: lines word<TAB>tag with a blank line between sentences, or columns tokens and {tags}"
    names = [name for name in columns if name not in ("id", "split")]
    return f"wanted: columns {' and '.join(names)} (parquet, jsonl, tsv or csv with a header)"
