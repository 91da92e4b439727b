"""Faster training on a GPU over the same parameters: puts a fused loss and lookup and compiled layers in place.

Every part checks itself; one that fails or raises goes back to the stock code alone, with one line in the log. Values
and gradients equal the stock model's to the rounding of the type computed in. Measured by benchmarks/gpu.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._functorch import config as functorch
from transformers.modeling_layers import GradientCheckpointingLayer

from langsamp.core.compute.kernels import patch
from langsamp.core.plain import one_line
from langsamp.train.fast.ends import Owner, fast_lookup, one_process

logger = logging.getLogger(__name__)
# floating-point operations in the layers of a run for which a large GPU takes as long as the compiler
WORTH_COMPILING = 1e15
PARTS = ("loss", "lookup", "attention", "layers")
LEFT_OUT = {  # unless asked for: what a type has no use for, or was not shown on a card to be as near to fp64 with
    torch.float32: ("attention",),
    torch.float16: ("attention", "layers"),
}


@contextmanager
def accelerate(
    model: Any,
    *,
    dtype: torch.dtype = torch.float32,
    tokens: float = math.inf,
    parts: tuple[str, ...] | None = None,
    compiling: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, ...]]:
    """Train ``model`` (LangSAMPForMaskedLM, on a GPU) faster inside the block; everything is as before after it.

    Evaluation (``model.eval()`` or no gradients) runs the stock code inside the block too, but for ``token_losses``.

    Args:
        model: the model itself, not wrapped in DDP (wrap it after entering, or let the Trainer do it).
        dtype: what products are computed in: autocast's type, or float32 without it.
        tokens: how many will be trained on, about; for less work than :data:`WORTH_COMPILING` layers stay as they are.
        parts: what to try, of :data:`PARTS`; None: all but what is :data:`LEFT_OUT` for the type.
        compiling: arguments of ``torch.compile`` for the layers.

    Yields:
        What is on: ``"loss"`` (Triton kernels; straight into ``weight.grad`` if there is one process),
        ``"lookup"`` (likewise; with one process only), ``"attention"`` (padded batches, and layers that look no further
        than a window), ``"layers"`` (torch.compile).
    """
    on, left_out = [], LEFT_OUT.get(dtype, ())
    parts = tuple(part for part in PARTS if part not in left_out) if parts is None else parts
    installs: dict[str, Callable[..., str | None]] = {
        "loss": _install_loss,
        "lookup": _install_lookup,
        "attention": _install_attention,
        "layers": _install_layers,
    }
    with ExitStack() as stack:
        owner = Owner(model.get_output_embeddings().weight)
        for name, install in installs.items():
            if name not in parts or (name == "lookup" and not one_process()):
                continue
            if name == "layers" and 6 * tokens * _parameters(model) < WORTH_COMPILING:
                logger.info("fast GPU training: a run this short is over before its layers are compiled")
                continue
            try:
                trouble = install(model, stack, owner, dtype, dict(compiling or {}))
            except Exception as error:  # whatever a compiler or a driver raises: the stock code works
                trouble = summary(error)
            if trouble:
                logger.warning("fast training without the part %r: %s", name, trouble)
            else:
                on.append(name)
        logger.info("fast GPU training: %s", ", ".join(on) or "nothing applies")
        yield tuple(on)


def _install_loss(model: Any, stack: ExitStack, owner: Owner, dtype: torch.dtype, _: Any) -> str | None:
    """Put the fused loss in place if its errors are those of the stock one; else says why not."""
    from langsamp.train.fast import gpu_head

    wrong = gpu_head.disagreement(owner.weight.device, dtype)
    if wrong:
        return wrong
    stack.enter_context(patch(model, "summed_loss", gpu_head.fast_loss(model.summed_loss, owner)))
    stack.enter_context(patch(model, "row_losses", gpu_head.fast_rows(model.row_losses, owner)))
    return None


def _install_lookup(model: Any, stack: ExitStack, owner: Owner, *_: Any) -> str | None:
    """Let the word lookup write into the gradient of the vocabulary matrix; else says why not."""
    words = model.get_input_embeddings()
    if words.weight is not owner.weight or words.sparse or words.scale_grad_by_freq or words.max_norm:
        return "the word embeddings are not plain rows of the head's matrix"
    stack.enter_context(patch(words, "forward", fast_lookup(words, owner)))
    return None


def _install_attention(model: Any, stack: ExitStack, owner: Owner, dtype: torch.dtype, _: Any) -> str | None:
    """Let padded batches and local layers take flash attention; else says why not."""
    from langsamp.train.fast.gpu_attention import install

    return install(model, stack, owner.weight.device, dtype)


def _install_layers(model: Any, stack: ExitStack, _: Any, __: Any, compiling: dict[str, Any]) -> str | None:
    """Compile the embeddings and every layer, one graph for all layers; else says why not."""
    layers = _layers(model)
    if not layers:
        return "no layers were found"
    given = {"dynamic": False, **compiling}
    kinds = {type(module): Switch(type(module).__name__) for module in layers}
    if hasattr(functorch, "force_non_lazy_backward_lowering"):  # what fails shall fail in the first forward pass
        stack.enter_context(functorch.patch(force_non_lazy_backward_lowering=True))
    for layer in layers:
        stack.enter_context(patch(layer, "forward", _compiled(layer, kinds[type(layer)], given)))
    embeddings, words = getattr(model.base_model, "embeddings", nn.Module()), model.get_input_embeddings()
    if words in embeddings.children() and "inputs_embeds" in signature(embeddings.forward).parameters:
        switch = Switch(type(embeddings).__name__)
        stack.enter_context(patch(embeddings, "forward", _compiled_embeddings(embeddings, words, switch, given)))
    return None


def _layers(model: Any) -> list[nn.Module]:
    return [m for m in model.base_model.modules() if isinstance(m, GradientCheckpointingLayer)]


def _parameters(model: Any) -> int:
    """Parameters of the layers: each takes part in six operations a token, forward and backward."""
    return sum(p.numel() for layer in _layers(model) for p in layer.parameters())


class Switch:
    """Whether compiled code is used for one kind of module: until a graph fails to compile, or the first to run."""

    on, worked = True, False

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def call(self, compiled: Callable[..., Any], stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the first, or where that fails the second, then and from then on."""
        try:
            result = compiled(*args, **kwargs)
            self.worked = True
            return result
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler raises: the stock code works
            if self.worked and not isinstance(error, TorchDynamoException):
                raise  # not the compiler's: gradient checkpointing stops a second forward pass by an exception
            self.on = False
            logger.warning("%s stays as it is, without torch.compile: %s", self.kind, summary(error))
        return stock(*args, **kwargs)


def summary(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {one_line(error)[:300]}"


def _compiled(module: nn.Module, switch: Switch, given: dict[str, Any]) -> Callable[..., Any]:
    """A module's forward that is compiled in training, and the stock one else."""
    stock = module.forward
    compiled = torch.compile(stock, **given)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not (switch.on and module.training and torch.is_grad_enabled()):
            return stock(*args, **kwargs)
        return switch.call(compiled, stock, *args, **kwargs)

    return forward


def _compiled_embeddings(module: Any, words: Any, switch: Switch, given: dict[str, Any]) -> Callable[..., Any]:
    """As :func:`_compiled`, with the word lookup outside, because a graph cannot write into ``weight.grad``."""
    inner = _compiled(module, switch, given)

    def forward(input_ids: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        if not args and input_ids is not None and kwargs.get("inputs_embeds") is None:
            kwargs["inputs_embeds"] = words(input_ids)
        return inner(input_ids, *args, **kwargs)

    return forward
