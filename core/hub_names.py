"""Names of repositories on the Hub, with a revision or without: ``user/name@revision``."""

from __future__ import annotations

import re
from typing import NamedTuple

_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")


class HubName(NamedTuple):
    """A repository and the revision asked for, None for the default."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    @classmethod
    def parse(cls, text: str) -> HubName:
        """``user/name@revision``, whatever it is; nothing is checked."""
        repo, _, revision = text.partition("@")
        return cls(repo, revision or None)

    @property
    def is_model(self) -> bool:
        """Whether it can be a model: ``user/name``, or the ``name`` of one of the oldest."""
        return bool(_REPO.fullmatch(self.repo))

    @property
    def is_data_set(self) -> bool:
        """Whether it can be a data set: ``user/name``."""
        return self.is_model and "/" in self.repo
