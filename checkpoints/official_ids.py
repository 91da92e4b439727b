"""The rows of the official LangSAMP tables: 610 languages and 30 scripts, in the order of their ids; or other lists.

Source: the id maps of cisnlp/LangSAMP (``full_dicts.pkl``) are the sorted ISO codes of the 679 language-script rows of
Glot500-c (``miscellaneous/languages_stats.csv`` of cisnlp/Glot500). Row 0 of ours ("unknown") comes before them.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any, NoReturn

OFFICIAL = Path(__file__).with_name("official_ids.json")  # ``aak`` to ``zul``, ``Arab`` to ``Tibt``
MAX_BYTES = 1 << 20  # the official file has 9,608


def read_id_lists(path: str | Path = OFFICIAL) -> tuple[list[str], list[str]]:
    """The language and script codes of a model, index = official id.

    Args:
        path: JSON ``{"languages": [...], "scripts": [...]}``, or the official pickle, a list of the four dictionaries
            id -> language, id -> script, language -> id, script -> id. It is read without importing anything: a pickle
            that names any Python object is refused. By default the 610 languages and 30 scripts of the released model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither of the two forms, or ids that do not count from 0 without a gap.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} with the language and script lists.")
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} has {len(data):,} bytes; lists of languages and scripts are far smaller.")
    if data.lstrip()[:1] == b"{":
        return _from_json(data, path)
    return _from_pickle(data, path)


class _NoGlobals(pickle.Unpickler):
    """Reads containers, texts and numbers. A pickle runs code only through the globals it names; none is admitted."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and code in data is not run")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside itself")


def _from_json(data: bytes, path: Path) -> tuple[list[str], list[str]]:
    try:
        found = json.loads(data)
        lists = [found.get("languages", []), found.get("scripts", [])]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not JSON ({error}).") from None
    if not all(isinstance(codes, list) and all(isinstance(code, str) for code in codes) for codes in lists):
        raise ValueError(f'{path} must hold {{"languages": [codes], "scripts": [codes]}}.')
    return lists[0], lists[1]


def _from_pickle(data: bytes, path: Path) -> tuple[list[str], list[str]]:
    try:
        found = _NoGlobals(io.BytesIO(data)).load()
    except Exception as error:  # a hostile or torn pickle may raise anything
        raise ValueError(f"{path} is neither JSON nor the official pickle of id maps ({error}).") from None
    if not (isinstance(found, (list, tuple)) and len(found) == 4 and all(isinstance(part, dict) for part in found)):
        raise ValueError(f"{path} must hold four dictionaries: id to language, id to script, and both reversed.")
    by_id, back = found[:2], found[2:]
    languages, scripts = ([names.get(i) for i in range(len(names))] for names in by_id)
    for names, ids in zip((languages, scripts), back):
        if not all(isinstance(name, str) for name in names) or ids != {name: i for i, name in enumerate(names)}:
            raise ValueError(f"the ids in {path} must count from 0 without a gap and agree in both directions.")
    return languages, scripts
