"""The Hub in a training run: every save goes up as a tagged commit, any of them comes back to resume from elsewhere.

Saves go to the branch ``checkpoints``, so that ``main`` holds finished models only. Each carries the state of
optimizer, scheduler and random numbers (`langsamp.hub.trainer_state`) and a tag: ``--resume user/x@step-500``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants

from langsamp.core.hub_names import HubName
from langsamp.core.retry import TagTakenError
from langsamp.hub.pull import pull
from langsamp.hub.push import push

logger = logging.getLogger(__name__)
BRANCH = "checkpoints"


def publisher(repo: str, *, private: bool = False, token: str | None = None) -> Callable[[Path, int], None]:
    """A function for `langsamp.train.pretrain`'s ``publish``: pushes one saved checkpoint; safe to call again.

    Args:
        repo: ``user/name``; created when it does not exist.
        private: create it as a private repository.
        token: access token; default HF_TOKEN or the stored one.
    """

    def publish(checkpoint: Path, step: int) -> None:
        tag, number = f"step-{step}", 1
        while True:
            try:
                push(
                    checkpoint, repo, private=private, revision=BRANCH, tag=tag, with_trainer_state=True,
                    message=f"Training, step {step}", token=token,
                )  # fmt: skip
                return
            except TagTakenError as error:  # an earlier run of the same name; its checkpoints keep their tags
                number += 1
                tag = f"step-{step}-{number}"
                logger.warning("%s Using %s.", error, tag)

    return publish


def fetch_checkpoint(spec: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Bring a checkpoint with trainer state from the Hub, for `langsamp.train.pretrain`'s ``fetch``.

    Args:
        spec: ``user/name@revision``; without a revision the newest save.
        folder: where to; default a folder below HF_HOME by repository and revision, fetched only once.

    Raises:
        HubError: see `langsamp.hub.pull.pull`.
    """
    repo, revision = HubName.parse(spec)
    revision = revision or BRANCH
    target = Path(folder or Path(constants.HF_HOME) / "langsamp" / f"{repo}@{revision}".replace("/", "--"))
    result = pull(repo, target, revision=revision, strict=True)
    logger.info("%s@%s is %s, in %s", repo, revision, result.commit[:8], target)
    return target
