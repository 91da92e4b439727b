"""An evaluation's units computed by many: the cards of this machine (`--devices`) or a Ray cluster (`--ray`).

The same units, each computed as one process would, so the records are equal but for their order; this process alone
writes them. Every worker reads the model and the data itself, from a path that it sees or from the Hub.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

from transformers.utils.logging import disable_progress_bar

from langsamp.core.compute.cluster import Cluster, session
from langsamp.core.compute.crew import Crew, Employer, Job, Machine
from langsamp.core.runtime import resolve_model
from langsamp.eval.results.rundir import RUN
from langsamp.eval.run import Outcome, Worker
from langsamp.eval.run_settings import fingerprint
from langsamp.eval.task import Context, Unit


class Team(Crew):
    """A crew for `langsamp.eval.run.run`."""

    def __init__(self, context: Context, employer: Employer) -> None:
        source = context.source
        context = replace(
            context.fresh(),
            source=replace(source, path=source.path.absolute()),
            data=context.data.elsewhere(),
            output=context.output.absolute(),
        )
        super().__init__(employer, partial(Measurer, context, fingerprint(source.path)))

    def outcomes(self, task: str, units: Sequence[Unit]) -> Iterator[tuple[Unit, Outcome]]:
        """As they come."""
        jobs = {
            Job(f"{task}, {unit.language or 'all languages'}", (task, unit.group), "compute", (task, unit)): unit
            for unit in units
        }
        for job, outcome in self.results(jobs):
            yield jobs[job], outcome


@contextmanager
def team(context: Context, devices: int | None = None, ray: str | None = None) -> Iterator[Team | None]:
    """The crew that the options ask for; None for neither: this process computes.

    Args:
        context: as `run` gets it.
        devices: processes on this machine, one a card. ray: the address of a cluster, see `core.cluster.session`.
    """
    if ray is not None:
        with session(ray) as connected, closing(Team(context, Cluster(connected))) as found:
            yield found
    elif devices is not None and devices > 1:
        with closing(Team(context, Machine(devices))) as found:
            yield found
    else:
        yield None


class Measurer:
    """A worker where it is: the model and the data are looked for there.

    Raises:
        FileNotFoundError, ValueError: this node (named) sees not what the driver sees.
    """

    def __init__(self, context: Context, weights: str) -> None:
        disable_progress_bar()  # transformers', of files; the one bar is the driver's
        here, source, root = socket.gethostname(), context.source, context.data.root
        if not source.path.is_dir():
            if source.revision is None:
                raise FileNotFoundError(
                    f"{here} does not see the model {source.path}; put it where all nodes see it, or give a Hub id"
                )
            source = resolve_model(f"{source.name}@{source.revision}")
        if fingerprint(source.path) != weights:
            raise ValueError(f"{here} has other weights in {source.path} than the machine that asks; copy them there")
        if root is not None and not root.is_dir():
            raise FileNotFoundError(f"{here} does not see the data folder {root}; put it where all nodes see it")
        self.worker = Worker(replace(context, source=source))

    def compute(self, task: str, unit: Unit) -> Outcome:
        """As `Worker.compute`.

        Raises:
            FileNotFoundError: others would not see the model that is trained.
        """
        output = self.worker.context.output
        if unit.trains and not (output / RUN).exists():
            raise FileNotFoundError(
                f"{socket.gethostname()} does not see {output}, where fine-tuned models are passed on; choose an "
                "--output that all nodes see"
            )
        return self.worker.compute(task, unit)
