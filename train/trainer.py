"""The transformers Trainer for LangSAMP: the stream in order, whole checkpoints, an end to non-finite training.

Driven by :mod:`langsamp.train.pretrain`. A thin subclass: the loop, DDP, FSDP, precision and reporting are not ours.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer

from langsamp.core.hashing import bits
from langsamp.train import checkpoints
from langsamp.train.fast.optimizer import fold_clip
from langsamp.train.stream import BlockStream, InOrder

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """Training has left the finite numbers and was stopped before any weight took part."""


class LangSAMPTrainer(Trainer):
    """Trainer over a :class:`~langsamp.train.stream.BlockStream`.

    Args:
        identity: what a checkpoint must share with the run that resumes from it; saved in each.
        table_lr: learning rate of the language and script table; None: like the rest.
        keep: newest checkpoints to keep; None keeps all.
        protected: asked before pruning: which checkpoints must stay (waiting to be pushed).
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
        fold: bool = False,
        heldout: Callable[[nn.Module, int], dict[str, float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.identity, self.table_lr, self.keep = identity, table_lr, keep
        self.protected, self.heldout, self.fold_clip = protected, heldout, fold
        self._staging: str | None = None
        self._micro, self._micro_of = 0, -1
        self._watch_gradients()

    @property
    def run(self) -> Path:
        """The output folder."""
        return Path(str(self.args.output_dir))

    # -- the stream -------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        data: Any = train_dataset if train_dataset is not None else self.train_dataset
        return InOrder(data)

    @property
    def samples_per_step(self) -> int:
        """Blocks in one optimizer step over all processes."""
        args = self.args
        return args.train_batch_size * args.gradient_accumulation_steps * args.world_size

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
        """As in Trainer. Raises NonFiniteError before a non-finite loss can reach the weights."""
        torch.manual_seed(self._draw_of(self._next_micro_batch()))
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss).all():
            self._stop("loss", float(loss.mean()))
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
        first = micro_batch * self.args.train_batch_size + getattr(self.train_dataset, "offset", 0)
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
            if norm is not None and scaler is None and not math.isfinite(float(norm)):  # fp16's scaler skips such steps
                self._stop("gradient norm", float(norm))
            return norm

        accelerator.clip_grad_norm_ = watched  # type: ignore[method-assign]

    def _stop(self, what: str, value: float) -> None:
        step, count = self.state.global_step, self.samples_per_step
        stream = self.train_dataset
        mix = stream.mix(step * count, count) if isinstance(stream, BlockStream) else {}
        languages = ", ".join(f"{language} {n}" for language, n in list(mix.items())[:12])
        good = checkpoints.last_good(self.run)
        raise NonFiniteError(
            f"the {what} is {value} in step {step + 1}; its blocks by language: {languages}"
            f"{' ...' if len(mix) > 12 else ''}. Nothing was saved; the last good checkpoint is {good or 'none yet'}. "
            "Lower the learning rate or, with fp16, use bf16; then run again to go on from there."
        )

    def _check_weights(self) -> None:
        model: Any = self.model
        broken = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
        if broken:
            self._stop(f"weight {broken[0]} ({len(broken)} in all)", float("nan"))

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any, *args: Any, **kwargs: Any) -> None:
        """As in Trainer, but made out of sight and sealed with a manifest; then, and only then, old ones go."""
        self._check_weights()
        step, run = self.state.global_step, self.run
        self._staging = os.fspath(run / checkpoints.STAGING)
        try:
            super()._save_checkpoint(model, trial, *args, **kwargs)
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._name_best(run, step)
            checkpoints.publish_staged(run, step, {**self.identity, "step": step, "samples": self._position(step)})
            if self.keep is not None:
                best = self.state.best_model_checkpoint
                checkpoints.prune(run, self.keep, step, self.protected() | ({Path(best)} if best else set()))
        self.accelerator.wait_for_everyone()

    def _position(self, step: int) -> int:
        """Samples of the plan consumed after a step."""
        return step * self.samples_per_step + getattr(self.train_dataset, "offset", 0)

    def _name_best(self, run: Path, step: int) -> None:
        """The best checkpoint was noted under the folder it was made in; note its final place."""
        best = self.state.best_model_checkpoint
        if best and checkpoints.STAGING in Path(best).parts:
            self.state.best_model_checkpoint = os.fspath(run / Path(best).name)
            self.state.save_to_json(os.fspath(run / checkpoints.STAGING / f"checkpoint-{step}" / "trainer_state.json"))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As in Trainer, whose 4.57 fails with several processes on CPUs: it asks torch for a device "cpu:0"."""
        args = self.args
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if checkpoint is None or sharded or args.device.type != "cpu" or args.world_size == 1:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        for name, target in (("optimizer.pt", self.optimizer), ("scheduler.pt", self.lr_scheduler)):
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
