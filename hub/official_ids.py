"""The rows of the official LangSAMP tables: 610 languages and 30 scripts, in the order of their ids.

Source: the id maps of cisnlp/LangSAMP (``full_dicts.pkl``) are the sorted ISO codes of the 679 language-script rows of
Glot500-c (``miscellaneous/languages_stats.csv`` of cisnlp/Glot500). Row 0 of ours ("unknown") comes before them.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files


@cache
def _lists() -> dict[str, list[str]]:
    return json.loads(files("langsamp.hub").joinpath("official_ids.json").read_text(encoding="utf-8"))


def official_languages() -> list[str]:
    """The 610 ISO 639-3 codes, ``aak`` to ``zul``, index = official id."""
    return list(_lists()["languages"])


def official_scripts() -> list[str]:
    """The 30 ISO 15924 codes, ``Arab`` to ``Tibt``, index = official id."""
    return list(_lists()["scripts"])
