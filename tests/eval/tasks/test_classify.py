"""taxi1500 and sib200: fine-tuned and probed, against scikit-learn and the padded stock model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from langsamp.core.runtime import resolve_model
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.engines import finetune as finetune_module
from langsamp.eval.engines.encoder import Encoder
from langsamp.eval.engines.finetune import Tuned, finetune
from langsamp.eval.engines.predict import pad_batch, predict
from langsamp.eval.engines.probe import fit_probe
from langsamp.eval.engines.recipe import Job, Recipe, task_name
from langsamp.eval.labelled import Source
from langsamp.eval.results import records
from langsamp.eval.run import run
from langsamp.eval.task import Context, TaskOptions
from langsamp.eval.tasks.classify import SIB200, TAXI1500, TunedClassifier
from langsamp.modeling_langsamp import (
    LangSAMPForMaskedLM,
    LangSAMPForSequenceClassification,
    LangSAMPForTokenClassification,
)

WORDS = {"house": "house river stands", "time": "January days short", "bird": "birds book reads"}


def write(folder: Path, tag: str, rows: list[tuple[str, str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts, labels, splits = zip(*rows)
    pq.write_table(pa.table({"text": texts, "label": labels, "split": splits}), folder / f"{tag}.parquet")


def rows(split: str, n: int, seed: int = 0) -> list[tuple[str, str, str]]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        label = list(WORDS)[i % 3]
        found.append((" ".join(rng.permutation(WORDS[label].split())[: 1 + i % 3]), label, split))
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for task in ("sib200", "taxi1500"):
        folder = tmp_path / "data" / task
        write(folder, "eng_Latn", rows("train", 21) + rows("dev", 9, 1) + rows("test", 9, 2))
        write(folder, "deu_Latn", rows("test", 9, 3))
        write(folder, "rus_Cyrl", rows("test", 5, 4))
    return tmp_path / "data"


def context(model: Path, data: Path, output: Path, **fields) -> Context:
    return Context(resolve_model(model), EvalData(data), output, progress=False, **fields)


def values(output: Path, metric: str = "macro_f1") -> dict[str, float]:
    return {record.code: record.value for record in records.read(output) if record.metric == metric}


@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_prediction_equals_the_padded_stock_forward(tiny_model_dir, tiny_xlmr_dir, kind):
    cls = {"sequence": LangSAMPForSequenceClassification, "token": LangSAMPForTokenClassification}[kind]
    rng = np.random.default_rng(0)
    inputs = [[0, *rng.integers(5, 90, size=size).tolist(), 2] for size in (7, 1, 30, 7, 0, 12)]
    for folder in (tiny_model_dir, tiny_xlmr_dir):
        torch.manual_seed(0)
        model = cls.from_pretrained(folder, num_labels=4).eval()
        found = predict(model, inputs, max_tokens=20)
        for ids, logits in zip(inputs, found):
            batch = pad_batch([{"input_ids": ids}, {"input_ids": [0] + [6] * 40 + [2]}], 1)
            with torch.no_grad():
                naive = model(**batch).logits[0].numpy()
            naive = naive if kind == "sequence" else naive[: len(ids)]
            np.testing.assert_allclose(logits, naive, atol=2e-6)


def test_broken_weights_are_an_error_not_a_score(tiny_xlmr_dir):
    model = LangSAMPForSequenceClassification.from_pretrained(tiny_xlmr_dir, num_labels=2)
    with torch.no_grad():
        model.classifier.out_proj.bias[0] = float("nan")
    with pytest.raises(RuntimeError, match="NaN or infinite logits"):
        predict(model, [[0, 7, 2]])
    assert predict(model, []) == []


def test_finetuned_scores_are_those_of_a_naive_loop(tiny_model_dir, data, tmp_path):
    settings = {"max_steps": 3}
    here = context(tiny_model_dir, data, tmp_path / "run", seeds=(5,), options=settings)
    coverage = run(here, ["sib200"])
    assert coverage[0].line() == "sib200: 3 of 3 languages"
    found = records.read(tmp_path / "run")
    assert {record.task for record in found} == {"sib200-3steps"}
    assert {(r.source, r.seed, r.layer) for r in found} == {("eng_Latn", 5, None)}

    (folder,) = (tmp_path / "run" / "finetuned").iterdir()
    facts = json.loads((folder / "finetune.json").read_text())
    assert facts["steps"] == 3
    model = LangSAMPForSequenceClassification.from_pretrained(folder).eval()
    classifier = TunedClassifier(here, Source(here, "sib200", "eng_Latn"), "x", SIB200.recipe, 5)
    for tag in ("eng_Latn", "deu_Latn", "rus_Cyrl"):
        table = here.data.rows("sib200", tag, ["text", "label"], "test")
        predicted = []
        for ids in classifier.tokenize(table["text"]):
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0]
            predicted.append(model.config.id2label[int(logits.argmax())])
        assert values(tmp_path / "run")[tag] == pytest.approx(f1_score(table["label"], predicted, average="macro"))
    assert values(tmp_path / "run", "dev_macro_f1") == {"eng_Latn": facts["score"]}


def test_a_killed_run_goes_on_without_training_again(tiny_model_dir, data, tmp_path, monkeypatch):
    options = {"max_steps": 2}
    whole = context(tiny_model_dir, data, tmp_path / "whole", seeds=(1,), options=options)
    run(whole, ["taxi1500"])

    broken = context(tiny_model_dir, data, tmp_path / "broken", seeds=(1,), options=options)
    real = TunedClassifier.measure

    def killed(self, tag, expected):
        if tag == "eng_Latn":
            raise KeyboardInterrupt
        return real(self, tag, expected)

    monkeypatch.setattr(TunedClassifier, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        run(broken, ["taxi1500"])
    assert set(values(tmp_path / "broken")) == {"deu_Latn"}

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(TunedClassifier, "measure", real)
    monkeypatch.setattr(finetune_module, "finetune", refuse)
    run(context(tiny_model_dir, data, tmp_path / "broken", seeds=(1,), options=options), ["taxi1500"])
    assert values(tmp_path / "broken") == values(tmp_path / "whole")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fine_tuning_learns(tiny_xlmr_dir, tmp_path, dtype):
    rng = np.random.default_rng(0)
    features = [{"input_ids": [0, *rng.integers(20, 60, size=4), 5 + i % 3, 2], "labels": i % 3} for i in range(60)]
    recipe = Recipe(3e-3, epochs=30, batch_size=4, accumulation=2, max_length=20)
    job = Job(resolve_model(tiny_xlmr_dir), "sequence", "t", "eng_Latn", 1, ("a", "b", "c"), recipe, dtype)
    parts = features[:45], features[45:]
    tuned = Tuned(job, lambda: parts, lambda p, t: float((p == t).mean()), tmp_path)
    score = tuned.trained[1]
    assert score > 0.9
    assert not list(tmp_path.rglob("*.bin"))  # no pickles
    predicted = [int(logits.argmax()) for logits in tuned.predict([feature["input_ids"] for feature in parts[1]])]
    right = np.mean([guess == feature["labels"] for guess, feature in zip(predicted, parts[1])])
    assert right == pytest.approx(score, abs=0.1 if dtype == "bfloat16" else 1e-9)
    assert {path.name for path in (tmp_path / "finetuned").iterdir()} == {job.folder(tmp_path).name}  # no rest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_in_bfloat16_is_trained_in_float32(tiny_xlmr_dir, tmp_path, dtype):
    """transformers 5 loads in the dtype of the file unless told otherwise."""
    half = LangSAMPForMaskedLM.from_pretrained(tiny_xlmr_dir).to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    features = [{"input_ids": [0, 5 + i, 2], "labels": i % 2} for i in range(8)]
    recipe = Recipe(1e-3, epochs=1, batch_size=4, accumulation=1, max_length=20)
    job = Job(resolve_model(tmp_path / "half"), "sequence", "t", "eng_Latn", 1, ("a", "b"), recipe, dtype)
    folder, _ = finetune(job, features, features, lambda p, t: float((p == t).mean()), tmp_path)
    weight = LangSAMPForSequenceClassification.from_pretrained(folder).roberta.encoder.layer[0].output.dense.weight
    assert weight.dtype == torch.float32


def test_one_run_directory_one_recipe(tiny_model_dir, data, tmp_path):
    def again(**options):
        run(
            context(tiny_model_dir, data, tmp_path / "run", seeds=(1,), options={"max_steps": 1, **options}), ["sib200"]
        )

    again()
    again(max_steps=2)  # another task name
    again(probe=True)
    assert {r.task for r in records.read(tmp_path / "run")} == {"sib200-1steps", "sib200-2steps", "sib200-probe"}
    with pytest.raises(ValueError, match="sib200: patience None, not 3"):
        again(patience=3)


def test_seeds_decide_the_head_and_the_order(tiny_xlmr_dir, tmp_path):
    """The official scripts seed after the head is made (B8)."""
    features = [{"input_ids": [0, 5 + i % 30, 2], "labels": i % 2} for i in range(20)]

    def trained(seed: int, name: str):
        recipe = Recipe(1e-3, epochs=1, batch_size=2, accumulation=2, max_length=20)
        job = Job(resolve_model(tiny_xlmr_dir), "sequence", "t", "eng_Latn", seed, ("a", "b"), recipe)
        folder, _ = finetune(job, features, features[:6], lambda p, t: float((p == t).mean()), tmp_path / name)
        assert json.loads((folder / "finetune.json").read_text())["steps"] == 5  # 10 micro-batches, two an update
        return LangSAMPForSequenceClassification.from_pretrained(folder).classifier.dense.weight

    first, same, other = trained(1, "a"), trained(1, "b"), trained(2, "c")
    assert torch.equal(first, same)
    assert not torch.allclose(first, other, atol=1e-3)


def test_the_rest_of_an_epoch_is_not_lost(tiny_xlmr_dir, tmp_path):
    """Three micro-batches, two an update: two updates (B13: the official code leaks the third into the next epoch)."""
    features = [{"input_ids": [0, 5 + i, 2], "labels": i % 2} for i in range(12)]
    recipe = Recipe(1e-3, epochs=2, batch_size=4, accumulation=2, max_length=20)
    job = Job(resolve_model(tiny_xlmr_dir), "sequence", "t", "eng_Latn", 1, ("a", "b"), recipe)
    folder, _ = finetune(job, features, features, lambda p, t: 0.5, tmp_path)
    assert json.loads((folder / "finetune.json").read_text())["steps"] == 4


def test_early_stop_and_the_last_model_is_a_candidate(tiny_xlmr_dir, tmp_path):
    features = [{"input_ids": [0, 5 + i, 2], "labels": i % 2} for i in range(8)]
    scores = iter([0.5, 0.4, 0.3, 0.9, 0.9, 0.9])
    recipe = Recipe(1e-3, epochs=6, batch_size=8, accumulation=1, max_length=20, patience=2)
    job = Job(resolve_model(tiny_xlmr_dir), "sequence", "t", "eng_Latn", 1, ("a", "b"), recipe)
    folder, best = finetune(job, features, features, lambda p, t: next(scores), tmp_path)
    assert best == 0.5
    assert json.loads((folder / "finetune.json").read_text())["steps"] == 3

    last = Recipe(1e-3, epochs=1, batch_size=2, accumulation=1, max_length=20, eval_steps=3)  # 4 updates: 3 and the end
    seen = iter([0.1, 0.8])
    job = Job(resolve_model(tiny_xlmr_dir), "sequence", "t", "eng_Latn", 1, ("a", "b"), last)
    assert finetune(job, features, features, lambda p, t: next(seen), tmp_path)[1] == 0.8


def test_odd_test_sets_have_defined_scores(tiny_model_dir, data, tmp_path, caplog):
    folder = data / "sib200"
    write(folder, "ell_Grek", [("house", "house", "test"), ("river", "house", "test")])  # a single class
    write(folder, "hin_Deva", [("house", "house", "test"), ("x", "sports", "test")])  # a label training never showed
    write(folder, "jpn_Jpan", [("house", "house", "dev")])  # nothing to test on
    write(folder, "rus_Cyrl", [("house", "0", "test"), ("river", "1", "test")])  # numbers, not names
    write(folder, "fra_Latn", [("\u200b", "house", "test"), ("", "time", "test"), ("x" * 5000, "bird", "test")])
    here = context(tiny_model_dir, data, tmp_path / "run", options={"probe": True})
    (coverage,) = run(here, ["sib200"])
    assert "5 of 7 languages; missing: jpn_Jpan (sib200/jpn_Jpan has no test sentences" in coverage.line()
    assert coverage.missing["rus_Cyrl"].startswith("sib200/rus_Cyrl: no test label is one of ")
    assert coverage.missing["rus_Cyrl"].endswith("; found 0, 1")
    assert "labels that training never showed count as wrong: sports" in caplog.text
    found = values(tmp_path / "run")
    assert found["hin_Deva"] <= 0.5  # "sports" has F1 0
    assert 0 <= found["fra_Latn"] <= 1


def test_a_source_with_one_class_is_refused(tiny_model_dir, data, tmp_path):
    write(data / "sib200", "deu_Latn", [("house", "house", "train"), ("house", "house", "dev"), ("a", "house", "test")])
    here = context(tiny_model_dir, data, tmp_path / "run", train_language="deu_Latn", options={"max_steps": 1})
    with pytest.raises(DataError, match="sib200/deu_Latn cannot be trained on: it has 1 train sentences of 1 classes"):
        run(here, ["sib200"])
    with pytest.raises(DataError, match="no data in kor_Hang"):
        run(context(tiny_model_dir, data, tmp_path / "run", train_language="kor_Hang"), ["sib200"])


@pytest.mark.parametrize("ahead", [False, True])
def test_the_probe_is_a_logistic_regression_on_the_encoders_vectors(tiny_xlmr_dir, data, tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(Context, "_on_a_card", lambda self: ahead)
    here = context(tiny_xlmr_dir, data, tmp_path / "run", layers="2,3", options={"probe": True})
    run(here, ["sib200"])
    for layer in (2, 3):
        encoder = Encoder(tiny_xlmr_dir, (layer,))

        def table(split, tag="eng_Latn", encoder=encoder):
            part = here.data.rows("sib200", tag, ["text", "label"], split)
            return encoder.encode(part["text"])[0], part["label"]

        best, best_score = None, -1.0
        for strength in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(*table("train"))
            x, y = table("dev")
            if (score := f1_score(y, model.predict(x), average="macro")) > best_score:
                best, best_score = model, score
        found = {(r.code, r.metric): r.value for r in records.read(tmp_path / "run") if r.layer == layer}
        assert found["eng_Latn", "dev_macro_f1"] == pytest.approx(best_score)
        for tag in ("eng_Latn", "deu_Latn", "rus_Cyrl"):
            x, y = table("test", tag)
            assert found[tag, "macro_f1"] == pytest.approx(f1_score(y, best.predict(x), average="macro"))
    assert {r.task for r in records.read(tmp_path / "run")} == {"sib200-probe"}


def test_the_probe_learns_what_is_there():
    rng = np.random.default_rng(0)
    labels = ["a", "b", "c"] * 30
    vectors = rng.normal(size=(90, 8)).astype(np.float32)
    vectors[:, 0] = 0.7  # a constant dimension
    for row, label in enumerate(labels):
        vectors[row, 1 + "abc".index(label)] += 6
    probe = fit_probe(vectors[:60], labels[:60], vectors[60:], labels[60:])
    assert probe.dev_score == 1.0
    assert probe.predict(vectors[60:]) == labels[60:]


def test_the_protocol():
    """Settings of the paper (notes/paper.md, 3.2 and 3.3)."""
    assert TAXI1500.seeds == (42, 43, 44, 45)
    assert SIB200.seeds == (42, 43, 44, 45, 46)
    assert TAXI1500.recipe == Recipe(1e-5, epochs=40, batch_size=8, accumulation=2, max_length=100)
    assert SIB200.recipe.max_length == 160
    assert task_name("sib200", SIB200.recipe) == "sib200"
    assert task_name("sib200", SIB200.recipe.changed(TaskOptions(max_steps=9))) == "sib200-9steps"
