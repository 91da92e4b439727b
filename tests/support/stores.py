"""A small store made of the tiny world's sentences."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def small_store_dir(texts, tiny_tokenizer_dir, tmp_path_factory):
    """Six languages of very different size in blocks of 32 tokens, some held out."""
    from langsamp.train.blocks.prepare import prepare
    from langsamp.train.text.open import open_corpus

    folder = tmp_path_factory.mktemp("corpus")
    for k, (language, sentences) in enumerate(sorted(texts.items())):
        lines = [f"{text} {i}" for i in range(15 * (k + 1)) for text in sentences]
        (folder / f"{language}.txt").write_text("\n".join(lines), encoding="utf-8")
    store = tmp_path_factory.mktemp("store")
    prepare(open_corpus(folder), tiny_tokenizer_dir, store, block_size=32, num_proc=1, heldout=3, progress=False)
    return store


@pytest.fixture
def small_store(small_store_dir):
    from langsamp.train.blocks.store import BlockStore

    return BlockStore(small_store_dir)
