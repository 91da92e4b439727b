"""Retrieval: plain loops as the reference, and what happens with ties, doubles, holes and unparallel files."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import XLMRobertaModel

from langsamp.core.record import protocol_layer
from langsamp.core.runtime import resolve_model
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.engines.encoder import Encoder
from langsamp.eval.metrics.acc_at_k.acc_at_k import ranks
from langsamp.eval.results import records
from langsamp.eval.run import run
from langsamp.eval.task import Context
from langsamp.eval.tasks.retrieval import SR_BIBLE, SR_TATOEBA, csls, same_text, score
from langsamp.eval.tasks.similarity import cosine


def write(folder, tag, **columns):
    folder.mkdir(parents=True, exist_ok=True)
    language, script = tag.split("_")
    size = len(next(iter(columns.values())))
    pq.write_table(
        pa.table({**columns, "language": [language] * size, "script": [script] * size}), folder / f"{tag}.parquet"
    )


def context(model, data, **settings):
    return Context(resolve_model(model), EvalData(data), data / "out", progress=False, **settings)


def naive_cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b))
    lengths = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(x) ** 2 for x in b))
    return dot / lengths if lengths else 0.0


def naive_accuracy(queries, candidates, query_texts, candidate_texts, k):
    """Loops only: sort the wrong candidates above the right one, ties above."""
    hits = 0
    for i, query in enumerate(queries):
        own = naive_cosine(query, candidates[i])
        above = 0
        for j, candidate in enumerate(candidates):
            wrong = query_texts[j] != query_texts[i] and candidate_texts[j] != candidate_texts[i]
            if wrong and naive_cosine(query, candidate) >= own - 1e-7:
                above += 1
        hits += above < k
    return hits / len(queries)


def test_score_equals_plain_loops():
    rng = np.random.default_rng(3)
    english = rng.normal(size=(40, 6)).astype(np.float32)
    own = english + rng.normal(size=(40, 6)).astype(np.float32)
    own[7] = own[8]  # a tie between different texts
    own[11] = own[12]  # a tie because the texts are the same
    own[20] = 0  # a sentence without a direction
    texts, translations = [f"x{n}" for n in range(40)], [f"e{n}" for n in range(40)]
    texts[11] = texts[12]
    translations[30] = translations[31]
    found = score(own, english, texts, translations)
    for k in (1, 5, 10):
        assert found["en->x", f"acc@{k}"] == naive_accuracy(english, own, translations, texts, k)
        assert found["x->en", f"acc@{k}"] == naive_accuracy(own, english, texts, translations, k)
    assert 0 < found["en->x", "acc@1"] < found["en->x", "acc@10"] < 1


def test_a_tie_counts_against_the_model():
    assert ranks(np.array([[0.5, 0.5, 0.1], [0.0, 0.9, 0.2], [0.7, 0.8, 0.6]])).tolist() == [2, 1, 3]
    same = np.ones((20, 4), dtype=np.float32)  # everything on one point: no luck, no credit
    names = [str(n) for n in range(20)]
    assert set(score(same, same, names, names).values()) == {0.0}
    zero = np.zeros((20, 4), dtype=np.float32)
    assert set(score(zero, zero, names, names).values()) == {0.0}


def test_the_same_text_is_the_same_answer():
    right = same_text(["a", "b", "c"], ["x", "x", "y"])
    assert right.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert ranks(np.ones((3, 3)), right=right).tolist() == [2, 2, 3]


def test_csls_by_hand():
    # r(row 0) = (.9 + .5) / 2, r(column 0) = (.9 + .7) / 2 with two neighbours
    similarity = np.array([[0.9, 0.5, 0.1], [0.7, 0.6, 0.2], [0.3, 0.4, 0.8]])
    found = csls(similarity, 2)
    assert found[0, 0] == pytest.approx(2 * 0.9 - 0.7 - 0.8)
    assert found[2, 1] == pytest.approx(2 * 0.4 - 0.6 - 0.55)
    assert csls(similarity, 10).shape == (3, 3)
    vectors = np.eye(3, dtype=np.float32)
    assert score(vectors, vectors, list("abc"), list("xyz"), with_csls=True)["x->en", "acc@1_csls"] == 1.0


def test_cosine_equals_a_loop():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    assert cosine(a, b) == pytest.approx(np.array([[naive_cosine(x, y) for y in b] for x in a]))


@pytest.fixture
def bible(tmp_path):
    english = [
        f"The {word} is by the river." for word in ["house", "dog", "sun", "boat", "bird", "road", "tree", "mill"]
    ]
    ids = [40001001 + n for n in range(8)]
    write(tmp_path / "bible_retrieval", "eng_Latn", id=ids, text=english)
    german = [f"{word} am Fluss." for word in ["Haus", "Hund", "Sonne", "Boot", "Vogel", "Weg", "Baum"]]
    write(tmp_path / "bible_retrieval", "deu_Latn", id=[*ids[:6][::-1], 99], text=german)  # another order, one stranger
    return tmp_path


def test_the_whole_path_equals_stock_model_and_loops(bible, tiny_xlmr_dir, caplog):
    """Text to accuracy: stock classes one sentence at a time and loops, against the task with its records."""
    settings = context(tiny_xlmr_dir, bible, layers="1,last", prefix="query: ")
    (unit,) = SR_BIBLE.units(settings, SR_BIBLE.languages(settings))
    records = SR_BIBLE.compute(settings, unit)
    assert [record.metric for record in records] == [record.metric for record in unit.expected]
    texts, english = SR_BIBLE.pairs(settings.data, "deu_Latn")
    assert len(texts) == 6
    assert (texts[0], english[0]) == ("Haus am Fluss.", "The road is by the river.")
    model = XLMRobertaModel.from_pretrained(tiny_xlmr_dir, add_pooling_layer=False).eval()
    tokenize = Encoder(tiny_xlmr_dir, (1,)).tokenizer.encode
    for record in records:
        vectors = {}
        for side, part in (("x", texts), ("en", english)):
            rows = []
            for text in part:
                ids = torch.tensor([tokenize("query: " + text).ids])
                with torch.no_grad():
                    rows.append(model(ids, output_hidden_states=True).hidden_states[record.layer][0].mean(0).numpy())
            vectors[side] = rows
        query, candidate = record.direction.split("->")
        sides = {"x": texts, "en": english}
        k = int(record.metric.removeprefix("acc@"))
        expected = naive_accuracy(vectors[query], vectors[candidate], sides[query], sides[candidate], k)
        assert record.value == expected, record
        assert (record.n, record.language, record.script, record.model) == (6, "deu", "Latn", tiny_xlmr_dir.name)
    assert {record.layer for record in records} == {1, 3}
    assert "bible_retrieval/deu_Latn: of 6 sentences all are among the first 10" in caplog.text


def test_on_a_card_the_next_language_is_read_while_one_is_computed(bible, tiny_model_dir, tmp_path, monkeypatch):
    """With the same numbers; a language that cannot be used is told when it is its turn."""
    write(bible / "bible_retrieval", "fra_Latn", id=["elsewhere"] * 2, text=["a", "b"])
    for tag in ("ita_Latn", "por_Latn"):
        write(bible / "bible_retrieval", tag, id=[40001001 + n for n in range(3)], text=["casa", "cane", "sole"])
    tatoeba = {"text": [f"wort {n}" for n in range(4)], "english": [f"word {n}" for n in range(4)]}
    for tag in ("deu_Latn", "ita_Latn"):
        write(bible / "tatoeba", tag, **tatoeba)
    here = context(tiny_model_dir, bible)
    expected = sorted(map(str, measured(here, tmp_path / "without")))
    readers, tokenize = [], Encoder.tokenize

    def watched(encoder, texts):
        readers.append(threading.current_thread().name)
        return tokenize(encoder, texts)

    monkeypatch.setattr(Context, "_on_a_card", lambda self: True)
    monkeypatch.setattr(Encoder, "tokenize", watched)
    assert sorted(map(str, measured(here, tmp_path / "ahead"))) == expected
    assert sum(name.startswith("langsamp-ahead") for name in readers) == 2  # after the first, and after fra_Latn


def measured(here, output):
    """Records of a run of both tasks."""
    here = replace(here, output=output)
    coverage = run(here, ["sr-bible", "sr-tatoeba"])
    assert list(coverage[0].missing) == ["fra_Latn"]
    return records.read(output)


def test_default_layer_is_the_papers_at_two_thirds_of_the_depth(tiny_xlmr_dir, bible):
    assert context(tiny_xlmr_dir, bible).layer_list() == (2,)
    assert [protocol_layer(depth) for depth in (1, 4, 6, 12, 22, 24, 36)] == [1, 3, 4, 8, 15, 16, 24]


def test_files_that_are_not_parallel(bible):
    data, folder = EvalData(bible), bible / "bible_retrieval"
    write(folder, "fra_Latn", id=[1, 2], text=["a", "b"])
    with pytest.raises(DataError, match=r"fra_Latn has no id in common with eng_Latn"):
        SR_BIBLE.pairs(data, "fra_Latn")
    write(folder, "spa_Latn", id=[40001001, 40001001], text=["una casa", "otra casa"])
    with pytest.raises(DataError, match=r"spa_Latn: id 40001001 stands for two different sentences"):
        SR_BIBLE.pairs(EvalData(bible), "spa_Latn")
    write(
        folder, "ita_Latn", id=[40001001, 40001001, 40001002, 40001003], text=["una casa", "una casa", "un cane", " "]
    )
    assert SR_BIBLE.pairs(EvalData(bible), "ita_Latn")[0] == ["una casa", "un cane"]
    write(folder, "por_Latn", id=[40001001, 40001002], text=["", None])
    with pytest.raises(DataError, match="fewer than two different sentences"):
        SR_BIBLE.pairs(EvalData(bible), "por_Latn")
    write(folder, "ron_Latn", id=[40001001, 40001002], text=["casa", "casa"])
    with pytest.raises(DataError, match="fewer than two different sentences"):
        SR_BIBLE.pairs(EvalData(bible), "ron_Latn")


def test_english_must_be_there(bible, tiny_model_dir):
    (bible / "bible_retrieval/eng_Latn.parquet").unlink()
    with pytest.raises(DataError, match="bible_retrieval has no eng_Latn"):
        SR_BIBLE.languages(context(tiny_model_dir, bible))


def test_tatoeba_takes_its_translations_from_the_same_file(tmp_path, tiny_model_dir):
    write(
        tmp_path / "tatoeba",
        "deu_Latn",
        id=[0, 1, 2],
        text=["Haus", "Fluss", "Buch"],
        english=["House", "River", "Book"],
    )
    settings = context(tiny_model_dir, tmp_path, options={"csls": True})
    (unit,) = SR_TATOEBA.units(settings, ["deu_Latn"])
    records = SR_TATOEBA.compute(settings, unit)
    assert {record.metric for record in records} == {f"acc@{k}{end}" for k in (1, 5, 10) for end in ("", "_csls")}
    assert all(record.value == 1.0 for record in records if "@5" in record.metric)  # three candidates
    assert {record.direction for record in records} == {"en->x", "x->en"}


@pytest.mark.slow
def test_the_published_numbers_of_a_real_model(shared):
    """SR-Tatoeba of multilingual-e5-small against its published mteb accuracies (inputs with "query: ")."""
    import os

    checkpoint = os.environ.get("LANGSAMP_E5")
    if not checkpoint:
        pytest.skip("set LANGSAMP_E5 to the folder made by shared/tools/e5_to_xlmr.py")
    data = EvalData(shared / "data")
    encoder = Encoder(checkpoint, "last", prefix="query: ")
    gaps = []
    for tag, published in (("fra_Latn", 0.924), ("fin_Latn", 0.749), ("tha_Thai", 0.931), ("dan_Latn", 0.891)):
        texts, english = SR_TATOEBA.pairs(data, tag)
        vectors = encoder.encode(texts + english)[0]
        found = score(vectors[: len(texts)], vectors[len(texts) :], texts, english)["x->en", "acc@1"]
        gaps.append(abs(found - published))
    assert max(gaps) <= 0.03
    assert np.mean(gaps) <= 0.015
