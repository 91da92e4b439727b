"""The training data as torch sees it: sample number in, token block out, nothing to iterate and nothing to lose.

Between sampling.py (which block a number stands for) and :mod:`langsamp.train.pretrain`. The Trainer cuts the numbers
0, 1, 2 ... into batches and deals the batches to the ranks in turn, so what all ranks see together is the
single-process stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from typing import Any

from torch.utils.data import Dataset, Sampler

from langsamp.train.batches.sampling import Plan
from langsamp.train.blocks.store import BlockStore


class BlockStream(Dataset):
    """Samples 0 to ``length - 1`` of a run.

    Args:
        store: where the blocks are.
        plan: which block each sample is.
        length: samples of the whole run.
        offset: added to every number: where this run's sample 0 lies in the plan (not 0 after a change of batch size).
    """

    def __init__(self, store: BlockStore, plan: Plan, length: int, offset: int = 0) -> None:
        self.store, self.plan, self.length, self.offset = store, plan, length, offset

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        """One sample: ``index`` (its number in the plan), ``language``, ``input_ids`` (block_size,) uint32."""
        return self.__getitems__([i])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The samples of a batch at once (torch's fetcher asks for it); numbers of a batch follow each other."""
        first = numbers[0] + self.offset
        if list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))):
            picks = list(self.plan.draws(first, len(numbers)))
        else:
            picks = [pick for n in numbers for pick in self.plan.draws(n + self.offset, 1)]
        return [
            {"index": index, "language": language, "input_ids": self.store.block(language, block)}
            for index, language, block in picks
        ]

    def mix(self, first: int, count: int) -> dict[str, int]:
        """How often each language occurs among ``count`` samples from number ``first`` on; most frequent first."""
        counts = Counter(language for _, language, _ in self.plan.draws(first + self.offset, count))
        return dict(counts.most_common())


class InOrder(Sampler[int]):
    """0, 1, 2 ...: the order is the plan's business."""

    def __init__(self, data: Sized) -> None:
        self.data = data

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data)))

    def __len__(self) -> int:
        return len(self.data)
