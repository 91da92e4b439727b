"""Continual pretraining: a model, a store and settings in, checkpoints and a finished model folder out.

The last stage of training, on the transformers Trainer. ``langsamp train``, ``langsamp quickstart`` and ``torchrun -m
langsamp train`` all come through :func:`pretrain`: begin or go on, train, settle the unknown rows, write.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments, set_seed

from langsamp.core.compute.kernels import patch
from langsamp.core.facts import TrainingFacts, license_of
from langsamp.core.files import held
from langsamp.core.language.languages import parse_same_as, renamed
from langsamp.core.manifest import MANIFEST_NAME, write_manifest
from langsamp.core.outputs import add_gitignore, add_pooling
from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.batches.sampling import Plan, format_table
from langsamp.train.batches.stream import BlockStream, Collator
from langsamp.train.blocks.prepare import tokenizer_hash
from langsamp.train.blocks.store import BlockStore, open_store
from langsamp.train.callbacks import LOG, JsonLog, Progress, no_other_bars, read_log
from langsamp.train.facts import evaluation, is_finished, training_facts
from langsamp.train.heldout import HeldOut
from langsamp.train.saves import checkpoints, resume
from langsamp.train.saves.publisher import Publish, Publisher
from langsamp.train.saves.saving import told
from langsamp.train.settings import PretrainSettings, training_arguments
from langsamp.train.sharding import one_name_each, whole
from langsamp.train.start import starting_model
from langsamp.train.trainer import LangSAMPTrainer
from langsamp.train.unknown import settle_unknown

logger = logging.getLogger(__name__)

PRECISION = "ACCELERATE_MIXED_PRECISION"
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
@no_other_bars()
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
        RuntimeError: another run holds the output folder, or it cannot be written to.
        NonFiniteError: the loss or a gradient stopped being a number; nothing broken was saved.
    """
    args = training_arguments(settings.output, training or {})
    run = Path(settings.output)
    taken = f"another run is training in {run}; wait for it or choose another --output."
    with held(run / checkpoints.LOCK, taken) if args.process_index == 0 else nullcontext():
        if args.should_save:
            checkpoints.clean(run)
        if args.world_size > 1:
            torch.distributed.barrier()  # nobody looks for checkpoints while they are being tidied
        set_seed(args.seed)
        if store is None:
            if not settings.store:
                raise ValueError("no store to train on; make one with langsamp prepare and give --store DIR.")
            store = open_store(settings.store)
        if model is None or tokenizer is None:
            model, tokenizer = _start(settings, store, args.seed)
        return _Pretraining(settings, args, model, tokenizer, store).go(publish, fetch, callbacks or [])


def _start(settings: PretrainSettings, store: BlockStore, seed: int) -> tuple[LangSAMPForMaskedLM, LangSAMPTokenizer]:
    if not settings.base:
        raise ValueError(
            "no model to start from; give --base MODEL (a folder, or a Hub id like FacebookAI/xlm-roberta-base or "
            "jhu-clsp/mmBERT-base)."
        )
    return starting_model(
        settings.base,
        [renamed(language, parse_same_as(settings.same_as)) for language in store.languages],
        settings.tokenizer,
        lang=settings.lang,
        script=settings.script,
        new_rows=settings.new_rows,  # type: ignore[arg-type]
        table_init=settings.table_init,
        seed=seed,
    )


class _Pretraining:
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
        self.sampling = self.plan.table(args.max_steps * self.batch)
        self.identity = self._identity(tokenizer_hash(tokenizer))
        self.publisher: Publisher | None = None
        self.license = license_of(model.name_or_path) if model.name_or_path else None

    def _identity(self, pieces: str) -> dict[str, Any]:
        """What a checkpoint must share with this run for a resume to be exact.

        Raises:
            ValueError: model, tokenizer and store do not belong together: which two do not, and what to do.
        """
        settings, config, store = self.settings, self.model.config, self.store
        config.check_tokenizer(self.tokenizer)
        if store.index.tokenizer.sha256 != pieces:
            raise ValueError(
                f"the store in {store.path} was cut with another tokenizer; prepare it with the one of this run, or "
                "name the store's by --tokenizer."
            )
        if store.block_size > config.max_tokens:
            raise ValueError(
                f"blocks of {store.block_size} tokens do not fit into {config.max_tokens} positions; "
                "prepare the store with a smaller --block-size."
            )
        dropout_from = [settings.lang_dropout_from] if settings.lang_dropout and settings.lang_dropout_from else []
        return {
            "corpus": store.fingerprint,
            "tokenizer": pieces,
            "languages": resume.digest([config.languages, config.scripts, *sorted(settings.same_as)]),
            "sampling": resume.digest(vars(self.plan.sampling)),
            "masking": [settings.mlm_probability, settings.lang_dropout, *dropout_from],
            "seed": self.args.seed,
            "batch": self.batch,
            "world_size": self.args.world_size,
        }

    def go(
        self, publish: Publish | None, fetch: Callable[[str], Path] | None, callbacks: list[TrainerCallback]
    ) -> PretrainResult:
        """Begin or go on, train, finish."""
        started, settings = datetime.now(UTC), self.settings
        if publish is not None:
            self.args.push_to_hub = False  # the Trainer's own push knows no manifest and no retries
            self.publisher = Publisher(publish, self.folder, settings.hub_every)
        if settings.resume == "auto" and is_finished(settings, self.args, self.identity):
            return self._as_it_is()
        checkpoint = resume.go_on_from(settings.resume, self.folder, self.identity, settings.allow_changed, fetch)
        step = int(checkpoints.read_facts(checkpoint)["step"]) if checkpoint else 0
        if step > self.args.max_steps:
            raise ValueError(
                f"{checkpoint} is at step {step:,}, beyond the {self.args.max_steps:,} steps asked for; ask for more, "
                "or choose another --output."
            )
        if self.args.should_save:
            add_gitignore(self.folder)
            self.plan.save(self.folder / SAMPLING, self.args.max_steps * self.batch)
            logger.info("sampling of languages:\n%s", format_table(self.sampling))
        if self.publisher and self.args.process_index == 0:
            self.publisher.start(self.args, step)
        known = patch(self.model, "check_ids", False)  # the collator takes the ids from the very tables
        with known, self._faster() as fast, one_name_each(self.model, self.args):
            trainer = self._trainer(checkpoint, callbacks, fast)
            trainer.train(resume_from_checkpoint=os.fspath(checkpoint) if checkpoint else None)
        unsent = self.publisher.close() if self.publisher else []
        return self._finish(trainer, started, unsent)

    def _as_it_is(self) -> PretrainResult:
        """The finished model; only what could not be published is tried again."""
        logger.info("%s is finished; nothing to train", self.folder)
        if self.publisher and self.args.process_index == 0:
            self.publisher.start(self.args, self.args.max_steps)
        model = LangSAMPForMaskedLM.from_pretrained(self.folder).to(self.args.device)
        return self._result(model, self.publisher.close() if self.publisher else [])

    # -- training ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _faster(self) -> Iterator[bool]:
        """The faster step, unless it is not wanted or the parameters are spread out; yields whether it is on."""
        args = self.args
        if self.settings.fast and args.n_gpu > 1:
            logger.warning("one process trains on %d cards, by the stock step; torchrun is much faster", args.n_gpu)
        if not self.settings.fast or args.fsdp or args.deepspeed or args.n_gpu > 1:  # copies know nothing of parts
            yield False
            return
        from langsamp.train.fast.step import accelerate

        # the Trainer would do it later; which step is the fastest depends on it
        self.model.to(args.device)  # type: ignore[arg-type]
        dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
        tokens = args.max_steps * self.batch * self.store.block_size / args.world_size
        again = bool(args.gradient_checkpointing)
        with accelerate(self.model, dtype=dtype, checkpoint_layers=again, tokens=tokens) as on:
            yield bool(on)

    def _trainer(self, checkpoint: Path | None, callbacks: list[TrainerCallback], fast: bool) -> LangSAMPTrainer:
        args, settings = self.args, self.settings
        keep, args.save_total_limit = args.save_total_limit, None  # pruning is ours: only after the manifest
        offset, tokens = resume.offset(checkpoint, self.batch), self.batch * self.store.block_size
        stream = BlockStream(self.store, self.plan, args.max_steps * self.batch, offset)
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
                dropout_from=round(settings.lang_dropout_from * args.max_steps) * self.batch + offset,
            ),
            processing_class=self.tokenizer,
            identity=self.identity,
            table_lr=settings.table_lr,
            keep=keep,
            protected=self.publisher.waiting if self.publisher else set,
            sealed=self.publisher.sealed if self.publisher else bool,
            heldout=heldout or None,
            callbacks=[JsonLog(self.folder / LOG, tokens), *callbacks],
            fold=fast,
        )
        for shown in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(shown)
        if not args.disable_tqdm:
            trainer.add_callback(Progress(tokens))
        if args.full_determinism:
            logger.warning("full determinism: kernels that add in a fixed order, one by one; steps take longer")
        if args.eval_strategy != "no" and not heldout:
            why = "no held-out loss: the store has no held-out blocks (langsamp prepare --heldout)"
            if args.metric_for_best_model:
                raise ValueError(f"{why}, by which the best model would be chosen.")
            logger.warning(why)
        return trainer

    def _collator(self, seed: int, **options: Any) -> Collator:
        config, share = self.model.config, self.settings.mlm_probability
        options["same_as"] = parse_same_as(self.settings.same_as)
        return Collator(self.tokenizer, config.languages, config.scripts, seed, share, **options)

    def _heldout(self) -> HeldOut:
        args = self.args
        together = bool(args.fsdp)  # every forward is collective: all processes do all languages
        return HeldOut(
            self.store,
            self._collator(HELDOUT_SEED, positions=1),
            self.folder,
            self.settings.heldout_blocks,
            args.per_device_eval_batch_size,
            rank=0 if together else args.process_index,
            world=1 if together else args.world_size,
            writes=args.process_index == 0,
        )

    # -- after ------------------------------------------------------------------------------------------------------

    def _finish(self, trainer: LangSAMPTrainer, started: datetime, unsent: list[int]) -> PretrainResult:
        """Settle the unknown rows, write the finished model, then its facts, then the manifest."""
        trainer.accelerator.wait_for_everyone()
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            weights = trainer.accelerator.get_state_dict(trainer.model)  # on the process that saves
            model = whole(trainer.kind, self.model.config, weights if self.args.should_save else {})
        else:
            model = trainer.accelerator.unwrap_model(trainer.model)
        facts = training_facts(
            self.settings,
            self.args,
            self.store,
            read_log(self.folder / LOG),
            steps=trainer.state.global_step,
            batch=self.batch,
            parameters=sum(p.numel() for p in model.parameters()),
            license=self.license,
            started=started,
            identity=self.identity,
            sampling=self.sampling,
        )
        if self.args.should_save:
            self._settle(model, trainer.stream)
            with told("the finished model", self.folder):
                self._write(model, facts)
        trainer.accelerator.wait_for_everyone()
        return self._result(model, unsent)

    def _settle(self, model: LangSAMPForMaskedLM, stream: BlockStream) -> None:
        """Settle the unknown rows; a fit runs on this process's device, where a model from shards may have no room."""
        shares = Counter[str]()
        for row in self.sampling:
            shares[renamed(row["language"], parse_same_as(self.settings.same_as))] += row["probability"]
        collate, policy = self._collator(self.args.seed), self.settings.unknown_policy
        if policy == "fitted":
            try:
                settle_unknown(model.to(self.args.device), policy, shares, stream, collate)  # type: ignore[arg-type]
                return
            except torch.OutOfMemoryError:
                logger.warning("no room on %s to fit the unknown rows: they are the mean of the rows", self.args.device)
                model, policy = model.cpu(), "mean"
        settle_unknown(model, policy, shares, stream, collate)

    def _write(self, model: LangSAMPForMaskedLM, facts: TrainingFacts) -> None:
        (self.folder / MANIFEST_NAME).unlink(missing_ok=True)  # of a shorter run, whose model this one replaces
        model.save_pretrained(self.folder)
        self.tokenizer.save_pretrained(self.folder)
        facts.write(self.folder)
        # what is hidden is not the model's, and checkpoints have manifests of their own
        files = [path.name for path in self.folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        write_manifest(self.folder, {*add_pooling(self.folder), *files})

    def _result(self, model: LangSAMPForMaskedLM, unsent: list[int]) -> PretrainResult:
        history = read_log(self.folder / LOG)
        facts = TrainingFacts.read(self.folder)
        losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
        heldout = [(entry["step"], evaluation(entry)) for entry in history if "eval_loss" in entry]
        return PretrainResult(
            self.folder, model.eval(), self.tokenizer, losses, heldout, facts, unsent, self.args.process_index == 0
        )
