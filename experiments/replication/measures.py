"""What is measured of a model: tasks of `langsamp eval`, at which layers, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOME_LAYERS = (4, 8, 12)  # of the measures that are not taken at every layer
FINETUNE_STEPS = 100  # of SIB-200 and Taxi1500, batches of 16
TAGGING_STEPS = 200  # of NER and POS, batches of 32


@dataclass(frozen=True)
class Pass:
    """One call of the evaluation."""

    tasks: tuple[str, ...]
    layers: str | None = None
    seeds: tuple[int, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def some_layers(blocks: int) -> str:
    """Those of :data:`SOME_LAYERS` that a model of so many has, else its last."""
    return ",".join(str(layer) for layer in SOME_LAYERS if layer <= blocks) or "last"


def passes(
    blocks: int, encoder: bool = True, lm: bool = True, downstream: bool = False, layers: bool = True
) -> list[Pass]:
    """Everything to measure of a model of `blocks` layers.

    Args:
        blocks: layers of the model.
        encoder: retrieval at every layer, with CSLS too; neutrality and the SIB-200 probe at some.
        lm: masked-LM loss with right, missing and wrong ids.
        downstream: transfer of a fine-tuned SIB-200 classifier, and how well donor languages are chosen.
        layers: False for retrieval at the protocol's layer and nothing else of the encoder.
    """
    some = some_layers(blocks)
    found: list[Pass] = []
    if encoder and not layers:
        found.append(Pass(("sr-bible", "sr-tatoeba")))
    elif encoder:
        found.append(Pass(("sr-bible", "sr-tatoeba"), "all", options={"csls": True}))
        found.append(Pass(("sib200", "neutrality"), some, options={"probe": True, "sentences": 50}))
    if lm:
        found.append(Pass(("lm",)))
    if downstream:
        recipe = {"max_steps": FINETUNE_STEPS, "learning_rate": 1e-4}
        found.append(Pass(("sib200", "donors"), seeds=(42,), options=recipe))
    return found
