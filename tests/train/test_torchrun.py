"""Real launchers: a lost process is started again by itself, two nodes meet, shards are gathered."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# argv: settings as JSON. A process whose "RANK:STEP" is in "die" kills itself there, once.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from langsamp.train import trainer
from langsamp.train.pretrain import pretrain
from langsamp.train.settings import PretrainSettings
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers import TrainerCallback

job = json.loads(sys.argv[1])
step = trainer.LangSAMPTrainer.training_step

def mortal(self, *args, **kwargs):
    me = f"{os.environ['RANK']}:{self.state.global_step}"
    grave = Path(job["settings"]["output"]).with_name(f"died-{me.replace(':', '-')}")
    if me in job.get("die", []) and not grave.exists():
        self.saver.wait()  # the last checkpoint is sealed, this step is under way
        grave.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)

trainer.LangSAMPTrainer.training_step = mortal
initialise = AcceleratorState.__init__

def on_cpus_too(self, *args, fsdp_plugin=None, **kwargs):  # accelerate shards over GPUs; torch knows nothing of that
    initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin

AcceleratorState.__init__ = on_cpus_too
shares = []

class Share(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        local = [getattr(p, "_local_tensor", p).numel() for p in model.parameters()]
        shares.append(sum(local) / sum(p.numel() for p in model.parameters()))

training = {"max_steps": 8, "per_device_train_batch_size": 2, "learning_rate": 5e-3, "logging_steps": 1}
training |= {"save_steps": 2, "disable_tqdm": True, "eval_strategy": "steps", "eval_steps": 4}
training |= job.get("training", {})
result = pretrain(PretrainSettings(**{"lang_dropout": 0.2, **job["settings"]}), training, callbacks=[Share()])
if result.first_process:
    facts = {"losses": result.losses, "heldout": result.heldout, "share": shares[-1]}
    (result.folder / "result.json").write_text(json.dumps(facts))
"""


@pytest.fixture
def torchrun(small_store_dir, tiny_xlmr_dir, tmp_path):
    """Start torchrun with options and a job; returns the process. ``result`` waits for it and reads what it left."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

    started = []

    def start(name, *options, **job):
        settings = {"output": str(tmp_path / name), "store": str(small_store_dir), "base": str(tiny_xlmr_dir)}
        line = [sys.executable, "-m", "torch.distributed.run", *options, str(script)]
        job = {**job, "settings": {**settings, **job.get("settings", {})}}
        process = subprocess.Popen(
            [*line, json.dumps(job)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    def result(name, *processes):
        for process in processes:
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output
        return json.loads((tmp_path / name / "result.json").read_text())

    yield start, result
    for process in started:
        process.terminate()  # torchrun ends its own


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


TWO = ("--nproc_per_node", "2", "--standalone")


def test_a_killed_process_is_started_again_and_the_end_is_the_undisturbed_one(torchrun, tmp_path):
    start, result = torchrun
    quiet = result("quiet", start("quiet", *TWO))
    killed = result("killed", start("killed", *TWO, "--max-restarts", "3", die=["1:3", "0:7"]))
    assert {path.name for path in tmp_path.glob("died-*")} == {"died-1-3", "died-0-7"}
    assert killed["losses"] == quiet["losses"]
    assert killed["heldout"] == quiet["heldout"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("quiet", "killed")]
    assert weights[0] == weights[1]


def test_two_nodes_are_one_with_two_processes(torchrun, tmp_path):
    """Also when a process is lost, which its own node alone counts as a restart."""
    start, result = torchrun
    one = result("one", start("one", *TWO))
    meeting = ("--nnodes", "2", "--nproc_per_node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test",
               "--rdzv-endpoint", f"127.0.0.1:{_port()}")  # fmt: skip
    meeting += ("--max-restarts", "3", "--local-addr")
    nodes = [start("two", *meeting, address, die=["1:3"]) for address in ("127.0.0.1", "127.0.0.2")]
    two = result("two", *nodes)
    assert (tmp_path / "died-1-3").exists()
    assert two["losses"] == one["losses"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_shards_train_as_the_whole_and_resume(torchrun, tmp_path):
    """Each process holds half of every parameter, and the finished model is whole."""
    from safetensors.torch import load_file

    start, result = torchrun
    fsdp = {
        "fsdp": "full_shard auto_wrap",
        "fsdp_config": {
            "version": 2,
            "transformer_layer_cls_to_wrap": ["XLMRobertaLayer"],
            "cpu_ram_efficient_loading": False,
            "sync_module_states": False,
        },
    }
    fitted = {"unknown": "fitted"}
    whole = result("whole", start("whole", *TWO, settings={"fast": False, **fitted}))  # whose dropout draws otherwise
    shards = result("shards", start("shards", *TWO, training=fsdp, settings=fitted))
    assert (whole["share"], shards["share"]) == (1.0, pytest.approx(0.5, abs=0.05))
    for (_, a), (_, b) in zip(whole["losses"], shards["losses"], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    for (_, a), (_, b) in zip(whole["heldout"], shards["heldout"], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert not list((tmp_path / "shards").rglob("_fsdp*.py"))  # transformers copies the module of a model's class
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "shards"))
    assert a.keys() == b.keys()
    for name in a:  # Adam makes more of small differences, in what is fitted in the end
        limit = 2e-3 if name in ("lang_embeddings.weight", "script_embeddings.weight", "lm_head.dense.bias") else 1e-4
        assert float((a[name] - b[name]).abs().max()) < limit, name
    again = result("again", start("again", *TWO, "--max-restarts", "1", training=fsdp, settings=fitted, die=["1:5"]))
    assert again["losses"] == shards["losses"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("shards", "again")]
    assert weights[0] == weights[1]
