"""Held-out masked-LM loss by language with right, missing and wrong ids, as records in ``heldout.jsonl`` of a run.

Called by the Trainer's periodic evaluation. The same blocks with the same masks at every step and in every run of a
store, so numbers of two runs can be compared language by language. The record format is that of ``langsamp eval``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from langsamp.language_codes import parse_tag
from langsamp.train.blocks.store import BlockStore

RECORDS = "heldout.jsonl"
WRONG_SHIFT = 0.618  # wrong ids are those of a language this far down the list: never the own one, spread over all


class HeldOut:
    """The held-out evaluation of a run.

    Args:
        store: has the held-out blocks.
        collate: a collator of its own: masks by a fixed seed, no language dropout.
        run: the output folder; its name is the ``model`` of the records.
        blocks: at most this many a language.
        batch_size: blocks at once.
        rank, world: this process and how many share the languages.
        writes: whether this process writes the records.
    """

    def __init__(
        self,
        store: BlockStore,
        collate: Callable[[list[dict[str, Any]]], Any],
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

        Returns:
            Means over the languages: ``loss``, and ``loss_missing``, ``loss_wrong`` where the model has tables.
        """
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                mine = {
                    language: self._language(model, language) for language in self.languages[self.rank :: self.world]
                }
        finally:
            model.train(was_training)
        found = _gathered(mine, self.world)
        if self.writes:
            self._write(found, step)
        names = sorted({name for losses in found.values() for name in losses if name != "n"})
        return {name: float(np.mean([losses[name] for losses in found.values()])) for name in names}

    def _language(self, model: nn.Module, language: str) -> dict[str, float]:
        """The losses of one language, means over its masked tokens, and their number ``n``."""
        blocks = self.store.heldout(language)[: self.blocks]
        first = self.languages.index(language) * 1_000_003  # masks depend on the number of a sample
        sums: dict[str, float] = {}
        count = 0
        for start in range(0, len(blocks), self.batch_size):
            rows = blocks[start : start + self.batch_size]
            samples = [
                {"index": first + start + i, "language": language, "input_ids": row} for i, row in enumerate(rows)
            ]
            batch = {name: value.to(next(model.parameters()).device) for name, value in self.collate(samples).items()}
            masked = int((batch["labels"] != -100).sum())
            if not masked:
                continue
            for name, ids in self._choices(model, language, samples, batch).items():
                sums[name] = sums.get(name, 0.0) + masked * float(model(**{**batch, **ids}).loss)
            count += masked
        return {**{name: total / count for name, total in sums.items()}, "n": count} if count else {"n": 0}

    def _choices(self, model: nn.Module, language: str, samples: list[dict[str, Any]], batch: Any) -> dict[str, dict]:
        """The ids to try: right, missing, and those of another language."""
        config: Any = getattr(model, "module", model).config
        ids = [name for name in ("lang_ids", "script_ids") if name in batch]
        if not (config.languages or config.scripts) or not ids:
            return {"loss": {}}
        choices: dict[str, dict[str, torch.Tensor]] = {
            "loss": {},
            "loss_missing": {name: torch.zeros_like(batch[name]) for name in ids},
        }
        if len(self.languages) > 1:
            shift = max(1, round(WRONG_SHIFT * len(self.languages))) % len(self.languages) or 1
            other = self.languages[(self.languages.index(language) + shift) % len(self.languages)]
            theirs = self.collate([{**sample, "language": other} for sample in samples])
            choices["loss_wrong"] = {name: theirs[name].to(batch[name].device) for name in ids}
        return choices

    def _write(self, found: dict[str, dict[str, float]], step: int) -> None:
        """Append the records; a step that is measured again after a resume replaces its old lines."""
        path = self.run / RECORDS
        revision = f"step-{step}"
        kept = []
        if path.exists():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in lines if json.loads(line).get("revision") != revision]
        fresh = []
        for language, losses in sorted(found.items()):
            code, script = parse_tag(language)
            for metric, value in losses.items():
                if metric == "n":
                    continue
                record = {
                    "schema": 1,
                    "task": "lm",
                    "language": code,
                    "script": script,
                    "metric": metric,
                    "value": value,
                }
                record |= {"n": int(losses["n"]), "layer": None, "direction": None, "source": None, "seed": None}
                fresh.append(json.dumps(record | {"model": self.run.name, "revision": revision}) + "\n")
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept + fresh), encoding="utf-8")
        os.replace(temporary, path)


def _gathered(mine: dict[str, dict[str, float]], world: int) -> dict[str, dict[str, float]]:
    """The parts of all processes together."""
    if world == 1:
        return {language: losses for language, losses in mine.items() if losses["n"]}
    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, mine)
    return {language: losses for part in parts for language, losses in part.items() if losses["n"]}
