"""Work shared out among processes: every job once, whoever dies; errors say what and where."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from support.calculator import Calculator

from langsamp.core.compute import kernels
from langsamp.core.compute.crew import Crew, Job, Machine, visible_cards, watched


def jobs(method, count, groups=1):
    return [Job(f"job {number}", number % groups, method, (number,)) for number in range(count)]


@pytest.fixture
def start(tmp_path):
    crews = []

    def make(count=2, **settings):
        crews.append(Crew(Machine(count), partial(Calculator, tmp_path, **settings)))
        return crews[-1]

    yield make
    for crew in crews:
        crew.close()


def test_every_job_once_by_all_processes_with_their_share_of_the_cores(start, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(kernels, "usable_cpus", lambda: 6)
    crew = start()
    told = []
    crew.tell = told.append
    work = jobs("double", 30, groups=3)
    found = {job: value for job, (value, _) in crew.results(work)}
    assert found == {job: 2 * number for number, job in enumerate(work)}
    assert {threads for _, (_, threads) in crew.results(jobs("double", 3))} == {"3"}
    assert "2 workers" in told or "1 worker" in told
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_worker_that_dies_loses_nothing(start, tmp_path):
    found = [value for _, (value, _) in start().results(jobs("die_once", 3) + jobs("double", 4))]
    assert sorted(found) == [0, 0, 1, 2, 2, 4, 6]


def test_a_job_that_kills_every_worker_is_an_error(start):
    with pytest.raises(RuntimeError, match=r"job 0: 3 workers were lost with it, the last on process 0"):
        list(start(1).results(jobs("die", 1)))


def test_errors_name_the_job_and_the_worker(start):
    with pytest.raises(ValueError, match=r"job 0, on process 0: 0 is not to be had"):
        list(start(1).results(jobs("fail", 1)))
    with pytest.raises(OSError, match=r"job 0, on process 0: no space left on the disk of /disk/0; make room"):
        list(start(1).results(jobs("fill", 1)))
    with pytest.raises(OSError, match=r"a worker could not start on process 0: no such folder"):
        list(start(1, broken="no such folder").results(jobs("double", 1)))


def test_a_worker_stays_with_what_it_has_loaded(start, tmp_path):
    """Two groups, two workers: each loads one group and changes only when its own is done."""
    work = jobs("double", 20, groups=2)
    list(start().results(work))
    for path in tmp_path.iterdir():
        groups = [int(number) % 2 for number in path.read_text().split()]
        assert sum(a != b for a, b in pairwise(groups)) <= 1


def test_cards_are_those_in_sight(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_cards() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert visible_cards() == ["3", "GPU-abc"]
    with pytest.raises(ValueError, match="3 devices were asked for, but 2 CUDA cards are in sight"):
        Machine(3)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in Machine(2)._places.values()] == ["3", "GPU-abc"]


KILLED = """
import os, sys, time
from functools import partial
from pathlib import Path
from langsamp.core.compute.crew import Crew, Job, Machine
from support.calculator import Calculator
crew = Crew(Machine(1), partial(Calculator, Path(sys.argv[1])))  # no guard: workers do not import this
[(_, pid)] = crew.results([Job("x", 0, "where", ())])
print(pid, flush=True)
time.sleep(60)
"""


def test_workers_end_with_their_driver(tmp_path):
    """Also when it is killed: nobody is left behind on a card."""
    script = tmp_path / "driver.py"
    script.write_text(KILLED)
    paths = [str(Path(__file__).parents[2]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    driver = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True, env=environment)
    pid = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the worker is still there")


def _dies_with_half_a_result_handed_over():
    results = _dies_with_half_a_result_handed_over.results
    with results._wlock:
        os.write(results._writer.fileno(), struct.pack("!i", 1000) + b"half")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_pool_whose_process_died_with_half_a_result_handed_over_is_broken_and_not_waited_for():
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    _dies_with_half_a_result_handed_over.results = pool._result_queue  # which the fork takes along
    future = pool.submit(_dies_with_half_a_result_handed_over)
    with watched(pool):
        with pytest.raises(BrokenProcessPool):
            future.result(timeout=30)
        pool.shutdown(wait=True, cancel_futures=True)
