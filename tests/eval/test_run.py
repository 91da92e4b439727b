"""The runner: nothing is computed twice, a killed run loses nothing that was finished, coverage is never silent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from filelock import FileLock

from langsamp.core.runtime import ModelSource
from langsamp.eval import run as runner
from langsamp.eval.data import hub as hub_data
from langsamp.eval.data.columns import DataError
from langsamp.eval.data.sets import EvalData
from langsamp.eval.results import records
from langsamp.eval.results.gather import Results
from langsamp.eval.results.report.extras import coverage_section
from langsamp.eval.results.rundir import RunInfo, load
from langsamp.eval.task import Context, Coverage, TaskOptions, Unit, choose_languages

WORDS = [
    "house",
    "dog",
    "sun",
    "boat",
    "bird",
    "road",
    "tree",
    "mill",
    "book",
    "river",
    "day",
    "winter",
    "stone",
    "field",
    "cloud",
    "bridge",
]


class Count:
    """A small task: the number of rows of a language; `qtx_Latn` is unusable. Counts how often it computes."""

    name = "count"

    def __init__(self):
        self.computed = []

    def languages(self, context):
        return context.data.languages("sib200")

    def units(self, context, languages):
        return [
            Unit(
                tag,
                [context.record(self.name, tag, metric, seed=seed) for metric in ("rows", "twice")],
                data=[f"sib200/{tag}"],
            )
            for seed in context.seeds or (1,)
            for tag in languages
        ]

    def compute(self, context, unit):
        tag, expected = unit.language, unit.expected
        self.computed.append(tag)
        if tag == "qtx_Latn":
            raise DataError("broken on purpose")
        rows = len(context.data.rows("sib200", tag, ["text"])["text"])
        return [replace(record, value=rows * factor, n=rows) for factor, record in enumerate(expected, 1)]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Tiny products on many threads only wait for each other."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def task(monkeypatch):
    count = Count()
    monkeypatch.setattr(runner, "load_task", lambda name: count)
    return count


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "data/sib200"
    folder.mkdir(parents=True)
    for size, tag in enumerate(("deu_Latn", "fra_Latn", "srp_Cyrl", "srp_Latn"), 1):
        pq.write_table(pa.table({"text": ["a"] * size}), folder / f"{tag}.parquet")
    return Context(ModelSource(tmp_path, "tiny", "abc"), EvalData(tmp_path / "data"), tmp_path / "out", progress=False)


def test_records_and_coverage(task, context):
    (coverage,) = runner.run(context, ["count"])
    assert coverage.line() == "count: 4 of 4 languages"
    found = {(record.code, record.metric): record.value for record in records.read(context.output)}
    assert found["srp_Latn", "twice"] == 8
    assert json.loads((context.output / "run.json").read_text())["coverage"]["count"]["missing"] == {}


def test_finished_units_are_skipped_and_new_ones_added(task, context):
    runner.run(context, ["count"], ["de"])
    runner.run(context, ["count"], ["de", "fra_Latn"])
    assert task.computed == ["deu_Latn", "fra_Latn"]
    runner.run(replace(context, seeds=(1, 2)), ["count"], ["deu"])
    assert task.computed == ["deu_Latn", "fra_Latn", "deu_Latn"]
    assert len(records.read(context.output)) == 6


def test_a_unit_cut_in_half_is_completed_without_doubles(task, context):
    runner.run(context, ["count"])
    whole = (context.output / records.RESULTS).read_bytes()
    (context.output / records.RESULTS).write_bytes(whole[: whole.index(b"\n") + 20])  # one record and a torn line
    runner.run(context, ["count"])
    assert (context.output / records.RESULTS).read_bytes() == whole


def test_missing_languages_are_named(task, context):
    (coverage,) = runner.run(context, ["count"], ["de", "sr", "xyz"])
    assert coverage.line() == "count: 3 of 4 languages; missing: xyz (no data)"
    assert task.computed == ["deu_Latn", "srp_Cyrl", "srp_Latn"]
    pq.write_table(pa.table({"text": ["a"]}), context.data.root / "sib200/qtx_Latn.parquet")
    context = replace(context, data=EvalData(context.data.root))
    (coverage,) = runner.run(context, ["count"])
    assert coverage.line() == "count: 4 of 5 languages; missing: qtx_Latn (broken on purpose)"
    assert json.loads((context.output / "run.json").read_text())["coverage"]["count"]["missing"] == {
        "qtx_Latn": "broken on purpose",
        "xyz": "no data",
    }
    with pytest.raises(DataError, match=r"0 of 1 languages; missing: qtx_Latn \(broken on purpose\)"):
        runner.run(context, ["count"], ["qtx_Latn"])
    with pytest.raises(DataError, match=r"no data for any of the languages asked for \(swe\)"):
        runner.run(context, ["count"], ["swe"])
    with pytest.raises(ValueError, match="not a language tag"):
        runner.run(context, ["count"], ["german"])


def test_choosing_languages():
    present = ["deu_Latn", "srp_Cyrl", "srp_Latn", "zho_Hani"]
    assert choose_languages("t", present, None) == (present, Coverage("t", present))
    assert choose_languages("t", present, ["sr-Cyrl", "zho_Hani", "sr-Cyrl"])[0] == ["srp_Cyrl", "zho_Hani"]


def test_one_folder_holds_one_model_and_one_set_of_settings(task, context, monkeypatch):
    runner.run(context, ["count"])
    for change in ({"prefix": "query: "}, {"dtype": "bfloat16"}, {"source": ModelSource(Path("."), "other")}):
        with pytest.raises(ValueError, match="choose another --output"):
            runner.run(replace(context, **change), ["count"])
    monkeypatch.setattr(Count, "settings", lambda self, context: {"text": context.options.text}, raising=False)
    runner.run(replace(context, options={"text": "mlm"}), ["count"])
    with pytest.raises(ValueError, match="holds a run with count: text 'mlm', not 'lm'; choose another --output"):
        runner.run(replace(context, options={"text": "lm"}), ["count"])
    (context.output / "run.json").write_text("{broken")
    with pytest.raises(ValueError, match=r"run\.json is not readable JSON"):
        runner.run(context, ["count"])


def test_a_run_that_failed_before_its_first_number_binds_nobody(task, context):
    (context.output.parent / "wrong").mkdir()
    with pytest.raises(DataError, match="no evaluation data"):
        runner.run(replace(context, data=EvalData(context.output.parent / "wrong"), prefix="qeury: "), ["count"])
    runner.run(replace(context, prefix="query: "), ["count"])
    with pytest.raises(ValueError, match="prefix 'query: ', not ''"):
        runner.run(context, ["count"])


def test_a_retrained_model_in_the_same_folder_is_noticed(task, context):
    weights = context.source.path / "model.safetensors"
    weights.write_bytes(bytes(10_000))
    runner.run(context, ["count"])
    weights.write_bytes(bytes(9_999) + b"1")
    with pytest.raises(ValueError, match=r"holds a run with weights .* choose another --output"):
        runner.run(context, ["count"])


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_one_changed_row_or_piece_is_noticed(task, context, name):
    """In a folder; of a model of the Hub the commit says it. A new card is no change."""
    context = replace(context, source=replace(context.source, revision=None))
    path = context.source.path / name
    path.write_bytes(bytes(1 << 20))
    runner.run(context, ["count"])
    (context.source.path / "README.md").write_text("new")
    runner.run(context, ["count"])
    path.write_bytes(bytes(12_345) + b"1" + bytes((1 << 20) - 12_346))
    with pytest.raises(ValueError, match=r"holds a run with files .* choose another --output"):
        runner.run(context, ["count"])


def test_data_that_changed_since_they_were_measured_are_refused(task, context):
    """Whatever of the run is left to do; with the old file back, or for other languages' files, it goes on."""
    runner.run(context, ["count"], ["deu", "fra"])
    file = context.data.root / "sib200/fra_Latn.parquet"
    before, kept = file.read_bytes(), (context.output / records.RESULTS).read_bytes()
    pq.write_table(pa.table({"text": ["a", "z"]}), file)
    pq.write_table(pa.table({"text": ["z"]}), file.with_name("srp_Cyrl.parquet"))
    told = r"numbers of sib200/fra_Latn from before its data changed \(.*fra_Latn.parquet\); put .*--output"
    for again in (context, replace(context, seeds=(2,))):
        with pytest.raises(ValueError, match=told):
            runner.run(replace(again, data=EvalData(context.data.root)), ["count"])
    assert (context.output / records.RESULTS).read_bytes() == kept
    file.write_bytes(before)
    runner.run(replace(context, data=EvalData(context.data.root)), ["count"])
    assert task.computed == ["deu_Latn", "fra_Latn", "srp_Cyrl", "srp_Latn"]
    file.with_name("fra_Latn-dev.parquet").write_bytes(before)  # another file is a change, too
    with pytest.raises(ValueError, match="its data changed"):
        runner.run(replace(context, data=EvalData(context.data.root)), ["count"])


def test_data_that_could_not_be_measured_may_be_mended(task, context):
    file = context.data.root / "sib200/deu_Latn.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert "deu_Latn" in runner.run(context, ["count"])[0].missing
    file.write_bytes(whole)
    assert runner.run(replace(context, data=EvalData(context.data.root)), ["count"])[0].missing == {}


def test_a_run_of_before_data_were_pinned_goes_on_and_pins_them(task, context):
    runner.run(context, ["count"], ["deu"])
    path = context.output / "run.json"
    settings = json.loads(path.read_text())
    del settings["data"]
    path.write_text(json.dumps(settings))
    runner.run(context, ["count"], ["deu"])
    assert task.computed == ["deu_Latn"]
    pq.write_table(pa.table({"text": ["z"]}), context.data.root / "sib200/deu_Latn.parquet")
    with pytest.raises(ValueError, match="its data changed"):
        runner.run(replace(context, data=EvalData(context.data.root)), ["count"], ["deu"])


def test_a_run_goes_on_with_the_hub_data_it_began_with(task, context, monkeypatch):
    """Also where a task's settings look at the data before anything else does."""
    asked, newest = [], SimpleNamespace(sha="a" * 40)
    monkeypatch.setattr(hub_data.HfApi, "dataset_info", lambda *_, **rest: newest)
    monkeypatch.setattr(hub_data, "get_dataset_config_names", lambda repo, revision: ["deu_Latn", "fra_Latn"])
    rows = {"test": Dataset.from_dict({"text": ["a", "b"]})}
    monkeypatch.setattr(hub_data, "load_dataset", lambda repo, config, revision: asked.append(revision) or rows)
    languages = lambda self, context: {"languages": context.data.languages("sib200")}  # noqa: E731
    monkeypatch.setattr(Count, "settings", languages, raising=False)
    for tag in ("deu", "fra"):
        runner.run(replace(context, data=EvalData()), ["count"], [tag])
        newest.sha = "b" * 40
    assert asked == ["a" * 40] * 2
    assert RunInfo.read(context.output).data == {"sib200/deu_Latn": "a" * 40, "sib200/fra_Latn": "a" * 40}


def test_coverage_groups_the_reasons():
    coverage = Coverage("t", ["a", "b", "c", "d"], {"a": "no data", "c": "broken", "d": "no data"})
    assert coverage.line() == "t: 1 of 4 languages; missing: a, d (no data); c (broken)"
    assert Coverage("t", ["a"], {"b": "broken"}).line() == "t: 1 of 1 languages; missing: b (broken)"


def test_a_task_must_keep_its_promise(task, context, monkeypatch):
    monkeypatch.setattr(task, "compute", lambda context, unit: unit.expected[:1])
    with pytest.raises(RuntimeError, match="other records than it promised"):
        runner.run(context, ["count"])


def test_an_unknown_option_is_an_error_with_the_nearest_name(context):
    with pytest.raises(ValueError, match="no task has an option 'sentence'; did you mean sentences"):
        replace(context, options={"sentence": 3})
    with pytest.raises(ValueError, match="no task has an option 'qqq'; did you mean csls, parallel, "):
        TaskOptions.of({"qqq": 1})
    assert replace(context, options={"sources": ["deu", "fra"]}).options == TaskOptions(sources=("deu", "fra"))


def test_two_evaluations_do_not_mix(task, context):
    context.output.mkdir()
    with (
        FileLock(context.output / ".lock"),
        pytest.raises(RuntimeError, match=r"another evaluation is writing to .*out"),
    ):
        runner.run(context, ["count"])
    assert not (context.output / records.RESULTS).exists()
    runner.run(context, ["count"])


def test_one_bar_with_a_total_and_none_when_there_is_nothing_to_do(task, context, capsys):
    context = replace(context, progress=True)
    runner.run(context, ["count"], ["de"])
    runner.run(context, ["count"])
    shown = capsys.readouterr().err
    assert "count: 100%" in shown
    assert "3/3" in shown  # one of the four was there already
    runner.run(context, ["count"])
    assert "0unit" not in capsys.readouterr().err


def test_a_later_stage_gets_the_records_of_the_one_before(task, context, monkeypatch):
    """The second stage is begun when all of the first is written; a file of the run directory goes with its unit."""

    def units(self, context, languages):
        later = [Unit(tag, [context.record("sum", tag, "rows")], stage=1, wants="count") for tag in languages]
        return later + [Unit(tag, [context.record("count", tag, "rows")]) for tag in languages]

    def compute(self, context, unit):
        context.save(f"side/{unit.language}-{unit.stage}", b"x")
        value = sum(record.value for record in unit.given) + 5 if unit.stage else len(unit.language)
        return [replace(unit.expected[0], value=value)]

    monkeypatch.setattr(Count, "units", units)
    monkeypatch.setattr(Count, "compute", compute)
    runner.run(context, ["count"])
    assert {record.value for record in records.read(context.output) if record.task == "sum"} == {8 + 5}
    assert len(list((context.output / "side").iterdir())) == 8


def test_unknown_task_is_an_error_naming_the_tasks():
    with pytest.raises(ValueError, match=r"no task 'sr-bibel'; the tasks are sr-bible, sr-tatoeba"):
        runner.load_task("sr-bibel")


KILLED = """
import os, signal, sys
from langsamp.eval import cli
from langsamp.eval.results import records
from langsamp.eval.cli import COMMANDS
import argparse

left, append = int(sys.argv.pop(1)), records.append
def append_and_die(path, found, *rest):
    global left
    left -= 1
    if left == 0:  # die in the middle of a write
        with open(path / "results.jsonl", "ab") as file:
            file.write("".join(record.to_json() + "\\n" for record in found).encode()[:400])
        os.kill(os.getpid(), signal.SIGKILL)
    append(path, found, *rest)
records.append = append_and_die
parser = argparse.ArgumentParser()
COMMANDS["eval"][1](parser)
sys.exit(COMMANDS["eval"][2](parser.parse_args()))
"""


def hundred_languages(folder):
    for number in range(100):
        tag = "q" + chr(97 + number // 26) + chr(97 + number % 26) + "_Latn"
        text = [f"{word} {WORDS[(number + place) % 16]}" for place, word in enumerate(WORDS)]
        pq.write_table(pa.table({"id": list(range(16)), "text": text}), folder / f"{tag}.parquet")
    english = [f"the {word} by the river" for word in WORDS]
    pq.write_table(pa.table({"id": list(range(16)), "text": english}), folder / "eng_Latn.parquet")


@pytest.mark.slow
def test_killed_in_the_middle_of_a_hundred_languages(tmp_path, tiny_model_dir):
    """SIGKILL while record 37 of 100 is being written: the rerun does 64 languages and the records are equal."""
    folder = tmp_path / "data/bible_retrieval"
    folder.mkdir(parents=True)
    hundred_languages(folder)
    outputs = tmp_path / "killed", tmp_path / "whole"
    arguments = [
        "--model",
        str(tiny_model_dir),
        "--tasks",
        "sr-bible",
        "--data",
        str(tmp_path / "data"),
        "--layer",
        "2,3",
        "--no-progress",
        "--output",
    ]
    command = [sys.executable, "-c", KILLED, "37", *arguments, str(outputs[0])]
    died = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert len(records.read(outputs[0])) >= 36 * 12

    from langsamp.core.runtime import resolve_model
    from langsamp.eval.tasks.retrieval import Retrieval

    computed = []
    original = Retrieval.compute
    for output in outputs:
        context = Context(
            resolve_model(tiny_model_dir), EvalData(tmp_path / "data"), output, layers="2,3", progress=False
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Retrieval, "compute", lambda self, *rest: computed.append(rest[1]) or original(self, *rest))
            runner.run(context, ["sr-bible"])
    assert len(computed) == 64 + 100
    killed, whole = ((output / records.RESULTS).read_bytes() for output in outputs)
    assert killed == whole
    assert len(records.read(outputs[1])) == 100 * 12


def test_a_language_is_missing_if_none_of_its_data_sets_is_usable(task, context, monkeypatch):
    """Two data sets a language, as the tagging tasks have them; the second of French is broken, and all of Serbian."""

    def units(self, context, languages):
        pairs = [(tag, name) for name in ("one", "two") for tag in languages]
        return [Unit(tag, [context.record(name, tag, "rows")], about=name) for tag, name in pairs]

    def compute(self, context, unit):
        if unit.language == "srp_Cyrl" or (unit.language, unit.about) == ("fra_Latn", "two"):
            raise DataError("broken on purpose")
        return unit.expected

    monkeypatch.setattr(Count, "units", units)
    monkeypatch.setattr(Count, "compute", compute)
    for _ in range(2):  # again with the first data set done
        (coverage,) = runner.run(context, ["count"], ["fra", "srp_Cyrl"])
        assert coverage.line() == "count: 1 of 2 languages; missing: srp_Cyrl (broken on purpose)"
        assert runner.run(context, ["count"], ["fra"])[0].missing == {}


def test_a_run_that_did_not_end_tells_which_languages_it_lacks(task, context, monkeypatch):
    compute = task.compute

    def until_fra(context, unit):
        if unit.language == "srp_Cyrl":
            raise KeyboardInterrupt
        return compute(context, unit)

    monkeypatch.setattr(task, "compute", until_fra)
    with pytest.raises(KeyboardInterrupt):
        runner.run(context, ["count"], ["deu", "fra", "srp", "xyz"])
    section = coverage_section(Results.of(load(context.output)))[0]
    assert section.notes == ["count, tiny: 2 of 5 languages; missing: srp_Cyrl, srp_Latn; xyz (no data)"]


def test_coverage_is_that_of_all_runs_in_a_folder(task, context):
    runner.run(context, ["count"], ["deu", "swe"])
    runner.run(context, ["count"], ["fra"])
    kept = RunInfo.read(context.output).coverage["count"]
    assert (kept.asked, kept.missing) == (["deu_Latn", "fra_Latn", "swe"], {"swe": "no data"})


def test_a_task_named_twice_is_run_once(task, context):
    assert len(runner.run(context, ["count", "count"])) == 1
    assert task.computed == ["deu_Latn", "fra_Latn", "srp_Cyrl", "srp_Latn"]
