"""Work shared out among workers elsewhere: processes of this machine here, nodes of a Ray cluster in cluster.py.

A job is plain data, its result comes back to this process, which alone writes. A worker that is lost (killed, out of
memory, its node gone) gives its job back, and another one does it: only what came back counts, so nothing is done twice
and nothing is lost.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, Protocol

LOSSES = 3  # workers that a job may cost, and that may be lost while starting if nobody else works
LOOK = 5.0  # seconds between two looks for new nodes


@dataclass(frozen=True, eq=False)
class Job:
    """A call of a worker's method. Jobs of one group share what a worker has loaded; `name` is for messages."""

    name: str
    group: Hashable
    method: str
    arguments: tuple[Any, ...]


class Member(Protocol):
    """A worker elsewhere, which holds one object; its place is a node."""

    name: str
    place: str

    def begin(self, make: Callable[[], Any]) -> Future[Any]:
        """Start, and make the object there."""
        ...

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of it."""
        ...

    def stop(self) -> None:
        """End at once."""
        ...


class Employer(Protocol):
    """Where members come from."""

    def hire(self, present: Collection[str]) -> list[Member]:
        """New members for which there is room; `present` names those there are."""
        ...

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that the worker is gone, and nothing about the job."""
        ...


class Crew:
    """Members of an employer that work off jobs. `make` makes the object each of them holds; it travels by pickle.

    One thread takes :meth:`turn`; others may :meth:`give`. Whoever sets `tell` hears how many work.
    """

    def __init__(self, employer: Employer, make: Callable[[], Any]) -> None:
        self.employer, self.make = employer, make
        self.tell: Callable[[str], None] = lambda text: None
        # submitted, done, or nothing but a reason to look
        self._events: SimpleQueue[Job | Future[Any] | None] = SimpleQueue()
        self._queues: dict[Hashable, deque[Job]] = {}
        self._busy: dict[Future[Any], tuple[Member, Job]] = {}
        self._losses: Counter[Job] = Counter()
        self._members: dict[str, Member] = {}
        self._starting: dict[Future[Any], Member] = {}
        self._idle: deque[Member] = deque()
        self._loaded: dict[str, Hashable] = {}  # the group a member has worked on last
        self._failed_starts = 0
        self._looked = -LOOK

    def results(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any]]:
        """Every job with its result, as they come; for errors see :meth:`turn`."""
        left = set()
        for job in jobs:
            left.add(job)
            self.give(job)
        while left:
            done = self.turn()
            if done is not None and done[0] in left:
                left.remove(done[0])
                yield done

    def give(self, job: Job) -> None:
        """Have a job done; its result comes out of a :meth:`turn`."""
        self._events.put(job)

    def wake(self) -> None:
        """Have whoever waits in a :meth:`turn` return."""
        self._events.put(None)

    def turn(self) -> tuple[Job, Any] | None:
        """Wait a few seconds for something to happen; a job with its result, if one was done.

        Raises:
            RuntimeError: a job costs `LOSSES` workers, or none can start; the worker is named.
            Exception: whatever a job raises, with the worker's and the job's name.
        """
        try:
            event = self._events.get(timeout=LOOK)
        except Empty:
            self._assign()
            return None
        done = None
        if isinstance(event, Job):
            self._queues.setdefault(event.group, deque()).append(event)
        elif event in self._starting:
            self._started(event)
        elif event in self._busy:
            done = self._ended(event)
        self._assign()
        return done

    def _assign(self) -> None:
        """Give jobs to whoever has none."""
        if self._queues and time.monotonic() > self._looked + LOOK:
            self._looked = time.monotonic()
            self._hire()
        while self._idle and self._queues:
            member = self._idle.popleft()
            job = self._next(member)
            future = member.call(job.method, *job.arguments)
            self._busy[future] = member, job
            future.add_done_callback(self._events.put)

    def _ended(self, future: Future[Any]) -> tuple[Job, Any] | None:
        member, job = self._busy.pop(future)
        error = future.exception()
        if error is None:
            self._idle.append(member)
            self._losses.pop(job, None)
            return job, future.result()
        if not self.employer.lost(error):
            raise _named(error, f"{job.name}, on {member.name}") from error
        self._dismiss(member)
        self._losses[job] += 1
        if self._losses[job] >= LOSSES:
            raise RuntimeError(f"{job.name}: {LOSSES} workers were lost with it, the last on {member.name}")
        self._queues.setdefault(job.group, deque()).appendleft(job)
        return None

    def close(self) -> None:
        """Stop all members."""
        self.tell = lambda text: None
        for member in list(self._members.values()):
            self._dismiss(member)

    def _next(self, member: Member) -> Job:
        """A job of the group that the member has loaded, else of the one with the most left for each at work on it."""
        queues, group = self._queues, self._loaded.get(member.name)
        if group not in queues:
            at_work = Counter(self._loaded.values())
            group = max(queues, key=lambda group: len(queues[group]) / (1 + at_work[group]))
        job = queues[group].popleft()
        if not queues[group]:
            del queues[group]
        self._loaded[member.name] = group
        return job

    def _hire(self) -> None:
        for member in self.employer.hire(self._members):
            self._members[member.name] = member
            future = member.begin(self.make)
            self._starting[future] = member
            future.add_done_callback(self._events.put)

    def _started(self, future: Future[Any]) -> None:
        member = self._starting.pop(future)
        error = future.exception()
        if error is None:
            self._failed_starts = 0
            self._idle.append(member)
            self._tell()
            return
        self._dismiss(member)
        self._failed_starts += 1
        if not self.employer.lost(error) or (self._failed_starts >= LOSSES and not self._members):
            raise _named(error, f"a worker could not start on {member.name}") from error

    def _dismiss(self, member: Member) -> None:
        self._members.pop(member.name, None)
        self._loaded.pop(member.name, None)
        member.stop()
        self._tell()

    def _tell(self) -> None:
        """Say who works."""
        starting = {member.name for member in self._starting.values()}
        places = [member.place for name, member in self._members.items() if name not in starting]
        nodes = len(set(places))
        self.tell(f"{len(places)} worker{'s' * (len(places) != 1)}" + (f" on {nodes} nodes" if nodes > 1 else ""))


def _named(error: BaseException, where: str) -> BaseException:
    """The error, saying where it happened; an error of a kind that is told in one sentence keeps its kind."""
    error = getattr(error, "cause", None) or error  # what Ray wraps in a traceback
    kind = next((kind for kind in (ValueError, OSError, LookupError) if isinstance(error, kind)), RuntimeError)
    return kind(f"{where}: {error}")


class Machine:
    """Processes of this machine, one a CUDA card; without a card they share the cores.

    Args:
        count: how many.

    Raises:
        ValueError: there are fewer cards (CUDA_VISIBLE_DEVICES says which are to be used).
    """

    def __init__(self, count: int) -> None:
        from langsamp.core.compute.kernels import usable_cpus  # imports torch, which a worker may not need

        self._places: dict[str, dict[str, str]] = {}
        cards = visible_cards()
        if cards and count > len(cards):
            raise ValueError(f"{count} devices were asked for, but {len(cards)} CUDA cards are in sight")
        share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cpus() // count))}
        for number in range(count):
            name = f"card {cards[number]}" if cards else f"process {number}"
            self._places[name] = {**share, "CUDA_VISIBLE_DEVICES": cards[number]} if cards else share

    def hire(self, present: Collection[str]) -> list[Member]:
        """One for each card that has none."""
        return [Process(name, place) for name, place in self._places.items() if name not in present]

    def lost(self, error: BaseException) -> bool:
        """Whether the process died."""
        return isinstance(error, BrokenProcessPool)


class Process:
    """A process of this machine with an environment of its own; it ends with this one, however that ends."""

    place = "this machine"

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), follow)
        with _environment(environment), _no_main():  # what CUDA and OpenMP read when they are loaded
            self._pid = self._pool.submit(os.getpid)
        self._watch = ExitStack()
        self._watch.enter_context(watched(self._pool))

    def begin(self, make: Callable[[], Any]) -> Future[Any]:
        """Make the object."""
        return self._pool.submit(hold, make)

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of it."""
        return self._pool.submit(call, method, *arguments)

    def stop(self) -> None:
        """Kill it."""
        known = self._pid.done() and not self._pid.cancelled() and self._pid.exception() is None
        if known:
            with suppress(ProcessLookupError):
                os.kill(self._pid.result(), signal.SIGTERM)
        self._pool.shutdown(wait=known, cancel_futures=True)  # the pool sees that it is gone, and leaves nothing behind
        self._watch.close()


@contextmanager
def watched(pool: ProcessPoolExecutor) -> Iterator[None]:
    """End a pool of which a process died, also one that died while it handed over a result.

    Such a pool waits for the rest of that result for ever, as this process holds the other end of the pipe too; when
    that is closed, the pool finds itself broken. Its processes must have been
    started, for no thread may run when one is forked.
    """
    over, results = threading.Event(), pool._result_queue  # type: ignore[attr-defined]

    def watch() -> None:
        """Look every second; a pool that finds out by itself does so within another."""
        processes: list[Any] = []
        while not connection.wait([process.sentinel for process in processes], 0):
            if over.wait(LOOK / 5):
                return
            processes = list((pool._processes or {}).values())
        if over.wait(LOOK / 5) or pool._broken:  # type: ignore[attr-defined]
            return
        for process in processes:
            process.kill()
        with suppress(OSError), open(os.devnull, "wb") as nothing:
            # not close(): the pool closes it as well, perhaps just now
            os.dup2(nothing.fileno(), results._writer.fileno())  # type: ignore[attr-defined]

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def visible_cards() -> list[str]:
    """The CUDA cards that this process may use, as CUDA_VISIBLE_DEVICES names them; asked without touching them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = [name.strip() for name in named.split(",") if name.strip()] if named is not None else None
    count = torch.cuda.device_count()
    return [str(number) for number in range(count)] if cards is None else cards[:count]


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Run a block with other variables."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _no_main() -> Iterator[None]:
    """Run a block without a main module, which a process started in it would import: scripts need no guard for that."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_held: Any = None  # in a worker process: its object


def follow() -> None:
    """In a new process: leave interruptions to the parent, and end when it does, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def hold(make: Callable[[], Any]) -> None:
    """Make the object that this process is to hold."""
    global _held
    _held = make()


def call(method: str, *arguments: Any) -> Any:
    """Call a method of the object that this process holds."""
    return getattr(_held, method)(*arguments)
