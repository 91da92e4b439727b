"""`push` and `pull`: a checkpoint folder and a Hub repository made equal, safely and at most once; the public door."""

from __future__ import annotations

from langsamp.hub.pull import PullResult, pull
from langsamp.hub.push import PushResult, push
from langsamp.retry import ConflictError, HubError, IncompletePushError, UnreachableError

__all__ = [
    "ConflictError",
    "HubError",
    "IncompletePushError",
    "PullResult",
    "PushResult",
    "UnreachableError",
    "pull",
    "push",
]
