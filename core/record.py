"""A record: one measured number, whoever measured it. `langsamp eval` and training write them, results pages read them.

The name of a measure may end in `_lo` or `_hi`: then the value is a bound of its 95 % interval (see `with_interval`).
What else a measure's name says, `langsamp.eval.results.catalog` knows.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from functools import cache
from operator import attrgetter
from typing import Any

SCHEMA = 1
LARGEST = 1e100  # of a value: what is beyond was not measured, and its square is no number
_REQUIRED = ("task", "metric", "model")
_TEXTS = (*_REQUIRED, "language", "script", "direction", "source", "revision")
_WHOLE = ("schema", "n", "layer", "seed")

Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One measured number. `None` means "does not apply".

    `language` is ISO 639-3 (`cym`), `script` ISO 15924 (`Latn`); both None for a number over several languages.
    `metric` is `acc@1`, `macro_f1`, `f1`, `accuracy`, `loss` ...; `direction` is `en->x` or `x->en`; `source` is the
    language trained on (`eng_Latn`); `n` counts what the value is a mean of (sentences, tokens, seeds' test items).

    Raises:
        ValueError: the value is not finite, a name is empty, or a code is not split into language and script.
    """

    schema: int = SCHEMA
    task: str
    language: str | None = None
    script: str | None = None
    metric: str
    value: float
    n: int | None = None
    layer: int | None = None
    direction: str | None = None
    source: str | None = None
    seed: int | None = None
    model: str
    revision: str | None = None

    def __post_init__(self) -> None:
        texts = (self.language, self.script, self.direction, self.source, self.revision)
        for name, text in zip(_TEXTS, (self.task, self.metric, self.model, *texts)):
            if not (text.__class__ is str and text) and not (text is None and name not in _REQUIRED):
                raise ValueError(f"record field {name} must be a text that is not empty, got {text!r}")
        if self.language and "_" in self.language:
            raise ValueError(f"record language {self.language!r} must be split: language='cym', script='Latn'")
        if type(self.value) is not float:
            object.__setattr__(self, "value", _number("value", self.value))
        if not abs(self.value) <= LARGEST:
            raise ValueError(
                f"record {self.task}/{self.metric} of {self.code or 'all languages'} is {self.value}: only "
                "finite values are recorded; leave the record out and report the language as missing"
            )
        for name, given in zip(_WHOLE, (self.schema, self.n, self.layer, self.seed)):
            if given is not None and (type(given) is not int or abs(given) >= 2**53):
                object.__setattr__(self, name, _whole(name, given))
        if self.n is not None and self.n < 0:
            raise ValueError(f"record field n must not be negative, got {self.n}")

    @property
    def code(self) -> str | None:
        """`cym_Latn`, or `cym` without a script, or None without a language."""
        if self.language is None:
            return None
        return f"{self.language}_{self.script}" if self.script else self.language

    def to_json(self) -> str:
        """The record as one line of JSON without the line break; ASCII only, fields in order."""
        return json.dumps({name: getattr(self, name) for name in FIELDS}, allow_nan=False)


FIELDS = tuple(field.name for field in fields(Record))

# What identifies a record: every field but `value` and `n`.
key: Any = attrgetter(*(name for name in FIELDS if name not in ("value", "n")))


def split_code(code: str) -> tuple[str, str | None]:
    """`cym_Latn` -> ("cym", "Latn"); `cym` -> ("cym", None)."""
    language, _, script = code.partition("_")
    return language, script or None


def protocol_layer(depth: int) -> int:
    """The layer whose vectors are evaluated: the paper's 8th of 12 (section 3.1), two thirds of another depth."""
    return max(1, round(depth * 2 / 3))


def with_interval(record: Record, low: float | None, high: float | None) -> list[Record]:
    """The record followed by its interval as two records, `<metric>_lo` and `<metric>_hi`; alone without bounds."""
    bounds = ((name, value) for name, value in (("lo", low), ("hi", high)) if value is not None)
    return [record, *(replace(record, metric=f"{record.metric}_{name}", value=value) for name, value in bounds)]


@cache
def base_metric(metric: str) -> tuple[str, str | None]:
    """`acc@1_lo` -> ("acc@1", "lo"); `acc@1` -> ("acc@1", None)."""
    base, _, bound = metric.rpartition("_")
    return (base, bound) if base and bound in ("lo", "hi") else (metric, None)


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)
    except (TypeError, OverflowError):
        raise ValueError(f"record field {name} must be a number, got {value!r}") from None


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"record field {name} must be a whole number, got {number}")
    return int(number)
