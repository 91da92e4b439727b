"""Rows of the language and script tables fitted to text, with everything else frozen.

``langsamp add-language`` fits the row of a new language so, ``langsamp train --unknown fitted`` the unknown rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from tqdm.auto import trange

from langsamp.core.model.masking import IGNORED
from langsamp.modeling_langsamp import LangSAMPForMaskedLM

logger = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]  # what the model's forward takes, with labels


@dataclass(frozen=True)
class Fit:
    """How rows are fitted: Adam with a learning rate that falls to 0.

    Attributes:
        steps: batches.
        batch_size: blocks a batch.
        learning_rate: of Adam at the first step.
        seed: of whatever is drawn.
    """

    steps: int = 200
    batch_size: int = 8
    learning_rate: float = 0.01
    seed: int = 0


def fit_rows(
    model: LangSAMPForMaskedLM,
    rows: Mapping[str, int],
    draw: Callable[[int], Batch],
    test: Iterable[Batch],
    fit: Fit = Fit(),
    progress: bool = True,
) -> tuple[float, float]:
    """Fit one row of a table, or one of each, by masked language modelling; nothing else changes by a bit.

    The encoder is frozen and its output does not depend on the rows, so that no gradient goes further than the head:
    minutes on a CPU. Rows that the fit has made worse on the test batches go back to their start.

    Args:
        model: with the rows as they start; it stays on its device.
        rows: which row of ``lang_embeddings``, of ``script_embeddings``.
        draw: the batch of a step, whose ids name those rows.
        test: batches that are not fitted on.
        fit: how.
        progress: show a bar.

    Returns:
        The mean loss in nats on masked test tokens: as the rows started, and as they are now.
    """
    was_training, trainable = model.training, [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False).eval()
    tables = {f"{name}.weight": (getattr(model, name).weight, row) for name, row in rows.items()}
    # float32 copies: Adam's small steps would be lost in half precision
    vectors = {name: table[row].float().clone().requires_grad_(True) for name, (table, row) in tables.items()}
    test = list(test)
    before = mean_loss(model, test)
    optimizer = torch.optim.Adam(vectors.values(), lr=fit.learning_rate)
    for step in (bar := trange(fit.steps, desc="fitting rows", unit=" steps", disable=not progress)):
        optimizer.param_groups[0]["lr"] = fit.learning_rate * (1 - step / fit.steps)
        fitted = {name: _with_row(table, row, vectors[name]) for name, (table, row) in tables.items()}
        loss = functional_call(model, fitted, kwargs=_on(draw(step), model.device)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    start = {name: table[row].clone() for name, (table, row) in tables.items()}
    for name, (table, row) in tables.items():
        table[row] = vectors[name].detach().to(table)
    after = mean_loss(model, test)
    if not after <= before:  # also where it is not a number
        logger.warning(
            "the fit made the loss on held-out text worse (%.3f, started at %.3f): kept the start", after, before
        )
        for name, (table, row) in tables.items():
            table[row] = start[name]
        after = before
    for parameter in trainable:
        parameter.requires_grad_(True)
    model.train(was_training)
    return before, after


def _with_row(table: Tensor, row: int, vector: Tensor) -> Tensor:
    """The table with one row replaced; gradients reach the vector."""
    return torch.cat([table[:row], vector.to(table.dtype)[None], table[row + 1 :]])


def _on(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


@torch.no_grad()
def mean_loss(model: LangSAMPForMaskedLM, batches: Iterable[Batch]) -> float:
    """Mean masked-LM loss in nats over all labelled tokens of the batches; 0 if there are none."""
    total, count = 0.0, 0
    for batch in batches:
        n = int((batch["labels"] != IGNORED).sum())
        total += n * float(model(**_on(batch, model.device)).loss)
        count += n
    return total / max(1, count)
