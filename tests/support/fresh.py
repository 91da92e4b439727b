"""Code in interpreters without a network and with an empty Hugging Face cache.

They are forked from one that has imported torch and transformers and computed nothing yet: a start costs a moment, not
the seconds of these imports. langsamp is not imported there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

_NURSERY = """
import json, os, socket, sys, traceback
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, XLMRobertaForMaskedLM, pipeline
def refuse(*args, **kwargs): raise OSError("a test tried to use the network")
def run(code, folder):
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder)
    socket.socket.connect = socket.create_connection = refuse
    exec(code, {"__name__": "__main__"})
for line in sys.stdin:
    if pid := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    status = 1
    try:
        run(*json.loads(line))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(status)
"""


@pytest.fixture(scope="session")
def _nursery(tmp_path_factory):
    """The interpreter that others are forked from, and its cache."""
    home = tmp_path_factory.mktemp("fresh") / "hf_home"
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # looking for GPUs is left to the children
    command = [sys.executable, "-I", "-c", _NURSERY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process, home


@pytest.fixture
def run_fresh(_nursery, tmp_path):
    """Run code in a new interpreter; returns what it prints."""
    process, home = _nursery

    def run(code: str) -> str:
        shutil.rmtree(home, ignore_errors=True)
        folder = tmp_path / "fresh"
        folder.mkdir(exist_ok=True)
        print(json.dumps([code, str(folder)]), file=process.stdin, flush=True)
        status = process.stdout.readline().strip()
        printed, errors = ((folder / name).read_text() for name in ("stdout", "stderr"))
        assert status == "0", f"exit {status}\n{printed}\n{errors}"
        return printed

    return run
