from __future__ import annotations

import json
import multiprocessing

import numpy as np
import pytest

from langsamp.core.record import FIELDS, Record, base_metric, key, split_code, with_interval
from langsamp.eval.results.records import Done, append, read


def record(**changes):
    known = {"task": "sr-bible", "language": "cym", "script": "Latn", "metric": "acc@10", "value": 0.5, "model": "m"}
    return Record(**{**known, **changes})


def test_a_line_has_exactly_the_documented_fields_in_order(tmp_path):
    append(tmp_path / "results.jsonl", [record(n=500, layer=8, direction="en->x")])
    line = (tmp_path / "results.jsonl").read_text()
    assert list(json.loads(line)) == [
        "schema",
        "task",
        "language",
        "script",
        "metric",
        "value",
        "n",
        "layer",
        "direction",
        "source",
        "seed",
        "model",
        "revision",
    ]
    assert tuple(json.loads(line)) == FIELDS
    assert line.endswith("}\n")
    assert json.loads(line)["source"] is None


def test_round_trip_of_numpy_numbers_and_odd_names(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    odd = record(value=np.float32(0.25), n=np.int64(3), layer=np.int32(8), model='a "b"\n<c> é\ud800')
    append(path, [odd])
    append(path, [])
    [back] = read(path)
    assert back == odd
    assert back.value == 0.25
    assert type(back.value) is float
    assert type(back.n) is int
    assert back.code == "cym_Latn"
    assert read(tmp_path / "deep") == [back]  # a folder stands for its results.jsonl


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match=r"sr-bible/acc@10 of cym_Latn is .*only finite"):
        record(value=value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": "0.5"}, "value must be a number"),
        ({"value": True}, "value must be a number"),
        ({"task": ""}, "task must be a text"),
        ({"model": None}, "model must be a text"),
        ({"language": "cym_Latn", "script": None}, "must be split"),
        ({"n": -1}, "must not be negative"),
        ({"n": float("inf")}, "n must be a whole number"),
        ({"n": 10**400}, "n must be a number"),
        ({"layer": 1.5}, "layer must be a whole number"),
        ({"layer": "last"}, "layer must be a number|could not convert"),
    ],
)
def test_bad_fields_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        record(**changes)


def test_the_last_of_equal_keys_wins_and_n_is_no_part_of_the_key(tmp_path):
    append(tmp_path / "new", [record(value=0.1)])
    assert (tmp_path / "new" / "results.jsonl").is_file()
    append(tmp_path, [record(value=0.1, n=1), record(language="deu", value=0.9), record(value=0.2, n=2)])
    assert [(r.language, r.value) for r in read(tmp_path)] == [("cym", 0.2), ("deu", 0.9)]
    assert key(record(value=0.1, n=1)) == key(record(value=0.2, n=2))
    assert key(record(seed=1)) != key(record(seed=2)) != key(record())


def test_done_answers_with_and_without_a_value(tmp_path):
    assert len(Done(tmp_path / "absent.jsonl")) == 0
    append(tmp_path, [record(layer=8)])
    done = Done(tmp_path)
    assert record(layer=8, value=0.7) in done
    assert record(layer=7) not in done
    assert done.has(task="sr-bible", language="cym", script="Latn", metric="acc@10", model="m", layer=8)
    assert not done.has(task="sr-bible", language="cym", script="Latn", metric="acc@10", model="m")
    done.add([record(layer=7)])
    assert record(layer=7) in done
    with pytest.raises(TypeError):
        done.has(task="sr-bible", metric="acc@10", model="m", typo=1)


def test_every_way_to_cut_the_last_line_is_read_and_repaired(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [record(), record(language="deu")])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        complete = cut == len(whole) - 1  # only the line break is missing
        assert [r.language for r in read(path)] == (["cym", "deu"] if complete else ["cym"])
        append(path, [record(language="fin")])
        assert [r.language for r in read(path)] == (["cym", "deu", "fin"] if complete else ["cym", "fin"])
        assert path.read_bytes().endswith(b"}\n")


def test_zeros_at_the_end_after_a_power_cut_are_repaired(tmp_path):
    append(tmp_path, [record()])
    with open(tmp_path / "results.jsonl", "ab") as file:
        file.write(b"\0" * 100)
    assert len(read(tmp_path)) == 1
    append(tmp_path, [record(language="deu")])
    assert [r.language for r in read(tmp_path)] == ["cym", "deu"]


@pytest.mark.parametrize("first", range(0, 400, 37))
def test_zeros_inside_after_a_power_cut_are_done_again(tmp_path, caplog, first):
    """A block of the file did not reach the disk, a later one did."""
    path, all_three = tmp_path / "results.jsonl", [record(language=code) for code in ("cym", "deu", "fin")]
    append(path, all_three)
    whole = path.read_bytes()
    path.write_bytes(whole[:first] + b"\0" * 90 + whole[first + 90 :])
    kept = read(path)
    assert kept == [r for r in all_three if r in kept]
    assert len(kept) < 3
    append(path, [r for r in all_three if r not in Done(path)])
    assert sorted(read(path), key=str) == sorted(all_three, key=str)
    assert "half-written" in caplog.text


_DEEP = b'{"task": "t", "metric": "m", "model": "x", "value": ' + b"[" * 100_000 + b"}"
_INFINITE = b'{"task": "t", "metric": "m", "model": "x", "value": 1, "n": Infinity}'


@pytest.mark.parametrize(
    "line", [b"{}", b"[1]", b'{"schema": 1', b'{"schema": 2, "task": "t"}', b"NaN", b"\xff", _INFINITE, _DEEP]
)
def test_a_bad_line_elsewhere_is_an_error_with_its_number(tmp_path, line):
    append(tmp_path, [record()])
    with open(tmp_path / "results.jsonl", "ab") as file:
        file.write(line + b"\n")
    append(tmp_path, [record(language="deu")])
    with pytest.raises(ValueError, match=r"results.jsonl, line 2: not a record"):
        read(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="langsamp eval"):
        read(tmp_path)


def _write(path, language):
    for layer in range(40):
        append(path, [record(language=language, layer=layer, model="m" * 3000)])


def test_processes_may_append_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path / "results.jsonl", code)) for code in ("aaa", "bbb")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(read(tmp_path)) == 80


def test_intervals_are_records_of_their_own():
    three = with_interval(record(n=7), 0.4, 0.6)
    assert [(r.metric, r.value) for r in three] == [("acc@10", 0.5), ("acc@10_lo", 0.4), ("acc@10_hi", 0.6)]
    assert {r.n for r in three} == {7}
    assert with_interval(record(), None, None) == [record()]
    assert base_metric("acc@10_lo") == ("acc@10", "lo")
    assert base_metric("macro_f1_hi") == ("macro_f1", "hi")
    assert base_metric("macro_f1") == ("macro_f1", None)
    assert base_metric("_lo") == ("_lo", None)


def test_codes():
    assert split_code("cym_Latn") == ("cym", "Latn")
    assert split_code("cym") == ("cym", None)
    assert record(script=None).code == "cym"
    assert record(language=None, script=None).code is None
