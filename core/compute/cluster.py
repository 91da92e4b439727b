"""A Ray cluster as an employer (crew.py), and the one way to connect to it; Ray is imported when asked for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from langsamp import __version__
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
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and not answers(host, port):
            raise ConnectionError("nobody answers there")  # Ray would try for minutes
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


def answers(host: str, port: str) -> bool:
    """Whether somebody listens at a port of a machine."""
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


class Cluster:
    """Actors on the nodes of a cluster: one a GPU or, where no node has any, one a node with all its cores.

    Nodes that join later get theirs, the jobs of nodes that leave are done elsewhere.

    Args:
        ray: what :func:`session` gives.
        each_core: whether to have an actor a core instead, and leave GPUs alone.
    """

    def __init__(self, ray: Any, each_core: bool = False) -> None:
        self.ray, self._each_core = ray, each_core
        self.put = cache(ray.put)  # once for all actors, whose nodes pass it on among themselves

    @property
    def cores(self) -> int:
        """Of all nodes that are there now."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 0)))

    def hire(self, present: Collection[str]) -> list[Member]:
        """One for each place that has none."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        cards = any(node["Resources"].get("GPU") for node in nodes) and not self._each_core
        found: list[Member] = []
        for node in nodes:
            count, cores = int(node["Resources"].get("GPU", 0)), int(node["Resources"]["CPU"])
            where = f"node {node['NodeManagerAddress']} ({node['NodeID'][:8]})"
            names = [f"{where}, GPU {number}" for number in range(count)] if cards else [where]
            if self._each_core:
                names, count = [f"{where}, core {number}" for number in range(cores)], cores
            needs = {"num_gpus": int(cards), "num_cpus": max(1, cores // max(1, count))}
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            for name in names:
                if name not in present:
                    actor = self.ray.remote(_Holder).options(**needs, scheduling_strategy=place).remote()
                    found.append(Actor(self, actor, name, where))
        return found

    def lost(self, error: BaseException) -> bool:
        """Whether the actor or its node is gone; an error of the job itself is a RayTaskError."""
        kinds = self.ray.exceptions
        return isinstance(error, kinds.RayError) and not isinstance(error, kinds.RayTaskError)


@dataclass(eq=False)
class Actor:
    """An actor bound to one node."""

    cluster: Cluster
    actor: Any
    name: str
    place: str

    def begin(self, make: Callable[[], Any]) -> Future[Any]:
        """Done when the node has room for it; until then nothing waits for it."""
        future: Future[Any] = self.actor.make.remote(__version__, [self.cluster.put(make)]).future()
        return future

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of its object."""
        future: Future[Any] = self.actor.call.remote(method, *arguments).future()
        return future

    def stop(self) -> None:
        """Kill it."""
        self.cluster.ray.kill(self.actor)


class _Holder:
    """In an actor: its object."""

    def make(self, version: str, make: list[Any]) -> None:
        """The object is in a list, where Ray leaves it alone until it is known that it can be read here."""
        import ray

        if version != __version__:
            raise ValueError(f"langsamp {__version__} is installed there, not {version}; install the same on all nodes")
        self.held = ray.get(make[0])()

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self.held, method)(*arguments)
