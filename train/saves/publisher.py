"""The sender of checkpoints, which outlives a Hub that is down.

Started by :mod:`langsamp.train.pretrain`, told of finished checkpoints by :mod:`langsamp.train.trainer`.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path

from transformers import TrainingArguments

from langsamp.core.files import atomic_write
from langsamp.safe_files import read_json
from langsamp.train.saves import checkpoints

logger = logging.getLogger(__name__)

SENT = "published.json"
Publish = Callable[[Path, int], None]


class Publisher:
    """Sends every N-th save somewhere (the Hub) from a background thread; training never waits for it.

    What cannot be sent stays queued and is tried again, oldest first, ever more slowly; checkpoints in the queue are
    not pruned. What has arrived is noted in ``published.json``, so a resumed run sends what an interrupted one could
    not.

    Args:
        publish: called with (checkpoint folder, step); an exception means "not now".
        run: the output folder.
        every: every N-th save.
        pause: seconds before the first retry; doubles up to ``longest``.
        longest: longest pause between retries, in seconds.
    """

    def __init__(self, publish: Publish, run: Path, every: int = 1, pause: float = 5.0, longest: float = 300.0) -> None:
        self.publish, self.run, self.every = publish, run, every
        self.pause, self.longest = pause, longest
        self.sent: set[int] = set()
        self.last_error: Exception | None = None
        self._queue: list[Path] = []
        self._saves = 0
        self._wake, self._closing = threading.Condition(), False
        self._thread: threading.Thread | None = None

    def start(self, args: TrainingArguments, step: int) -> None:
        """Start the sender at a step of the run; first in its queue is what an earlier process could not send."""
        path = self.run / SENT
        known = read_json(path).get("steps", []) if path.exists() else []
        self.sent = {number for number in known if number <= step}  # what comes after will be made, and sent, again
        self._saves = int(step // _save_steps(args)) if _save_steps(args) else 0
        if path.exists() or step:
            self._queue = [c for c in reversed(checkpoints.checkpoints(self.run)) if self._missing(c, args)]
        self._thread = threading.Thread(target=self._work, name="langsamp-publish", daemon=True)
        self._thread.start()

    def _missing(self, checkpoint: Path, args: TrainingArguments) -> bool:
        step = checkpoints.step_of(checkpoint)
        # the last save of a run may come before its turn; it is a save as well
        number = math.ceil(step / _save_steps(args)) if _save_steps(args) else self.every
        return step not in self.sent and number % self.every == 0

    def sealed(self, checkpoint: Path) -> None:
        """Queue a finished checkpoint if it is its turn; called on the process that saves, from any thread."""
        self._saves += 1
        if self._saves % self.every == 0 and checkpoints.step_of(checkpoint) not in self.sent:
            with self._wake:
                self._queue.append(checkpoint)
                self._wake.notify_all()

    def waiting(self) -> set[Path]:
        """Checkpoints that must not be deleted yet."""
        with self._wake:
            return set(self._queue)

    def close(self, patience: float = 3600.0) -> list[int]:
        """Send what is left, until something fails, and stop.

        Args:
            patience: seconds to wait at most; gigabytes take their time, and a Hub that is down fails much earlier.

        Returns:
            The steps that could not be sent; they stay on the disk.
        """
        if self._thread is None:
            return []
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            if self._queue:
                logger.info("waiting until %d checkpoints are pushed", len(self._queue))
        self._thread.join(patience)
        left = sorted(checkpoints.step_of(path) for path in self.waiting())
        if left:
            logger.warning(
                "%d checkpoints could not be pushed (steps %s; last error: %s); they are in %s, run again to send them",
                len(left),
                ", ".join(map(str, left)),
                self.last_error,
                self.run,
            )
        return left

    def _work(self) -> None:
        """The thread: send the head of the queue; on failure wait and try again; when closing, one try each."""
        pause = self.pause
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if not self._queue:
                    return
                checkpoint, closing = self._queue[0], self._closing
            if self._send(checkpoint):
                pause = self.pause
                continue
            if closing:  # the others would fail the same way
                return
            with self._wake:
                if not self._closing:
                    self._wake.wait(timeout=pause)
            pause = min(2 * pause, self.longest)

    def _send(self, checkpoint: Path) -> bool:
        step = checkpoints.step_of(checkpoint)
        if not checkpoint.is_dir():  # somebody made room; those behind it need not wait for ever
            logger.warning("%s is gone and cannot be pushed any more", checkpoint)
            with self._wake:
                self._queue.remove(checkpoint)
            return True
        try:
            self.publish(checkpoint, step)
        except Exception as error:  # whatever the network does must not end training
            self.last_error = error
            logger.warning("could not push %s (%s: %s); will try again", checkpoint.name, type(error).__name__, error)
            return False
        with self._wake:
            self._queue.remove(checkpoint)
            self.sent.add(step)
            atomic_write(self.run / SENT, json.dumps({"steps": sorted(self.sent)}) + "\n")
        logger.info("pushed %s", checkpoint.name)
        return True


def _save_steps(args: TrainingArguments) -> float:
    """Steps between saves; 0 where saves do not come every so many steps."""
    return args.save_steps if args.save_strategy == "steps" and args.save_steps >= 1 else 0
