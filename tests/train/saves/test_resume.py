"""Killed anywhere, resumed exactly; damaged, changed and foreign checkpoints; several processes as one.

The runs live in processes of their own, forked from one interpreter that has imported everything and computed nothing
yet, so a killed run costs a second and not the start of an interpreter.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from langsamp.core.manifest import verify_manifest
from langsamp.train.saves import checkpoints

# Each job is forked once per rank; ``die`` says where it kills itself, like "step:4" or "save:6".
NURSERY = """
import json, os, signal, sys, traceback
import torch
torch.set_num_threads(1)
from langsamp import LangSAMPForMaskedLM
from langsamp.train import trainer
from langsamp.train.saves import checkpoints
from langsamp.train.pretrain import pretrain
from langsamp.train.settings import PretrainSettings

def arm(where, step):
    def killing(owner, name, now, after):
        original = getattr(owner, name)
        def patched(*args, **kwargs):
            hit = now(*args)
            if hit and after is None:  # the last save is whole, or it never will be
                args[0].saver.wait()
            if hit and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **kwargs)
            if hit:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        setattr(owner, name, patched)
    run = trainer.LangSAMPTrainer
    if where == "step":
        killing(run, "training_step", lambda self, *a: self.state.global_step == step, None)
    if where == "writing":  # in the background, while the next step runs
        killing(torch, "save", lambda state, path, *a: str(path).endswith(f"checkpoint-{step}/optimizer.pt"), False)
    if where == "save":
        killing(trainer.Trainer, "_save_rng_state", lambda self, d: self.state.global_step == step, False)
    if where == "manifest":
        killing(checkpoints, "write_manifest", lambda folder, *a: folder.name == f"checkpoint-{step}", False)
    if where == "rename":
        killing(checkpoints, "write_manifest", lambda folder, *a: folder.name == f"checkpoint-{step}", True)
    if where == "prune":
        def half(folder, *a, **k):
            for pruned in Path(folder).glob("pruned-*"):
                (pruned / "model.safetensors").unlink()
                if checkpoints.step_of(checkpoints.checkpoints(folder.parent)[0]) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            remove(folder, *a, **k)
        from pathlib import Path
        remove = checkpoints.shutil.rmtree
        checkpoints.shutil.rmtree = half

def work(job):
    if job.get("die"):
        where, _, step = job["die"].partition(":")
        arm(where, int(step))
    training = {"max_steps": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    training |= {"learning_rate": 5e-3, "logging_steps": 1, "save_steps": 2, "save_total_limit": 1, "use_cpu": True}
    training |= {"disable_tqdm": True, "eval_strategy": "steps", "eval_steps": 4, **job.get("training", {})}
    training = {name: value for name, value in training.items() if value is not None}
    result = pretrain(PretrainSettings(**{"table_lr": 1e-2, "lang_dropout": 0.2, **job["settings"]}), training)
    if result.first_process:
        (result.folder / "result.json").write_text(json.dumps(result.losses))

def child(job, rank):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    printed = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    if job.get("ranks", 1) > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        os.environ.update({name: str(value) for name, value in job["env"].items()})
    try:
        work(job)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)

for line in sys.stdin:
    job = json.loads(line)
    pids = [child(job, rank) for rank in range(job.get("ranks", 1))]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    print(json.dumps(codes), flush=True)
"""


@pytest.fixture(scope="module")
def nursery(small_store_dir, tiny_xlmr_dir, tmp_path_factory):
    """Run jobs one after the other; returns their exit codes and all that was printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # looking for GPUs leaves them to the children
    logs = tmp_path_factory.mktemp("logs")
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )

    def run(*jobs, expect=None):
        log = logs / f"{len(list(logs.iterdir()))}.log"
        codes = []
        for job in jobs:
            settings = {"store": str(small_store_dir), "base": str(tiny_xlmr_dir), **job["settings"]}
            process.stdin.write(json.dumps({**job, "settings": settings, "log": str(log)}) + "\n")
            process.stdin.flush()
            codes.append(json.loads(process.stdout.readline()))
        output = log.read_text()
        if expect is not None:
            assert codes == expect, output
        return codes, output

    yield run
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.fixture(scope="module")
def reference(nursery, tmp_path_factory):
    """An uninterrupted run, without and with dropout of the encoder as configured (0.1)."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    nursery({"settings": {"output": str(folder)}}, expect=[[0]])
    return folder


def same(a: Path, b: Path) -> None:
    """Final weights, losses and held-out losses are equal to the last bit."""
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    assert (a / "result.json").read_text() == (b / "result.json").read_text()
    assert (a / "heldout.jsonl").read_text() == (b / "heldout.jsonl").read_text()


@pytest.mark.parametrize(
    ("kills", "workers"),
    [
        (["step:3", "manifest:6"], 0),
        (["save:4", "prune:6"], 0),
        (["rename:2", "prune:4", "step:7"], 0),
        (["step:3", "prune:8"], 2),
        (["writing:2", "writing:6"], 0),
    ],
)
def test_killed_and_resumed_is_bit_equal(nursery, reference, tmp_path, kills, workers):
    job = {"settings": {"output": str(tmp_path / "run")}, "training": {"dataloader_num_workers": workers}}
    jobs = [{**job, "die": die} for die in kills] + [job]
    nursery(*jobs, expect=[[-9] for _ in kills] + [[0]])
    same(reference, tmp_path / "run")
    run = tmp_path / "run"
    assert [path.name for path in checkpoints.checkpoints(run)] == ["checkpoint-8"]
    assert verify_manifest(run / "checkpoint-8") == []
    assert not (run / ".saving").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [{}, {"bf16": True}])
def test_on_a_gpu_killed_and_resumed_is_bit_equal(nursery, tmp_path, precision):
    training = {"use_cpu": None, "full_determinism": True, **precision}
    quiet, killed = ({"settings": {"output": str(tmp_path / name)}, "training": training} for name in ("a", "b"))
    kills = [{**killed, "die": die} for die in ("writing:2", "step:5")]
    nursery(quiet, *kills, killed, expect=[[0], [-9], [-9], [0]])
    assert (tmp_path / "a" / "result.json").read_text() == (tmp_path / "b" / "result.json").read_text()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "no manifest"])
def test_a_torn_checkpoint_is_passed_over_for_the_last_good_one(tmp_path, damage, caplog):
    from langsamp.core.manifest import MANIFEST_NAME, write_manifest

    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights" * 100)
        (folder / "trainer_state.json").write_text("{}")
        write_manifest(folder)
    newest = tmp_path / "checkpoint-4"
    weights = newest / "model.safetensors"
    if damage == "flip":
        weights.write_bytes(b"Weights" + weights.read_bytes()[7:])
    elif damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "missing":
        weights.unlink()
    else:
        (newest / MANIFEST_NAME).unlink()
    assert checkpoints.last_good(tmp_path) == tmp_path / "checkpoint-2"
    assert "passing over" in caplog.text
    if damage != "no manifest":
        with pytest.raises(ValueError, match=r"is damaged \(model.safetensors"):
            checkpoints.find(newest)


def test_pruning_never_takes_the_last_good_one_or_what_is_not_ours(tmp_path):
    from langsamp.core.manifest import write_manifest

    for step in (2, 4, 6, 10, 12):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "x").touch()
        write_manifest(folder)
    (tmp_path / "checkpoint-1").mkdir()  # without a manifest: somebody else's
    (tmp_path / "checkpoint-best").mkdir()
    deleted = checkpoints.prune(tmp_path, 1, 10, protected={tmp_path / "checkpoint-4"})
    assert {path.name for path in deleted} == {"checkpoint-2", "checkpoint-6"}
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"checkpoint-1", "checkpoint-4", "checkpoint-10", "checkpoint-12", "checkpoint-best"}


def test_damaged_newest_checkpoint_ends_in_the_same_weights(nursery, reference, tmp_path):
    run = tmp_path / "run"
    job = {"settings": {"output": str(run)}, "training": {"save_total_limit": 2}}
    nursery({**job, "die": "step:7"}, expect=[[-9]])
    weights = run / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    _, output = nursery(job, expect=[[0]])
    assert "passing over" in output
    same(reference, run)


def test_resume_elsewhere_from_a_folder(nursery, reference, tmp_path):
    """A checkpoint copied to another machine goes on there."""
    job = {"settings": {"output": str(tmp_path / "first")}, "die": "step:5"}
    other = tmp_path / "second" / "run"
    nursery(job, expect=[[-9]])
    shutil.copytree(tmp_path / "first" / "checkpoint-4", tmp_path / "copy")
    again = {"settings": {"output": str(other), "resume": str(tmp_path / "copy")}}
    nursery(again, expect=[[0]])
    assert (reference / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_changes_are_refused_with_reason_and_flag(nursery, small_store_dir, tmp_path):
    run = tmp_path / "run"
    job = {"settings": {"output": str(run)}, "die": "step:5"}
    changed = tmp_path / "store"
    shutil.copytree(small_store_dir, changed)
    index = json.loads((changed / "store.json").read_text())
    index["languages"]["deu_Latn"]["sha256"] = "0" * 64
    (changed / "store.json").write_text(json.dumps(index))

    def again(training=None, **settings):
        return {"settings": {"output": str(run), **settings}, "training": training or {}}

    codes, output = nursery(
        job,
        again(store=str(changed)),
        again({"seed": 1}),
        again({"gradient_accumulation_steps": 4}),
        again(mlm_probability=0.3),
        again(alpha=0.5),
        again(script=False),
        again(allow_changed=["weather"]),
        again({"gradient_accumulation_steps": 1}, allow_changed=["batch"]),
    )
    assert codes == [[-9], [1], [1], [1], [1], [1], [1], [1], [0]], output
    for reason in (
        "the store's blocks",
        "the seed: 42 then, 1 now",
        "the sequences of a step (processes x accumulation x batch size): 4 then, 8 now",
        "the masking",
        "the sampling of languages",
        "the rows of the tables",
        "--allow-changed corpus",
        "allow_changed knows corpus, tokenizer",
        "resuming although the sequences of a step",
    ):
        assert reason in output, reason
    facts = checkpoints.read_facts(run / "checkpoint-8")
    assert facts["samples"] == 4 * 4 + 4 * 2  # the stream went on where it was, with smaller steps


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ranks(count):
    return {
        "ranks": count,
        "env": {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port(), "LOCAL_WORLD_SIZE": count},
    }


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_accumulation(nursery, tmp_path):
    """Equal loss curve and weights, dropout of the encoder included; resume of two is exact too."""

    def job(name, accumulation, **more):
        training = {"gradient_accumulation_steps": accumulation, "use_cpu": None}  # as where there is no GPU
        return {"settings": {"output": str(tmp_path / name)}, "training": training, **more}

    one, two = job("one", 4), job("two", 2, **_ranks(2))
    killed, resumed = job("again", 2, **_ranks(2), die="step:5"), job("again", 2, **_ranks(2))
    (_, _, kills, last), output = nursery(one, two, killed, resumed)
    assert kills == [-9, -9], output
    assert last == [0, 0], output
    losses = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two", "again")]
    for (step, a), (other, b) in zip(losses[0], losses[1], strict=True):
        assert step == other
        assert a == pytest.approx(b, abs=1e-6)
    from safetensors.torch import load_file

    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-5
    assert losses[2] == losses[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("two", "again")]
    assert weights[0] == weights[1]
    held = [(tmp_path / name / "heldout.jsonl").read_text().replace(f'"{name}"', "") for name in ("one", "two")]
    assert len(held[0].splitlines()) == len(held[1].splitlines())
    assert checkpoints.read_facts(tmp_path / "two" / "checkpoint-8")["world_size"] == 2


@pytest.mark.slow
def test_processes_that_would_not_train_as_one_are_refused(nursery, tmp_path):
    """They used to train one model each, in the same folder, and to call the last one finished."""
    run = tmp_path / "run"
    job = {"settings": {"output": str(run)}, "training": {"use_cpu": False}, **_ranks(2)}
    _, output = nursery(job, expect=[[1, 1]])
    assert "2 processes were started, but the Trainer uses 1 on cpu; start them with torchrun" in output
    assert not run.exists()


@pytest.mark.slow
def test_shards_that_would_not_be_made_are_refused(nursery, tmp_path):
    """accelerate shards over GPUs; elsewhere ``--fsdp`` used to train with whole copies, without a word."""
    run = tmp_path / "run"
    job = {
        "settings": {"output": str(run)},
        "training": {"fsdp": "full_shard", "fsdp_config": {"sync_module_states": False}},
    }
    _, output = nursery(job, {**job, **_ranks(2)}, expect=[[1], [1, 1]])
    assert "accelerate shards over several GPUs only, not over 2 process(es) on cpu" in output
    assert not (run / "model.safetensors").exists()


@pytest.mark.slow
def test_another_number_of_processes_is_refused_or_allowed(nursery, tmp_path):
    run = str(tmp_path / "run")
    one = {"settings": {"output": run}, "die": "step:5"}
    two = {"settings": {"output": run}, "training": {"gradient_accumulation_steps": 1, "ddp_backend": "gloo"}}
    allowed = {**two, "settings": {"output": run, "allow_changed": ["world_size"]}}
    codes, output = nursery(one, {**two, **_ranks(2)}, {**allowed, **_ranks(2)})
    assert codes == [[-9], [1, 1], [0, 0]], output
    assert "the number of processes (the stream stays the same, sums are rounded otherwise): 1 then, 2 now" in output
