"""Many workers give the records of one, whoever dies on the way."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsamp.core.compute import cluster
from langsamp.core.compute.cluster import session
from langsamp.core.compute.crew import Machine
from langsamp.core.runtime import ModelSource, resolve_model
from langsamp.eval import run as runner
from langsamp.eval.data.sets import EvalData
from langsamp.eval.results import records
from langsamp.eval.results.rundir import RunInfo
from langsamp.eval.run_settings import fingerprint
from langsamp.eval.task import Context, Unit
from langsamp.eval.team import Measurer, Team, team

TAGS = ("deu_Latn", "ell_Grek", "eng_Latn", "hin_Deva", "rus_Cyrl")
WORDS = {"house": "house river stands", "time": "January days short", "bird": "birds book reads"}
TASKS = ["sr-bible", "lm", "neutrality", "sib200", "donors", "embedding-map"]


@pytest.fixture
def data(tmp_path):
    """Every task has something to do: parallel sentences, topics with three splits in every language, held-out text."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    for name in ("bible_retrieval", "sib200"):
        (folder / name).mkdir(parents=True)
        for tag in TAGS:
            labels = [[*WORDS][i // 3 % 3] for i in range(36)]
            texts = [
                " ".join([tag[:3], *rng.permutation(WORDS[label].split()), str(i)]) for i, label in enumerate(labels)
            ]
            columns = {"id": [*range(36)], "text": texts, "label": labels, "split": ["train", "dev", "test"] * 12}
            if name == "bible_retrieval":
                del columns["label"], columns["split"]
            pq.write_table(pa.table(columns), folder / name / f"{tag}.parquet")
    return folder


def context(model, data, output, **fields):
    options = {"max_steps": 2, "sentences": 12, "parallel": "bible_retrieval"}
    return Context(
        resolve_model(model),
        EvalData(data),
        output,
        layers="2,3",
        seeds=(1, 2),
        progress=False,
        options=options,
        **fields,
    )


def lines(output):
    return sorted((output / records.RESULTS).read_text().splitlines())


def same_records(output, other):
    """Line by line but for the order."""
    assert lines(output) == lines(other)
    assert len(lines(output)) > 200
    for path in sorted((other / "neutrality").iterdir()):
        a, b = np.load(output / "neutrality" / path.name), np.load(path)
        for name in b.files:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture
def one_thread(monkeypatch):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_processes_give_the_records_of_one(tiny_model_dir, data, tmp_path, one_thread, monkeypatch):
    """Also when one is killed while it computes."""
    runner.run(context(tiny_model_dir, data, tmp_path / "alone"), TASKS)
    here = context(tiny_model_dir, data, tmp_path / "many")
    append, killed = records.append, []

    def kill_one(path, found, *rest):
        append(path, found, *rest)
        if len(lines(path)) > 100 and not killed:
            killed.append(next(iter(crew._members.values()))._pid.result())
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(records, "append", kill_one)
    with team(here, devices=2) as crew:
        coverage = runner.run(here, TASKS, None, crew)
    assert killed
    assert [found.line() for found in coverage if found.missing] == []
    same_records(tmp_path / "many", tmp_path / "alone")
    again = context(tiny_model_dir, data, tmp_path / "many")
    with team(again, devices=2) as crew:
        runner.run(again, TASKS, None, crew)
        assert not crew._members  # nothing to do: nobody is called


@pytest.mark.parametrize("task", [*TASKS, "sib200-probe", "donors-target", "pos"])
def test_what_a_task_reads_is_pinned(tiny_model_dir, data, tmp_path, one_thread, monkeypatch, task):
    """All of it and nothing else, so that a change of it is noticed; see `check_data`."""
    read, rows = set(), EvalData.rows
    monkeypatch.setattr(EvalData, "rows", lambda self, *what: read.add("/".join(what[:2])) or rows(self, *what))
    if task == "pos":
        (data / "pos").mkdir()
        words = {"tokens": [["a", "b"]] * 6, "upos": [["DET", "NOUN"]] * 6, "split": ["train", "dev", "test"] * 2}
        for tag in TAGS[:3]:
            pq.write_table(pa.table(words), data / "pos" / f"{tag}.parquet")
    name, _, option = task.partition("-") if task not in ("sr-bible", "embedding-map") else (task, "", "")
    here = context(tiny_model_dir, data, tmp_path / "out")
    changes = {"probe": {"probe": True}, "target": {"target": "deu"}}.get(option, {})
    here = replace(here, layers="2", seeds=(1,), options=replace(here.options, **changes))
    runner.run(here, [name], None if task == "donors-target" else ["deu", "rus"])
    assert set(RunInfo.read(here.output).data) == read
    assert len(read) > 1 or task == "embedding-map"


def test_without_options_this_process_computes(tiny_model_dir, data, tmp_path):
    here = context(tiny_model_dir, data, tmp_path / "out")
    with team(here) as nobody, team(here, devices=1) as nobody_else:
        assert nobody is nobody_else is None


def test_a_worker_that_sees_something_else_says_so(tiny_model_dir, data, tmp_path):
    source = resolve_model(tiny_model_dir)
    weights = fingerprint(source.path)

    def measurer(weights=weights, **changes):
        settings = {"source": source, "data": EvalData(data), "output": tmp_path / "out", **changes}
        return Measurer(Context(**settings), weights)

    with pytest.raises(FileNotFoundError, match=r"does not see the model /nowhere; put it where all nodes see it"):
        measurer(source=ModelSource(tmp_path.__class__("/nowhere"), "x"))
    with pytest.raises(ValueError, match="has other weights in"):
        measurer("0" * 16)
    gone = EvalData(data)
    gone.root = tmp_path / "gone"
    with pytest.raises(FileNotFoundError, match=r"does not see the data folder .*gone"):
        measurer(data=gone)
    unit = Unit(None, [], trains=True)
    with pytest.raises(
        FileNotFoundError, match="where fine-tuned models are passed on; choose an --output that all nodes"
    ):
        measurer().compute("sib200", unit)


def test_a_language_with_unusable_data_is_left_out_by_name(tiny_model_dir, data, tmp_path):
    pq.write_table(pa.table({"id": [99], "text": ["alone"]}), data / "bible_retrieval/jpn_Jpan.parquet")
    here = context(tiny_model_dir, data, tmp_path / "out")
    crew = Team(here, Machine(1))
    try:
        [coverage] = runner.run(here, ["sr-bible"], ["jpn", "deu"], crew)
    finally:
        crew.close()
    assert "no id in common with eng_Latn" in coverage.missing["jpn_Jpan"]
    assert coverage.measured == ["deu_Latn"]


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'langsamp\[ray\]'"), session():
        pass


@pytest.mark.slow
def test_a_ray_cluster_gives_the_records_of_one_process(
    tiny_model_dir, data, tmp_path, one_thread, ray_cluster, monkeypatch
):
    """A node leaves while it computes, another one joins, and nothing is lost or done twice."""
    runner.run(context(tiny_model_dir, data, tmp_path / "alone"), TASKS)
    nodes = [ray_cluster.add_node(num_cpus=1) for _ in range(2)]
    here = context(tiny_model_dir, data, tmp_path / "many")
    append, changed = records.append, []

    def change_nodes(path, found, *rest):
        append(path, found, *rest)
        if len(lines(path)) > 40 and not changed:
            changed.append(ray_cluster.add_node(num_cpus=1))
            ray_cluster.remove_node(nodes[0], allow_graceful=False)

    monkeypatch.setattr(records, "append", change_nodes)
    with team(here, ray=ray_cluster.address) as crew:
        runner.run(here, TASKS, None, crew)
    assert changed
    same_records(tmp_path / "many", tmp_path / "alone")


@pytest.mark.slow
def test_a_node_with_another_version_says_so(tiny_model_dir, data, tmp_path, ray_cluster, monkeypatch):
    ray_cluster.add_node(num_cpus=1)
    monkeypatch.setattr(cluster, "__version__", "9.9")
    here = context(tiny_model_dir, data, tmp_path / "out")
    told = r"^a worker could not start on node .*: langsamp [\d.]+ is installed there, not 9.9; install the same on all"
    with pytest.raises(ValueError, match=told), team(here, ray=ray_cluster.address) as crew:
        runner.run(here, ["lm"], None, crew)


@pytest.mark.slow
def test_a_driver_that_was_killed_goes_on_from_its_records(
    tiny_model_dir, data, tmp_path, one_thread, ray_cluster, monkeypatch
):
    runner.run(context(tiny_model_dir, data, tmp_path / "alone"), ["sr-bible", "lm"])
    ray_cluster.add_node(num_cpus=1)
    here = context(tiny_model_dir, data, tmp_path / "many")
    append = records.append

    def stop(path, found, *rest):
        append(path, found, *rest)
        if len(lines(path)) >= 24:
            raise KeyboardInterrupt

    monkeypatch.setattr(records, "append", stop)
    with pytest.raises(KeyboardInterrupt), team(here, ray=ray_cluster.address) as crew:
        runner.run(here, ["sr-bible", "lm"], None, crew)
    monkeypatch.setattr(records, "append", append)
    again = context(tiny_model_dir, data, tmp_path / "many")
    with team(again, ray=ray_cluster.address) as crew:
        runner.run(again, ["sr-bible", "lm"], None, crew)
    assert lines(tmp_path / "many") == lines(tmp_path / "alone")


def test_no_cluster_is_told_in_a_sentence(monkeypatch):
    pytest.importorskip("ray", reason="needs the extra langsamp[ray]")
    with pytest.raises(RuntimeError, match=r"there is no Ray cluster at 'auto' .*--ray local"), session():
        pass
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):
        with (
            pytest.raises(RuntimeError, match=rf"no Ray cluster at '{address}' \(nobody answers there\)"),
            session(address),
        ):
            pass
