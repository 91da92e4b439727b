"""Masked-LM loss by language (`lm`): what the language and script rows are worth, with right, missing and wrong ids.

The encoder never sees the ids, so it runs once; only the head runs again for each choice of rows. Three numbers a
language and seed, in nats per masked token: `loss` with the right rows (unknown rows where the model has none),
`loss_missing` with the unknown rows, `loss_wrong` with other languages' rows (mean of `WRONG_DRAWS` draws).
A model without a row for the language has `loss` only. The right row of `swh_Latn` is that of `swa` where there is no
`swh`; other rows to use are named by the option `same_as`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import torch
from tokenizers import Tokenizer

from langsamp.core.compute.kernels import fast_matmul, threads
from langsamp.core.model.config import read_config
from langsamp.core.model.masking import Masking
from langsamp.core.record import Record
from langsamp.core.runtime import pick_device
from langsamp.eval.data.columns import DataError
from langsamp.eval.engines.encoder import batch_tokens, load_backend, load_masked_lm
from langsamp.eval.engines.packed import Texts, last_hidden_state, plan_batches
from langsamp.eval.task import Context, Unit
from langsamp.language_codes import family, match_script, parse_tag
from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.unicode_scripts import valid_unicode

logger = logging.getLogger(__name__)

FOLDERS = ("lm", "mlm", "sib200")  # the last has text that no corpus should hold, and is on the Hub
SENTENCES = 200
MAX_LENGTH = 512
WRONG_DRAWS = 5
SEED = 42

Ids = tuple[int, int]  # row of the language, row of the script; 0 is unknown


class MaskedLM:
    """The task. Options: `text` (folder with held-out text; default the first there is of `FOLDERS`), `sentences`."""

    name = "lm"

    def languages(self, context: Context) -> list[str]:
        """Tags with text."""
        return context.data.languages(_folder(context))

    def settings(self, context: Context) -> dict[str, Any]:
        """What the numbers depend on besides the run's settings."""
        told = sorted(context.options.same_as or ())
        return {"text": _folder(context), "sentences": _limit(context), **({"same_as": told} if told else {})}

    def units(self, context: Context, languages: list[str]) -> list[Unit]:
        """One unit a language and seed."""
        config = read_config(context.source.path).to_dict()
        names = config.get("languages") or [], config.get("scripts") or []
        _tell_rows(context, languages, names[0])

        def expected(tag: str, seed: int) -> list[Record]:
            metrics = ("loss", "loss_missing", "loss_wrong") if any(rows_of(context, tag, *names)) else ("loss",)
            return [context.record(self.name, tag, metric, seed=seed) for metric in metrics]

        seeds, folder = context.seeds or (SEED,), _folder(context)
        return [Unit(tag, expected(tag, seed), [f"{folder}/{tag}"]) for seed in seeds for tag in languages]

    def compute(self, context: Context, unit: Unit) -> list[Record]:
        """The losses of one language with one seed's masks."""
        scorer = context.shared("scorer", lambda: Scorer(context))
        return scorer.records(unit.language or "", unit.expected[0].seed or 0, unit.expected)


def rows_of(context: Context, tag: str, languages: Sequence[str], scripts: Sequence[str]) -> Ids:
    """Rows of a tag in the model's lists, 0 where it has none: (`deu_Latn`, ["und", "deu"], []) -> (1, 0)."""
    language, script = parse_tag(tag)
    code, script = context.row_code(language, languages), match_script(script, list(scripts))
    return (
        languages.index(code) if code in languages else 0,
        scripts.index(script) if script in scripts else 0,
    )


def _tell_rows(context: Context, tags: Sequence[str], names: Sequence[str]) -> None:
    """Say which rows serve languages under another code, which have relatives with one, and which are unknown."""
    unknown = []
    for language in dict.fromkeys(parse_tag(tag)[0] for tag in tags) if names else ():
        code = context.row_code(language, names)
        if code is not None and code != language:
            logger.info("lm: the row of %s is used for %s", code, language)
        elif code is None and (near := family(language, names)):
            logger.warning(
                "lm: the model has no row for %s; to use that of %s: --same-as %s=%s",
                language, " or ".join(near), language, near[0],
            )  # fmt: skip
        elif code is None:
            unknown.append(language)
    if unknown:
        logger.warning(
            "lm: the model has no row for %d of the languages (%s): their `loss` is that of an unknown language",
            len(unknown), ", ".join(unknown),
        )  # fmt: skip


class Scorer:
    """The model with its tokenizer; losses of one language at a time."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.model: LangSAMPForMaskedLM = load_masked_lm(context.source.path)
        torch.nn.Module.to(self.model, pick_device())
        self.max_tokens = batch_tokens(self.model.config, self.model.device, self.model.dtype)
        self.languages, self.scripts = self.model.config.languages, self.model.config.scripts
        self.tokenizer: Tokenizer = load_backend(context.source.path, MAX_LENGTH)
        self.roles = LangSAMPTokenizer.from_pretrained(context.source.path)
        self.special = set(self.roles.all_special_ids)

    def records(self, tag: str, seed: int, expected: Sequence[Record]) -> list[Record]:
        """The expected records with their values; n is the number of masked tokens."""
        ids = self._texts(tag)
        own = crc32(tag.encode())
        with torch.inference_mode(), threads():
            hidden, targets = self._hidden(ids, self.masks(ids, tag, seed))
            if not len(targets):
                raise DataError(f"{_folder(self.context)}/{tag} has too little text: no token was chosen to be masked")
            right = rows_of(self.context, tag, self.languages, self.scripts)
            choices = {"loss": [right], "loss_missing": [(0, 0)], "loss_wrong": self._wrong(right, (seed, own))}
            return [
                replace(
                    record,
                    n=len(targets),
                    value=float(np.mean([self._loss(hidden, targets, rows) for rows in choices[record.metric]])),
                )
                for record in expected
            ]

    def masks(self, ids: Sequence[np.ndarray], tag: str, seed: int) -> list[np.ndarray]:
        """Positions to mask in each text: those that pretraining would choose, drawn by seed, language and number."""
        choose, first = Masking(self.roles, seed).chosen, crc32(tag.encode()) << 24
        return [np.flatnonzero(choose(text[None], np.array([first + n]))[0]) for n, text in enumerate(ids)]

    def _texts(self, tag: str) -> list[np.ndarray]:
        """Token ids of the first texts of a language, without blank ones."""
        folder = _folder(self.context)
        texts = [text for text in self.context.data.rows(folder, tag, ["text"], "test")["text"] if text.strip()]
        found = self.tokenizer.encode_batch_fast([valid_unicode(text) for text in texts[: _limit(self.context)]])
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in found]
        ids = [text for text in ids if not self.special.issuperset(text.tolist())]
        if not ids:
            raise DataError(f"{folder}/{tag} has no text")
        return ids

    def _hidden(self, ids: list[np.ndarray], masks: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder's output at the masked positions (n, hidden) and the true tokens (n,)."""
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        hidden, targets = [], []
        for batch in plan_batches([len(ids[number]) for number in order], self.max_tokens):
            texts, where, start = [], [], 0
            for number in (order[position] for position in batch):
                text = ids[number].copy()
                targets.append(text[masks[number]])
                text[masks[number]] = self.roles.mask_token_id
                where.append(start + masks[number])
                start += len(text)
                texts.append(text)
            packed = Texts(texts, self.model.device)
            hidden.append(last_hidden_state(self.model.base_model, packed)[packed.send(np.concatenate(where))])
        return torch.cat(hidden), torch.from_numpy(np.concatenate(targets).astype(np.int64)).to(self.model.device)

    def _loss(self, hidden: torch.Tensor, targets: torch.Tensor, rows: Ids) -> float:
        """Mean cross entropy in nats with these rows added."""
        for table, row in zip((self.model.lang_embeddings, self.model.script_embeddings), rows):
            if table is not None:
                hidden = hidden + table.weight[row]
        with fast_matmul():
            return float(self.model.token_losses(hidden, targets).mean())

    def _wrong(self, right: Ids, seed: Sequence[int]) -> list[Ids]:
        """Rows of other languages and scripts; never the right ones, never unknown (unless there is no other)."""
        rng = np.random.default_rng([*seed, WRONG_DRAWS])
        columns = []
        for row, names in zip(right, (self.languages, self.scripts)):
            others = [other for other in range(1, len(names)) if other != row] or [0]
            columns.append(rng.choice(others, WRONG_DRAWS).tolist())
        return list(zip(*columns))


def _folder(context: Context) -> str:
    """The folder of held-out text."""
    return context.options.text or context.data.first(FOLDERS)


def _limit(context: Context) -> int:
    """Most sentences of a language."""
    return context.options.sentences or SENTENCES


LM = MaskedLM()
