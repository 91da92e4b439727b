"""Models in shards (FSDP): what they need before, and the whole model again afterwards.

Used by :mod:`langsamp.train.pretrain` and :mod:`langsamp.train.trainer`. The sharding itself is accelerate's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import TrainingArguments

from langsamp.modeling_langsamp import LangSAMPForMaskedLM


@contextmanager
def one_name_each(model: LangSAMPForMaskedLM, args: TrainingArguments) -> Iterator[None]:
    """While a model is in shards, the bias of its decoder has one name.

    XLM-R's head knows it by a second one, which would put it into two groups of shards; torch refuses that.
    """
    decoder: Any = model.get_output_embeddings()
    others = [] if not args.fsdp else [
        (module, name)
        for module in model.modules()
        for name, parameter in list(module._parameters.items())
        if parameter is decoder.bias and module is not decoder
    ]  # fmt: skip
    for module, name in others:
        del module._parameters[name]
    try:
        yield
    finally:
        for module, name in others:
            module._parameters[name] = decoder.bias


def whole(kind: type[LangSAMPForMaskedLM], config: Any, weights: Mapping[str, Tensor]) -> LangSAMPForMaskedLM:
    """A model of a class (that it had before it was sharded) with gathered weights, in fp32."""
    model = kind(config)
    named = {name.removeprefix("module."): value.float() for name, value in weights.items()}
    model.load_state_dict(named, strict=False)  # the second name of a tied parameter is missing
    model.tie_weights()
    return model
