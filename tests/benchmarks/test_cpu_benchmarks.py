"""The benchmarks of a CPU run, at the smallest sizes, and end in a table."""

import subprocess
import sys

import pytest

SMALL = {
    "classification": ["--sentences", "2", "--rounds", "1"],
    "head": ["--rounds", "1", "--tokens", "8"],
    "parts": ["--parts", "20"],
    "prepare": ["--rounds", "1", "--languages", "2"],
    "retrieval": ["--rounds", "1", "--languages", "1", "--sentences", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_benchmark_runs(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALL[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) > 2
