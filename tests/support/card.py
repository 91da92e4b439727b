"""A card where there is none: tensors of a shape and a device, but without numbers, so that nobody can wait for one."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
import torch
import transformers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

unasked = pytest.mark.skipif(
    transformers.__version__ < "5", reason="transformers 4 asks in every forward pass whether a mask says anything"
)
CARD = torch.device("meta")  # a device that every build of torch can compute shapes on, backward too


@contextmanager
def numberless():
    """Inside the block tensors have no numbers: asking for one raises, and so does computing across devices.

    The card has no autocast, which torch refuses to be asked about.
    """
    enabled, autocast = torch.is_autocast_enabled, torch.autocast

    def without_autocast(device_type, *args, **kwargs):
        return nullcontext() if device_type == CARD.type else autocast(device_type, *args, **kwargs)

    with FakeTensorMode(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "is_autocast_enabled", lambda kind="cpu": kind != CARD.type and enabled(kind))
        patched.setattr(torch, "autocast", without_autocast)
        yield


def place(module, device=CARD, **elsewhere):
    """A module with other memory for its tensors, on a device; submodules by name on others. Tied ones stay tied."""
    seen = {}
    for name, part in module.named_modules():
        where = next((at for other, at in elsewhere.items() if f"{name}.".startswith(f"{other}.")), device)
        for store in (part._parameters, part._buffers):
            for key, tensor in store.items():
                if tensor is not None and id(tensor) not in seen:
                    seen[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device=where)
                    if isinstance(tensor, nn.Parameter):
                        seen[id(tensor)] = nn.Parameter(seen[id(tensor)], tensor.requires_grad)
                store[key] = seen.get(id(tensor))
    return module


def blank(batch, device=CARD):
    """A batch of that shape on a device."""
    return {name: torch.zeros(value.shape, dtype=value.dtype, device=device) for name, value in batch.items()}


class Unasked(TorchDispatchMode):
    """Refuses, on real numbers, what a card would have to be waited for: a number, or as many as there turn out to be.

    What the host alone computes is not told apart: put it outside of the block.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        unknown = torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
        if func is torch.ops.aten.index.Tensor:
            unknown = any(i is not None and i.dtype == torch.bool for i in args[1])
        assert not unknown, f"{func} would wait for the card"
        return func(*args, **(kwargs or {}))
