"""Evaluation data sets of the Hub, in the form of the local folders; used by eval/data.py for `--data hub`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from datasets import ClassLabel, get_dataset_config_names, load_dataset

from langsamp.eval.data import DataError, Rows
from langsamp.language_codes import normalize_tag

logger = logging.getLogger(__name__)

# Wikipedia's own codes, some of which mean another language in ISO 639 ("als" is Tosk Albanian there).
WIKIPEDIA = {
    "als": "gsw_Latn",
    "bat-smg": "sgs_Latn",
    "cbk-zam": "cbk_Latn",
    "fiu-vro": "vro_Latn",
    "map-bms": None,
    "nds-nl": None,
    "be-x-old": None,
    "roa-rup": "rup_Latn",
    "simple": None,
    "zh-classical": "lzh_Hani",
    "zh-min-nan": "nan_Latn",
    "zh-yue": "yue_Hani",
    "eml": None,
    "bh": "bih_Deva",
}


@dataclass(frozen=True)
class HubSet:
    """A Hub data set with one config a language.

    `config_end` is what follows the language in a config's name; `_*` for anything after the first underscore.
    """

    repo: str
    revision: str | None = None
    config_end: str = ""

    @cached_property
    def _configs(self) -> dict[str, list[str]]:
        """Tag -> configs (several treebanks of one language are read together)."""
        found: dict[str, list[str]] = {}
        for config in sorted(get_dataset_config_names(self.repo, revision=self.revision)):
            tag = self._tag(config)
            if tag is None:
                logger.info("config %s of %s names no language that is known and is left out", config, self.repo)
                continue
            found.setdefault(tag, []).append(config)
        return found

    def _tag(self, config: str) -> str | None:
        """The language of a config's name, or None."""
        code = config.split("_")[0] if self.config_end == "_*" else config.removesuffix(self.config_end)
        if code in WIKIPEDIA:
            return WIKIPEDIA[code]
        try:
            return normalize_tag(code)
        except ValueError:
            return None

    def languages(self) -> list[str]:
        """Sorted tags of the configs."""
        return sorted(self._configs)

    def table(self, tag: str) -> Rows:
        """All splits of one language below each other, with a column `split`; class numbers become names.

        Raises DataError if the language is not there.
        """
        if tag not in self._configs:
            raise DataError(f"{self.repo} has no data for {tag}")
        table: Rows = {}
        for config in self._configs[tag]:
            for split, rows in load_dataset(self.repo, config, revision=self.revision).items():
                columns = {name: _names(rows[name], rows.features[name]) for name in rows.column_names}
                columns["split"] = [split] * len(rows)
                for name, values in columns.items():
                    table.setdefault(name, []).extend(values)
        return table


def _names(values: Any, feature: Any) -> list[Any]:
    """Numbers of a ClassLabel (or lists of them) as their names."""
    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, ClassLabel):
        return list(values)
    if inner is feature:
        return [None if value is None or value < 0 else inner.int2str(value) for value in values]
    return [[inner.int2str(number) for number in row] for row in values]


HUB_SETS: dict[str, HubSet] = {
    "sib200": HubSet("Davlan/sib200"),
    "tatoeba": HubSet("mteb/tatoeba-bitext-mining", config_end="-eng"),
    "ner": HubSet("unimelb-nlp/wikiann"),
    "pos": HubSet("universal-dependencies/universal_dependencies", "refs/convert/parquet", config_end="_*"),
}
