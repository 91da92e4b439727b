"""Several processes of one run: how many a launcher has started, and how they meet again after a lost one.

Used by :mod:`langsamp.train.settings` when the Trainer's arguments are made, which is when processes meet.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from transformers import TrainingArguments


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


def meet_again(timeout: float) -> None:
    """After torchrun has restarted the processes, make their group under keys that were not used before.

    torchrun's store outlives a restart, and with it the addresses of the processes that are gone; who reads before
    they are replaced waits for the dead (seen with torch 2.13).

    Args:
        timeout: seconds that a process waits for the others.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if (
        restarts == "0"
        or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        or torch.distributed.is_initialized()
    ):
        return
    patience = timedelta(seconds=timeout)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = torch.distributed.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size, is_master=False, timeout=patience
    )
    fresh = torch.distributed.PrefixStore(f"restart-{restarts}", store)
    torch.distributed.init_process_group(store=fresh, rank=rank, world_size=size, timeout=patience)
