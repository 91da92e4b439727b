"""What evaluation data is, wherever it comes from: columns by name, splits, and the error for what is unusable."""

from __future__ import annotations

from typing import Any

Rows = dict[str, list[Any]]
SPLITS = {"validation": "dev", "valid": "dev", "val": "dev", "development": "dev"}


class DataError(ValueError):
    """Data that a task cannot use; the message names the file and the remedy."""
