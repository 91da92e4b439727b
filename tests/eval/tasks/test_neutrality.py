"""Neutrality: every measure against plain loops, with holes in the parallel text; and what the numbers mean."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsamp.core.runtime import resolve_model
from langsamp.eval import run as runner
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.results import records, stats
from langsamp.eval.results.rundir import Matrices
from langsamp.eval.task import Context
from langsamp.eval.tasks.neutrality import NEUTRALITY, Sample
from langsamp.eval.tasks.similarity import pair_matrices, probe_languages, unit_rows


def cos(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.fixture
def vectors():
    """Three languages, seven sentences, some missing, with a language-specific shift."""
    rng = np.random.default_rng(5)
    meaning, shift = rng.normal(size=(1, 7, 4)), 2 * rng.normal(size=(3, 1, 4))
    mask = np.ones((3, 7), dtype=bool)
    mask[0, 2] = mask[1, 5] = mask[1, 6] = False
    return (meaning + shift + 0.3 * rng.normal(size=(3, 7, 4))) * mask[..., None], mask


def test_paired_measures_equal_plain_loops(vectors):
    full, mask = vectors
    found = pair_matrices(full, mask)
    has = [[i for i in range(7) if mask[a, i]] for a in range(3)]
    centre = [[mean(full[a][i][k] for i in has[a]) for k in range(4)] for a in range(3)]
    centred = [[[x - c for x, c in zip(full[a][i], centre[a])] for i in range(7)] for a in range(3)]
    for a, b in itertools.permutations(range(3), 2):
        both = [i for i in has[a] if i in has[b]]
        assert found["cosine"][a, b] == pytest.approx(mean(cos(full[a][i], full[b][i]) for i in both))
        assert found["cosine_centred"][a, b] == pytest.approx(mean(cos(centred[a][i], centred[b][i]) for i in both))
        other = [cos(full[a][i], full[b][j]) for i in has[a] for j in has[b] if i != j]
        assert found["cosine_control"][a, b] == pytest.approx(mean(other))
        margin = [
            cos(full[a][i], full[b][i]) - max(cos(full[a][i], full[b][j]) for j in has[b] if j != i) for i in both
        ]
        assert found["margin"][a, b] == pytest.approx(mean(margin), abs=1e-6)
    for matrix in found.values():
        assert np.isnan(np.diagonal(matrix)).all()
        assert np.isfinite(matrix[~np.eye(3, dtype=bool)]).all()


def test_languages_without_a_common_sentence_have_no_number():
    mask = np.array([[True, True, False, False], [False, False, True, True], [True, True, True, True]])
    found = pair_matrices(np.random.default_rng(0).normal(size=(3, 4, 5)) * mask[..., None], mask)
    for matrix in found.values():
        assert np.isnan(matrix[0, 1])
        assert np.isfinite(matrix[0, 2])
    assert stats.bootstrap_pairs(found["cosine"]).value == pytest.approx(np.nanmean(found["cosine"]))


def test_a_neutral_and_a_partitioned_space():
    """Translations on one point: cosine 1 and a probe at chance. A point for each language: the contrary."""
    rng = np.random.default_rng(1)
    mask = np.ones((4, 40), dtype=bool)
    neutral = np.repeat(rng.normal(size=(1, 40, 16)), 4, axis=0)
    found = pair_matrices(neutral, mask)
    assert np.nanmin(found["cosine"]) == pytest.approx(1)
    assert np.nanmin(found["margin"]) > 0
    assert mean(row.mean() for row in probe_languages(neutral, mask)) == pytest.approx(0.25, abs=0.15)
    apart = 0.1 * rng.normal(size=(4, 40, 16)) + 5 * rng.normal(size=(4, 1, 16))
    found = pair_matrices(apart, mask)
    assert np.nanmax(abs(found["cosine"] - found["cosine_control"])) < 0.01  # high or low, it says nothing of meaning
    assert np.nanmax(abs(found["cosine_centred"])) < 0.25
    assert all(row.all() for row in probe_languages(apart, mask))


def test_the_probe_never_trains_on_a_translation_of_a_test_sentence(monkeypatch):
    """Vectors that tell the sentence, not the language, would be memorised if folds were drawn over rows."""
    from sklearn.pipeline import Pipeline

    seen, fit, predict = [], Pipeline.fit, Pipeline.predict
    monkeypatch.setattr(Pipeline, "fit", lambda self, x, y: seen.append(set(x[:, 0].tolist())) or fit(self, x, y))
    monkeypatch.setattr(Pipeline, "predict", lambda self, x: seen.append(set(x[:, 0].tolist())) or predict(self, x))
    vectors = np.broadcast_to(np.arange(6.0)[None, :, None], (3, 6, 2)).copy()
    probe_languages(vectors, np.ones((3, 6), dtype=bool))
    assert seen == [{1, 3, 5}, {0, 2, 4}, {0, 2, 4}, {1, 3, 5}]


def test_unit_rows():
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data/sib200"
    folder.mkdir(parents=True)
    words = ["house", "dog", "sun", "boat", "bird", "road", "tree", "mill", "book", "river", "day", "winter"]
    for number, tag in enumerate(("deu_Latn", "eng_Latn", "fra_Latn", "srp_Cyrl")):
        ids, text = list(range(12)), [f"{word} {'x' * number}" for word in words]
        if tag == "srp_Cyrl":
            ids, text = ids[:3], text[:3]
        pq.write_table(pa.table({"id": ids, "text": text, "split": ["test"] * len(ids)}), folder / f"{tag}.parquet")
    return tmp_path / "data"


def test_the_task_writes_records_and_matrices(data, tmp_path, tiny_model_dir):
    settings = Context(resolve_model(tiny_model_dir), EvalData(data), tmp_path / "out", progress=False)
    (coverage,) = runner.run(settings, ["neutrality"])
    assert coverage.line() == (
        "neutrality: 3 of 4 languages; missing: srp_Cyrl (fewer than 10 of the sampled sentences)"
    )
    found = {(r.layer, r.metric, r.code): r for r in records.read(tmp_path / "out")}
    assert {layer for layer, _, _ in found} == {1, 2, 3}
    kept = Matrices.read(tmp_path / "out" / Matrices.file(2))
    languages, matrices = kept.languages, kept.values
    assert languages == ["deu_Latn", "eng_Latn", "fra_Latn"]
    for metric in ("cosine", "cosine_centred", "cosine_control", "margin"):
        assert found[2, metric, None].value == pytest.approx(np.nanmean(matrices[metric]))
        assert found[2, metric, None].n == 3
        assert (2, metric + "_lo", None) not in found  # three languages say nothing about others
        own = [found[2, metric, tag].value for tag in languages]
        assert mean(own) == pytest.approx(found[2, metric, None].value)
        assert own[0] == pytest.approx(np.nanmean([matrices[metric][0, 1:], matrices[metric][1:, 0]]))
    assert 0 <= found[2, "language_probe", None].value <= 1
    before = (tmp_path / "out" / records.RESULTS).read_bytes()
    runner.run(settings, ["neutrality"])
    assert (tmp_path / "out" / records.RESULTS).read_bytes() == before
    with pytest.raises(ValueError, match="depends on the whole set: choose another --output"):
        runner.run(settings, ["neutrality"], ["deu_Latn", "eng_Latn"])


def test_four_languages_have_an_interval_of_their_pairs(data, tmp_path, tiny_model_dir):
    table = pq.read_table(data / "sib200" / "deu_Latn.parquet")
    pq.write_table(table, data / "sib200" / "srp_Cyrl.parquet")
    settings = Context(resolve_model(tiny_model_dir), EvalData(data), tmp_path / "out", layers="2", progress=False)
    runner.run(settings, ["neutrality"])
    found = {(r.metric, r.code): r.value for r in records.read(tmp_path / "out")}
    matrices = Matrices.read(tmp_path / "out" / Matrices.file(2)).values
    for metric in ("cosine", "cosine_centred", "cosine_control", "margin"):
        bounds = stats.bootstrap_pairs(matrices[metric])
        assert [found[metric + end, None] for end in ("", "_lo", "_hi")] == list(bounds)
        assert bounds.low <= bounds.value <= bounds.high
    probes = [found["language_probe", code] for code in ("deu_Latn", "eng_Latn", "fra_Latn", "srp_Cyrl")]
    assert [found["language_probe" + end, None] for end in ("", "_lo", "_hi")] == list(stats.bootstrap_mean(probes))


def test_a_damaged_file_of_matrices_is_one_sentence(data, tmp_path, tiny_model_dir):
    settings = Context(resolve_model(tiny_model_dir), EvalData(data), tmp_path / "out", layers="2", progress=False)
    runner.run(settings, ["neutrality"])
    path = tmp_path / "out" / Matrices.file(2)
    whole = path.read_bytes()
    for damage in (b"", whole[:100], whole[: len(whole) // 2], whole.replace(b"languages", b"lingonber", 2)):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"layer02\.npz holds no similarities of languages"):
            runner.run(settings, ["neutrality"])


def test_too_little_data(data, tmp_path, tiny_model_dir):
    settings = Context(resolve_model(tiny_model_dir), EvalData(data), tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="neutrality needs two languages"):
        Sample.draw(settings, ["deu_Latn", "srp_Cyrl"])
    assert NEUTRALITY.languages(settings) == ["deu_Latn", "eng_Latn", "fra_Latn", "srp_Cyrl"]
    limited = Context(settings.source, settings.data, settings.output, options={"sentences": 4})
    assert len(Sample.draw(limited, ["deu_Latn", "eng_Latn"]).ids) == 4
    rows = {"id": ["1", "1"], "text": ["one", "two"], "split": ["test", "test"]}
    pq.write_table(pa.table(rows), data / "sib200" / "fra_Latn.parquet")
    settings = Context(settings.source, EvalData(data), settings.output, progress=False)
    sample = Sample.draw(settings, ["deu_Latn", "eng_Latn", "fra_Latn"])
    assert sample.languages == ["deu_Latn", "eng_Latn"]
    assert "fra_Latn: id 1 stands for two different sentences" in sample.problems["fra_Latn"]
    single = Context(settings.source, settings.data, settings.output, progress=False, options={"sentences": 1})
    with pytest.raises(ValueError, match="give --sentences 2 or more"):
        runner.run(single, ["neutrality"])


def test_languages_that_take_no_part_change_nothing(data, tmp_path, tiny_model_dir):
    """Nor do they keep another one in, which shares sentences with them alone and would have no number."""
    settings = Context(resolve_model(tiny_model_dir), EvalData(data), tmp_path / "out", options={"sentences": 20})
    alone = Sample.draw(settings, ["deu_Latn", "eng_Latn", "fra_Latn"])
    parts = {"qaa_Latn": range(20, 30), "qab_Latn": range(20, 23), "qac_Latn": range(23, 26), "qad_Latn": range(26, 30)}
    for tag, ids in parts.items():
        rows = {"id": list(ids), "text": [f"{tag} {i}" for i in ids]}
        pq.write_table(pa.table(rows), data / "sib200" / f"{tag}.parquet")
    (data / "sib200" / "qae_Latn.parquet").write_bytes(b"torn")
    settings = Context(settings.source, EvalData(data), settings.output, options={"sentences": 20}, progress=False)
    together = Sample.draw(settings, EvalData(data).languages("sib200"))
    assert (together.languages, together.ids, together.texts) == (alone.languages, alone.ids, alone.texts)
    (coverage,) = runner.run(settings, ["neutrality"])
    assert coverage.measured == alone.languages
    assert "cannot be read" in coverage.missing["qae_Latn"]
