"""Text to token ids on the nodes of a Ray cluster (``langsamp prepare --ray``): one encoder a core.

What comes back to this process, which alone writes the store: the tokens of small parts, and where those of large parts
lie in the store's folder, which all nodes see then.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from langsamp.core.compute.cluster import Cluster, session
from langsamp.core.compute.crew import Crew, Employer, Job
from langsamp.train.blocks.workers import EncodedPart, Encoder
from langsamp.train.text.corpus import Corpus, Part


class NodeEncoder(Encoder):
    """An encoder that looks whether this node sees what the driver sees.

    Raises:
        FileNotFoundError: it does not; it is named.
    """

    def __init__(self, corpus: Corpus, *worker: Any) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a core
        self._node = socket.gethostname()
        corpus.check_seen(self._node)
        super().__init__(corpus, *worker)

    def part(self, part: Part, skip: int, heldout_share: float, parking: tuple[Path, str] | None = None) -> EncodedPart:
        """See :meth:`Encoder.part`."""
        if parking is not None and not parking[0].is_dir():
            raise FileNotFoundError(
                f"{self._node} does not see {parking[0].parent}, where the tokens of large files are passed on; choose "
                "an --output that all nodes see"
            )
        return super().part(part, skip, heldout_share, parking)


class CrewTeam(Crew):
    """Encoders on all cores of a cluster; a thread keeps them busy while this process writes.

    Args:
        employer, make: as of a crew.
        cores: how many there are at the start.
        size: bytes in the corpus.
    """

    parks = True

    def __init__(self, employer: Employer, make: Callable[[], Any], cores: int, size: int) -> None:
        super().__init__(employer, make)
        self.size = cores
        self._largest = size / cores  # one core alone would take longer for more than all cores for the corpus
        self._waiting: dict[Job, Future[Any]] = {}
        self._failed: BaseException | None = None
        self._lock = threading.Lock()  # of the two above
        self._open = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def takes(self, size: int) -> bool:
        """Unless it is so large a share of the corpus that the core that reads it would be the last to be done."""
        return size <= self._largest

    def submit(self, part: Part, method: str, *arguments: Any) -> Future[Any]:
        """See :class:`langsamp.train.blocks.workers.Team`."""
        job, future = Job(f"{part.name} ({part.language})", "", method, arguments), Future[Any]()
        with self._lock:
            if self._failed is not None:
                raise self._failed
            self._waiting[job] = future
        self.give(job)
        return future

    def close(self) -> None:
        """Stop the workers."""
        self._open = False
        self.wake()
        self._thread.join()
        super().close()

    def _run(self) -> None:
        try:
            while self._open:
                if (done := self.turn()) is not None:
                    self._waiting.pop(done[0]).set_result(done[1])
        except BaseException as error:
            with self._lock:
                self._failed = error
            for future in self._waiting.values():
                future.set_exception(error)


@contextmanager
def ray_team(corpus: Corpus, worker: tuple[Any, bool, int | None], address: str) -> Iterator[CrewTeam]:
    """Encoders on a cluster.

    Args:
        corpus, worker: as of :class:`langsamp.train.blocks.workers.Pool`.
        address: see :func:`langsamp.core.compute.cluster.session`.
    """
    with session(address) as ray:
        cluster = Cluster(ray, each_core=True)
        make = partial(NodeEncoder, corpus, *worker)
        with closing(CrewTeam(cluster, make, cluster.cores, sum(corpus.sizes.values()))) as team:
            yield team
