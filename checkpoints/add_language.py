"""A language that training has not seen: one more row, from a relative, from its script, or fitted to some text.

The encoder and every old row stay as they are, bit for bit; config and tokenizer learn the new name together.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from langsamp.core.facts import FACTS, TrainingFacts
from langsamp.core.language.languages import normalize_tag
from langsamp.core.model.config import read_config
from langsamp.core.model.fitting import Fit, fit_rows, mean_loss
from langsamp.core.model.masking import Masking
from langsamp.core.outputs import HANDLER, add_handler, must_be_new, new_folder
from langsamp.core.runtime import pick_device, resolve_model
from langsamp.eval.results.card.card import write_card
from langsamp.language_codes import match_script, nearest, parse_tag
from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.blocks.store import BlockStore

HELD_OUT = 0.1  # of the blocks, to tell whether the fitted row helps


@dataclass(frozen=True)
class NewLanguage:
    """What was added, and, where it was fitted, the masked-LM loss on held-out blocks as unknown, before and after."""

    path: Path
    language: str
    lang_id: int
    start: str
    loss_unknown: float | None = None
    loss_start: float | None = None
    loss_fitted: float | None = None


def add_language(
    model: str,
    output: str | Path,
    language: str,
    *,
    like: str | None = None,
    script_mean: Sequence[str] = (),
    blocks: np.ndarray | None = None,
    fit: Fit = Fit(),
) -> NewLanguage:
    """Add one language to a checkpoint and write it to a new folder.

    Args:
        model: folder or Hub id of a LangSAMP checkpoint with a language table.
        output: a folder that does not exist yet.
        language: ``xyz_Latn``, or what people type.
        like: start from the row of this language.
        script_mean: start from the mean row of these languages (those written in the same script); without either,
            the row starts as "unknown".
        blocks: token blocks (n, length) of the language; with them the row is fitted, the encoder frozen.
        fit: how.

    Raises:
        FileExistsError: there is something at the output.
        ValueError: the language is there already, a relative has no row, or there are too few blocks to fit a row.
    """
    must_be_new(output)
    source = resolve_model(model)
    tag = normalize_tag(language)
    network = LangSAMPForMaskedLM.from_pretrained(source.path, dtype="auto").eval()
    tokenizer = LangSAMPTokenizer.from_pretrained(source.path)
    network.config.check_tokenizer(tokenizer)
    code, script = parse_tag(tag)
    script = match_script(script, network.config.scripts) or script
    new = network.add_language(f"{code}_{script}", like=like)
    start = f"like {like}" if like else "as unknown"
    if script_mean and not like:
        start = f"mean of {len(script_mean)} languages"
        _set_mean(network, new, script_mean)
    losses: tuple[float | None, ...] = (None, None, None)
    if blocks is not None:
        rows = network.config.scripts  # empty in a model of languages only: then the id is ignored
        losses = fit_row(network, tokenizer, new, rows.index(script) if script in rows else 0, blocks, fit)
    tokenizer.languages, tokenizer.scripts = network.config.languages, network.config.scripts
    with new_folder(output) as folder:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for name in ("README.md", FACTS):
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder / name)
        if (source.path / HANDLER).is_file():
            add_handler(folder)
        write_card(folder, repo=Path(output).name, base_model=source.name if source.revision else None)
    return NewLanguage(Path(output), tag, new, start, *losses)


def same_script(model: str, language: str) -> list[str]:
    """The languages with a row that are written in the script of ``language``, to start a new row from their mean.

    As training.json has them; without it, each language counts for the script it is usually written in.

    Raises:
        ValueError: there are none.
    """
    folder = resolve_model(model).path
    script = parse_tag(normalize_tag(language))[1]
    rows = read_config(folder).languages[1:]
    sampled = TrainingFacts.read(folder).sampling
    tags = [parse_tag(row.language) for row in sampled] or [_usual(code) for code in rows]
    found = sorted({code for code, written in tags if written == script and code in rows})
    if not found:
        raise ValueError(f"no language of this model is written in {script}; name a relative with --like.")
    return found


def read_blocks(store: str | Path, language: str) -> np.ndarray:
    """The blocks of a language in a store of ``langsamp prepare``, uint32 of shape (blocks, block_size), memory-mapped.

    Raises:
        FileNotFoundError: no finished store there.
        ValueError: the store is damaged, or the language has no blocks in it.
    """
    opened = BlockStore(store)
    if language not in opened.counts:
        near = ", ".join(nearest(language, opened.languages))
        raise ValueError(f"{store} has no blocks of {language}; nearest: {near}.")
    return opened.blocks(language)


def fit_row(
    model: LangSAMPForMaskedLM, tokenizer: LangSAMPTokenizer, row: int, script: int, blocks: np.ndarray, fit: Fit
) -> tuple[float, float, float]:
    """Fit one row of the language table to blocks of its language (:func:`langsamp.core.model.fitting.fit_rows`).

    Args:
        model: with the row to fit, which is also the start.
        tokenizer: names the special tokens, which are never masked.
        row: which row.
        script: the script id of the blocks.
        blocks: token ids (n, length); a tenth is held out and never fitted on.
        fit: steps, batch size, learning rate, seed.

    Returns:
        Mean loss in nats on masked held-out tokens: language unknown, the row as it started, the row fitted. A row
        that the fit has made worse on them goes back to its start.
    """
    tokens = _some(blocks, model.config.vocab_size, fit)
    held = max(1, int(HELD_OUT * len(tokens)))
    mask = Masking(tokenizer, fit.seed)
    rng = np.random.default_rng(fit.seed)
    test = [
        _batch(mask, tokens[i : min(i + fit.batch_size, held)], i, row, script) for i in range(0, held, fit.batch_size)
    ]

    def draw(step: int) -> dict[str, Tensor]:
        """Blocks at random; the masks are others each time."""
        picks = rng.integers(held, len(tokens), min(fit.batch_size, len(tokens) - held))
        return _batch(mask, tokens[picks], held + step * fit.batch_size, row, script)

    torch.nn.Module.to(model, pick_device())
    unknown = mean_loss(model, [{**batch, "lang_ids": torch.zeros_like(batch["lang_ids"])} for batch in test])
    before, after = fit_rows(model, {"lang_embeddings": row}, draw, test, fit)
    torch.nn.Module.to(model, "cpu")
    return unknown, before, after


def _batch(mask: Masking, tokens: np.ndarray, first: int, row: int, script: int) -> dict[str, Tensor]:
    """A batch of one language, masked as the samples from number ``first`` on."""
    ids, labels = mask(tokens, np.arange(first, first + len(tokens)))
    batch = {"input_ids": ids, "attention_mask": (ids != mask.pad_id).astype(np.int64), "labels": labels}
    named = {"lang_ids": torch.full((len(ids),), row), "script_ids": torch.full((len(ids),), script)}
    return {name: torch.from_numpy(array) for name, array in batch.items()} | named


def _some(blocks: np.ndarray, vocab_size: int, fit: Fit) -> np.ndarray:
    """Blocks in random order as int64, of a large store no more than a fit can use."""
    if np.ndim(blocks) != 2 or len(blocks) < 2:
        raise ValueError(f"blocks of shape {np.shape(blocks)} cannot fit a language; at least 2 blocks are needed.")
    picks = np.random.default_rng(fit.seed).permutation(len(blocks))[: 2 * fit.steps * fit.batch_size]
    tokens = np.stack([blocks[i] for i in picks]).astype(np.int64)
    if int(tokens.max()) >= vocab_size:
        raise ValueError(
            f"the blocks hold id {int(tokens.max())}, but the model has {vocab_size} pieces: they were made with "
            "another tokenizer."
        )
    return tokens


def _usual(code: str) -> tuple[str, str | None]:
    """A language with the script CLDR says it is usually written in, or with none."""
    try:
        return parse_tag(normalize_tag(code))
    except ValueError:
        return code, None


def _set_mean(model: LangSAMPForMaskedLM, row: int, languages: Sequence[str]) -> None:
    """The row becomes the mean of the rows of some languages."""
    ids = [model.config.row("languages", parse_tag(language)[0]) for language in languages]
    with torch.no_grad():
        model.lang_embeddings.weight[row] = model.lang_embeddings.weight[ids].mean(dim=0)
