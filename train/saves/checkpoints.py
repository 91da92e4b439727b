"""Checkpoints that can be trusted: a save is whole or invisible, pruning never takes the last good one.

Used by :mod:`langsamp.train.trainer` and by :mod:`langsamp.train.pretrain` when it looks for where to go on. A save is
made in ``.saving/``, gets its manifest last, and is renamed to ``checkpoint-N``; a deletion
starts with a rename too. Killed at any point in between, what is left in sight is whole.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from langsamp.core.files import atomic_write
from langsamp.core.manifest import MANIFEST_NAME, verify_manifest, write_manifest

logger = logging.getLogger(__name__)

STAGING = ".saving"
LOCK = ".langsamp.lock"
RUN_FACTS = "langsamp_run.json"
TRAINER_STATE = "trainer_state.json"
_PICKLES = ("training_args.bin",)


def step_of(checkpoint: Path) -> int:
    """500 for ``checkpoint-500``; -1 for a folder that is none."""
    head, _, number = checkpoint.name.rpartition("-")
    return int(number) if head == "checkpoint" and number.isdigit() else -1


def checkpoints(run: Path) -> list[Path]:
    """The ``checkpoint-N`` folders of a run, newest first, good or not."""
    return sorted((path for path in run.glob("checkpoint-*") if step_of(path) >= 0), key=step_of, reverse=True)


def last_good(run: Path) -> Path | None:
    """The newest checkpoint whose every file is what its manifest says; each one passed over is named in the log."""
    for checkpoint in checkpoints(run):
        problems = verify_manifest(checkpoint)
        if not problems:
            return checkpoint
        logger.warning("passing over %s: %s", checkpoint, problems[0])
    return None


def find(place: str | os.PathLike[str]) -> Path:
    """The checkpoint that a folder is or, if it is a run, the last good one in it.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: the checkpoint is damaged; the file is named.
    """
    folder = Path(place)
    if (folder / TRAINER_STATE).is_file():
        problems = verify_manifest(folder, follow_symlinks=True)
        if problems:
            raise ValueError(f"the checkpoint {folder} is damaged ({problems[0]}); resume from another one.")
        return folder
    found = last_good(folder)
    if found is None:
        raise FileNotFoundError(f"there is no good checkpoint with trainer state in {folder}.")
    return found


def publish_staged(run: Path, step: int, facts: Mapping[str, Any]) -> Path:
    """Turn ``.saving/checkpoint-N`` into ``checkpoint-N``: facts, manifest, rename; an old folder of the name goes.

    Returns:
        The finished checkpoint.
    """
    staged, target = run / STAGING / f"checkpoint-{step}", run / f"checkpoint-{step}"
    for name in _PICKLES:
        (staged / name).unlink(missing_ok=True)
    atomic_write(staged / RUN_FACTS, json.dumps(facts, indent=1) + "\n")
    write_manifest(staged)
    if target.exists():
        # two renames: between them the good old folder is gone from sight, but the new one is whole and found again
        os.replace(target, run / STAGING / f"replaced-{step}")
    os.replace(staged, target)
    shutil.rmtree(run / STAGING, ignore_errors=True)
    return target


def clean(run: Path) -> None:
    """Tidy what a killed save has left; a finished save whose rename did not happen is completed first."""
    staging = run / STAGING
    for staged in checkpoints(staging) if staging.is_dir() else []:
        target = run / staged.name
        if not target.exists() and (staged / MANIFEST_NAME).is_file() and not verify_manifest(staged):
            os.replace(staged, target)
    shutil.rmtree(staging, ignore_errors=True)


def prune(run: Path, keep: int, step: int, protected: Collection[Path] = ()) -> list[Path]:
    """Delete all but the newest ``keep`` checkpoints up to a step, each moved out of sight first.

    Folders without a manifest are not ours to delete. Checkpoints after ``step`` were passed over as damaged when this
    run resumed; they neither count nor go, the run replaces them when it gets there.

    Args:
        run: the output folder.
        keep: checkpoints to keep, at least 1.
        step: where the run is: its newest checkpoint, just written.
        protected: never deleted, for example those still waiting to be pushed.

    Returns:
        What was deleted.
    """
    sealed = [path for path in checkpoints(run) if step_of(path) <= step and (path / MANIFEST_NAME).is_file()]
    doomed = [path for path in sealed[max(1, keep) :] if path not in protected]
    for path in doomed:
        hidden = run / STAGING / f"pruned-{step_of(path)}"
        hidden.parent.mkdir(exist_ok=True)
        os.replace(path, hidden)
    shutil.rmtree(run / STAGING, ignore_errors=True)
    return doomed


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """The identity and position that a checkpoint was saved with.

    Raises:
        FileNotFoundError: it was not saved by ``langsamp train``.
    """
    path = checkpoint / RUN_FACTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{checkpoint} has no {RUN_FACTS}: it was not saved by langsamp train; use it as --base."
        )
    return json.loads(path.read_text(encoding="utf-8"))
