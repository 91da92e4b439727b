"""JSON as dataclasses: checked in one place, wrong in one sentence that names the file and the entry."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_json(cls: type[T], found: Any, where: str | Path) -> T:
    """A dataclass from the object a JSON file holds; entries that the class does not know are left out.

    Args:
        cls: a dataclass whose types are made of int, float, str, bool, None, Any, list, dict, tuple, dataclasses.
            A number that is not finite is None where there may be none.
        found: the decoded JSON.
        where: the file, for the error.

    Raises:
        ValueError: an entry is missing or of the wrong kind; it is named.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{where} holds no JSON object; write it again")
    hints = _hints(cls)  # type: ignore[arg-type]
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in found:
            values[field.name] = _as(hints[field.name], found[field.name], f"{where}: {field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{where} has no {field.name}; write it again")
    return cls(**values)


_hints = cache(get_type_hints)


def _as(hint: Any, value: Any, where: str) -> Any:
    """The value as the type wants it."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        none = value is None or (type(value) is float and not math.isfinite(value))
        return None if none and type(None) in inside else _as(inside[0], value, where)
    if origin is list and isinstance(value, list):
        return [_as(inside[0], item, where) for item in value]
    if origin is tuple and isinstance(value, list) and len(value) == len(inside):
        return tuple(_as(kind, item, where) for kind, item in zip(inside, value))
    if origin is dict and isinstance(value, dict):
        return {name: _as(inside[1], item, where) for name, item in value.items()}
    if hasattr(hint, "__dataclass_fields__"):
        return from_json(hint, value, where)
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 1e300 else math.inf
    if hint is Any or (type(value) is hint and not (hint is float and not math.isfinite(value))):
        return value
    raise ValueError(f"{where} is {str(value)[:40]!r}, which is not {_called(hint)}")


def _called(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(hint, f"a {get_origin(hint).__name__}" if get_origin(hint) else "an object")
