"""The stream: sample numbers in, the plan's blocks out, whatever the batching, the workers and the ranks."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DataLoader, SequentialSampler

from langsamp.train.batches.sampling import Plan
from langsamp.train.batches.stream import BlockStream


@pytest.fixture
def stream(small_store):
    return BlockStream(small_store, Plan(small_store.counts, 0.3, seed=7), length=60)


def test_samples_are_what_the_plan_says(stream, small_store):
    for (index, language, block), sample in zip(stream.plan.draws(range(60)), (stream[i] for i in range(60))):
        assert (sample["index"], sample["language"]) == (index, language)
        assert np.array_equal(sample["input_ids"], small_store.block(language, block))


def test_a_batch_equals_its_samples_and_order_does_not_matter(stream):
    together = stream.__getitems__([9, 3, 4])
    for i, sample in zip([9, 3, 4], together):
        assert sample["index"] == i
        assert np.array_equal(sample["input_ids"], stream[i]["input_ids"])


def test_offset_goes_on_where_another_batch_size_stopped(stream, small_store):
    later = BlockStream(small_store, stream.plan, length=20, offset=40)
    assert [later[i]["index"] for i in range(20)] == list(range(40, 60))
    assert later.mix(0, 20) == stream.mix(40, 20)
    assert sum(later.mix(0, 20).values()) == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_with_and_without_workers(stream, workers):
    def indices(samples):
        return [(sample["index"], int(sample["input_ids"].sum())) for sample in samples]

    sampler = SequentialSampler(stream)
    loader = DataLoader(stream, batch_size=8, sampler=sampler, num_workers=workers, collate_fn=indices)
    seen = [pair for batch in loader for pair in batch]
    assert [index for index, _ in seen] == list(range(60))
    assert seen == indices([stream[i] for i in range(60)])


def test_ranks_partition_the_single_stream(stream):
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    batches = BatchSampler(SequentialSampler(stream), batch_size=5, drop_last=False)
    ranks = [[i for batch in BatchSamplerShard(batches, 3, rank) for i in batch] for rank in range(3)]
    assert sorted(i for rank in ranks for i in rank) == list(range(60))
    assert ranks[1][:5] == [5, 6, 7, 8, 9]
    assert not set(ranks[0]) & set(ranks[1])
