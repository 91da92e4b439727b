"""Where a run goes on: what must be the same for it to be that run, and the checkpoint to go on from.

Between :mod:`langsamp.train.saves.checkpoints` (what is on the disk) and :mod:`langsamp.train.pretrain`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from langsamp.core.runtime import resolve_model
from langsamp.train.saves import checkpoints

logger = logging.getLogger(__name__)

# What must be the same for a resumed run to be the run that was interrupted, and what it means when it is not.
IDENTITY = {
    "corpus": "the store's blocks",
    "tokenizer": "the tokenizer",
    "languages": "the rows of the tables",
    "sampling": "the sampling of languages",
    "masking": "the masking",
    "seed": "the seed",
    "batch": "the sequences of a step (processes x accumulation x batch size)",
    "world_size": "the number of processes (the stream stays the same, sums are rounded otherwise)",
}


def digest(value: Any) -> str:
    """A sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def go_on_from(
    wish: str,
    run: Path,
    identity: Mapping[str, Any],
    allowed: Collection[str],
    fetch: Callable[[str], Path] | None = None,
) -> Path | None:
    """The checkpoint to go on from; None to begin.

    Args:
        wish: ``auto`` (the last good one of the run, if any), ``never``, a folder, or ``repo@revision``.
        run: the output folder.
        identity: of this run, by the names of :data:`IDENTITY`.
        allowed: names that may differ (``--allow-changed``).
        fetch: turns ``repo@revision`` into a folder with a checkpoint; default a plain download.

    Raises:
        FileNotFoundError: no checkpoint where one was asked for.
        ValueError: it is damaged or belongs to another run, or the run has saved later ones.
    """
    if wish == "auto":
        found = checkpoints.last_good(run)
    elif wish == "never":
        found = None
    elif Path(wish).expanduser().is_dir():
        found = checkpoints.find(Path(wish).expanduser())
    else:
        found = checkpoints.find(fetch(wish) if fetch else resolve_model(wish).path)
    step = int(checkpoints.read_facts(found)["step"]) if found else -1  # whatever its folder is called
    later = [checkpoint for checkpoint in checkpoints.checkpoints(run) if checkpoints.step_of(checkpoint) > step]
    if wish != "auto" and later:
        raise ValueError(
            f"{later[0]} is there already and would be mixed up with what this run saves; move it away, choose "
            "another --output, or go on from it with --resume auto."
        )
    if found is not None:
        _check(found, identity, allowed)
        logger.info("going on from %s", found)
    return found


def _check(checkpoint: Path, identity: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse to go on from a checkpoint of another run, with every difference and the option that allows it."""
    before = checkpoints.read_facts(checkpoint)
    changed = [name for name in IDENTITY if before.get(name) != identity[name]]
    refused = [name for name in changed if name not in allowed]
    if refused:
        what = "; ".join(
            f"{IDENTITY[name]}: {_short(before.get(name))} then, {_short(identity[name])} now" for name in refused
        )
        raise ValueError(
            f"{checkpoint} belongs to another run: {what}. Restore them, choose another --output, or go on all the "
            f"same with --allow-changed {' '.join(refused)}."
        )
    for name in changed:
        logger.warning("resuming although %s changed", IDENTITY[name])


def offset(checkpoint: Path | None, batch: int) -> int:
    """Where sample 0 of a run with ``batch`` sequences a step lies in the plan: not at 0 if that number changed."""
    if checkpoint is None:
        return 0
    facts = checkpoints.read_facts(checkpoint)
    return int(facts["samples"]) - int(facts["step"]) * batch


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else text[:13] + "..."
