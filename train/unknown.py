"""The unknown rows of the tables, settled when training is over: what a missing language or script adds.

Called by :mod:`langsamp.train.pretrain` on the trained model, before it is written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from langsamp.core.model.fitting import Batch, Fit, fit_rows
from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.train.batches.stream import BlockStream, Collator

logger = logging.getLogger(__name__)

TESTED = 0.1  # batches to tell whether a fit helps, as a share of its steps


def settle_unknown(
    model: LangSAMPForMaskedLM,
    policy: str,
    shares: Mapping[str, float],
    stream: BlockStream,
    collate: Collator,
) -> None:
    """Make the unknown rows what the policy says and fold them into the head.

    Args:
        model: the trained model; changed in place.
        policy: ``zero``; ``mean`` of the rows; ``fitted`` to text whose language and script are not told, everything
            else frozen; or ``keep`` as they are.
        shares: how often each ``lang_Script`` was drawn, the weights of the mean.
        stream: of the training run; a fit reads the blocks that would have come next.
        collate: as in training, without language dropout.
    """
    if policy == "zero":
        model.set_unknown("zero")
    elif policy in ("mean", "fitted"):
        model.set_unknown(shares)
    tables = [name for name in ("lang_embeddings", "script_embeddings") if getattr(model, name) is not None]
    if policy == "fitted" and tables:
        _fit(model, tables, stream, collate)
    model.fold_unknown()


def _fit(model: LangSAMPForMaskedLM, tables: list[str], stream: BlockStream, collate: Collator) -> None:
    """Fit row 0 of the tables, starting from what they are, to no more blocks than were trained on."""
    fit = Fit(steps=max(1, min(Fit.steps, len(stream) // Fit.batch_size)))

    def draw(step: int) -> Batch:
        """Blocks whose language is unknown and, of every second one, whose script is unknown too."""
        first = len(stream) + step * fit.batch_size
        batch = collate(stream.__getitems__(range(first, first + fit.batch_size)))
        if "lang_ids" in batch:
            batch["lang_ids"].zero_()
        if "script_ids" in batch:
            batch["script_ids"][:: 2 if "lang_ids" in batch else 1] = 0
        return batch

    test = [draw(step) for step in range(fit.steps, fit.steps + max(1, round(fit.steps * TESTED)))]
    before, after = fit_rows(model, dict.fromkeys(tables, 0), draw, test, fit, progress=False)
    logger.info("unknown rows fitted: loss %.4f with the mean of the rows, %.4f fitted", before, after)
