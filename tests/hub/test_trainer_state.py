"""Trainer state through the Hub: equal when it arrives, and never as a pickle."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from langsamp.core.files import DiskFullError
from langsamp.core.manifest import MANIFEST_NAME, verify_manifest, write_manifest
from langsamp.hub.pull import pull
from langsamp.hub.push import push
from langsamp.hub.remote import RECORD_NAME
from langsamp.hub.training import BRANCH, fetch_checkpoint, publisher


@pytest.fixture
def states():
    """Optimizer, scheduler and random state as the Trainer saves them."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    rng = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}  # noqa: NPY002
    return {"optimizer.pt": optimizer.state_dict(), "scheduler.pt": scheduler.state_dict(), "rng_state.pth": rng}


@pytest.fixture
def save(another_checkpoint, states):
    """A folder as a save of the Trainer leaves it."""

    def make(name="checkpoint-7", seed=0):
        folder = another_checkpoint(name, seed)
        for file, state in states.items():
            torch.save(state, folder / file)
        (folder / "trainer_state.json").write_text('{"global_step": 7}')
        (folder / "langsamp_run.json").write_text('{"step": 7}')
        write_manifest(folder)
        return folder

    return make


def test_a_full_disk_for_what_is_converted_is_told_with_its_place(save, hub, monkeypatch, tmp_path):
    """It is not the disk of the checkpoint, and often a small one."""
    from safetensors import SafetensorError

    def full(*args, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    (tmp_path / "small").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "small"))
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DiskFullError, match=rf"no space left on the disk of {tmp_path}/small/"):
        push(save(), "user/x", with_trainer_state=True)
    assert not hub.repos
    assert not list((tmp_path / "small").iterdir())


def load(path):
    allowed = [np.ndarray, np.dtype, np.dtypes.UInt32DType, np._core.multiarray._reconstruct]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, weights_only=True)


def same(a, b):
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b))
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_states_arrive_equal_and_no_pickle_goes_up(hub, save, states, tmp_path):
    publisher("user/x")(save(), 7)
    repo = hub.repos["user/x"]
    names = set(repo.files(BRANCH))
    assert {"optimizer.pt.safetensors", "scheduler.pt.safetensors", "rng_state.pth.safetensors"} <= names
    assert not [name for name in names if name.endswith((".pt", ".pth", ".bin"))]
    assert repo.resolve("step-7") == repo.resolve(BRANCH)
    assert list(repo.files("main")) == [".gitattributes"]
    folder = fetch_checkpoint("user/x@step-7", tmp_path / "elsewhere")
    for name, state in states.items():
        assert same(state, load(folder / name)), name
    assert (folder / "langsamp_run.json").read_text() == '{"step": 7}'
    assert verify_manifest(folder) == []


def test_only_the_code_of_the_model_goes_with_a_checkpoint(hub, checkpoint, save):
    """A file of somebody's own beside it stays, here as in a push without trainer state."""
    inner = save().rename(checkpoint / "checkpoint-7")
    (inner / "private_notes.py").write_text("# mine\n")
    push(checkpoint, "user/x", with_trainer_state=True)
    push(inner, "user/y", with_trainer_state=True)
    for names in (hub.repos["user/x"].files(), hub.repos["user/y"].files()):
        assert [name for name in names if name.endswith("modeling_x.py")]
        assert not [name for name in names if "private_notes" in name or "test_x" in name]


def test_token_in_the_state_of_a_run_is_refused(hub, save):
    folder = save()
    (folder / "trainer_state.json").write_text('{"note": "hf_' + "a" * 34 + '"}')
    (folder / MANIFEST_NAME).unlink()
    with pytest.raises(ValueError, match=r"trainer_state.json contains a Hugging Face access token"):
        push(folder, "user/x", with_trainer_state=True)
    assert not hub.log


def test_publishing_again_makes_no_second_commit(hub, save):
    folder = save()
    publisher("user/x")(folder, 7)
    publisher("user/x")(folder, 7)
    assert len(hub.repos["user/x"].commits) == 2
    (folder / RECORD_NAME).unlink()
    publisher("user/x")(folder, 7)
    assert len(hub.repos["user/x"].commits) == 2


def test_next_save_follows_on_the_branch(hub, save, tmp_path):
    publisher("user/x")(save("checkpoint-7", 1), 7)
    publisher("user/x")(save("checkpoint-14", 2), 14)
    repo = hub.repos["user/x"]
    assert repo.titles(BRANCH)[:2] == ["Training, step 14", "Training, step 7"]
    one = fetch_checkpoint("user/x@step-7", tmp_path / "one")
    two = fetch_checkpoint("user/x", tmp_path / "two")
    assert (one / "model.safetensors").read_bytes() != (two / "model.safetensors").read_bytes()


def test_second_run_into_the_same_repository_keeps_the_tags_of_the_first(hub, save):
    publisher("user/x")(save("first", 1), 7)
    publisher("user/x")(save("second", 2), 7)
    repo = hub.repos["user/x"]
    assert repo.files("step-7") != repo.files("step-7-2") == repo.files(BRANCH)


def test_run_folder_carries_its_newest_whole_checkpoint(hub, checkpoint, save, states, tmp_path):
    for step, damage in ((7, False), (9, False), (11, True)):
        folder = save(f"save-{step}", step).rename(checkpoint / f"checkpoint-{step}")
        if damage:
            (folder / "optimizer.pt").write_bytes(b"torn")
    push(checkpoint, "user/x", with_trainer_state=True)
    pull("user/x", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-9"]
    arrived = tmp_path / "out" / "checkpoint-9"
    assert same(states["optimizer.pt"], load(arrived / "optimizer.pt"))
    assert verify_manifest(arrived) == []
    assert (arrived / MANIFEST_NAME).is_file()
    push(checkpoint, "user/x")
    assert not [name for name in hub.repos["user/x"].files() if name.startswith("checkpoint")]
    pull("user/x", tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint-9").exists()


def test_without_trainer_state(hub, checkpoint):
    with pytest.raises(FileNotFoundError, match="no checkpoint-N with trainer state"):
        push(checkpoint, "user/x", with_trainer_state=True)


class Evil:
    """A pickle of it makes a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_state_that_holds_code_is_not_read(hub, save, tmp_path):
    folder = save()
    torch.save({"evil": Evil(tmp_path / "ran")}, folder / "optimizer.pt")
    write_manifest(folder)
    with pytest.raises(ValueError, match="does not go to the Hub"):
        push(folder, "user/x", with_trainer_state=True)
    assert hub.log == []
    assert not (tmp_path / "ran").exists()


def test_a_state_that_lies_elsewhere_stays_there(hub, save, tmp_path):
    folder = save()
    (folder / "optimizer.pt").rename(tmp_path / "of_another_run.pt")
    (folder / "optimizer.pt").symlink_to(tmp_path / "of_another_run.pt")
    (folder / MANIFEST_NAME).unlink()
    with pytest.raises(ValueError, match=r"optimizer\.pt is or goes through a symbolic link out of the folder"):
        push(folder, "user/x", with_trainer_state=True)
    assert not hub.log
