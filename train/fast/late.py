"""Numbers that a GPU has computed, read when they have long arrived: the host need not wait for it in every step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Late:
    """Single numbers by name and step, in the order they were added."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, int, Tensor, Any]] = deque()

    def add(self, name: str, value: Tensor | float, step: int) -> None:
        """Remember a number of a step; one on a GPU starts on its way to the host behind the work that makes it."""
        value, arrival = torch.as_tensor(value).detach().float().mean(), None
        if value.is_cuda:
            device, value = value.device, torch.empty((), pin_memory=True).copy_(value, non_blocking=True)
            arrival = torch.cuda.current_stream(device).record_event()
        self._waiting.append((name, step, value, arrival))

    def read(self, before: int | None = None) -> Iterator[tuple[str, int, float]]:
        """Take out what is here, and of the steps before a given one (None: of all) also what is still on its way.

        Yields:
            Name, step and number.
        """
        while self._waiting:
            name, step, value, arrival = self._waiting[0]
            if arrival is not None and not (before is None or step < before) and not arrival.query():
                return
            if arrival is not None:
                arrival.synchronize()
            self._waiting.popleft()
            yield name, step, float(value)
