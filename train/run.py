"""The order of things in a pretraining run: resume or begin, train, settle the unknown rows, write the model.

The body of :func:`langsamp.train.pretrain.pretrain`, which opens what a :class:`Run` needs and holds the folder's lock.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from langsamp.core.facts import TrainingFacts
from langsamp.core.manifest import MANIFEST_NAME, write_manifest
from langsamp.core.outputs import add_gitignore, add_pooling
from langsamp.core.runtime import resolve_model
from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train import checkpoints
from langsamp.train.blocks.prepare import tokenizer_hash
from langsamp.train.blocks.store import BlockStore
from langsamp.train.callbacks import LOG, JsonLog, Publish, Publisher, read_log
from langsamp.train.collator import Collator
from langsamp.train.facts import evaluation, run_settings, training_facts
from langsamp.train.heldout import HeldOut
from langsamp.train.sampling import Plan, format_table
from langsamp.train.settings import PretrainSettings
from langsamp.train.stream import BlockStream
from langsamp.train.trainer import LangSAMPTrainer
from langsamp.train.unknown import settle_unknown

log = logging.getLogger(__name__)

SAMPLING = "sampling.json"
HELDOUT_SEED = 20240926  # masks of the held-out blocks: the same in every run, so that runs can be compared


@dataclass(frozen=True)
class PretrainResult:
    """What a run left behind.

    Attributes:
        folder: the finished model: config, weights, tokenizer, code, ``training.json``, manifest.
        model: the trained model, on its device, in eval mode.
        tokenizer: its tokenizer.
        losses: (step, training loss) as logged, from step 1 on, also over resumes.
        heldout: (step, {"eval_loss": ..., ...}) of each evaluation.
        facts: what ``training.json`` holds.
        unsent: steps that were to be published and could not be.
        first_process: whether this is the process that writes (of several, rank 0).
    """

    folder: Path
    model: LangSAMPForMaskedLM
    tokenizer: LangSAMPTokenizer
    losses: list[tuple[int, float]]
    heldout: list[tuple[int, dict[str, float]]]
    facts: TrainingFacts
    unsent: list[int]
    first_process: bool = True


class Run:
    """One call of pretrain: the parts of a run and the order they are used in."""

    def __init__(
        self,
        settings: PretrainSettings,
        args: TrainingArguments,
        model: LangSAMPForMaskedLM,
        tokenizer: LangSAMPTokenizer,
        store: BlockStore,
    ) -> None:
        self.settings, self.args, self.store = settings, args, store
        self.model, self.tokenizer = model, tokenizer
        self.folder = Path(settings.output)
        self.batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        if args.max_steps <= 0:
            args.max_steps = math.ceil(args.num_train_epochs * sum(store.counts.values()) / self.batch)
        self.plan = Plan(store.counts, settings.sampling(store.languages, self.batch, args.max_steps), args.seed)
        self.publisher: Publisher | None = None

    def go(
        self, publish: Publish | None, fetch: Callable[[str], Path] | None, callbacks: list[TrainerCallback]
    ) -> PretrainResult:
        """Resume or begin, train, finish."""
        started = datetime.now(UTC)
        if publish is not None:
            self.args.push_to_hub = False  # the Trainer's own push knows no manifest and no retries
            self.publisher = Publisher(publish, self.folder, self.settings.hub_every)
        if self.settings.resume == "auto" and self._finished():
            return self._as_it_is()
        checkpoint = self._resume_from(fetch)
        if self.args.should_save:
            add_gitignore(self.folder)
            self.plan.save(self.folder / SAMPLING, self.args.max_steps * self.batch)
            log.info("sampling of languages:\n%s", format_table(self._sampling()))
        with self._known_ids(), self._faster() as fast:
            trainer = self._trainer(checkpoint, callbacks, fast)
            trainer.train(resume_from_checkpoint=os.fspath(checkpoint) if checkpoint else None)
        unsent = self.publisher.close() if self.publisher else []
        return self._finish(trainer, started, unsent)

    # -- before -----------------------------------------------------------------------------------------------------

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with this run for a resume to be exact."""
        settings, config = self.settings, self.model.config
        dropout_from = [settings.lang_dropout_from] if settings.lang_dropout and settings.lang_dropout_from else []
        return {
            "corpus": self.store.fingerprint,
            "tokenizer": tokenizer_hash(self.tokenizer),
            "languages": checkpoints.digest([config.languages, config.scripts]),
            "sampling": checkpoints.digest(vars(self.plan.sampling)),
            "masking": [settings.mlm_probability, settings.lang_dropout, *dropout_from],
            "seed": self.args.seed,
            "batch": self.batch,
            "world_size": self.args.world_size,
        }

    def _resume_from(self, fetch: Callable[[str], Path] | None) -> Path | None:
        """The checkpoint to go on from, after checking that it belongs to this run."""
        wish = self.settings.resume
        if wish == "auto":
            found = checkpoints.last_good(self.folder)
        elif wish == "never":
            found = None
        elif Path(wish).expanduser().is_dir():
            found = checkpoints.find(Path(wish).expanduser())
        else:
            found = checkpoints.find(fetch(wish) if fetch else resolve_model(wish).path)
        later = [c for c in checkpoints.checkpoints(self.folder) if checkpoints.step_of(c) > _step(found)]
        if wish != "auto" and later:
            raise ValueError(
                f"{later[0]} is there already and would be mixed up with what this run saves; move it away, choose "
                "another --output, or go on from it with --resume auto."
            )
        if found is not None:
            checkpoints.differences(found, self.identity, self.settings.allow_changed)
            log.info("going on from %s", found)
        return found

    def _offset(self, checkpoint: Path | None) -> int:
        """Where sample 0 of this run lies in the plan: not at 0 if the batch size changed on the way."""
        if checkpoint is None:
            return 0
        facts = checkpoints.read_facts(checkpoint)
        return int(facts["samples"]) - int(facts["step"]) * self.batch

    @contextmanager
    def _known_ids(self) -> Iterator[None]:
        """The model does not look at the ids again: the collator takes them from the very tables."""
        self.model.check_ids = False
        try:
            yield
        finally:
            del self.model.check_ids  # the class's own stays

    @contextmanager
    def _faster(self) -> Iterator[bool]:
        """The faster step, unless it is not wanted or the parameters are spread out; yields whether it is on."""
        args = self.args
        if not self.settings.fast or args.fsdp or args.deepspeed:
            yield False
            return
        from langsamp.train.fast.step import accelerate

        if args.place_model_on_device:
            self.model.to(args.device)
        dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
        tokens = args.max_steps * self.batch * self.store.block_size / args.world_size
        again = bool(args.gradient_checkpointing)
        with accelerate(self.model, dtype=dtype, checkpoint_layers=again, tokens=tokens) as on:
            yield bool(on)

    def _trainer(self, checkpoint: Path | None, callbacks: list[TrainerCallback], fast: bool) -> LangSAMPTrainer:
        args, settings = self.args, self.settings
        keep, args.save_total_limit = args.save_total_limit, None  # pruning is ours: only after the manifest
        stream = BlockStream(self.store, self.plan, args.max_steps * self.batch, self._offset(checkpoint))
        heldout = self._heldout()
        trainer = LangSAMPTrainer(
            model=self.model,
            args=args,
            train_dataset=stream,
            eval_dataset=stream if args.eval_strategy != "no" else None,
            data_collator=self._collator(
                args.seed,
                lang_dropout=settings.lang_dropout,
                positions=128 if args.device.type == "cuda" and args.n_gpu == 1 else 0,
                dropout_from=round(settings.lang_dropout_from * args.max_steps) * self.batch + stream.offset,
            ),
            processing_class=self.tokenizer,
            identity=self.identity,
            table_lr=settings.table_lr,
            keep=keep,
            protected=self.publisher.waiting if self.publisher else set,
            sealed=self.publisher.sealed if self.publisher else bool,
            heldout=heldout or None,
            callbacks=[JsonLog(self.folder / LOG, self.batch * self.store.block_size), *callbacks],
            fold=fast,
        )
        if self.publisher:
            trainer.add_callback(self.publisher)
        if args.eval_strategy != "no" and not heldout:
            log.warning("no held-out loss: the store has no held-out blocks (langsamp prepare --heldout)")
        return trainer

    def _collator(self, seed: int, **options: Any) -> Collator:
        config = self.model.config
        return Collator(
            self.tokenizer,
            config.languages,
            config.scripts,
            seed=seed,
            mlm_probability=self.settings.mlm_probability,
            **options,
        )

    def _heldout(self) -> HeldOut:
        args = self.args
        together = bool(args.fsdp)  # every forward is collective: all processes do all languages
        return HeldOut(
            self.store,
            self._collator(HELDOUT_SEED),
            self.folder,
            self.settings.heldout_blocks,
            args.per_device_eval_batch_size,
            rank=0 if together else args.process_index,
            world=1 if together else args.world_size,
            writes=args.process_index == 0,
        )

    def _sampling(self) -> list[dict[str, Any]]:
        """The table that is printed and saved before training: language, blocks, probability, expected epochs."""
        return self.plan.table(self.args.max_steps * self.batch)

    def _finished(self) -> bool:
        """Whether the folder holds the finished model of just this run.

        Raises:
            ValueError: it holds one that was trained with other settings.
        """
        facts = TrainingFacts.read(self.folder)
        if not (self.folder / MANIFEST_NAME).is_file():
            return False
        if facts.identity != self.identity or facts.steps != self.args.max_steps:
            return False
        now = json.loads(json.dumps(run_settings(self.settings, self.args), default=str))
        changed = [name for name, value in facts.settings.items() if value != now.get(name, value)]
        if changed:
            what = ", ".join(f"{name} {facts.settings[name]} then, {now[name]} now" for name in changed)
            raise ValueError(
                f"{self.folder} holds a finished run with other settings ({what}); choose another --output."
            )
        return True

    def _as_it_is(self) -> PretrainResult:
        """The finished model; only what could not be published is tried again."""
        log.info("%s is finished; nothing to train", self.folder)
        if self.publisher and self.args.process_index == 0:
            self.publisher.start(self.args, self.args.max_steps)
        model = LangSAMPForMaskedLM.from_pretrained(self.folder).to(self.args.device)
        return self._result(model, self.publisher.close() if self.publisher else [])

    # -- after ------------------------------------------------------------------------------------------------------

    def _finish(self, trainer: LangSAMPTrainer, started: datetime, unsent: list[int]) -> PretrainResult:
        """Settle the unknown rows, write the finished model, then its facts, then the manifest."""
        history = read_log(self.folder / LOG)
        facts = training_facts(
            self.settings,
            self.args,
            self.store,
            history,
            steps=trainer.state.global_step,
            batch=self.batch,
            parameters=sum(p.numel() for p in self.model.parameters()),
            started=started,
            identity=self.identity,
            sampling=self._sampling(),
        )
        trainer.accelerator.wait_for_everyone()
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            model = self._gathered(trainer)
        else:
            model = trainer.accelerator.unwrap_model(trainer.model)
        if self.args.should_save:
            shares = {row.language: row.probability for row in facts.sampling}
            stream: Any = trainer.train_dataset
            settle_unknown(model, self.settings.unknown_policy, shares, stream, self._collator(self.args.seed))
            model.save_pretrained(self.folder)
            self.tokenizer.save_pretrained(self.folder)
            facts.write(self.folder)
            write_manifest(self.folder, {*add_pooling(self.folder), *_files(self.folder)})
        trainer.accelerator.wait_for_everyone()
        return self._result(model, unsent)

    def _result(self, model: LangSAMPForMaskedLM, unsent: list[int]) -> PretrainResult:
        history = read_log(self.folder / LOG)
        facts = TrainingFacts.read(self.folder)
        losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
        heldout = [(entry["step"], evaluation(entry)) for entry in history if "eval_loss" in entry]
        return PretrainResult(
            self.folder, model.eval(), self.tokenizer, losses, heldout, facts, unsent, self.args.process_index == 0
        )

    def _gathered(self, trainer: LangSAMPTrainer) -> LangSAMPForMaskedLM:
        """A whole copy of a model that was trained in shards."""
        state = trainer.accelerator.get_state_dict(trainer.model)
        model = LangSAMPForMaskedLM(self.model.config)  # type: ignore[arg-type]
        if self.args.should_save:
            model.load_state_dict({name.removeprefix("module."): value.float() for name, value in state.items()})
            model.tie_weights()
        return model


def _step(checkpoint: Path | None) -> int:
    """The step a checkpoint was saved at, whatever its folder is called; -1 for none."""
    return int(checkpoints.read_facts(checkpoint)["step"]) if checkpoint is not None else -1


def _files(folder: Path) -> list[str]:
    """The files of the finished model: those of the folder itself that are not hidden; checkpoints have their own."""
    return [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
