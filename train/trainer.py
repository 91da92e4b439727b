"""The transformers Trainer for LangSAMP: the stream in order, whole checkpoints, an end to non-finite training.

Driven by :mod:`langsamp.train.pretrain`. A thin subclass: the loop, DDP, FSDP, precision and reporting are not ours.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import DefaultFlowCallback, Trainer, TrainerCallback

from langsamp.core.hashing import bits
from langsamp.train.batches.stream import BlockStream
from langsamp.train.fast.late import Late
from langsamp.train.fast.optimizer import fold_clip
from langsamp.train.saves import checkpoints
from langsamp.train.saves.saving import Saver, told
from langsamp.train.sharding import whole

logger = logging.getLogger(__name__)

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"  # the Trainer's names


class NonFiniteError(RuntimeError):
    """Training has left the finite numbers and was stopped before any weight took part."""


class LangSAMPTrainer(Trainer):
    """Trainer over a :class:`~langsamp.train.batches.stream.BlockStream`.

    Args:
        identity: what a checkpoint must share with the run that resumes from it; saved in each.
        table_lr: learning rate of the language and script table; None: like the rest.
        keep: newest checkpoints to keep; None keeps all.
        protected: asked before pruning: which checkpoints must stay (waiting to be pushed).
        sealed: told of every finished checkpoint, in the thread that saves.
        fold: clip inside the fused optimizer's update (faster on a CPU, the same numbers up to rounding).
        heldout: called by the periodic evaluation with (model, step); returns the metrics to log.
        kwargs: as for Trainer.
    """

    def __init__(
        self,
        *,
        identity: Mapping[str, Any],
        table_lr: float | None = None,
        keep: int | None = None,
        protected: Callable[[], set[Path]] = set,
        sealed: Callable[[Path], object] = bool,
        fold: bool = False,
        heldout: Callable[[nn.Module, int], dict[str, float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.args.fsdp and not self.is_fsdp_enabled:
            raise ValueError(
                f"--fsdp was asked for, but accelerate shards over several GPUs only, not over {self.args.world_size} "
                f"process(es) on {self.args.device.type}; leave it out, or start with torchrun where there are GPUs."
            )
        self.kind: Any = type(kwargs["model"])  # sharding makes another class of it
        self.stream: BlockStream = kwargs["train_dataset"]
        self.identity, self.table_lr, self.keep = identity, table_lr, keep
        self.protected, self.sealed, self.heldout, self.fold_clip = protected, sealed, heldout, fold
        self.saver = Saver()
        self._staging: str | None = None
        self._deferred: list[Callable[[], object]] | None = None
        self._tokenizer_files: dict[str, bytes] = {}
        self._prepared = False
        self._micro, self._micro_of = 0, -1
        self._late = Late()
        self._watch_gradients()

    @property
    def run(self) -> Path:
        """The output folder."""
        return Path(str(self.args.output_dir))

    # -- the stream -------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.stream)

    # -- the optimizer ----------------------------------------------------------------------------------------------

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As in Trainer; the tables get a parameter group of their own if they have their own learning rate."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.table_lr is None or any("tables" in group for group in optimizer.param_groups):
            return optimizer
        model: Any = args[0] if args else kwargs.get("model") or self.model
        tables = [p for name, p in model.named_parameters() if "lang_embeddings" in name or "script_embeddings" in name]
        ids = {id(p) for p in tables}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in ids]
        if tables:
            decay = self.args.weight_decay
            optimizer.add_param_group({"params": tables, "lr": self.table_lr, "weight_decay": decay, "tables": True})
        return optimizer

    # -- non-finite numbers -----------------------------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As in Trainer.

        Raises:
            NonFiniteError: a loss is not finite, or a norm: see :meth:`_look_at`.
        """
        self.saver.check()
        self._prepare_saves()
        torch.manual_seed(self._draw_of(self._next_micro_batch()))
        loss = super().training_step(*args, **kwargs)
        self._look_at("loss", loss)
        return loss

    def _next_micro_batch(self) -> int:
        """Number of the micro-batch that comes next on this process, as one process would count them."""
        step = self.state.global_step
        self._micro = self._micro + 1 if self._micro_of == step else 0
        self._micro_of = step
        args = self.args
        return (step * args.gradient_accumulation_steps + self._micro) * args.world_size + args.process_index

    def _draw_of(self, micro_batch: int) -> int:
        """The seed of dropout, a function of the micro-batch: processes draw as one does, and each its own masks."""
        first = micro_batch * self.args.train_batch_size + self.stream.offset
        return int(bits(self.args.seed, 6, first))

    def _watch_gradients(self) -> None:
        """Look at the norm that clipping computes anyway (a loss can be finite where its gradient is not)."""
        clip, accelerator = self.accelerator.clip_grad_norm_, self.accelerator

        def watched(parameters: Any, max_norm: float, *args: Any, **kwargs: Any) -> Any:
            scaler = getattr(accelerator, "scaler", None)
            if self.fold_clip and scaler is None and not self.is_fsdp_enabled:
                norm = fold_clip(self.optimizer, max_norm)
            else:
                norm = clip(parameters, max_norm, *args, **kwargs)
            if norm is not None and scaler is None:  # fp16's scaler skips such steps
                self._look_at("gradient norm", norm)
            return norm

        accelerator.clip_grad_norm_ = watched  # type: ignore[method-assign]

    def _look_at(self, what: str, value: Tensor) -> None:
        """Stop unless a number of this step is finite: on a GPU in the next step, before which nothing is saved.

        Reading it at once would let the GPU wait for the host in every step.
        """
        self._late.add(what, value, self.state.global_step)
        self._read(self.state.global_step)

    def _read(self, before: int | None = None) -> None:
        """Read what is known of the steps before that one; None: of all, waiting for the GPU."""
        for what, step, value in self._late.read(before):
            if not math.isfinite(value):
                self._stop(what, value, step)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_log or self.control.should_save or self.control.should_evaluate:
            self._read()  # these wait for the GPU anyway
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _stop(self, what: str, value: float, step: int) -> None:
        count = self.identity["batch"]
        mix = self.stream.mix(step * count, count)
        languages = ", ".join(f"{language} {n}" for language, n in list(mix.items())[:12])
        with suppress(Exception):
            self.saver.wait()
        good = checkpoints.last_good(self.run)
        raise NonFiniteError(
            f"the {what} is {value} in step {step + 1}; its blocks by language: {languages}"
            f"{' ...' if len(mix) > 12 else ''}. Nothing was saved; the last good checkpoint is {good or 'none yet'}. "
            "Lower the learning rate or, with fp16, use bf16; then run again to go on from there."
        )

    def _check_weights(self) -> None:
        model: Any = self.model
        mine = {name: getattr(p.detach(), "_local_tensor", p) for name, p in model.named_parameters()}  # of a shard
        finite = {name: torch.isfinite(p).all() for name, p in mine.items()}
        if not torch.stack(list(finite.values())).all():  # asked once: a GPU answers when its queue is empty
            broken = [name for name, whole in finite.items() if not whole]
            self._stop(f"weight {broken[0]} ({len(broken)} in all)", float("nan"), self.state.global_step)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any, *args: Any, **kwargs: Any) -> None:
        """As in Trainer, but made out of sight, most of it in the background, and sealed with a manifest.

        Only when it is sealed old checkpoints go. What is sharded (FSDP, DeepSpeed) is written by the processes
        together, before they go on; only hashing is left to the background.
        """
        self.saver.wait()
        self._check_weights()
        step, run = self.state.global_step, self.run
        self._staging = os.fspath(run / checkpoints.STAGING)
        at_once = self._is_sharded() or self.args.push_to_hub or not self.saver.room
        self._deferred = None if at_once else []
        with told(f"checkpoint-{step}", run):
            try:
                super()._save_checkpoint(model, trial, *args, **kwargs)
            finally:
                self._staging, writes, self._deferred = None, self._deferred or [], None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._name_best(run, step)
            facts = {**self.identity, "step": step, "samples": step * self.identity["batch"] + self.stream.offset}
            best = self.state.best_model_checkpoint
            self.saver.start(lambda: self._seal(step, writes, facts, {Path(best)} if best else set()))
            if self._others_look():
                self.saver.wait()

    def _seal(self, step: int, writes: list[Callable[[], object]], facts: dict[str, Any], best: set[Path]) -> None:
        """In the background: write what is left, make the checkpoint visible, let old ones go."""
        try:
            with told(f"checkpoint-{step}", self.run):
                for write in writes:
                    write()
                done = checkpoints.publish_staged(self.run, step, facts)
        except RuntimeError:
            checkpoints.clean(self.run)  # half a checkpoint is of no use, and may be what fills the disk
            raise
        self.sealed(done)
        if self.keep is not None:
            checkpoints.prune(self.run, self.keep, step, self.protected() | best)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if output_dir is not None and state_dict is not None and self.is_fsdp_enabled:
            if self.args.should_save:
                whole(self.kind, cast(Any, self.model).config, state_dict).save_pretrained(output_dir)
                self._save_tokenizer(Path(output_dir))
        elif self._deferred is None or output_dir is None:
            super()._save(output_dir, state_dict=state_dict)
        elif self.args.should_save:
            os.makedirs(output_dir, exist_ok=True)
            model: Any = self.accelerator.unwrap_model(self.model)
            weights = self.saver.copy({"model": model.state_dict()})["model"]
            self._deferred.append(partial(model.save_pretrained, output_dir, state_dict=weights))
            self._deferred.append(lambda: self._save_tokenizer(Path(output_dir)))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._deferred is None:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            for name, state in self.saver.copy(self._optimizer_state()).items():
                self._deferred.append(partial(torch.save, state, Path(output_dir, name)))

    def _optimizer_state(self) -> dict[str, Any]:
        """The state of the optimizer and of its schedule, by file."""
        optimizer, scheduler = cast(Any, self.optimizer), cast(Any, self.lr_scheduler)
        return {OPTIMIZER: optimizer.state_dict(), SCHEDULER: scheduler.state_dict()}

    def _prepare_saves(self) -> None:
        """Once the optimizer has a state: let the memory that saves copy to be made ready meanwhile."""
        if self._prepared or not cast(Any, self.optimizer).state:
            return
        self._prepared = True
        if self.args.should_save and self.args.save_strategy != "no" and not self._is_sharded():
            model: Any = self.accelerator.unwrap_model(self.model)
            self.saver.prepare({"model": model.state_dict(), **self._optimizer_state()})

    def _save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer: once really, then from memory, for a large one holds up all threads of Python."""
        if not self._tokenizer_files:
            with tempfile.TemporaryDirectory() as scratch:
                cast(Any, self.processing_class).save_pretrained(scratch)
                self._tokenizer_files = {path.name: path.read_bytes() for path in Path(scratch).iterdir()}
        for name, content in self._tokenizer_files.items():
            (folder / name).write_bytes(content)

    def _is_sharded(self) -> bool:
        """Whether one process does not have all weights and the whole state of the optimizer."""
        parallel = getattr(self.accelerator, "parallelism_config", None) is not None
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled or parallel)

    def _others_look(self) -> bool:
        """Whether a callback that is not ours is told of saves: it may want to read the checkpoint."""
        silent = (TrainerCallback.on_save, DefaultFlowCallback.on_save)
        return any(type(callback).on_save not in silent for callback in self.callback_handler.callbacks)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in Trainer, and the last save is sealed at the end."""
        try:
            result = super().train(*args, **kwargs)
            self._read()
        except BaseException:
            with suppress(Exception):  # what ended the training is told
                self.saver.wait()
            raise
        self.saver.wait()
        return result

    def _load_best_model(self) -> None:
        self.saver.wait()
        super()._load_best_model()

    def _name_best(self, run: Path, step: int) -> None:
        """The best checkpoint was noted under the folder it was made in; note its final place."""
        best = self.state.best_model_checkpoint
        if best and checkpoints.STAGING in Path(best).parts:
            self.state.best_model_checkpoint = os.fspath(run / Path(best).name)
            self.state.save_to_json(os.fspath(run / checkpoints.STAGING / f"checkpoint-{step}" / "trainer_state.json"))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """As in Trainer, but a second name of a tied parameter, which no file has, is not missing."""
        state = cast(Any, self.model).state_dict(keep_vars=True)
        missing = set(load_result.missing_keys)
        loaded = {id(parameter) for name, parameter in state.items() if name not in missing}
        really = [name for name in load_result.missing_keys if name not in state or id(state[name]) not in loaded]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=really))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As in Trainer, whose 4.57 fails with several processes on CPUs: it asks torch for a device "cpu:0"."""
        args = self.args
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if checkpoint is None or sharded or args.device.type != "cpu" or args.world_size == 1:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        for name, target in ((OPTIMIZER, self.optimizer), (SCHEDULER, self.lr_scheduler)):
            state: Any = torch.load(Path(checkpoint, name), map_location="cpu", weights_only=True)
            loaded: Any = target
            loaded.load_state_dict(state)

    # -- held-out loss ----------------------------------------------------------------------------------------------

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """The held-out loss by language instead of the Trainer's one number; see :mod:`langsamp.train.heldout`."""
        if self.heldout is None:
            return {}
        model: Any = self.model_wrapped if self.is_fsdp_enabled else self.model
        with self.accelerator.autocast():
            metrics = self.heldout(model, self.state.global_step)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
