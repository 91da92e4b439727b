"""The replication on a GPU, seen from a CPU: what is packed comes back, and every stage of a run ends in records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from experiments.replication import archive, findings
from experiments.replication.gpu import bundle, measuring, run, unpack, weights
from experiments.replication.gpu.search import choose
from experiments.replication.gpu.vectors import VECTORS, KeptContext, Sentences
from experiments.replication.measures import Pass
from experiments.replication.plan import read_plan
from langsamp.core.language.xlmr import is_head
from langsamp.core.runtime import resolve_model
from langsamp.eval.data.sets import EvalData
from langsamp.eval.engines.encoder import Encoder, load_backbone
from langsamp.eval.results.records import read

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "replication_gpu.yaml"
CODES = ("eng_Latn", "deu_Latn", "fin_Latn", "tsn_Latn", "spa_Latn")


@pytest.fixture
def data(tmp_path, texts) -> Path:
    """A data folder with every kind of test set, in a few languages."""
    rows = [text for lines in texts.values() for text in lines][:12]
    for number, code in enumerate(CODES):
        own = [f"{text} {number}" for text in rows]
        labels = {"label": ["a", "b"] * 12, "split": ["train"] * 8 + ["dev"] * 4 + ["test"] * 12}
        _table(tmp_path / f"data/mlm/{code}.parquet", text=own * 5)
        _table(tmp_path / f"data/bible_retrieval/{code}.parquet", id=[*range(12)], text=own)
        _table(tmp_path / f"data/tatoeba/{code}.parquet", id=[*range(12)], text=own, english=rows)
        for task in ("sib200", "taxi1500"):
            _table(tmp_path / f"data/{task}/{code}.parquet", id=[*range(24)], text=own * 2, **labels)
        words = {"tokens": [["Das", "Haus"]] * 24, "split": labels["split"]}
        _table(tmp_path / f"data/pos/{code}.parquet", upos=[["DET", "NOUN"]] * 24, **words)
        _table(tmp_path / f"data/ner/wikiann/{code}.parquet", ner_tags=[["O", "B-LOC"]] * 24, **words)
    return tmp_path / "data"


def _table(path: Path, **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch):
    monkeypatch.setattr(bundle, "FETCHED", ())


@pytest.fixture
def recipe(tmp_path) -> Path:
    values = {
        "languages": {"untrained": ["spa_Latn"], "dev": ["fin_Latn"]},
        "sizes": {"block": 16, "verses": 12, "pairs": 12, "words": 4, "sources": ["deu_Latn", "fin_Latn"]},
        "experiments": {
            "gpu": {
                "variants": ["baseline", "both"], "seeds": [1], "steps": 2, "batch": 2, "learning_rate": 1e-3,
                "table_learning_rate": 1e-2, "head_steps": 1, "head_learning_rate": 1e-3, "adapt_steps": 1,
                "search": {"learning_rate": [1e-3, 2e-3], "table_learning_rate": [1e-2]},
            },
            "gpu-short": {"variants": ["input"], "seeds": [1], "steps": 1, "batch": 2, "layers": False,
                          "learning_rate": 1e-3, "table_learning_rate": 1e-2},
        },
        "order": ["gpu:baseline", "gpu-short", "gpu"],
        "tuned": {"experiments": {"gpu": {"variants": ["baseline"], "downstream": ["both"]}}, "order": ["gpu"]},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return tmp_path / "recipe.yaml"


def test_the_recipe_is_valid_in_both_sizes():
    plan, tiny = read_plan(RECIPE), read_plan(RECIPE, "tiny")
    who = plan.languages
    assert who.trains("deu_Latn")
    assert not who.trains("spa_Latn")
    assert any(who.trains(tag) for tag in who.dev)
    assert not all(who.trains(tag) for tag in who.dev)
    assert {is_head(tag) for tag in who.untrained} == {True, False}
    assert plan.experiments["gpu"].steps * plan.experiments["gpu"].batch * plan.sizes.block >= 50e6
    assert tiny.experiments["gpu"].steps < 10
    assert tiny.experiments["gpu"].table_learning_rate == plan.experiments["gpu"].table_learning_rate
    with pytest.raises(ValueError, match="no values for the size 'huge'"):
        read_plan(RECIPE, "huge")


def test_weights_that_were_4_bit_are_again_and_others_lose_nothing(tmp_path):
    torch.manual_seed(0)
    scale = torch.randn(6, 2, 1).half().float()
    codes = torch.randint(-7, 8, (6, 2, 32)).float()
    codes[..., 5] = -8
    codes[0] = 0
    given = {
        "coded": (codes * scale).half().float().reshape(6, 64),
        "half": torch.randn(6, 64).half().float(),
        "whole": torch.randn(3),
    }
    weights.pack(given, tmp_path / "packed")
    back = weights.unpack(tmp_path / "packed")
    assert back.keys() == given.keys()
    assert all(torch.equal(back[name], given[name]) for name in given)
    big = (torch.randint(-7, 8, (512, 4, 32)).index_fill_(2, torch.tensor([3]), -8) * 0.25).reshape(512, 128)
    weights.pack({"big": big}, tmp_path / "big")
    assert (tmp_path / "big").stat().st_size < big.numel() * 0.6


def test_a_bundle_comes_back_whole(data, recipe, tiny_xlmr_dir, tmp_path, capsys):
    bundle.make(recipe, None, data, str(tiny_xlmr_dir), tmp_path / "bundle")
    assert "4 languages" in capsys.readouterr().out
    plan, store = unpack.open_bundle(tmp_path / "bundle", tmp_path / "work")
    assert plan == read_plan(recipe)
    assert store.languages == ["deu_Latn", "eng_Latn", "fin_Latn", "tsn_Latn"]
    store.verify()
    model = load_backbone(tmp_path / "work/first", 3)
    first = load_backbone(tiny_xlmr_dir, 3)
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name])
    kept = {path.stem for path in (tmp_path / "work/test/bible_retrieval").iterdir()}
    assert kept == set(CODES)
    splits = pq.read_table(tmp_path / "work/test/sib200/tsn_Latn.parquet").column("split").to_pylist()
    assert set(splits) == {"test"}  # no source of transfer
    assert (tmp_path / "bundle/site/seqeval/scheme.py").exists()
    with pytest.raises(FileNotFoundError, match="no bundle in"):
        unpack.open_bundle(tmp_path / "nothing", tmp_path / "work")


def test_kept_vectors_are_the_encoders(data, tiny_model_dir, tmp_path):
    sentences = Sentences(data, tiny_model_dir)
    np.save(tmp_path / VECTORS, sentences.vectors(load_backbone(tiny_model_dir, 3).to(sentences.device)))
    context = KeptContext(resolve_model(tiny_model_dir), EvalData(data), tmp_path, kept=tmp_path / VECTORS)
    some = [sentences.texts[5], sentences.texts[0], sentences.texts[5]]
    expected = Encoder(tiny_model_dir, (1, 3)).encode(some)
    np.testing.assert_allclose(context.encoder((1, 3)).encode(some), expected, atol=2e-3)
    with pytest.raises(KeyError, match="never heard"):
        context.encoder((1,)).encode(["never heard"])


def test_the_search_lets_the_baseline_choose_first():
    experiment = read_plan(RECIPE).experiments["gpu"]
    asked = []

    def scored(variant, trials):
        asked.append((variant, {trial.learning_rate for trial in trials.values()}))
        return {name: -abs(trial.learning_rate - 2e-4) + trial.table_learning_rate for name, trial in trials.items()}

    found = choose(experiment, scored)
    assert (found.learning_rate, found.table_learning_rate) == (2e-4, 3e-2)
    assert asked == [("baseline", {2e-4, 5e-4}), ("both", {2e-4})]
    assert choose(experiment, lambda variant, trials: {}) == experiment


def test_trainings_are_shortened_to_the_time_that_there_is(monkeypatch, capsys):
    clock = run.Clock(1000.0, 0.0)
    monkeypatch.setattr(run.time, "monotonic", lambda: 355.0)
    clock.speed, clock.beside = 1e6, 10.0
    tokens = clock.tokens(6)
    assert 80e6 < tokens < 90e6
    monkeypatch.setattr(run.time, "monotonic", lambda: 355.0 + 5 * (tokens / 1e6 + 10))
    assert clock.fits(tokens)  # the last one, too


def test_a_part_that_fails_is_told_and_leaves_the_others(data, tiny_model_dir, tmp_path):
    folder, said = tmp_path / "models/both-1", []
    shutil.copytree(tiny_model_dir, folder / measuring.MODEL)
    sentences = Sentences(data, tiny_model_dir)
    np.save(folder / VECTORS, sentences.vectors(load_backbone(tiny_model_dir, 3).to(sentences.device)))
    measurers = measuring.Measurers(1, 1, said.append)
    parts = {"bible": Pass(("sr-bible",), "3"), "wrong": Pass(("sr-bible",), "7")}
    measurers.submit(folder, tmp_path / "records/gpu/both-1", data, parts, {})
    measurers.collect(120)
    measurers.give_up()
    (line,) = said
    assert line.startswith("gpu/both-1: ")
    assert "layer '7' does not exist" in line
    assert {record.model for record in read(tmp_path / "records/gpu/both-1")} == {"both-1"}
    assert not folder.exists()
    assert [place.name for place in archive.finished(tmp_path / "records/gpu")] == ["both-1"]


@pytest.mark.slow
def test_a_run_goes_from_the_bundle_to_findings_and_on_from_its_records(data, recipe, tiny_xlmr_dir, tmp_path, capfd):
    bundle.make(recipe, None, data, str(tiny_xlmr_dir), tmp_path / "bundle")
    run.main([str(tmp_path / "bundle"), str(tmp_path / "out"), "--seconds", "400", "--fit"])
    said = capfd.readouterr().out
    assert "Traceback" not in said
    assert "gpu: 2 steps of 2 fit" in said
    assert "no time for nothing: all is done" in said
    lines = [json.loads(line) for line in (tmp_path / "out/runs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["model"] for line in lines if line["experiment"] == "gpu"] == ["baseline-1", "both-1"]
    assert all(line["tokens"] and line["device"] for line in lines)
    found = {record.model: set() for record in archive.records(tmp_path / "out/gpu.jsonl.gz")}
    for record in archive.records(tmp_path / "out/gpu.jsonl.gz"):
        found[record.model].add(record.task)
    usual = {"sr-bible", "sr-tatoeba", "neutrality", "sib200-probe", "taxi1500-probe", "lm"}
    assert found == {"start": usual, "baseline-1": usual, "both-1": usual | {"embedding-map"}}
    shutil.copytree(tmp_path / "out", tmp_path / "bundle/records")
    (tmp_path / "bundle/records/gpu-short.jsonl.gz").unlink()
    run.main([str(tmp_path / "bundle"), str(tmp_path / "again"), "--seconds", "400"])
    said = capfd.readouterr().out
    assert "gpu-short/input-1: loss" in said
    assert "gpu/baseline-1" not in said
    assert (tmp_path / "again/gpu-short.jsonl.gz").exists()
    findings.main([str(recipe), str(tmp_path / "again")])
    assert "both − baseline" in (tmp_path / "again/gpu.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_fine_tuned_measures_and_the_end_of_time(data, recipe, tiny_xlmr_dir, tmp_path, capfd):
    bundle.make(recipe, "tuned", data, str(tiny_xlmr_dir), tmp_path / "bundle")
    run.main([str(tmp_path / "bundle"), str(tmp_path / "out"), "--seconds", "500"])
    said = capfd.readouterr().out
    tasks = {record.task for record in archive.records(tmp_path / "out/gpu.jsonl.gz") if record.model == "start"}
    assert {"sib200-100steps", "taxi1500-100steps", "pos-200steps", "ner-wikiann-200steps", "donors"} <= tasks, said
    run.main([str(tmp_path / "bundle"), str(tmp_path / "late"), "--seconds", "30"])
    said = capfd.readouterr().out
    assert "no time for gpu-search/baseline-learning_rate-0.001-0" in said
    assert not (tmp_path / "late/runs.jsonl").exists()
