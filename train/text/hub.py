"""A corpus on the Hub: a data set with one configuration a language, such as ``cis-lmu/Glot500``, read as a stream."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import PurePosixPath

from langsamp.core.hub_names import HubName
from langsamp.core.language.names import SPLITS, marks
from langsamp.core.retry import from_hub
from langsamp.train.text.corpus import Corpus, Part, Reading, Report, clean
from langsamp.train.text.formats import Source, choose


class HubCorpus(Corpus):
    """A Hub data set at one commit; nothing is downloaded but what is read."""

    def __init__(self, name: HubName, how: Reading = Reading()) -> None:
        super().__init__(how)
        self.name = str(name)
        self._repo, self._revision = name.repo, name.revision

    @cached_property
    def commit(self) -> str:
        """The commit read from: what ``revision`` pointed to at the first use, so that a run sees one state.

        Raises:
            FileNotFoundError: no such data set or revision, or the Hub cannot be reached.
        """
        from huggingface_hub import HfApi

        return str(from_hub(lambda: HfApi().dataset_info(self._repo, revision=self._revision).sha, self.name))

    def _find(self) -> dict[str, list[Part]]:
        from datasets import get_dataset_config_names

        configs = from_hub(lambda: get_dataset_config_names(self._repo, revision=self.commit), self.name)
        sizes = self._sizes(set(configs))
        found: dict[str, list[Part]] = {}
        rejected = []
        for config in configs:
            if why := self._selection.against_subset(marks([config], self._selection.subsets)):
                self.report.left_out[config] = why
                continue
            try:
                told = self._told([config])
            except ValueError as error:
                rejected.append(f"{config} ({error})")
                continue
            self._add(found, told, Part("", config, sizes[config], config))
        self._refuse(rejected, "configurations")
        return found

    def _sizes(self, configs: set[str]) -> Counter[str]:
        """Bytes by configuration, as far as paths tell: ``deu_Latn/train/0.parquet`` or ``data/deu_Latn.jsonl``."""
        from huggingface_hub import HfApi

        sizes: Counter[str] = Counter()
        tree = partial(HfApi().list_repo_tree, self._repo, repo_type="dataset", revision=self.commit, recursive=True)
        for entry in from_hub(lambda: list(tree()), self.name):
            path = PurePosixPath(entry.path)
            owner = next((piece for piece in (*path.parts[:-1], path.name.split(".")[0]) if piece in configs), None)
            if owner is not None:
                sizes[owner] += getattr(entry, "size", 0)
        return sizes

    def fingerprint(self, part: Part) -> str:
        """The commit and the configuration say it all."""
        key = [self._repo, self.commit, part.detail, self._split, self._column or "text", self._on_invalid]
        return hashlib.sha256("\n".join(key).encode()).hexdigest()

    def _texts(self, part: Part, report: Report) -> Iterator[str]:
        where = f"{self._repo}, configuration {part.detail}"
        return clean(self._rows(part, where, report), part.language, self._on_invalid, report, where)

    def _rows(self, part: Part, where: str, report: Report) -> Iterator[object]:
        from datasets import get_dataset_split_names, load_dataset

        splits = get_dataset_split_names(self._repo, part.detail, revision=self.commit)
        asked, kinds = self._split.split("+"), self._selection.splits  # by its own name, or by what it is
        wanted = [split for split in splits if split in asked or SPLITS.get(split.lower()) in kinds]
        if not wanted and self._split != "train":
            raise ValueError(f"{where} has no split {self._split!r}; it has {', '.join(splits)}.")
        if not wanted:
            report.left_out[part.name] = f"no training split, but {', '.join(splits)}"
        source = Source(where, part.language, self._column, self._on_invalid, self._selection, report)
        for split in wanted:
            rows = load_dataset(self._repo, part.detail, split=split, revision=self.commit, streaming=True)
            for batch in rows.iter(batch_size=1000):
                yield from batch[choose(list(batch), source)]
