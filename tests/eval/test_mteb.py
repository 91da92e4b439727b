"""Our checkpoints in sentence-transformers and mteb, as docs/evaluation.md shows it; no network."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # importing mteb alone takes seconds

FRENCH = [
    "Bonjour le monde.",
    "Le chat dort.",
    "Il pleut beaucoup.",
    "Nous mangeons du pain.",
    "Elle lit un livre.",
    "Merci",
]
ENGLISH = ["Hello world.", "The cat sleeps.", "It rains a lot.", "We eat bread.", "She reads a book.", "Thanks"]


@pytest.fixture(scope="module")
def sentence_transformer(tiny_model_dir):
    module = pytest.importorskip("sentence_transformers", reason="needs the extra langsamp[st]")
    return module.SentenceTransformer(str(tiny_model_dir), device="cpu")


def test_sentence_transformers_gives_our_vectors_of_the_last_layer(sentence_transformer, tiny_model_dir):
    from langsamp.eval.engines.encoder import Encoder

    theirs = sentence_transformer.encode(FRENCH + ENGLISH)
    [ours] = Encoder(tiny_model_dir, layers="last").encode(FRENCH + ENGLISH)
    assert np.abs(theirs - ours).max() < 1e-5


def test_mteb_runs_on_a_checkpoint_and_finds_what_we_find(sentence_transformer, tiny_model_dir):
    mteb = pytest.importorskip("mteb", reason="needs the extra langsamp[st]")
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

    from langsamp.eval.engines.encoder import Encoder
    from langsamp.eval.metrics import compute

    class InMemory(AbsTaskBitextMining):
        metadata = TaskMetadata(
            name="InMemoryBitextMining",
            description="Six sentences.",
            dataset={"path": "none/none", "revision": "none"},
            type="BitextMining",
            eval_splits=["test"],
            eval_langs=["fra-Latn", "eng-Latn"],
            main_score="accuracy",
        )

        def load_data(self, **kwargs):
            pairs = Dataset.from_dict({"sentence1": FRENCH, "sentence2": ENGLISH})
            self.dataset = DatasetDict({"test": pairs})
            self.data_loaded = True

    result = mteb.evaluate(sentence_transformer, tasks=InMemory(), cache=None, co2_tracker=False)
    [scores] = result.task_results[0].scores["test"]
    vectors = Encoder(tiny_model_dir, layers="last").encode(FRENCH + ENGLISH)[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    n = len(FRENCH)
    assert scores["accuracy"] == pytest.approx(compute("acc_at_k", predictions=unit[:n] @ unit[n:].T)["acc@1"])
