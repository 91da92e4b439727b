"""The Trainer of fine-tuning: even micro-batches, the best weights in memory, no rows that nothing moves.

Faster without changing what is computed: the loss of an update is the mean over its examples (tokens, for a tagger),
however they are cut into micro-batches, so these hold texts of like length, and a card takes all at once. Pieces that
the data does not hold have no gradient and without weight decay never move, so only the others are trained.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from langsamp.core.compute.kernels import fast_matmul, products
from langsamp.core.runtime import pick_device
from langsamp.eval.engines.predict import IGNORED, Feature, predict
from langsamp.eval.engines.recipe import Job, Recipe

logger = logging.getLogger(__name__)

COMPILED_FROM = 500  # updates; compiling takes as long as about so many
Best = tuple[float, dict[str, Tensor]]  # dev score and weights


class ByLength(Sampler[int]):
    """A new random order each epoch; the examples of an update are sorted by length, so micro-batches are even."""

    def __init__(self, lengths: Sequence[int], update: int, seed: int) -> None:
        self.lengths, self.update = torch.tensor(lengths), update
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        for part in torch.randperm(len(self.lengths), generator=self.generator).split(self.update):
            yield from part[self.lengths[part].argsort(stable=True)].tolist()


class FineTuner(Trainer):
    """The Trainer with fast products around computation only, and the fast prediction for the dev set.

    The best weights stay in memory: writing a model takes longer than training it for a while.
    """

    def __init__(self, job: Job, dev_score: Callable[[np.ndarray, np.ndarray], float], **settings: Any) -> None:
        super().__init__(compute_loss_func=_mean_loss, **settings)
        self.job, self.dev_score = job, dev_score
        self.best: Best | None = None
        self.waited = 0

    def get_train_dataloader(self) -> DataLoader:
        """Batches of the Trainer's size in the order of `ByLength`."""
        train: Any = self.train_dataset
        update = self.args.train_batch_size * self.args.gradient_accumulation_steps
        order = ByLength([len(feature["input_ids"]) for feature in train], update, self.job.seed)
        loader = DataLoader(train, self.args.train_batch_size, sampler=order, collate_fn=self.data_collator)
        prepared: DataLoader = self.accelerator.prepare(loader)
        return prepared

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the Trainer has it."""
        with fast_matmul(self.args.device.type == "cpu"), products(self.job.dtype):
            return super().training_step(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The dev score, by the same prediction that the test sets get; the first of the best models is kept."""
        dev: Any = self.eval_dataset
        model = cast(PreTrainedModel, self.model)
        with products(self.job.dtype):
            logits = predict(model, [feature["input_ids"] for feature in dev])
        score = self.dev_score(*_aligned([row.argmax(-1) for row in logits], [feature["labels"] for feature in dev]))
        self.waited += 1
        if self.best is None or score > self.best[0]:
            self.best = score, {name: value.detach().clone() for name, value in model.state_dict().items()}
            self.waited = 0
        metrics = {"eval_score": score}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.control.should_training_stop |= self.waited >= (self.job.recipe.patience or np.inf)
        return metrics


def _mean_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Cross entropy, mean over all labels of the update (the Trainer counts them over its micro-batches)."""
    logits = outputs["logits"]
    flat = logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1)
    return nn.functional.cross_entropy(*flat, ignore_index=IGNORED, reduction="sum") / num_items_in_batch


def _aligned(predicted: list[np.ndarray], labels: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels as arrays: (n,), or (n, longest) with -100 where nothing is predicted."""
    if isinstance(labels[0], int):
        return np.array(predicted), np.array(labels)
    shape = (len(labels), max(map(len, labels)))
    both = np.zeros(shape, dtype=int), np.full(shape, IGNORED)
    for array, rows in zip(both, (predicted, labels)):
        for index, row in enumerate(rows):
            array[index, : len(row)] = row
    return both


class Steps(TrainerCallback):
    """Says how far the training is, and makes the last model a candidate, also between two evaluations."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """After each update."""
        if not state.global_step % max(1, state.max_steps // 100):
            self.tell(f"fine-tuning, step {state.global_step} of {state.max_steps}")
        if state.global_step >= state.max_steps and args.eval_strategy == "steps":
            control.should_evaluate = True
        return control


def micro_batch(recipe: Recipe, config: Any, device: torch.device) -> int:
    """Examples that go through the model at once: the recipe's, or as much of an update as half of a card holds."""
    if device.type != "cuda":
        return recipe.batch_size
    example = 160 * config.hidden_size * config.num_hidden_layers * recipe.max_length  # bytes kept for the way back
    fits = torch.cuda.get_device_properties(device).total_memory // 2 // example
    parts = next(
        n
        for n in range(1, recipe.accumulation + 1)
        if recipe.accumulation % n == 0
        and (n == recipe.accumulation or recipe.batch_size * recipe.accumulation // n <= fits)
    )
    return recipe.batch_size * recipe.accumulation // parts


def arguments(job: Job, folder: Path, micro_batch: int) -> TrainingArguments:
    """What the Trainer is told. The best model is kept in memory, hence nothing is saved on the way."""
    recipe = job.recipe
    found = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=recipe.batch_size * recipe.accumulation // micro_batch,
        learning_rate=recipe.learning_rate,
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps or -1,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        eval_strategy="steps" if recipe.eval_steps else "epoch",
        eval_steps=recipe.eval_steps,
        save_strategy="no",
        seed=job.seed,
        bf16=job.dtype == "bfloat16",
        use_cpu=pick_device().type == "cpu",
        report_to="none",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it waits for the card at every step
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    if found.n_gpu > 1:  # several cards in sight must not change the batch
        found._n_gpu = 1
    return found


class PieceTable:
    """The embedding of a model cut down to the pieces that some features hold, and put back whole after training."""

    def __init__(self, model: PreTrainedModel, features: Sequence[Feature]) -> None:
        self.model, self.whole = model, cast(nn.Embedding, model.get_input_embeddings())
        pad = int(model.config.pad_token_id)
        held = {piece for feature in features for piece in feature["input_ids"]}
        self.pieces = np.array(sorted(held.union(range(pad + 1))))  # the pad token keeps its number
        part = nn.Embedding(len(self.pieces), self.whole.embedding_dim, padding_idx=pad)
        part.weight = nn.Parameter(self.whole.weight.detach()[self.pieces].clone())
        model.set_input_embeddings(part)

    def renumbered(self, features: Sequence[Feature]) -> list[Feature]:
        """The features with the numbers that the pieces have now."""
        return [{**feature, "input_ids": np.searchsorted(self.pieces, feature["input_ids"])} for feature in features]

    def restore(self) -> None:
        """Write what was learned into the whole table and give it back to the model."""
        part = cast(nn.Embedding, self.model.get_input_embeddings()).weight
        with torch.no_grad():
            self.whole.weight[self.pieces] = part.to(self.whole.weight.device)
        self.model.set_input_embeddings(self.whole)


def compile_layers(model: PreTrainedModel, job: Job, examples: int, device: torch.device) -> None:
    """Compile the layers for a long training on a card; where that fails they stay as they are."""
    recipe = job.recipe
    updates = recipe.max_steps or recipe.epochs * -(-examples // (recipe.batch_size * recipe.accumulation))
    layers: Any = model.base_model.get_submodule(model.config.family.layers)
    if device.type != "cuda" or job.dtype == "tf32" or updates < COMPILED_FROM:
        return
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=job.dtype == "bfloat16"):
            ids = torch.full((recipe.batch_size, 16), model.config.pad_token_id + 1, device=device)
            mask = (torch.arange(16, device=device) < 12).long().expand(ids.shape)
            model.train()(input_ids=ids, attention_mask=mask).logits.float().sum().backward()
    except Exception as error:  # whatever the compiler raises
        logger.warning("fine-tuning goes on without compiled layers (%s: %s)", type(error).__name__, error)
        for layer in layers:
            layer._compiled_call_impl = None
    model.zero_grad()
    set_seed(job.seed)
