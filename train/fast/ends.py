"""The two ends of a masked LM that share the vocabulary matrix: the head's loss and the word lookup.

Both add their gradient straight into ``weight.grad`` instead of handing the autograd engine a dense (vocab, hidden)
tensor each, which it would have to zero, fill and add: at 250,002 x 768 every such pass moves 0.8 GB. So this is for
one process only: DDP and FSDP watch the engine, not ``weight.grad``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Owner:
    """The vocabulary matrix (vocab, hidden), unseen by autograd, and the memory of its next gradient.

    On a CPU the largest tensor of a step is taken at its start, when the memory that ``zero_grad`` has freed is still
    in one piece; taken late it would land elsewhere and the kept heap would grow.

    Attributes:
        weight: the matrix.
        rows: how many the gradient's memory has, of which ``weight.grad`` is the first.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.rows = weight, len(weight)
        self.memory: Tensor | None = None  # (rows, hidden), taken and not yet in use

    def pad_to(self, multiple: int) -> Owner:
        """Let the memory have a multiple of so many rows (a GPU's products like even sizes)."""
        self.rows = -(-len(self.weight) // multiple) * multiple
        return self

    def reserve(self) -> None:
        """Take memory for the gradient, if there is neither a gradient nor memory for one."""
        if self.weight.grad is None and self.memory is None:
            self.memory = self.weight.detach().new_empty(self.rows, self.weight.shape[1])

    def start_gradient(self) -> Tensor | None:
        """Make sure that ``weight.grad`` exists; if it holds no numbers yet, its memory (rows, hidden) to fill."""
        if self.weight.grad is not None:
            return None
        self.reserve()
        memory, self.memory = self.memory, None
        assert memory is not None
        self.weight.grad = memory[: len(self.weight)]
        return memory


class WordLookup(torch.autograd.Function):
    """``F.embedding`` whose backward adds the rows of the gradient into ``weight.grad``."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, owner: Owner, ids: Tensor, padding_idx: int | None) -> Tensor:
        """Rows for ids of any shape; anchor: any tensor that requires a gradient, so that backward is called."""
        ctx.owner, ctx.padding_idx = owner, padding_idx
        if not owner.weight.is_cuda:
            owner.reserve()
        ctx.save_for_backward(ids)
        return nn.functional.embedding(ids, owner.weight.detach())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, None]:  # type: ignore[override]
        """The row of the padding token gets nothing, as in the stock layer."""
        weight = ctx.owner.weight
        ids, rows = ctx.saved_tensors[0].reshape(-1), grad.reshape(-1, grad.shape[-1]).to(weight.dtype)
        with torch.no_grad():
            memory = ctx.owner.start_gradient()
            if memory is not None:
                memory.zero_()
            padding = slice(0) if ctx.padding_idx is None else slice(ctx.padding_idx, ctx.padding_idx + 1)
            kept = weight.grad[padding].clone()
            weight.grad.index_add_(0, ids, rows)
            weight.grad[padding] = kept
        return None, None, None, None


def fast_lookup(words: nn.Embedding, owner: Owner) -> Callable[[Tensor], Tensor]:
    """A stand-in for the embedding's forward: :class:`WordLookup` in training, where it applies."""
    stock, anchor = words.forward, torch.zeros((), requires_grad=True)

    def forward(ids: Tensor) -> Tensor:
        if not (words.training and words.weight is owner.weight and writable(words.weight)):
            return stock(ids)
        return WordLookup.apply(anchor, owner, ids, words.padding_idx)

    return forward


def writable(weight: Tensor) -> bool:
    """Whether adding to ``weight.grad`` ourselves is unseen: a trained leaf that nobody has hooked, in one process."""
    hooks = getattr(weight, "_backward_hooks", None) or getattr(weight, "_post_accumulate_grad_hooks", None)
    return torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf and not hooks and one_process()


def one_process() -> bool:
    """Whether nobody else reduces our gradients (DDP and FSDP watch the autograd engine, not ``weight.grad``)."""
    return not (torch.distributed.is_available() and torch.distributed.is_initialized())
