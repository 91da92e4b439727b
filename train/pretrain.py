"""Continual pretraining: a model, a store and settings in, checkpoints and a finished model folder out.

The last stage of training, on the transformers Trainer. ``langsamp train``, ``langsamp quickstart`` and ``torchrun -m
langsamp train`` all come through :func:`pretrain`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from transformers import TrainerCallback, TrainingArguments, set_seed

from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train import checkpoints
from langsamp.train.blocks.prepare import tokenizer_hash
from langsamp.train.blocks.store import BlockStore, open_store
from langsamp.train.callbacks import Publish
from langsamp.train.run import PretrainResult, Run
from langsamp.train.settings import PretrainSettings, training_arguments
from langsamp.train.start import start

LOCK = ".langsamp.lock"
PRECISION = "ACCELERATE_MIXED_PRECISION"


@contextmanager
def _own_precision() -> Iterator[None]:
    """Put back the environment variable by which transformers 4 makes every later run of the process bf16 or fp16."""
    before = os.environ.get(PRECISION)
    try:
        yield
    finally:
        os.environ.pop(PRECISION, None)
        if before is not None:
            os.environ[PRECISION] = before


@_own_precision()
def pretrain(
    settings: PretrainSettings,
    training: TrainingArguments | Mapping[str, Any] | None = None,
    *,
    model: LangSAMPForMaskedLM | None = None,
    tokenizer: LangSAMPTokenizer | None = None,
    store: BlockStore | None = None,
    publish: Publish | None = None,
    fetch: Callable[[str], Path] | None = None,
    callbacks: list[TrainerCallback] | None = None,
) -> PretrainResult:
    """Train LangSAMP (or, with ``lang=False, script=False``, the baseline) and write the finished model.

    Two runs with equal store, alpha, seed and batch see the same blocks with the same masks in the same order,
    whatever their tables. Run again with the same output folder, an interrupted run goes on from its last good
    checkpoint, bit for bit on a CPU, and a finished one is left as it is.

    Args:
        settings: what we add to the Trainer.
        training: any ``TrainingArguments``, as an object or as a mapping of those to change.
        model: a model in memory instead of ``settings.base``; it is trained in place.
        tokenizer: its tokenizer; needed with ``model``.
        store: an open store instead of ``settings.store``.
        publish: called in the background with (checkpoint folder, step) for every ``settings.hub_every``-th save.
        fetch: turns ``repo@revision`` in ``settings.resume`` into a folder with a checkpoint; default a plain download.
        callbacks: more Trainer callbacks.

    Returns:
        The finished model, its folder and the history of its losses.

    Raises:
        ValueError: settings that contradict each other, the store or the checkpoint to resume from.
        RuntimeError: another run holds the output folder.
        NonFiniteError: the loss or a gradient stopped being a number; nothing broken was saved.
    """
    args = training_arguments(settings.output, training or {})
    run = Path(settings.output)
    with _locked(run, args):
        if args.should_save:
            checkpoints.clean(run)
        _barrier(args)  # nobody looks for checkpoints while they are being tidied
        set_seed(args.seed)
        store = store or _open(settings)
        if model is None or tokenizer is None:
            model, tokenizer = _start(settings, store, args.seed)
        _check(model, tokenizer, store)
        return Run(settings, args, model, tokenizer, store).go(publish, fetch, callbacks or [])


def _open(settings: PretrainSettings) -> BlockStore:
    if not settings.store:
        raise ValueError("no store to train on; make one with langsamp prepare and give --store DIR.")
    return open_store(settings.store)


def _start(settings: PretrainSettings, store: BlockStore, seed: int) -> tuple[LangSAMPForMaskedLM, LangSAMPTokenizer]:
    if not settings.base:
        raise ValueError(
            "no model to start from; give --base MODEL (a folder or a Hub id like FacebookAI/xlm-roberta-base)."
        )
    return start(
        settings.base,
        store.languages,
        settings.tokenizer,
        lang=settings.lang,
        script=settings.script,
        new_rows=settings.new_rows,  # type: ignore[arg-type]
        table_init=settings.table_init,
        seed=seed,
    )


def _check(model: LangSAMPForMaskedLM, tokenizer: LangSAMPTokenizer, store: BlockStore) -> None:
    """Refuse a model, a tokenizer and a store that do not belong together.

    Raises:
        ValueError: which two do not fit, and what to do.
    """
    model.config.check_tokenizer(tokenizer)
    made_with = store.index.tokenizer.sha256
    if made_with != tokenizer_hash(tokenizer):
        raise ValueError(
            f"the store in {store.path} was cut with another tokenizer; prepare it with the one of this run, or name "
            "the store's by --tokenizer."
        )
    if store.block_size > model.config.max_position_embeddings - 2:
        raise ValueError(
            f"blocks of {store.block_size} tokens do not fit into {model.config.max_position_embeddings - 2} "
            "positions; prepare the store with a smaller --block-size."
        )


@contextmanager
def _locked(run: Path, args: TrainingArguments) -> Iterator[None]:
    """Hold the output folder; a killed process lets go by dying.

    Raises:
        RuntimeError: another run holds it.
    """
    if args.process_index != 0:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(f"another run is training in {run}; wait for it or choose another --output.") from None
    try:
        yield
    finally:
        lock.release()


def _barrier(args: TrainingArguments) -> None:
    """Wait for the other processes."""
    if args.world_size > 1:
        torch.distributed.barrier()
