"""Held-out masked-LM loss by language with right, missing and wrong ids, as records in ``heldout.jsonl`` of a run.

Called by the Trainer's periodic evaluation. The same blocks with the same masks at every step and in every run of a
store, so numbers of two runs can be compared language by language; not with those of the task ``lm``, which masks other
text in another way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from langsamp.core.compute.kernels import patch, send
from langsamp.core.files import atomic_write
from langsamp.core.record import Record
from langsamp.language_codes import parse_tag
from langsamp.train.blocks.store import BlockStore

RECORDS = "heldout.jsonl"
TASK = "heldout"
WRONG_SHIFT = 0.618  # wrong ids are those of a language this far down the list: never the own one, spread over all
Losses = dict[str, dict[str, float]]  # language -> {"loss": ..., "loss_missing": ..., "n": masked tokens}


class HeldOut:
    """The held-out evaluation of a run.

    The encoder never sees an id, so each block goes through it once; the head alone runs for each choice of ids. Blocks
    of all languages share the batches.

    Args:
        store: has the held-out blocks.
        collate: a collator of its own: masks by a fixed seed, no language dropout, the masked positions, unfilled.
        run: the output folder; its name is the ``model`` of the records.
        blocks: at most this many a language.
        batch_size: blocks at once.
        rank, world: this process and how many share the languages.
        writes: whether this process writes the records.
    """

    def __init__(
        self,
        store: BlockStore,
        collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
        run: Path,
        blocks: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        writes: bool = True,
    ) -> None:
        self.store, self.collate, self.run = store, collate, run
        self.blocks, self.batch_size, self.rank, self.world, self.writes = blocks, batch_size, rank, world, writes
        self.languages = [language for language in store.languages if len(store.heldout(language))]

    def __bool__(self) -> bool:
        return bool(self.languages) and self.blocks > 0

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        """Measure and write records.

        Args:
            model: the masked LM, or a wrapper of it that has it as ``module`` (FSDP).
            step: where the run is.

        Returns:
            Means over the languages: ``loss``, and ``loss_missing``, ``loss_wrong`` where the model has tables.
        """
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                found = _gathered(self._measure(model), self.world)
        finally:
            model.train(was_training)
        if self.writes:
            self._write(found, step)
        names = sorted({name for losses in found.values() for name in losses if name != "n"})
        return {name: float(np.mean([losses[name] for losses in found.values()])) for name in names}

    def _measure(self, model: nn.Module) -> Losses:
        """Means over the masked tokens of each of this process's languages that has any."""
        mine, samples = self.languages[self.rank :: self.world], list(self._samples())
        inner: Any = getattr(model, "module", model)
        device = next(inner.parameters()).device
        found: list[Tensor] = []
        names = ["loss"]
        with patch(inner, "forward", partial(_losses, inner)):  # reached through FSDP, which gathers weights there
            for start in range(0, len(samples), self.batch_size):
                some = samples[start : start + self.batch_size]
                batch = self.collate(some)
                choices = self._choices(inner.config, some, batch)
                names = list(choices)
                given = [{name: send(part[name], device) for name in part} for part in (batch, *choices.values())]
                found.append(model(given[0], given[1:]))  # (choices + 1, blocks)
        if not found:
            return {}
        rows = torch.tensor([mine.index(sample["language"]) for sample in samples])
        losses = torch.cat(found, 1).cpu().double()  # a card is waited for once
        *totals, counts = losses.new_zeros(len(losses), len(mine)).index_add_(1, rows, losses).tolist()
        return {
            language: {**{name: total[i] / counts[i] for name, total in zip(names, totals)}, "n": counts[i]}
            for i, language in enumerate(mine)
            if counts[i]
        }

    def _samples(self) -> Iterator[dict[str, Any]]:
        """The held-out blocks of this process's languages; masks depend on the number of a sample."""
        for number, language in list(enumerate(self.languages))[self.rank :: self.world]:
            for i, block in enumerate(self.store.heldout(language)[: self.blocks]):
                yield {"index": number * 1_000_003 + i, "language": language, "input_ids": block}

    def _choices(self, config: Any, samples: list[dict[str, Any]], batch: dict[str, Tensor]) -> dict[str, dict]:
        """The ids to try: right, missing, and those of another language."""
        right = {name: batch[name] for name in ("lang_ids", "script_ids") if name in batch}
        choices = {"loss": right}
        if not (config.languages or config.scripts) or not right:
            return choices
        choices["loss_missing"] = {name: torch.zeros_like(ids) for name, ids in right.items()}
        if len(self.languages) > 1:
            theirs = self.collate([{**sample, "language": self._other(sample["language"])} for sample in samples])
            choices["loss_wrong"] = {name: theirs[name] for name in right}
        return choices

    def _other(self, language: str) -> str:
        """The language whose ids are the wrong ones."""
        shift = max(1, round(WRONG_SHIFT * len(self.languages))) % len(self.languages) or 1
        return self.languages[(self.languages.index(language) + shift) % len(self.languages)]

    def _write(self, found: dict[str, dict[str, float]], step: int) -> None:
        """Append the records; a step that is measured again after a resume replaces its old lines."""
        path = self.run / RECORDS
        revision = f"step-{step}"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("}\n") and f'"revision": "{revision}"' not in line]
        fresh = []
        for tag, losses in sorted(found.items()):
            language, script = parse_tag(tag)
            fresh += [
                Record(task=TASK, language=language, script=script, metric=metric, value=value, n=int(losses["n"]),
                       model=self.run.name, revision=revision).to_json() + "\n"
                for metric, value in losses.items()
                if metric != "n" and math.isfinite(value)  # a run that diverged goes on to its end
            ]  # fmt: skip
        atomic_write(path, "".join(kept + fresh))


def _losses(model: Any, batch: dict[str, Tensor], choices: list[dict[str, Tensor]]) -> Tensor:
    """Summed losses of each block with each choice of ids, and below them the masked tokens: (choices + 1, blocks)."""
    labels, where = batch["labels"], batch["masked_positions"]
    targets, block = labels.flatten()[where], where // labels.shape[1]
    hidden = model.base_model(batch["input_ids"], attention_mask=batch.get("attention_mask")).last_hidden_state
    rows = [
        model.token_losses(model._add_rows(hidden, ids.get("lang_ids"), ids.get("script_ids"), where), targets)
        for ids in choices
    ]
    values = torch.stack([*rows, torch.ones_like(rows[0])])
    return values.new_zeros(len(values), len(labels)).index_add_(1, block, values)


def _gathered(mine: Losses, world: int) -> Losses:
    """The parts of all processes together."""
    if world == 1:
        return mine
    parts: list[Losses] = [{}] * world
    torch.distributed.all_gather_object(parts, mine)
    return {language: losses for part in parts for language, losses in part.items()}
