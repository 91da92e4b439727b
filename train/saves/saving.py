"""Saves that do not stop training: state is copied to the host, and written, hashed and sealed in a thread.

Used by :mod:`langsamp.train.trainer`. Training waits for the copy alone, and at the next save for the last one.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from langsamp.core.compute.kernels import free_memory
from langsamp.core.plain import one_line

logger = logging.getLogger(__name__)

Place = tuple[Any, ...]  # the keys that lead to a tensor


class Saver:
    """One save at a time, behind the back of training.

    The copies' memory, as much as the model and the optimizer's state have, is kept for the next save: fresh memory
    costs more time than the copy. For a GPU it is pinned, where that can be had.

    Attributes:
        room: whether there is memory for the copies; if not, a save has to stop training.
    """

    def __init__(self) -> None:
        self.room = True
        self._worker = ThreadPoolExecutor(1, "langsamp-save")
        self._under_way: list[Future[Any]] = []
        self._memory: dict[Place, Tensor] = {}
        self._pins = True

    def prepare(self, state: Mapping[str, Any]) -> None:
        """Get memory for a state like this, in the thread and ahead of the first copy: it takes a second or two."""
        tensors: dict[Place, Tensor] = {}
        _walk(state, lambda place, tensor: tensors.setdefault(place, tensor))
        needed = sum(tensor.nbytes for tensor in tensors.values())
        self.room = needed < free_memory()
        if self.room:
            self.start(lambda: [self._place(place, tensor).zero_() for place, tensor in tensors.items()])
        else:
            logger.warning("saves will stop training: there is no room for copies (%.1f GB) in memory", needed / 1e9)

    def copy(self, state: Mapping[str, Any]) -> Any:
        """A copy on the host of nested dicts and lists; tensors that are one stay one."""
        self.wait()  # what is being written may be in the memory that is about to be used
        devices: set[torch.device] = set()

        def to_host(path: Place, tensor: Tensor) -> Tensor:
            devices.add(tensor.device)
            return self._place(path, tensor).copy_(tensor.detach(), non_blocking=True)

        found = _walk(state, to_host)
        for device in devices - {torch.device("cpu")}:
            torch.accelerator.synchronize(device)
        return found

    def start(self, write: Callable[[], Any]) -> None:
        """Call a function in the thread, after those that were started before."""
        self._under_way.append(self._worker.submit(write))

    def check(self) -> None:
        """Look at what is done by now.

        Raises:
            Exception: whatever went wrong in the thread.
        """
        while self._under_way and self._under_way[0].done():
            self._under_way.pop(0).result()

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            Exception: whatever went wrong in the thread.
        """
        while self._under_way:
            self._under_way.pop(0).result()

    def _place(self, place: Place, tensor: Tensor) -> Tensor:
        """Host memory for a tensor."""
        found = self._memory.get(place)
        if found is None or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            found = self._memory[place] = self._new(tensor)
        return found

    def _new(self, tensor: Tensor) -> Tensor:
        if self._pins and tensor.device.type == "cuda":
            try:
                return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            except RuntimeError as error:  # a system may have little of it
                self._pins = False
                logger.warning("saves will stop training longer: no pinned memory (%s)", one_line(error))
        return torch.empty(tensor.shape, dtype=tensor.dtype)


def _walk(state: Any, visit: Callable[[Place, Tensor], Tensor]) -> Any:
    """Nested dicts and lists with every tensor replaced by what ``visit`` makes of it, and the rest copied."""
    seen: dict[Any, Tensor] = {}

    def walk(value: Any, place: Place) -> Any:
        if isinstance(value, Tensor):
            same = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else place
            if same not in seen:
                seen[same] = visit(place, value)
            return seen[same]
        if isinstance(value, Mapping):
            return {key: walk(entry, (*place, key)) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(walk(entry, (*place, i)) for i, entry in enumerate(value))
        return copy.deepcopy(value)

    return walk(state, ())


@contextmanager
def told(what: str, place: Path) -> Iterator[None]:
    """Say in one sentence what could not be written, where and why; the libraries do not name the place.

    Raises:
        RuntimeError: instead of whatever writing raised.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        free = shutil.disk_usage(place).free / 1e6
        raise RuntimeError(
            f"{what} could not be written to {place} ({reason}; {free:,.0f} MB are free there); make room, or mend "
            "what the reason names, and run the same command again to go on from the last good checkpoint."
        ) from error
