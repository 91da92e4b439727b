"""A Ray cluster as an employer (crew.py), and the one way to connect to it; Ray is imported when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from langsamp.core.compute.crew import Member


@contextmanager
def session(address: str = "auto") -> Iterator[Any]:
    """The module ray, connected; a connection made here ends with the block.

    Args:
        address: `auto` (the cluster this machine belongs to), `local` (a new one of this machine alone), or
            `ray://host:port`.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: there is no cluster at the address.
    """
    try:
        import ray
    except ImportError:
        raise ImportError("--ray needs Ray, which is not installed: pip install 'langsamp[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, logging_level="error", include_dashboard=False if address == "local" else None)
    except (ConnectionError, TimeoutError, OSError, ValueError) as error:
        raise RuntimeError(
            f"there is no Ray cluster at {address!r} ({str(error).splitlines()[0]}); start one with `ray start --head` "
            "or give --ray local for this machine alone"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class Cluster:
    """Actors on the nodes of a cluster: one a GPU or, where no node has any, one a node with all its cores.

    Nodes that join later get theirs, the jobs of nodes that leave are done elsewhere.
    """

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    def hire(self, present: Sequence[str]) -> list[Member]:
        """One for each place that has none."""
        nodes = [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        cards = any(node["Resources"].get("GPU") for node in nodes)
        found: list[Member] = []
        for node in nodes:
            count, cores = int(node["Resources"].get("GPU", 0)), node["Resources"]["CPU"]
            where = f"node {node['NodeManagerAddress']} ({node['NodeID'][:8]})"
            names = [f"{where}, GPU {number}" for number in range(count)] if cards else [where]
            needs = {"num_gpus": int(cards), "num_cpus": max(1, int(cores) // max(1, count))}
            found += [Actor(self.ray, name, node["NodeID"], needs) for name in names if name not in present]
        return found

    def lost(self, error: BaseException) -> bool:
        """Whether the actor or its node is gone; an error of the job itself is a RayTaskError."""
        kinds = self.ray.exceptions
        return isinstance(error, kinds.RayError) and not isinstance(error, kinds.RayTaskError)


class Actor:
    """An actor bound to one node."""

    def __init__(self, ray: Any, name: str, node: str, needs: dict[str, int]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.name, self._ray = name, ray
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        self._actor = ray.remote(_Holder).options(**needs, scheduling_strategy=place).remote()

    def begin(self, make: Callable[[], Any]) -> Future[Any]:
        """Done when the node has room for it; until then nothing waits for it."""
        return self._actor.make.remote(make).future()

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of its object."""
        return self._actor.call.remote(method, *arguments).future()

    def stop(self) -> None:
        """Kill it."""
        self._ray.kill(self._actor)


class _Holder:
    """In an actor: its object."""

    def make(self, make: Callable[[], Any]) -> None:
        self.held = make()

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self.held, method)(*arguments)
