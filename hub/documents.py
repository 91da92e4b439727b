"""What a reader of a pushed checkpoint needs beside the weights: its results, its card, the handler for Endpoints."""

from __future__ import annotations

import os
from pathlib import Path

from langsamp.core.files import atomic_write
from langsamp.core.manifest import MANIFEST_NAME, damaged, leads_out, read_manifest, write_manifest
from langsamp.core.outputs import HANDLER, add_handler
from langsamp.eval.results.card.card import write_card
from langsamp.eval.results.records import RESULTS
from langsamp.safe_files import read_json

_TAKEN = (RESULTS, "report.html", "plots/*.png", "plots/*.svg")


def complete(
    folder: str | os.PathLike[str],
    repo: str | None = None,
    results: str | os.PathLike[str] | None = None,
    license: str | None = None,
) -> None:
    """Bring results into a checkpoint folder and write its card from them.

    Only LangSAMP checkpoints get a card and a handler: an exported encoder has a card of its own. What a person wrote
    into the card is kept.

    Args:
        folder: the checkpoint.
        repo: ``user/name``, for the loading examples of the card; by default the name of the folder.
        results: a run directory of ``langsamp eval``; its records, report and plots replace those in the folder.
        license: a licence id of the Hub for the card; by default what an existing card says, else the base's.

    Raises:
        FileNotFoundError: no such folder, or no records in `results`.
        ValueError: the card or a file it is made from is malformed.
    """
    root, written = Path(folder), []
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}.")
    if results is not None:
        written += _take(Path(results), root)
    config = root / "config.json"
    if config.is_file() and "languages" in read_json(config):
        if not (root / HANDLER).is_file():
            written.append(add_handler(root).name)
        written.append(write_card(root, repo=repo, license=license).name)
        written += [path.relative_to(root).as_posix() for path in sorted(root.glob(".eval_results/*.yaml"))]
    _seal(root, written)


def _seal(root: Path, written: list[str]) -> None:
    """Bring a folder's manifest up to date with its new documents; one that shows damage stays as it is."""
    if (root / MANIFEST_NAME).is_file() and not damaged(root):
        names = {name for name in read_manifest(root) if (root / name).is_file()}
        write_manifest(root, names | set(written))


def _take(results: Path, root: Path) -> list[str]:
    """Copy records, report and plots of a run into the checkpoint folder."""
    if not (results / RESULTS).is_file():
        raise FileNotFoundError(f"{results} has no {RESULTS}: give the --output folder of langsamp eval.")
    taken = []
    for path in (path for pattern in _TAKEN for path in sorted(results.glob(pattern))):
        name = path.relative_to(results)
        if leads_out(results, str(name)):
            raise ValueError(f"{path} is a symbolic link out of {results}, which is not taken into a checkpoint.")
        if path.resolve() != (root / name).resolve():
            atomic_write(root / name, path.read_bytes())
        taken.append(name.as_posix())
    return taken
