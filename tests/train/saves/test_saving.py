"""Saves in the background: training goes on with what it had, what was copied stays as it was, errors are told."""

from __future__ import annotations

import errno
import os
import threading
from functools import partial
from pickle import UnpicklingError
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.core.manifest import verify_manifest
from langsamp.train import trainer
from langsamp.train.saves import checkpoints
from langsamp.train.saves.saving import Saver


def test_a_copy_is_a_copy_and_tied_tensors_stay_tied():
    weight = torch.arange(6.0).reshape(2, 3)
    state = {
        "a": weight,
        "tied": weight,
        "view": weight.t(),
        "list": [weight + 1, {"step": torch.tensor(3)}],
        "lr": 0.1,
    }
    copied = Saver().copy(state)
    weight.zero_()
    assert copied["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copied["tied"] is copied["a"]
    assert copied["view"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert copied["list"][1]["step"] == 3
    assert copied["lr"] == 0.1


def test_without_room_for_copies_a_save_stops_training_as_it_used_to(go, held, monkeypatch, caplog, tmp_path):
    begun, go_on = held
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    threading.Thread(target=lambda: (begun.wait(60), go_on.set())).start()
    written = {}
    go(callbacks=[At(lambda step, model: written.update({step: list((tmp_path / "run").rglob("optimizer.pt"))}))])
    assert (len(written[2]), len(written[3])) == (0, 1)
    assert "saves will stop training: there is no room for copies" in caplog.text
    assert checkpoints.last_good(tmp_path / "run").name == "checkpoint-4"


def test_one_thing_at_a_time_and_errors_are_told_once():
    saver, order = Saver(), []
    for i in range(5):
        saver.start(partial(order.append, i))
    saver.wait()
    assert order == [0, 1, 2, 3, 4]

    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    saver.start(fail)
    with pytest.raises(OSError, match="No space"):
        saver.wait()
    saver.check()
    saver.wait()


@pytest.fixture
def held(monkeypatch):
    """Writing of a step's optimizer state waits until it is let go; returns (has begun, let go)."""
    begun, go_on, save = threading.Event(), threading.Event(), torch.save

    def slow(state, path, *args):
        if str(path).endswith("checkpoint-2/optimizer.pt"):
            begun.set()
            assert go_on.wait(60)
        save(state, path, *args)

    monkeypatch.setattr(trainer.torch, "save", slow)
    return begun, go_on


class At(TrainerCallback):
    """Calls a function at the end of each step."""

    def __init__(self, look):
        self.look = look

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.look(state.global_step, model)


def test_training_goes_on_while_a_save_is_written(go, held, tmp_path):
    begun, go_on = held
    weights, listed = {}, {}

    def look(step, model):
        weights[step] = model.lang_embeddings.weight.detach().clone()
        if step == 3:
            assert begun.wait(60)
            listed[3] = checkpoints.checkpoints(tmp_path / "run")
            go_on.set()

    published = []
    result = go(
        callbacks=[At(look)],
        publish=lambda folder, step: published.append((step, verify_manifest(folder))),
        training={"save_steps": 2, "max_steps": 4},
    )
    assert listed[3] == []
    assert published == [(2, []), (4, [])]
    saved = LangSAMPForMaskedLM.from_pretrained(result.folder / "checkpoint-2").lang_embeddings.weight
    assert torch.equal(saved, weights[2])
    assert not torch.equal(weights[2], weights[3])


def test_the_next_save_waits_for_the_last(go, held, tmp_path, monkeypatch):
    begun, go_on = held
    order = []
    seal = checkpoints.publish_staged
    monkeypatch.setattr(
        checkpoints, "publish_staged", lambda run, step, facts: (order.append(step), seal(run, step, facts))[1]
    )
    threading.Thread(target=lambda: (begun.wait(60), threading.Event().wait(1.0), go_on.set())).start()
    result = go(training={"save_steps": 2, "max_steps": 6, "save_total_limit": 2})
    assert order == [2, 4, 6]
    assert [path.name for path in checkpoints.checkpoints(result.folder)] == ["checkpoint-6", "checkpoint-4"]


@pytest.mark.parametrize("last", [False, True])
def test_a_full_disk_stops_the_run_with_a_sentence_that_says_where(go, tmp_path, monkeypatch, last):
    save = torch.save
    full = "checkpoint-6" if last else "checkpoint-4"

    def write(state, path, *args):
        if f"{full}/optimizer.pt" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path, *args)

    monkeypatch.setattr(trainer.torch, "save", write)
    sentence = rf"{full} could not be written to .*run \(No space left on device; [\d,]+ MB are free there\); make room"
    with pytest.raises(RuntimeError, match=sentence):
        go(training={"save_steps": 2, "max_steps": 6})
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert checkpoints.last_good(tmp_path / "run").name == ("checkpoint-4" if last else "checkpoint-2")
    assert not (tmp_path / "run" / ".saving").exists()
    monkeypatch.undo()
    assert go(training={"save_steps": 2, "max_steps": 6}).losses[-1][0] == 6


def test_a_disk_that_is_full_at_the_end_is_told_too_and_the_run_can_be_finished(go, tmp_path, monkeypatch):
    def full(self, folder, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LangSAMPTokenizer, "save_pretrained", full)
    with pytest.raises(RuntimeError, match=r"the finished model could not be written to .*run \(No space left"):
        go(training={"save_strategy": "no"})
    monkeypatch.undo()
    assert verify_manifest(go(training={"save_strategy": "no"}).folder) == []


def test_a_callback_that_looks_at_saves_finds_them_whole(go, tmp_path):
    class Looks(TrainerCallback):
        found = []

        def on_save(self, args, state, control, **kwargs):
            self.found.append(verify_manifest(tmp_path / "run" / f"checkpoint-{state.global_step}"))

    go(callbacks=[Looks()])
    assert Looks.found == [[], []]


def test_best_checkpoint_is_kept_and_loaded(go):
    result = go(
        training={"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "save_total_limit": 1,
                  "metric_for_best_model": "eval_loss", "max_steps": 6, "learning_rate": 1e-2}, unknown="keep",
    )  # fmt: skip
    best = min(result.heldout, key=lambda entry: entry[1]["eval_loss"])[0]
    saved = LangSAMPForMaskedLM.from_pretrained(result.folder / f"checkpoint-{best}")
    assert torch.equal(result.model.base_model.embeddings.word_embeddings.weight,
                       saved.base_model.embeddings.word_embeddings.weight)  # fmt: skip


@pytest.mark.gpu
def test_copies_of_a_gpu_lie_in_pinned_memory_that_is_used_again():
    saver = Saver()
    weight = torch.arange(6.0, device="cuda")
    saver.prepare({"weight": weight})
    first = saver.copy({"weight": weight})["weight"]
    assert first.is_pinned()
    assert first.tolist() == list(range(6))
    weight += 1
    again = saver.copy({"weight": weight})["weight"]
    assert again.data_ptr() == first.data_ptr()
    assert again.tolist() == list(range(1, 7))


def test_where_memory_cannot_be_pinned_copies_are_made_all_the_same(monkeypatch, caplog):
    real = torch.empty

    def empty(*shape, pin_memory=False, **kwargs):
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return real(*shape, **kwargs)

    monkeypatch.setattr(torch, "empty", empty)
    saver, on_a_card = Saver(), SimpleNamespace(device=torch.device("cuda"), shape=(2, 3), dtype=torch.float16)
    for name in "ab":
        assert saver._place((name,), on_a_card).shape == (2, 3)
    assert caplog.text.count("no pinned memory (CUDA error: out of memory)") == 1


class Evil:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_the_state_of_a_run_is_not_run(tmp_path):
    """Several processes on CPUs read it themselves, otherwise it is left to transformers."""
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.save({"state": Evil(tmp_path / "ran")}, tmp_path / name)
    ours = trainer.LangSAMPTrainer.__new__(trainer.LangSAMPTrainer)
    args = SimpleNamespace(device=torch.device("cpu"), world_size=2)
    ours.__dict__.update(args=args, is_fsdp_enabled=False, is_deepspeed_enabled=False, optimizer=None)
    ours.__dict__.update(lr_scheduler=None)
    with pytest.raises(UnpicklingError):
        ours._load_optimizer_and_scheduler(str(tmp_path))
    assert not (tmp_path / "ran").exists()
