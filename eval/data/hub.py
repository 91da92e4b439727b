"""Evaluation data sets of the Hub, in the form of the local folders; used by eval/data/sets.py for `--data hub`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from datasets import ClassLabel, Dataset, get_dataset_config_names, load_dataset
from huggingface_hub import HfApi, hf_hub_download

from langsamp.core.language.languages import WIKIPEDIA, normalize_tag
from langsamp.core.language.names import SPLITS
from langsamp.core.retry import HubError, attempt
from langsamp.eval.data.columns import Columns, DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubSet:
    """A Hub data set with one config a language; `code` takes the language out of a config's name.

    `converted`: the set itself is a script, which is never run; the Hub's own conversion to parquet is read instead
    (branch refs/convert/parquet, a folder a config). `commit`: the one to read, default the newest.
    """

    repo: str
    code: Callable[[str], str] = str
    converted: bool = False
    commit: str | None = None

    @property
    def revision(self) -> str | None:
        """The commit or branch to read."""
        return self.commit or ("refs/convert/parquet" if self.converted else None)

    def newest(self) -> str | None:
        """The commit that the branch is at; None where the Hub does not say."""
        with suppress(HubError):  # what is in the client's cache may do
            ask = partial(HfApi().dataset_info, self.repo, revision=self.revision)
            return attempt(ask, f"reading {self.repo}", tries=1).sha
        return None

    def languages(self) -> list[str]:
        """Sorted tags of the configs.

        Raises:
            FileNotFoundError: the Hub or the data set cannot be reached.
        """
        return sorted(self._configs)

    def table(self, tag: str) -> Columns:
        """All splits of one language below each other, with a column `split`; class numbers become names.

        Raises:
            DataError: the language is not there.
            FileNotFoundError: as in `languages`.
        """
        if tag not in self._configs:
            raise DataError(f"{self.repo} has no data for {tag}")
        table: Columns = {}
        for config in self._configs[tag]:
            for split, rows in self._reached(partial(self._splits, config)):
                columns = {name: _names(rows[name], rows.features[name]) for name in rows.column_names}
                columns["split"] = [split] * len(rows)
                for name, values in columns.items():
                    table.setdefault(name, []).extend(values)
        return table

    @cached_property
    def _configs(self) -> dict[str, list[str]]:
        """Tag -> configs (several treebanks of one language are read together)."""
        found: dict[str, list[str]] = {}
        strange: list[str] = []
        for config in sorted(self._reached(self._names)):
            tag = self._tag(config)
            if tag is None:
                strange.append(config)
            else:
                found.setdefault(tag, []).append(config)
        if strange:
            logger.warning("%s: configs left out, the name tells no language: %s", self.repo, ", ".join(strange))
        return found

    def _tag(self, config: str) -> str | None:
        """The language of a config's name, or None."""
        code = self.code(config)
        if code in WIKIPEDIA:
            return WIKIPEDIA[code]
        try:
            return normalize_tag(code)
        except ValueError:
            return None

    @cached_property
    def _files(self) -> list[str]:
        files = HfApi().list_repo_files(self.repo, repo_type="dataset", revision=self.revision)
        return sorted(name for name in files if name.endswith(".parquet") and "/" in name)

    def _names(self) -> list[str]:
        if self.converted:
            return sorted({name.split("/")[0] for name in self._files})
        return list(get_dataset_config_names(self.repo, revision=self.revision))

    def _splits(self, config: str) -> list[tuple[str, Dataset]]:
        if not self.converted:
            return list(load_dataset(self.repo, config, revision=self.revision).items())
        found = []
        for name in self._files:
            folder, _, rest = name.partition("/")
            split = next((split for split in ("train", "test", "dev", *SPLITS) if split in rest), None)
            if folder == config and split:
                path = hf_hub_download(self.repo, name, repo_type="dataset", revision=self.revision)
                found.append((split, Dataset.from_parquet(path)))
        return found

    def _reached(self, ask: Callable[[], Any]) -> Any:
        """Call the Hub; what goes wrong there is one sentence."""
        try:
            return attempt(ask, f"reading {self.repo}", tries=3)
        except HubError as error:
            raise FileNotFoundError(
                f"the data set {self.repo!r} cannot be read from the Hub ({error}); check the network, HF_TOKEN and "
                "HF_ENDPOINT, or give a folder with --data DIR"
            ) from error


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
    "tatoeba": HubSet("mteb/tatoeba-bitext-mining", code=lambda config: config.removesuffix("-eng")),
    "ner": HubSet("unimelb-nlp/wikiann"),
    "pos": HubSet(
        "universal-dependencies/universal_dependencies", code=lambda config: config.split("_")[0], converted=True
    ),
}
