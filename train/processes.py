"""Several processes of one run: how many a launcher has started, and how they meet again after a lost one.

Used by :mod:`langsamp.train.settings` when the Trainer's arguments are made, which is when processes meet.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta

import torch
from transformers import TrainingArguments

from langsamp.core.compute.cluster import answers

_PLACE = "langsamp/port"
_store: torch.distributed.TCPStore | None = None  # lives as long as the process that the others meet at


def launched() -> int:
    """How many processes a launcher has started, or was asked for: torchrun, mpirun, accelerate launch; 1 without one.

    Raises:
        ValueError: ``accelerate launch`` was asked for several and, for want of a GPU, has started one.
    """
    sizes = [os.environ.get(name) for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")]
    size = next((int(size) for size in sizes if size), None)
    if size is None and "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ:
        raise ValueError(
            "accelerate launch was asked for several processes and has started one, as it does without a GPU; start "
            "them with torchrun --nproc_per_node N -m langsamp train ..."
        )
    return size or 1


def check(args: TrainingArguments) -> None:
    """Refuse processes that would train a model each.

    Raises:
        ValueError: the Trainer does not use all of them.
    """
    if launched() != args.world_size:
        raise ValueError(
            f"{launched()} processes were started, but the Trainer uses {args.world_size} on {args.device.type}; start "
            "them with torchrun --nproc_per_node N -m langsamp train ..., without GPUs with --use_cpu true."
        )


def meet(timeout: float) -> None:
    """Have torchrun's processes meet in a store of their own, made by the first of them each time they are started.

    torchrun's store outlives a restart, and with it the addresses of the processes that are gone; who reads before
    they are replaced waits for the dead (seen with torch 2.13). How often they were started tells no two nodes the
    same: torchrun counts where a process was lost only.

    Args:
        timeout: seconds that a process waits for the others.

    Raises:
        TimeoutError: the first process does not come.
    """
    global _store
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or torch.distributed.is_initialized():
        return
    host, patience = os.environ["MASTER_ADDR"], timedelta(seconds=timeout)
    agents = torch.distributed.TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=patience)
    if os.environ["RANK"] == "0":
        _store = torch.distributed.TCPStore(host, 0, None, True, patience, wait_for_workers=False, multi_tenant=True)
        agents.set(_PLACE, str(_store.port))
    port, deadline = agents.get(_PLACE).decode(), time.monotonic() + timeout
    while not answers(host, port):  # that of a first process that is gone
        if time.monotonic() > deadline:
            raise TimeoutError(f"the first process of {host} has not come in {timeout:.0f} seconds")
        time.sleep(0.2)
        port = agents.get(_PLACE).decode()
    os.environ.update(MASTER_PORT=port, TORCHELASTIC_USE_AGENT_STORE="False")
