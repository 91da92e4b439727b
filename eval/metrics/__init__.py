"""What the numbers mean: one module for the library `evaluate` a metric, which the tasks compute through as well.

A module needs nothing of this package, so that its folder can be given away; ties and empty cases are defined there.
`evaluate.load(metric_path("macro_f1")).compute(...)` and `compute("macro_f1", ...)` are the same function.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = {"acc_at_k": "AccAtK", "macro_f1": "MacroF1", "span_f1": "SpanF1", "ndcg": "NDCG"}


def metric_path(name: str) -> str:
    """The folder of a metric of `MODULES`, for `evaluate.load`.

    Raises:
        ValueError: no metric is called so.
    """
    if name not in MODULES:
        raise ValueError(f"no metric {name!r}; there are {', '.join(MODULES)}")
    return str(Path(__file__).parent / name)


def compute(name: str, **inputs: Any) -> dict[str, Any]:
    """The scores of a metric by its module's own function, without the files, locks and copies of `evaluate`.

    Args:
        name: one of `MODULES`.
        inputs: `predictions`, `references` and the metric's own settings; arrays and labels of any type will do.
    """
    scores: dict[str, Any] = getattr(_module(name), MODULES[name])._compute(**inputs)
    return scores


@cache
def _module(name: str) -> ModuleType:
    """Imported when first computed with: `evaluate` takes a second."""
    return import_module(f"{__name__}.{Path(metric_path(name)).name}.{name}")
