"""donors: judged against scikit-learn and hand-computed values; ranked from rows, centroids and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import f1_score, ndcg_score

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.core.runtime import resolve_model
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.engines.encoder import Encoder
from langsamp.eval.engines.probe import fit_probe
from langsamp.eval.results import records
from langsamp.eval.run import run
from langsamp.eval.task import Context
from langsamp.eval.tasks.donors import judge, ranking_table, references
from langsamp.eval.tasks.rankers import Rankers, read_table, row_vectors

TEXTS = {
    "eng_Latn": ("house river", "January days"),
    "deu_Latn": ("Haus Fluss", "Januar Tage"),
    "rus_Cyrl": ("дом реки", "январе дни"),
    "ell_Grek": ("σπίτι ποτάμι", "Ιανουάριο μέρες"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "sib200"
    folder.mkdir(parents=True)
    for number, (tag, (one, two)) in enumerate(TEXTS.items()):
        splits = ("test",) if tag == "ell_Grek" else ("train", "dev", "test")
        rng = np.random.default_rng(number)
        rows = [
            (" ".join(rng.permutation(text.split())) + "!" * int(rng.integers(3)), label, split)
            for split in splits
            for _ in range(5)
            for text, label in ((one, "place"), (two, "time"))
        ]
        texts, labels, names = zip(*rows)
        pq.write_table(pa.table({"text": texts, "label": labels, "split": names}), folder / f"{tag}.parquet")
    return tmp_path / "data"


@pytest.fixture
def trained_dir(tiny_model_dir, tmp_path) -> Path:
    """The tiny model with rows that training has moved: as it is, they are the random numbers they started as."""
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        model.lang_embeddings.weight.mul_(3)
        model.script_embeddings.weight.mul_(2)
    model.save_pretrained(tmp_path / "trained")
    LangSAMPTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


def context(model: Path, data: Path | None, output: Path, **fields) -> Context:
    return Context(resolve_model(model), EvalData(data), output, progress=False, **fields)


def test_judge_by_hand_and_by_sklearn():
    gains = {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.5}
    # shifted gains .4 0 .2 0; order c a b d: DCG = .2/1 + .4/log2(3) + 0/2; ideal .4 + .2/log2(3)
    scores = {"a": 2.0, "b": 1.0, "c": 3.0, "d": 0.0}
    found, lost = judge(gains, scores)
    assert found == pytest.approx((0.2 + 0.4 / np.log2(3)) / (0.4 + 0.2 / np.log2(3)))
    assert lost == pytest.approx(0.2)
    assert judge(gains, gains) == (pytest.approx(1.0), 0.0)

    rng = np.random.default_rng(0)
    for _ in range(50):
        names = [f"l{i}" for i in range(6)]
        worth = dict(zip(names, rng.integers(0, 4, 6) / 4))
        order = dict(zip(names, rng.integers(0, 3, 6).astype(float)))  # many ties
        above = np.array([worth[n] for n in names]) - min(worth.values())
        if above.any():
            expected = ndcg_score([above], [[order[n] for n in names]], k=3)
            assert judge(worth, order)[0] == pytest.approx(expected)


def test_references_are_expectations():
    gains = {"eng_Latn": 0.6, "deu_Latn": 0.9, "rus_Cyrl": 0.3}
    scores = references(gains)
    assert judge(gains, scores["oracle"]) == (pytest.approx(1.0), 0.0)
    assert judge(gains, scores["english"])[1] == pytest.approx(0.3)
    orders = [dict(zip(gains, order)) for order in __import__("itertools").permutations((1.0, 2.0, 3.0))]
    mean = np.mean([judge(gains, order) for order in orders], axis=0)
    assert judge(gains, scores["random"]) == (pytest.approx(mean[0]), pytest.approx(mean[1]))
    assert "english" not in references({"deu_Latn": 1.0, "rus_Cyrl": 0.5})
    assert judge(dict.fromkeys("abc", 0.4), {"a": 1.0}) == (1.0, 0.0)  # nothing to choose between
    assert judge({"a": 0.2, "b": 0.8}, {"a": -5.0}) == (pytest.approx(1 / np.log2(3)), pytest.approx(0.6))


def test_the_study_is_a_plain_double_loop(trained_dir, data, tmp_path):
    here = context(trained_dir, data, tmp_path / "run")
    (coverage,) = run(here, ["donors"])
    assert coverage.line() == "donors: 4 of 4 languages"
    found = records.read(tmp_path / "run")
    transfer = {(r.source, r.code): r.value for r in found if r.task == "donors-transfer"}
    sources = ["deu_Latn", "eng_Latn", "rus_Cyrl"]  # Greek has no training data
    assert set(transfer) == {(s, t) for s in sources for t in TEXTS if s != t}

    encoder = Encoder(trained_dir, (2,))  # of three

    def vectors(tag, split):
        rows = here.data.rows("sib200", tag, ["text", "label"], split)
        return encoder.encode(rows["text"])[0], rows["label"]

    for source in sources:
        probe = fit_probe(*vectors(source, "train"), *vectors(source, "dev"))
        for target in TEXTS:
            if target != source:
                x, y = vectors(target, "test")
                assert transfer[source, target] == pytest.approx(f1_score(y, probe.predict(x), average="macro"))

    for target in TEXTS:
        gains = {s: transfer[s, t] for s, t in transfer if t == target}
        mine = {r.metric: r.value for r in found if r.task == "donors" and r.code == target}
        assert mine["regret_random"] == pytest.approx(max(gains.values()) - np.mean(list(gains.values())))
        assert mine["regret_oracle"] == 0
        assert ("regret_english" in mine) == (target != "eng_Latn")
        for name in ("language-row", "language+script-row", "centroid"):
            assert 0 <= mine[f"ndcg@3_{name}"] <= 1 + 1e-9
            assert mine[f"regret_{name}"] >= 0


def test_rankings_by_hand(trained_dir, data, tmp_path):
    here = context(trained_dir, data, tmp_path / "run")
    tags = list(TEXTS)
    rankers = Rankers(here, tags, 3)
    assert rankers.names == ["language+script-row", "language-row", "centroid"]
    model = LangSAMPForMaskedLM.from_pretrained(trained_dir).requires_grad_(False)

    def row(tag):
        language, script = tag.split("_")
        one = model.lang_embeddings.weight[model.config.languages.index(language)]
        return one, one + model.script_embeddings.weight[model.config.scripts.index(script)]

    found = rankers.scores("language-row", "deu_Latn", tags)
    both = rankers.scores("language+script-row", "deu_Latn", tags)
    for tag in tags:
        (a, ab), (b, bb) = row("deu_Latn"), row(tag)
        assert found[tag] == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-6)
        assert both[tag] == pytest.approx(float(torch.cosine_similarity(ab, bb, dim=0)), abs=1e-6)

    encoder = Encoder(trained_dir, (3,))
    means = []
    for tag in tags:  # Greek has no dev set: its test set stands in
        split = "test" if tag == "ell_Grek" else "dev"
        texts = here.data.rows("sib200", tag, ["text"], split)["text"]
        means.append(np.mean([encoder.encode([text])[0, 0] for text in texts], axis=0))
    centred = np.array(means) - np.mean(means, 0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    expected = dict(zip(tags, centred @ centred[tags.index("rus_Cyrl")]))
    assert rankers.scores("centroid", "rus_Cyrl", tags) == pytest.approx(expected, abs=1e-4)


def test_the_answer_for_one_target(trained_dir, tiny_xlmr_dir, data, tmp_path):
    table = tmp_path / "similar.csv"
    table.write_text(",deu,rus\nell,0.1,0.9\nhin_Deva,0.2,\n", encoding="utf-8")
    options = {"target": "el", "similarity": str(table)}
    run(context(trained_dir, data, tmp_path / "run", options=options), ["donors"])
    found = records.read(tmp_path / "run")
    assert {r.code for r in found} == {"ell_Grek"}
    assert {r.source for r in found if r.metric == "similarity_language-row"} == {"deu_Latn", "eng_Latn", "rus_Cyrl"}
    assert {r.source: r.value for r in found if r.metric == "similarity_table"} == {"deu_Latn": 0.1, "rus_Cyrl": 0.9}
    text = ranking_table(found, "ell")
    assert text.startswith("sources for ell_Grek (Greek), by language+script-row:")
    best = max((r for r in found if r.metric == "similarity_language+script-row"), key=lambda r: r.value)
    assert text.splitlines()[3].split()[:2] == ["1", best.source]
    assert "measured" not in text

    # no data at all: every language with a trained row is a candidate
    (tmp_path / "empty").mkdir()
    run(context(trained_dir, tmp_path / "empty", tmp_path / "run2", options={"target": "hin_Deva"}), ["donors"])
    known = {r.source for r in records.read(tmp_path / "run2")}
    assert known == {"deu_Latn", "ell_Grek", "eng_Latn", "jpn_Jpan", "rus_Cyrl"}

    # a stock model knows no rows, and the data no Hindi
    with pytest.raises(DataError, match="nothing is known of hin_Deva"):
        run(context(tiny_xlmr_dir, data, tmp_path / "run3", options={"target": "hin_Deva"}), ["donors"])


def test_rows_are_found_under_another_code_of_the_language(trained_dir, data, tmp_path):
    model = LangSAMPForMaskedLM.from_pretrained(trained_dir)
    model.config.languages = ["und", "swa", *model.config.languages[2:]]
    model.save_pretrained(trained_dir)
    LangSAMPTokenizer.from_pretrained(trained_dir, languages=model.config.languages).save_pretrained(trained_dir)
    context = Context(resolve_model(trained_dir), EvalData(data), tmp_path / "out")
    vectors = row_vectors(context, ["swh_Latn", "arz_Arab", "rus_Cyrl"])["language-row"]
    assert set(vectors) == {"swh_Latn", "rus_Cyrl"}
    assert np.allclose(vectors["swh_Latn"], model.lang_embeddings.weight[1].detach().numpy())


def test_the_table_tells_what_was_measured(tiny_xlmr_dir, data, tmp_path):
    run(context(tiny_xlmr_dir, data, tmp_path / "run"), ["donors"])
    run(context(tiny_xlmr_dir, data, tmp_path / "run", options={"target": "ell"}), ["donors"])
    text = ranking_table(records.read(tmp_path / "run"), "ell_Grek")
    with pytest.raises(ValueError, match="donors: sources 'all', not"):
        run(context(tiny_xlmr_dir, data, tmp_path / "run", options={"sources": ["eng", "deu", "rus"]}), ["donors"])
    assert "measured" in text.splitlines()[2]
    assert "mean regret of the first choice" in text
    assert "oracle 0.0," in text
    assert "measured (%)" in text


def test_a_source_that_cannot_be_trained_on_is_named_and_the_study_goes_on(tiny_xlmr_dir, data, tmp_path):
    """Here it is English, which is a reference and, as its test set is there, a target as well."""
    path = data / "sib200" / "eng_Latn.parquet"
    table = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([row for row in table if row["label"] == "time"]), path)
    here = context(tiny_xlmr_dir, data, tmp_path / "run")
    (coverage,) = run(here, ["donors"], ["deu", "rus", "ell"])
    assert "donors: 1 of 3 languages; missing: eng_Latn (sib200/eng_Latn cannot be trained on" in coverage.line()
    found = [record for record in records.read(tmp_path / "run") if record.task == "donors"]
    assert {record.code for record in found} == {"ell_Grek"}  # the two sources of the others leave nothing to rank
    assert {record.metric for record in found} >= {"regret_centroid", "regret_oracle", "regret_random"}
    assert not any("english" in record.metric for record in found)


def test_bad_input_is_named(tiny_xlmr_dir, data, tmp_path):
    with pytest.raises(FileNotFoundError, match="no table of similarities"):
        read_table(tmp_path / "none.csv")
    for text, problem in (
        ("x\n", "is no table"),
        (",deu,rus\nell,1\n", "line 2: 1 values for 2 languages"),
        (",deu\nell,nan\n", "line 2: a similarity is not finite"),
        (",deu\nell,much\n", "line 2: could not convert"),
        (",12\nell,1\n", "line 1: '12' is not a language tag"),
    ):
        (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=problem):
            read_table(tmp_path / "bad.csv")
    few = context(tiny_xlmr_dir, data, tmp_path / "run", options={"sources": ["eng", "deu"]})
    with pytest.raises(DataError, match="training data in 2 languages only"):
        run(few, ["donors"])
    with pytest.raises(ValueError, match="no similarities with deu_Latn"):
        ranking_table([], "deu")


def test_numbers_do_not_depend_on_the_targets_asked_for_nor_on_a_broken_one(trained_dir, data, tmp_path, caplog):
    run(context(trained_dir, data, tmp_path / "whole"), ["donors"])
    (data / "sib200" / "jpn_Jpan.parquet").write_bytes(b"torn")
    run(context(trained_dir, data, tmp_path / "some"), ["donors"], ["eng", "rus"])
    run(context(trained_dir, data, tmp_path / "some"), ["donors"])
    assert "sib200/jpn_Jpan.parquet cannot be read" in caplog.text
    found = [{(r.code, r.metric): r.value for r in records.read(tmp_path / name)} for name in ("whole", "some")]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
