"""Faster training on CPU over the same parameters: puts fast layers, loss and lookup in place, and takes them out.

    with accelerate(model):        # bf16: autocast as usual, e.g. the Trainer's bf16=True
        trainer.train()

Values and gradients equal the stock model's (fp32: to rounding), the state_dict is untouched. On GPUs, and wherever a
self-check fails, the stock code stays. Measured by benchmarks/step.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from langsamp.core.compute import kernels as cpu_kernels
from langsamp.train.fast.cpu_head import LOGITS_KEPT, HeadLoss
from langsamp.train.fast.cpu_layer import PARAMETERS, Dropout, FastLayer, LayerOptions
from langsamp.train.fast.ends import Owner, fast_lookup, one_process, writable

logger = logging.getLogger(__name__)
# transformers 5 checkpoints inside the layer's class-level forward, which the fast one replaces; 4 does it around
CHECKPOINTS_INSIDE = "__init_subclass__" in vars(GradientCheckpointingLayer)


@contextmanager
def accelerate(model: Any, *, checkpoint_layers: bool = False) -> Iterator[tuple[str, ...]]:
    """Train ``model`` (LangSAMPForMaskedLM) faster inside the block; everything is as before after it.

    Dropout draws its seeds from torch's CPU generator, so saving and restoring that makes a run exactly repeatable.
    Evaluation (``model.eval()`` or no gradients) runs the stock code inside the block too, apart from the matrix
    products' routing.

    Args:
        model: the model itself, not wrapped in DDP (wrap it after entering, or let the Trainer do it).
        checkpoint_layers: keep one tensor a layer and compute the rest again in the backward pass: about 0.6 of the
            stock step's peak memory, a quarter slower than without.

    Yields:
        What is on, of: ``"matmul"`` (fp32 products through oneDNN: AMD CPUs without AMX), ``"heap"`` (glibc),
        ``"layers"``, ``"loss"``, ``"lookup"`` (the last two write into ``weight.grad``, so with one process only).
    """
    if {p.device.type for p in model.parameters()} != {"cpu"}:
        logger.info("fast CPU training is off: the model is on %s", next(model.parameters()).device)
        yield ()
        return
    on = []
    with ExitStack() as stack:
        stack.enter_context(cpu_kernels.threads())
        if stack.enter_context(cpu_kernels.fast_matmul()):
            on.append("matmul")
        if not checkpoint_layers and cpu_kernels.keep_heap():
            on.append("heap")
        if _install_layers(model, checkpoint_layers, stack):
            on.append("layers")
        if one_process():
            on += _install_ends(model, stack)
        logger.info("fast CPU training: %s", ", ".join(on) or "nothing applies")
        yield tuple(on)


def _install_layers(model: Any, recompute: bool, stack: ExitStack) -> bool:
    """Replace the forward of every encoder layer and of the embeddings' dropout, if the first layer agrees."""
    config, layers = model.config, model.encoder_layers
    if not _known(config) or not layers or not _agrees(layers[0], config):
        logger.info("the encoder's layers stay as they are: not the architecture that the fast ones know")
        return False
    for layer in layers:
        stack.enter_context(cpu_kernels.patch(layer, "forward", _fast_forward(layer, config, recompute)))
    dropout = model.base_model.embeddings.dropout
    stock = dropout.forward

    def fast_dropout(x: Tensor) -> Tensor:
        return Dropout.apply(x, dropout.p) if dropout.training and 0 < dropout.p < 1 else stock(x)

    stack.enter_context(cpu_kernels.patch(dropout, "forward", fast_dropout))
    return True


def _known(config: Any) -> bool:
    """Whether the configuration is a plain encoder with exact GELU, normalised after each part: XLM-R's or BERT's."""
    return (
        config.model_type in ("xlm-roberta", "bert")
        and config.hidden_act == "gelu"
        and not config.is_decoder
        and not config.chunk_size_feed_forward
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and max(config.hidden_dropout_prob, config.attention_probs_dropout_prob) < 1
    )


def _parameters(layer: nn.Module) -> list[Tensor]:
    return [getattr(layer.get_submodule(name), kind) for name in PARAMETERS for kind in ("weight", "bias")]


def _options(layer: Any, config: Any, recompute: bool) -> LayerOptions:
    p = (layer.attention.self.dropout.p, layer.output.dropout.p) if layer.training else (0.0, 0.0)
    return LayerOptions(config.num_attention_heads, config.layer_norm_eps, p[0], p[1], recompute)


def _agrees(layer: nn.Module, config: Any) -> bool:
    """Whether the fast layer gives the stock layer's output on a small input (dropout off)."""
    try:
        x, stock = _stock(layer, config)
        with torch.no_grad():
            options = _options(layer, config, False)._replace(p_attention=0.0, p_hidden=0.0)
            fast = FastLayer.apply(x, None, options, *_parameters(layer))
    except (AttributeError, TypeError, RuntimeError) as error:
        logger.debug("the fast layer does not fit: %s", error)
        return False
    stock = stock if isinstance(stock, Tensor) else stock[0]
    return bool((stock - fast).abs().max() <= 1e-5 * stock.abs().max().clamp(min=1))


@torch.no_grad()
def _stock(layer: nn.Module, config: Any) -> tuple[Tensor, Any]:
    """A small input, and what the stock layer returns for it: a tensor, or in some versions a tuple with it."""
    dtype = next(layer.parameters()).dtype
    x = torch.arange(6 * config.hidden_size, dtype=dtype).sin().mul(3).view(2, 3, -1)
    was_training = layer.training
    layer.eval()  # no dropout, whose draws are the run's
    try:
        return x, layer(x, None)
    finally:
        layer.train(was_training)


def _fast_forward(layer: Any, config: Any, recompute: bool) -> Callable[..., Any]:
    """The layer's forward: fast where it trains all of its parameters and nobody asks for attention maps."""
    stock = layer.forward
    bare = isinstance(_stock(layer, config)[1], Tensor)

    def forward(hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        parameters = _parameters(layer)
        plain = not any(
            isinstance(a, Tensor) for a in (*args, kwargs.get("encoder_hidden_states"), kwargs.get("head_mask"))
        )
        # not also "grad is enabled": the first pass of reentrant checkpointing has none and must draw the same masks
        trains = layer.training and all(p.requires_grad for p in parameters)
        if not (plain and trains) or kwargs.get("output_attentions"):
            return stock(hidden_states, attention_mask, *args, **kwargs)
        flag = layer.gradient_checkpointing  # set by model.gradient_checkpointing_enable()
        again = recompute or flag if CHECKPOINTS_INSIDE else recompute and not flag
        bias = _additive(attention_mask, hidden_states.dtype)
        y = FastLayer.apply(hidden_states, bias, _options(layer, config, again), *parameters)
        return y if bare else (y,)

    return forward


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What to add to the attention scores: a boolean mask (True: attend) becomes zeros and very negative numbers."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _install_ends(model: Any, stack: ExitStack) -> list[str]:
    """Let head loss and word lookup write into the gradient of the vocabulary matrix."""
    words = model.get_input_embeddings()
    owner = Owner(words.weight)
    installed = []
    if hasattr(model, "summed_loss"):
        stack.enter_context(cpu_kernels.patch(model, "summed_loss", _fast_loss(model.summed_loss, owner)))
        installed.append("loss")
    if not (words.sparse or words.scale_grad_by_freq or words.max_norm):
        stack.enter_context(cpu_kernels.patch(words, "forward", fast_lookup(words, owner)))
        installed.append("lookup")
    return installed


def _fast_loss(stock: Callable[..., Tensor], owner: Owner) -> Callable[..., Tensor]:
    def summed_loss(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        tied = weight is owner.weight and writable(weight)
        fits = features.requires_grad and len(features) * len(weight) <= LOGITS_KEPT
        if not (tied and fits) or (targets < 0).any():
            return stock(features, weight, bias, targets)
        return HeadLoss.apply(features, bias, owner, targets)

    return summed_loss
