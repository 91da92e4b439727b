"""What `training.json` says about a run: what the model card shows and what makes a run repeatable.

Training writes it beside the finished model; card, report, `add-language` and a run that goes on read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langsamp.core.files import atomic_write
from langsamp.core.typed import from_json
from langsamp.safe_files import read_json

FACTS = "training.json"
CARD = "README.md"


def license_of(folder: str | Path) -> str | None:
    """The licence that the card in a checkpoint folder names, else that of what the checkpoint was made from.

    None where none is named that stands for itself.
    """
    from huggingface_hub import ModelCard

    try:
        path = Path(folder) / CARD
        if not path.exists():
            return TrainingFacts.read(folder).license
        name = ModelCard(path.read_text(encoding="utf-8-sig"), ignore_metadata_errors=True).data.get("license")
    except Exception:  # somebody else's, which may hold anything
        return None
    return name if isinstance(name, str) and name not in ("other", "unknown") else None


@dataclass(frozen=True, kw_only=True)
class Share:
    """A language of the training text: its blocks, the probability of being drawn, expected draws and epochs."""

    language: str
    blocks: int | None = None
    probability: float = 0.0
    draws: float | None = None
    epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """A finished run. Whatever is not known is None or empty.

    `license` is that of the base model (`license_of`), which the model's card has until somebody chooses another one.
    `seconds` are wall-clock and over all resumes; `losses` has `first`, `last` and `heldout_loss...` in nats per masked
    token, `loss_curve` pairs of step and training loss (None where it was not finite).
    """

    base_model: str | None = None
    license: str | None = None
    datasets: list[str] = field(default_factory=list)
    steps: int | None = None
    tokens: int | None = None
    tokens_per_step: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    parameters: int | None = None
    device: str | None = None
    processes: int | None = None
    seed: int | None = None
    started: str | None = None
    finished: str | None = None
    losses: dict[str, float | None] = field(default_factory=dict)
    loss_curve: list[tuple[float, float | None]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    sampling: list[Share] = field(default_factory=list)

    @classmethod
    def read(cls, folder: str | Path) -> TrainingFacts:
        """The facts of a checkpoint or run folder, empty without the file.

        Raises:
            ValueError: the file is not JSON, or an entry is of the wrong kind.
        """
        path = Path(folder) / FACTS
        return from_json(cls, read_json(path), path) if path.is_file() else cls()

    def write(self, folder: str | Path) -> Path:
        """Write `training.json` into a folder, whole or not at all."""
        return atomic_write(Path(folder) / FACTS, json.dumps(asdict(self), indent=1, default=str) + "\n")

    @property
    def curve(self) -> list[tuple[float, float]]:
        """The points of the loss curve that are finite."""
        return [(step, loss) for step, loss in self.loss_curve if loss is not None]
