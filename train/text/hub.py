"""A corpus on the Hub: a data set with one configuration a language, such as ``cis-lmu/Glot500``, read as a stream."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import PurePosixPath

from langsamp.train.text.corpus import Corpus, Part, clean, sort_by_language


class HubCorpus(Corpus):
    """A Hub data set at one commit; nothing is downloaded but what is read."""

    def __init__(
        self,
        repo: str,
        revision: str | None = None,
        only: Iterable[str] | None = None,
        column: str = "text",
        on_invalid: str = "replace",
        split: str = "train",
    ) -> None:
        super().__init__(only)
        self.name = repo if revision is None else f"{repo}@{revision}"
        self._repo = repo
        self._revision = revision
        self._column = column
        self._on_invalid = on_invalid
        self._split = split

    @cached_property
    def commit(self) -> str:
        """The commit read from: what ``revision`` pointed to at the first use, so that a run sees one state.

        Raises:
            FileNotFoundError: no such data set or revision, or the Hub cannot be reached.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return str(HfApi().dataset_info(self._repo, revision=self._revision).sha)
        except (HfHubHTTPError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise FileNotFoundError(
                f"data set {self.name!r} is neither a local folder nor on the Hub as seen from here ({reason}); "
                "check the name, the revision, HF_TOKEN and HF_ENDPOINT."
            ) from error

    def _find(self) -> dict[str, list[Part]]:
        from datasets import get_dataset_config_names

        configs = get_dataset_config_names(self._repo, revision=self.commit)
        sizes = self._sizes(set(configs))
        candidates = [(config, Part("", config, sizes[config], config)) for config in configs]
        return sort_by_language(candidates, "configuration", strict=self._only is None)

    def _sizes(self, configs: set[str]) -> Counter[str]:
        """Bytes by configuration, as far as paths tell: ``deu_Latn/train/0.parquet`` or ``data/deu_Latn.jsonl``."""
        from huggingface_hub import HfApi

        sizes: Counter[str] = Counter()
        for entry in HfApi().list_repo_tree(self._repo, repo_type="dataset", revision=self.commit, recursive=True):
            path = PurePosixPath(entry.path)
            owner = next((piece for piece in (*path.parts[:-1], path.name.split(".")[0]) if piece in configs), None)
            if owner is not None:
                sizes[owner] += getattr(entry, "size", 0)
        return sizes

    def fingerprint(self, part: Part) -> str:
        """The commit and the configuration say it all."""
        key = [self._repo, self.commit, part.detail, self._split, self._column, self._on_invalid]
        return hashlib.sha256("\n".join(key).encode()).hexdigest()

    def documents(self, part: Part) -> Iterator[str]:
        """The texts of one configuration.

        Raises:
            ValueError: no such split or column; what there is is named.
        """
        from datasets import get_dataset_split_names, load_dataset

        where = f"{self._repo}, configuration {part.detail}"
        splits = get_dataset_split_names(self._repo, part.detail, revision=self.commit)
        if self._split not in splits:
            raise ValueError(f"{where} has no split {self._split!r}; it has {', '.join(splits)}.")
        rows = load_dataset(self._repo, part.detail, split=self._split, revision=self.commit, streaming=True)
        for batch in rows.iter(batch_size=1000):
            if self._column not in batch:
                raise ValueError(f"{where} has no column {self._column!r}; it has {', '.join(batch)}.")
            yield from clean(batch[self._column], self.counts, part.language, self._on_invalid, where)
