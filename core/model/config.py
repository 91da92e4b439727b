"""The configuration of a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langsamp.configuration_langsamp import LangSAMPConfig


def read_config(folder: Path) -> Any:
    """The configuration of a checkpoint (LangSAMP or stock), as ours.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: it is of no family that LangSAMP knows.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is no checkpoint folder")
    try:
        return LangSAMPConfig.from_pretrained(folder)
    except ValueError as error:
        raise ValueError(f"{folder} cannot be used: {error}") from None
