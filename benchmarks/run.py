"""`make bench`: every benchmark in this folder, one after the other; any of them also runs on its own.

python -m benchmarks.run [name ...]
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

NOT_BENCHMARKS = {"__init__", "common", "run"}


def main() -> int:
    """Run the benchmarks named, or all of them; returns the number that failed."""
    here = Path(__file__).parent
    names = sys.argv[1:] or sorted(path.stem for path in here.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    failed = 0
    for name in names:
        print(f"\n# {name}", flush=True)
        started = time.perf_counter()
        failed += bool(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=here.parent).returncode)
        print(f"\n({name}: {time.perf_counter() - started:.0f} s)", flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
