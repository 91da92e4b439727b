"""What the parts of the GPU benchmark share: the time there is, rows that survive a failure, the card's own clock."""

from __future__ import annotations

import gc
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


class OutOfTime(BaseException):
    """A row took longer than it may."""


class Bench:
    """One run of the benchmark: what it may take, what it has found.

    Attributes:
        device: where tensors go; a CPU only to see whether the benchmark itself works (``tiny``).
        tiny: sizes that a CPU can do.
        facts: of the machine and its ceilings.
        rows: by table.
    """

    def __init__(self, seconds: float, output: Path, device: str = "cuda", tiny: bool = False) -> None:
        self.device, self.tiny, self.output = torch.device(device), tiny, output
        self.facts: dict[str, Any] = {}
        self.rows: dict[str, list[Row]] = {}
        self.started, self.seconds = time.monotonic(), seconds

    @property
    def cuda(self) -> bool:
        """Whether this is a real run."""
        return self.device.type == "cuda"

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - self.spent()

    def note(self, **facts: Any) -> None:
        """Keep facts and write everything down."""
        self.facts |= facts
        print(json.dumps(facts), f"[{self.spent():.0f} s]", flush=True)
        self.write()

    def row(self, table: str, name: str, measure: Callable[..., Row], *given: Any, needs: float = 10.0) -> Row:
        """Measure one row; what fails, or would take too long, is a row that says so. Returns the row.

        Args:
            table: where it belongs.
            name: what it is called there.
            measure: gives its cells.
            given: its arguments.
            needs: seconds it takes, about; without them it is left out. After three times as many it is stopped.
        """
        if self.left() < needs:
            found: Row = {"trouble": f"left out: {self.left():.0f} s left"}
        else:
            try:
                with stopped_after(min(3 * needs, max(self.left(), needs))):
                    found = measure(*given)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit of a command too
                found = {"trouble": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        row = {"name": name, **found}
        self.rows.setdefault(table, []).append(row)
        print(f"{table}: {json.dumps(row)} [{self.spent():.0f} s]", flush=True)
        self.write()
        self.free()
        return row

    def free(self) -> None:
        """Give back what a row has left behind."""
        gc.collect()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def write(self) -> None:
        """Everything so far, as JSON."""
        self.output.mkdir(parents=True, exist_ok=True)
        content = {"facts": self.facts, "seconds": round(self.spent()), "rows": self.rows}
        (self.output / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    # -- the clock --------------------------------------------------------------------------------------------------

    def reset_peak(self) -> None:
        """The peak of memory begins here."""
        self.free()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float:
        """Most memory that tensors took since, in 10^9 bytes."""
        return round(torch.cuda.max_memory_allocated() / 1e9, 1) if self.cuda else 0.0

    def times(self, function: Callable[[int], Any], count: int) -> list[float]:
        """Milliseconds of each of ``count`` calls, which get their number; the host runs ahead as it does in a run."""
        if not self.cuda:
            spans = []
            for number in range(count):
                start = time.perf_counter()
                function(number)
                spans.append(1e3 * (time.perf_counter() - start))
            return spans
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        torch.cuda.synchronize()
        marks[0].record()
        for number in range(count):
            function(number)
            marks[number + 1].record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in pairwise(marks)]

    def milliseconds(self, function: Callable[[], Any], count: int = 10, warm: int = 3) -> float:
        """The median of some calls after some others."""
        for _ in range(warm):
            function()
        return statistics.median(self.times(lambda _: function(), count))


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block after so many seconds, as soon as Python has its turn."""

    def stop(*_: Any) -> None:
        raise OutOfTime(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def markdown(bench: Bench, titles: dict[str, str]) -> str:
    """All tables, in the order of the titles."""
    lines = [", ".join(f"{name} {value}" for name, value in bench.facts.items()), ""]
    for table, title in titles.items():
        rows = bench.rows.get(table, [])
        if not rows:
            continue
        columns = list(dict.fromkeys(name for row in rows for name in row if name != "trouble"))
        lines += [f"## {title}", "", _line(columns), "|" + "---|" * len(columns)]
        for row in rows:
            cells = [row.get(column, "") for column in columns]
            if "trouble" in row:
                cells[1:2] = [row["trouble"]]
            lines.append(_line([f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells]))
        lines.append("")
    return "\n".join(lines)


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
