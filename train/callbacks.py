"""What a run shows while it goes: ``train.jsonl``, one line a log entry, and on the screen one bar.

Plugged into the Trainer by :mod:`langsamp.train.pretrain`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState
from transformers.utils import logging as transformers_logging

from langsamp.core.files import atomic_write

logger = logging.getLogger(__name__)

LOG = "train.jsonl"
Logs = dict[str, Any] | None  # name of a value -> the value
PARTS, LONGEST = 20, 3600  # in a file: a line at each twentieth of the run, and after an hour without one


class JsonLog(TrainerCallback):
    """Appends every log entry of a run to ``train.jsonl``: step, tokens so far, seconds, loss, learning rate ...

    A resumed run first drops the entries of steps that it will do again, and goes on counting the seconds.

    Args:
        path: the file.
        tokens_per_step: tokens (padding included) of one optimizer step over all processes.
    """

    def __init__(self, path: Path, tokens_per_step: int) -> None:
        self.path, self.tokens_per_step = path, tokens_per_step
        self.started = time.monotonic()

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Cut the file back to where the run goes on."""
        self.started = time.monotonic()
        if state.is_world_process_zero and self.path.exists():
            kept = [entry for entry in read_log(self.path) if entry["step"] <= state.global_step]
            self.started -= kept[-1]["seconds"] if kept else 0
            atomic_write(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Logs = None, **kwargs: Any) -> None:
        """Append one line."""
        if not state.is_world_process_zero or not logs:
            return
        seconds = round(time.monotonic() - self.started, 3)
        entry = {"step": state.global_step, "tokens": state.global_step * self.tokens_per_step, "seconds": seconds}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, **{k: v for k, v in logs.items() if k != "epoch"}}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a ``train.jsonl``; lines that a kill, a full disk or a power cut left in parts are left out."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    entries = [entry for entry in map(_entry, lines) if entry is not None]
    if len(entries) < len(lines):
        logger.warning("%s: %d of %d lines are not whole and are left out", path, len(lines) - len(entries), len(lines))
    return entries


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None if it is not whole."""
    try:
        entry: dict[str, Any] = json.loads(line)
        return entry if entry["step"] >= 0 <= entry["seconds"] else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class Progress(TrainerCallback):
    """One bar with the last losses; where there is no terminal, some twenty lines in the log instead.

    Args:
        tokens_per_step: tokens of one optimizer step over all processes.
    """

    def __init__(self, tokens_per_step: int) -> None:
        self.tokens_per_step = tokens_per_step
        self.bar: Any = None
        self.shown: dict[str, str] = {}
        self.began = self.last = (0, 0.0)  # step, time

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Open the bar where the run goes on."""
        self.began = self.last = (state.global_step, time.monotonic())
        if state.is_world_process_zero and sys.stderr.isatty():
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit=" steps", dynamic_ncols=True
            )

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Logs = None, **kwargs: Any) -> None:
        """Remember the losses."""
        names = {"loss": "loss", "eval_loss": "held out"}
        self.shown |= {names[name]: f"{value:.4f}" for name, value in (logs or {}).items() if name in names}
        if self.bar is not None:
            self.bar.set_postfix(self.shown, refresh=False)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Move the bar, or write a line if it is time for one."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)
            return
        now, step = time.monotonic(), state.global_step
        due = step * PARTS // state.max_steps > self.last[0] * PARTS // state.max_steps or now - self.last[1] > LONGEST
        if state.is_world_process_zero and due:
            self.last = (step, now)
            a_step = (now - self.began[1]) / max(1, step - self.began[0])
            losses = "".join(f", {name} {value}" for name, value in self.shown.items())
            left = timedelta(seconds=round((state.max_steps - step) * a_step))
            speed = self.tokens_per_step / max(a_step, 1e-9)
            logger.info("step %d of %d%s, %.0f tokens a second, %s to go", step, state.max_steps, losses, speed, left)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@contextmanager
def no_other_bars() -> Iterator[None]:
    """Without the bars of transformers for loading and saving weights, which would come at every save."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
