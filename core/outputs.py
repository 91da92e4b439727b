"""Where export, convert and add-language put their result: a folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langsamp.core.manifest import write_manifest

HANDLER = "handler.py"


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary sibling to fill, which gets its name when everything has gone well and vanishes when not.

    Raises:
        FileExistsError: there is something at the path already; nothing of it is ever overwritten.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already; give a new folder, or remove that one first.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in temporary.rglob("*.*"):  # safetensors and onnx write for the owner only
            if path.is_file():
                path.chmod((temporary / "config.json").stat().st_mode)
        write_manifest(temporary)
        if target.is_dir():
            target.rmdir()
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def add_handler(folder: str | Path) -> Path:
    """Copy the Inference Endpoints handler into a checkpoint folder; it works on its own there."""
    return Path(shutil.copyfile(Path(__file__).parents[1] / "hub" / HANDLER, Path(folder) / HANDLER))
