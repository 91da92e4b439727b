"""The embedding map: which rows are left out, PCA and purity against scikit-learn and hand-computed values."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from langsamp import LangSAMPForMaskedLM
from langsamp.core.language.families import family_name, family_of
from langsamp.core.runtime import resolve_model
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.results import records
from langsamp.eval.run import run
from langsamp.eval.task import Context
from langsamp.eval.tasks import embedding_map
from langsamp.eval.tasks.embedding_map import EMBEDDING_MAP, knn_purity, pca
from langsamp.eval.tasks.table_rows import read_rows, untrained_rows


def context(model: Path, output: Path, **fields) -> Context:
    return Context(resolve_model(model), EvalData(Path(__file__).parent), output, progress=False, **fields)


@pytest.fixture
def trained_dir(tiny_model_dir, tmp_path) -> Path:
    """The tiny model as if training had moved all rows but Hindi's and the script Deva."""
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        for table, names, name in (
            (model.lang_embeddings, model.config.languages, "hin"),
            (model.script_embeddings, model.config.scripts, "Deva"),
        ):
            kept = table.weight[names.index(name)].clone()
            table.weight.mul_(3)
            table.weight[names.index(name)] = kept
    model.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


def test_pca_is_that_of_scikit_learn():
    vectors = np.random.default_rng(0).normal(size=(12, 7)) + 5
    points, share = pca(vectors)
    reference = PCA(2).fit(vectors)
    expected = reference.transform(vectors)
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(share, reference.explained_variance_ratio_)
    assert (points[np.abs(points).argmax(0), [0, 1]] > 0).all()
    line, share = pca(np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 10.0]]))  # one dimension only
    np.testing.assert_allclose(share, [1, 0], atol=1e-12)
    np.testing.assert_allclose(line[:, 1], 0, atol=1e-9)
    same, share = pca(np.ones((4, 3)))
    assert not same.any()
    assert not share.any()


def test_purity_by_hand_and_by_scikit_learn():
    # two pairs on a line through the mean: each row's nearest is its partner
    vectors = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    assert knn_purity(vectors, ["a", "a", "b", "b"], k=1) == (1.0, pytest.approx(1 / 3), 4)
    assert knn_purity(vectors, ["a", "b", "a", "b"], k=1) == (0.0, pytest.approx(1 / 3), 4)
    assert knn_purity(vectors, ["a", "a", "b", None], k=9) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 3)
    assert knn_purity(vectors, ["a", None, None, None]) is None
    assert knn_purity(np.zeros((3, 2)), ["a", "a", "b"], k=1) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 3)  # ties

    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(30, 6)), rng.choice(["x", "y", "z"], 30)
    centred = vectors - vectors.mean(0)
    near = NearestNeighbors(n_neighbors=5, metric="cosine").fit(centred).kneighbors(return_distance=False)
    purity, chance, n = knn_purity(vectors, list(labels), k=5)
    assert purity == pytest.approx((labels[near] == labels[:, None]).mean())
    pairs = [labels[i] == labels[j] for i in range(30) for j in range(30) if i != j]
    assert (chance, n) == (pytest.approx(np.mean(pairs)), 30)


def test_untrained_rows():
    rng = np.random.default_rng(0)
    fresh = rng.normal(scale=0.02, size=(95, 768))
    trained = rng.normal(scale=0.02, size=(500, 768)) + rng.normal(scale=0.05, size=768)  # moved together
    trained[:40] = rng.normal(scale=0.06, size=(40, 768))  # moved alone
    found = untrained_rows(np.concatenate([trained, fresh]).astype(np.float32), 0.02)
    assert not found[:500].any()
    assert found[500:].mean() > 0.98

    zero_start = np.zeros((6, 4))
    zero_start[[1, 4]] = [[0.1, 0, 0, 0], [0, 0.2, 0, 0]]
    assert untrained_rows(zero_start, 0.0).tolist() == [True, False, True, True, False, True]
    folded = zero_start - np.array([1.0, 2.0, 3.0, 4.0])  # after fold_unknown all zero rows are one vector
    assert untrained_rows(folded, 0.0).tolist() == [True, False, True, True, False, True]
    copied = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])  # add_language(like=...)
    assert untrained_rows(copied, 0.0).tolist() == [False, False, True]


def test_rows_are_read_without_the_unknown_one(tiny_model_dir, tiny_xlmr_dir):
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    rows = read_rows(tiny_model_dir, "languages")
    assert rows.names == model.config.languages[1:]
    np.testing.assert_array_equal(rows.vectors, model.lang_embeddings.weight[1:].detach().numpy())
    assert rows.row("nob") is None
    assert read_rows(tiny_xlmr_dir, "languages") is None
    assert read_rows(tiny_xlmr_dir, "scripts") is None


def test_the_map_as_records(trained_dir, tmp_path, caplog):
    run(context(trained_dir, tmp_path / "run"), ["embedding-map"])
    found = {(r.code, r.script, r.metric): r.value for r in records.read(tmp_path / "run")}
    assert ("hin_Deva", "Deva", "untrained") in found
    assert (None, "Deva", "untrained") in found  # the script's row
    assert "1 of 6 languages were never trained and are left out: hin" in caplog.text
    assert ("hin_Deva", "Deva", "pca_x") not in found
    assert ("hin_Deva", "Deva", "row_norm") in found
    rows = read_rows(trained_dir, "languages").trained
    expected = pca(rows.vectors)[0]
    for name, (x, y) in zip(rows.names, expected):
        code, script = next((c, s) for c, s, m in found if c and c.startswith(name) and m == "pca_x")
        assert found[code, script, "pca_x"] == pytest.approx(x)
        assert found[code, script, "pca_y"] == pytest.approx(y)
    assert (None, "Latn", "pca_x") in found
    families = [family_of(name) for name in rows.names]
    assert families == ["ine", "ine", "ine", "jpx", "ine"]
    purity, chance, _ = knn_purity(rows.vectors, families)
    assert found[None, None, "purity_family@5"] == pytest.approx(purity)
    assert found[None, None, "purity_family@5_chance"] == pytest.approx(chance)


def test_too_few_rows_and_no_tables(tiny_xlmr_dir, trained_dir, tmp_path):
    with pytest.raises(DataError, match="has no language and no script rows"):
        EMBEDDING_MAP.languages(context(tiny_xlmr_dir, tmp_path / "run"))
    run(context(trained_dir, tmp_path / "run"), ["embedding-map"], ["deu", "ell"])
    few = records.read(tmp_path / "run")
    run(context(trained_dir, tmp_path / "run"), ["embedding-map"])  # what is added lies on the same map
    run(context(trained_dir, tmp_path / "whole"), ["embedding-map"])
    both = [{records.key(r): r.value for r in records.read(tmp_path / name)} for name in ("run", "whole")]
    assert both[0] == both[1]
    assert {r.code for r in few if r.metric == "pca_x" and r.code} == {"deu_Latn", "ell_Grek"}
    model = LangSAMPForMaskedLM.from_pretrained(trained_dir)
    with torch.no_grad():
        for table in (model.lang_embeddings, model.script_embeddings):
            table.weight[3:] = 0
    model.save_pretrained(trained_dir)
    run(context(trained_dir, tmp_path / "two"), ["embedding-map"])
    assert {r.metric for r in records.read(tmp_path / "two")} == {"row_norm", "untrained"}  # two rows make no map


def test_umap_is_used_where_it_is_installed(trained_dir, tmp_path, monkeypatch):
    class Mapper:
        def __init__(self, **settings):
            assert settings["metric"] == "cosine"

        def fit_transform(self, vectors):
            return vectors[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Mapper))
    monkeypatch.setattr(embedding_map.importlib.util, "find_spec", lambda name: name == "umap")
    run(context(trained_dir, tmp_path / "run"), ["embedding-map"])
    assert "umap_x" in {r.metric for r in records.read(tmp_path / "run")}


def test_families_are_honest():
    assert [family_of(code) for code in ("deu", "fin", "ekk", "cmn", "arb_Arab", "zsm", "swh", "tur")] == [
        "ine",
        "urj",
        "urj",
        "sit",
        "afa",
        "map",
        "nic",
        "trk",
    ]
    assert [family_of(code) for code in ("als", "mlt", "run", "min")] == ["ine", "afa", "nic", "map"]  # not CLDR's
    assert [family_of(code) for code in ("eus", "kor", "tpi", "epo", "und", "zzz", "qqqq")] == [None] * 7
    assert (family_name("ine"), family_name("qwe")) == ("Indo-European", "Quechuan")
