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
kinds = []

class Kind(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        kinds.append(type(model).__name__)

training = {"max_steps": 8, "per_device_train_batch_size": 2, "learning_rate": 5e-3, "logging_steps": 1}
training |= {"save_steps": 2, "disable_tqdm": True, "eval_strategy": "steps", "eval_steps": 4}
training |= job.get("training", {})
result = pretrain(PretrainSettings(**{"lang_dropout": 0.2, **job["settings"]}), training, callbacks=[Kind()])
if result.first_process:
    facts = {"losses": result.losses, "heldout": result.heldout, "kind": kinds[-1:]}
    (result.folder / "result.json").write_text(json.dumps(facts))
"""


@pytest.fixture
def torchrun(small_store_dir, tiny_xlmr_dir, tmp_path):
    """Start torchrun with options and a job; returns the process. ``result`` waits for it and reads what it left."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

    def start(name, *options, **job):
        settings = {"output": str(tmp_path / name), "store": str(small_store_dir), "base": str(tiny_xlmr_dir)}
        line = [sys.executable, "-m", "torch.distributed.run", *options, str(script)]
        job = {**job, "settings": {**settings, **job.get("settings", {})}}
        return subprocess.Popen(
            [*line, json.dumps(job)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def result(name, *processes):
        for process in processes:
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output
        return json.loads((tmp_path / name / "result.json").read_text())

    return start, result


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
    start, result = torchrun
    one = result("one", start("one", *TWO))
    meeting = ("--nnodes", "2", "--nproc_per_node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test",
               "--rdzv-endpoint", f"127.0.0.1:{_port()}")  # fmt: skip
    nodes = [start("two", *meeting, "--local-addr", address) for address in ("127.0.0.1", "127.0.0.2")]
    two = result("two", *nodes)
    assert two["losses"] == one["losses"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
