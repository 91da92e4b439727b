"""The replication: its controls change only what they say, and its tables say only what the records hold."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from experiments.replication import archive, contrasts, donors, findings, summary
from experiments.replication import run as replication
from experiments.replication.plan import Languages, read_plan
from experiments.replication.variants import VARIANTS, halve
from langsamp import LangSAMPForMaskedLM
from langsamp.eval.results.records import Record, append, read
from langsamp.train.start import starting_model

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "replication.yaml"
WHO = Languages(trained=("deu_Latn", "tsn_Latn"), untrained=("spa_Latn",), dev=("deu_Latn",))


@pytest.fixture
def batch():
    ids = torch.tensor([[0, 11, 12, 13, 14, 2], [0, 21, 22, 23, 24, 2]])
    labels = torch.full_like(ids, -100)
    labels[:, 2] = ids[:, 2]
    mask = torch.ones_like(ids)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "lang_ids": torch.tensor([1, 2]),
        "script_ids": torch.tensor([1, 1]),
    }


@pytest.fixture
def make(tiny_xlmr_dir):
    """A variant with tables that are not zero."""

    def model(name: str) -> LangSAMPForMaskedLM:
        variant = VARIANTS[name]
        made, _ = starting_model(
            tiny_xlmr_dir, ["deu_Latn", "eng_Latn"], lang=variant.lang, script=variant.script, seed=1, table_init=0.5
        )
        return variant.prepare(made)

    return model


def test_bias_only_never_reads_the_ids(make, batch):
    model, other = make("bias").eval(), {**batch, "lang_ids": torch.tensor([2, 1])}
    loss = model(**batch).loss
    assert loss == model(**other).loss
    loss.backward()
    moved = model.lang_embeddings.weight.grad.abs().sum(1)
    assert moved[0] > 0
    assert not moved[1:].any()


def test_shuffled_ids_are_random_in_training_and_right_in_evaluation(make, batch):
    model, plain = make("shuffled"), make("both")
    assert model.eval()(**batch).loss == plain.eval()(**batch).loss
    for module in model.train().modules():
        module.p = 0.0  # no dropout: the ids alone are random
    torch.manual_seed(0)
    assert len({model(**batch).loss.item() for _ in range(12)}) > 1


def test_frozen_rows_are_random_and_stay(make, batch):
    model = make("frozen")
    before = model.lang_embeddings.weight.clone()
    model(**batch).loss.backward()
    assert before.std() > 0.1
    assert model.lang_embeddings.weight.grad is None
    assert model.roberta.embeddings.word_embeddings.weight.grad is not None


def test_rows_at_the_input_reach_the_encoder_and_fold_into_the_plain_one(make, batch):
    model = make("input").eval()
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        unknown = model(**given).logits
        assert not torch.equal(unknown, model(**batch | {"labels": None}).logits)
        model.fold_unknown()
        stock = model.lm_head(model.roberta(**given).last_hidden_state)
    torch.testing.assert_close(stock, unknown, rtol=0, atol=1e-5)


def test_rows_at_the_input_train_on_labelled_positions_like_the_whole(make, batch):
    model = make("input").eval()
    with torch.no_grad():
        loss = model(**batch).loss
        logits = model(**{**batch, "labels": None}).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    torch.testing.assert_close(loss, expected)


def test_half_a_start_is_the_mean_of_the_encoders(make):
    model, first = make("both"), make("baseline")
    with torch.no_grad():
        for weight in model.roberta.parameters():
            weight += 1
    rows = model.lang_embeddings.weight.clone()
    expected = first.roberta.embeddings.word_embeddings.weight + 0.5
    halve(model, first)
    torch.testing.assert_close(model.roberta.embeddings.word_embeddings.weight, expected)
    assert torch.equal(model.lang_embeddings.weight, rows)


def test_the_recipe_is_valid_and_what_it_says():
    plan = read_plan(RECIPE)
    who = plan.languages
    assert len(who.trained) == len(set(who.trained)) == 40
    assert len({tag[-4:] for tag in who.trained}) >= 10
    assert not set(who.trained) & set(who.untrained)
    assert set(who.dev) <= set(who.measured)
    assert all(len(experiment.seeds) >= 3 for experiment in plan.experiments.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": ["both", "bothh"]}, "no variant 'bothh'"),
        ({"stepps": 3}, "no setting 'stepps'; nearest: steps"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path, change, message):
    given = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    given["experiments"]["e5"] |= change
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_plan(tmp_path / "recipe.yaml")


def _record(model: str, code: str, value: float, metric: str = "acc@10", task: str = "sr-bible") -> Record:
    language, script = code.split("_")
    direction = "en->x" if task == "sr-bible" else None
    return Record(task=task, language=language, script=script, metric=metric, value=value, n=100, direction=direction,
                  layer=None if task == "lm" else 8, model=model)  # fmt: skip


def _measured(folder: Path, name: str, records: list[Record]) -> None:
    append(folder / name, records)
    (folder / name / archive.FINISHED).touch()


def test_packing_keeps_the_records_and_is_repeatable(tmp_path):
    found = [_record("both-1", "deu_Latn", 0.123456789), _record("both-1", "tsn_Latn", 0.5)]
    _measured(tmp_path / "a", "both-1", found)
    append(tmp_path / "a" / "both-2", [_record("both-2", "deu_Latn", 0.9)])  # not finished: left out
    archive.pack(tmp_path / "a", tmp_path / "first.gz")
    archive.unpack(tmp_path / "first.gz", tmp_path / "b")
    archive.pack(tmp_path / "b", tmp_path / "second.gz")
    assert (tmp_path / "first.gz").read_bytes() == (tmp_path / "second.gz").read_bytes()
    back = read(tmp_path / "b" / "both-1")
    assert [r.value for r in back] == [0.123457, 0.5]
    assert [run.name for run in archive.finished(tmp_path / "b")] == ["both-1"]


def test_tables_hold_means_over_seeds_and_only_the_languages_named(tmp_path):
    plan = read_plan(RECIPE)
    for name, gain in (("start", 0.0), ("baseline-1", 0.1), ("baseline-2", 0.1), ("both-1", 0.3), ("both-2", 0.4)):
        records = [_record(name, code, gain + 0.001 * i) for i, code in enumerate(("deu_Latn", "tsn_Latn", "spa_Latn"))]
        records += [
            _record(name, "tsn_Latn", v, m, "neutrality") for m, v in (("cosine", 0.8), ("cosine_control", 0.5))
        ]
        _measured(tmp_path, name, records)
    runs = contrasts.gather(tmp_path, plan.experiments["e5"])
    assert list(runs) == ["start", "baseline", "both"]
    line = {"steps": 7, "tokens": 7168, "tokens_per_second": 1234.5, "device": "NVIDIA H200"}
    how = findings.trained([line, {**line, "tokens_per_second": 2000.4}], plan.experiments["e5"])
    text = findings.page(list(contrasts.parts(runs, WHO)), runs, how)
    assert "7 steps of" in text
    assert "7,168 tokens a model, 1,234 to 2,000 tokens a second" in text
    trained = text.partition("### Languages the tail")[0]
    assert "| both: LangSAMP (both tables) | 35.1 |" in trained  # tsn only: the mean of .301 and .401
    assert "| 0.300 |" in trained  # the cosine that the control leaves over
    assert "| both − baseline | SR-Bible Acc@10 | 1 | +25.0 |" in trained


def test_differences_are_paired_by_seed(tmp_path):
    """Seeds that move both models alike say nothing about the difference."""
    plan = read_plan(RECIPE)
    codes = ("tsn_Latn", "ewe_Latn", "que_Latn", "glv_Latn", "sna_Latn", "isn_Latn", "ceb_Latn")
    for seed, luck in ((1, 0.0), (2, 0.3), (3, 0.6)):
        for name, gain in (("baseline", 0.0), ("both", 0.05)):
            records = [_record(f"{name}-{seed}", code, luck + gain + 0.001 * i) for i, code in enumerate(codes)]
            _measured(tmp_path, f"{name}-{seed}", records)
    runs = contrasts.gather(tmp_path, plan.experiments["e5"])
    (entry,) = contrasts.compared(runs)
    assert entry.difference.value == pytest.approx(0.05)
    assert entry.difference.low == pytest.approx(0.05)
    assert entry.difference.high == pytest.approx(0.05)


def test_headlines_are_not_corrected_for_what_is_beside_them():
    codes = ("tsn_Latn", "ewe_Latn", "que_Latn", "glv_Latn", "sna_Latn", "isn_Latn", "ceb_Latn")
    runs = {
        name: [
            _record(f"{name}-1", code, gain + 0.01 * number, metric)
            for number, code in enumerate(codes)
            for metric in ("acc@10", "acc@1")
        ]
        for name, gain in (("start", 0.1), ("baseline", 0.0), ("both", 0.3))
    }
    found = contrasts.compared(runs)
    assert len(found) == 6  # three contrasts, of a headline and another number each
    assert {entry.headline for entry in found} == {True, False}
    for entry in found:
        assert entry.p_holm == pytest.approx(3 * entry.wilcoxon.p)


def _small_replication(folder: Path) -> None:
    """Start, baseline and both with one seed; "both" gains .05 in every language."""
    for name, gain in (("start", 0.2), ("baseline-1", 0.1), ("both-1", 0.15)):
        for number, code in enumerate(("fra_Latn", "tsn_Latn", "ewe_Latn", "que_Latn", "ron_Latn", "dso_Orya")):
            records = [_record(name, code, gain + 0.01 * number), _record(name, code, 5 - gain, "loss", "lm")]
            _measured(folder, name, records)


def test_what_was_measured_beside_the_protocol_is_shown_at_every_layer(tmp_path):
    plan = read_plan(RECIPE)
    for name, values in (("start", (0.2, 0.4)), ("baseline-1", (0.3, 0.1)), ("both-1", (0.3, 0.25))):
        records = [
            replace(_record(name, "tsn_Latn", value, "macro_f1", "sib200-probe"), layer=layer, source="eng_Latn")
            for layer, value in zip((8, 12), values)
        ]
        records += [
            _record(name, "tsn_Latn", value, metric) for metric, value in zip(("acc@10", "acc@10_csls"), values)
        ]
        _measured(tmp_path, name, records)
    runs = contrasts.gather(tmp_path, plan.experiments["e5"])
    tables = summary.tables(list(contrasts.parts(runs, WHO)), runs)
    head, _, *shown = [[cell.strip() for cell in row[1:-1].split("|")] for row in tables["probes by layer"]]
    assert len(head) == len(shown[0])
    assert shown == [
        ["SIB-200 probe F1", "8", "20.0", "30.0", "30.0", "0.0", "–", "+10.0"],
        ["SIB-200 probe F1", "12", "40.0", "10.0", "25.0", "+15.0", "–", "−15.0"],
    ]
    corrected = "| SR-Bible Acc@10 | 8 | 40.0 | 10.0 | 25.0 | +15.0 | – | −15.0 |"
    assert tables["retrieval with CSLS"][2:] == [corrected]


def test_the_document_is_filled_from_the_records(tmp_path):
    plan = read_plan(RECIPE)
    _small_replication(tmp_path / "records" / "e5")
    document = tmp_path / "findings.md"
    document.write_text(
        "Before.\n<!-- table: e5 against the baseline -->\nold\n<!-- end of table -->\nBetween.\n"
        "<!-- table: mlm means -->\nkept\n<!-- end of table -->\nAfter.\n",
        encoding="utf-8",
    )
    for _ in range(2):  # the second time the marks are still there
        findings.write_findings([plan], tmp_path / "records", tmp_path / "findings")
    text = document.read_text(encoding="utf-8")
    assert "old" not in text
    head = "| minus baseline | SR-Bible Acc@10 (n=4) | in the tail (n=4) | not trained on (n=1) | LM loss (n=4) |"
    assert head in text
    assert "| LangSAMP (both tables) | +5.0 [+5.0, +5.0] | +5.0 [+5.0, +5.0] | +5.0 | −0.050 [−0.050, −0.050] |" in text
    assert "<!-- table: mlm means -->\nkept\n<!-- end of table -->\nAfter." in text
    assert (tmp_path / "findings/e5-differences.png").exists()


def test_a_document_asking_for_a_table_that_is_not_made_is_refused():
    text = "<!-- table: e5 meanings -->\n<!-- end of table -->"
    with pytest.raises(ValueError, match="no table 'e5 meanings'; there are: e5 means"):
        summary.fill(text, {"e5 means": ["| a |"]})


@pytest.mark.slow
def test_the_committed_tables_are_those_of_the_committed_records(tmp_path):
    """All of them: no number of a table is typed by hand, but for those of the search, whose records were not kept."""
    docs = RECIPE.parents[1] / "docs"
    shutil.copytree(docs / "replication", tmp_path / "replication")
    shutil.copy(docs / "replication.md", tmp_path)
    findings.main([str(RECIPE), str(RECIPE.with_name("replication_gpu.yaml")), str(tmp_path / "replication")])
    for made in (tmp_path / "replication.md", *tmp_path.glob("replication/*.md")):
        committed = (docs / made.relative_to(tmp_path)).read_text(encoding="utf-8")
        _same_but_for_rounding(made.read_text(encoding="utf-8"), committed)
    document = (docs / "replication.md").read_text(encoding="utf-8")
    before_search = summary.MARK.sub("", document.partition("## What moved it")[0])
    assert not any(line.startswith("|") for line in before_search.splitlines())


def _same_but_for_rounding(a: str, b: str) -> None:
    number = re.compile(r"[+−]?\d+\.\d+")
    assert number.sub("", a).replace("*", "") == number.sub("", b).replace("*", "")
    for x, y in zip(number.findall(a), number.findall(b), strict=True):
        assert float(x.replace("−", "-")) == pytest.approx(float(y.replace("−", "-")), abs=0.11)


def test_donors_are_judged_against_always_taking_english():
    """Means over targets and seeds; a target that a seed lacks is in no difference."""
    found = []
    for seed, luck in ((1, 0.0), (2, 0.02)):
        for code in ("tsn_Latn", "ewe_Latn", "que_Latn"):
            if (seed, code) != (2, "que_Latn"):
                values = {
                    "regret_english": 0.1 + luck,
                    "regret_centroid": 0.07 + luck,
                    "ndcg@3_centroid": 0.8,
                    "ndcg@3_english": 0.7,
                }
                found += [_record(f"both-{seed}", code, v, m, "donors") for m, v in values.items()]
    lines = donors.table({"baseline": [_record("baseline-1", "tsn_Latn", 0.5)], "both": found})
    assert "| both | centroid | 2 | 80.0 | 7.8 | −3.0 |" in lines
    assert not any(line.startswith("| baseline") for line in lines)
    assert donors.table({"baseline": [_record("baseline-1", "tsn_Latn", 0.5)]}) == []


@pytest.mark.slow
def test_the_whole_replication_runs_once_and_goes_on(tmp_path, texts, capsys):
    rows = [text for lines in texts.values() for text in lines]
    for number, code in enumerate(("eng_Latn", "deu_Latn", "fin_Latn", "spa_Latn")):
        own = [f"{text} {number}" for text in rows[:12]]
        _table(tmp_path / "data/mlm" / f"{code}.parquet", text=own * 5)
        _table(tmp_path / "data/bible_retrieval" / f"{code}.parquet", id=list(range(len(own))), text=own)
        labels = {
            "label": (["a"] * 4 + ["b"] * 4) * (len(own) // 4),
            "split": ["train", "dev", "test", "test"] * (len(own) // 2),
        }
        _table(tmp_path / "data/sib200" / f"{code}.parquet", text=own * 2, **labels)
        _table(tmp_path / "data/tatoeba" / f"{code}.parquet", text=own, english=rows[:12])
    recipe = {
        "languages": {"trained": ["eng_Latn", "deu_Latn", "fin_Latn"], "untrained": ["spa_Latn"], "dev": ["fin_Latn"]},
        "sizes": {"block": 16, "verses": 12, "pairs": 12},
        "experiments": {
            "scratch": {
                "variants": ["baseline", "both"], "halves": ["both"], "seeds": [1], "steps": 2, "batch": 2,
                "learning_rate": 1e-3, "table_learning_rate": 1e-2, "head_steps": 1, "head_learning_rate": 1e-3,
                "adapt_steps": 1, "downstream": ["both"],
                "shape": {"hidden": 32, "layers": 2, "vocabulary": 200},
            }
        },
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    given = [str(tmp_path / "recipe.yaml"), "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    replication.main([*given, "--variants", "baseline"])
    first = (tmp_path / "out/records/scratch/baseline-1/results.jsonl").stat().st_mtime_ns
    replication.main(given)
    runs = tmp_path / "out/records/scratch"
    assert {run.name for run in archive.finished(runs)} == {"start", "baseline-1", "both-1", "both-half-1", "zero-1"}
    assert (runs / "baseline-1/results.jsonl").stat().st_mtime_ns == first
    assert not (tmp_path / "out/scratch/both-1").exists()  # measured models go
    tasks = {record.task for record in read(runs / "baseline-1")}
    assert tasks == {"sr-bible", "sr-tatoeba", "sib200-probe", "neutrality", "lm"}
    for name in ("start", "both-1"):
        further = {record.task for record in read(runs / name)} - tasks
        assert further == {"sib200-100steps", "donors", "donors-transfer"}
        assert not (runs / name / "finetuned").exists()
    assert {record.task for record in read(runs / "zero-1")} == {"lm"}
    facts = json.loads((runs / "both-1/training.json").read_text(encoding="utf-8"))
    assert facts["steps"] == 2
    written = (tmp_path / "out/findings/scratch.md").read_text(encoding="utf-8")
    assert "both − baseline" in written
    assert "| both | language-row |" in written
    assert (tmp_path / "out/findings/scratch-layers.png").stat().st_size > 10_000


def _table(path: Path, **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
