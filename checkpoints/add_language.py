"""A language that training has not seen: one more row, from a relative, from its script, or fitted to some text.

The encoder and every old row stay as they are, bit for bit; config and tokenizer learn the new name together.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import trange

from langsamp.configuration_langsamp import LangSAMPConfig
from langsamp.core.languages import normalize_tag
from langsamp.core.outputs import HANDLER, add_handler, new_folder
from langsamp.core.runtime import pick_device, resolve_model
from langsamp.eval.results.card.card import TRAINING, write_card
from langsamp.language_codes import match_script, nearest, parse_tag
from langsamp.modeling_langsamp import LangSAMPForMaskedLM, linear_cross_entropy
from langsamp.tokenization_langsamp import LangSAMPTokenizer
from langsamp.train.blocks.store import BlockStore

logger = logging.getLogger(__name__)

HELD_OUT = 0.1  # of the blocks, to tell whether the fitted row helps
MASKED = 0.15


@dataclass(frozen=True)
class Fit:
    """How the new row is fitted: Adam on the row alone, everything else frozen."""

    steps: int = 200
    batch_size: int = 8
    learning_rate: float = 0.01
    seed: int = 0


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
        ValueError: the language is there already, a relative has no row, or there are too few blocks to fit a row.
    """
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
        for name in ("README.md", TRAINING):
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
    rows = LangSAMPConfig.from_pretrained(folder).languages[1:]
    path = folder / TRAINING
    table = json.loads(path.read_text(encoding="utf-8")).get("sampling") if path.is_file() else None
    tags = [parse_tag(row["language"]) for row in table or []] or [_usual(code) for code in rows]
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
    """Fit one row of the language table by masked language modelling; nothing else of the model changes by a bit.

    The encoder is frozen and its output does not depend on the row, so that each step runs the encoder without
    gradients and only the head with them: minutes on a CPU.

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
    device, generator = pick_device(), torch.Generator().manual_seed(fit.seed)
    tokens = _some(blocks, model.config.vocab_size, fit)
    held = max(1, int(HELD_OUT * len(tokens)))
    test, train = tokens[:held], tokens[held:]
    torch.nn.Module.to(model, device)
    model.requires_grad_(False).eval()
    test_batches = [_mask(test[i : i + fit.batch_size], tokenizer, generator) for i in range(0, held, fit.batch_size)]
    table = model.lang_embeddings.weight
    start = table[row].detach().clone()
    unknown, before = (_loss(model, test_batches, i, script) for i in (0, row))
    vector = start.float().clone().requires_grad_(True)  # float() alone may be the same tensor
    optimizer = torch.optim.Adam([vector], lr=fit.learning_rate)
    for step in (bar := trange(fit.steps, desc="fitting the row", unit=" steps")):
        optimizer.param_groups[0]["lr"] = fit.learning_rate * (1 - step / fit.steps)
        rows = torch.randint(len(train), (min(fit.batch_size, len(train)),), generator=generator)
        loss = _head_loss(model, vector, script, *_mask(train[rows], tokenizer, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    table[row] = vector.detach().to(table)
    after = _loss(model, test_batches, row, script)
    if after > before:
        logger.warning(
            "the fitted row is worse on held-out text (%.3f, started at %.3f): kept the start", after, before
        )
        table[row] = start
        after = before
    torch.nn.Module.to(model, "cpu")
    model.requires_grad_(True)
    return unknown, before, after


def _some(blocks: np.ndarray, vocab_size: int, fit: Fit) -> Tensor:
    """Blocks in random order as int64, of a large store no more than a fit can use."""
    if np.ndim(blocks) != 2 or len(blocks) < 2:
        raise ValueError(f"blocks of shape {np.shape(blocks)} cannot fit a language; at least 2 blocks are needed.")
    picks = np.random.default_rng(fit.seed).permutation(len(blocks))[: 2 * fit.steps * fit.batch_size]
    tokens = torch.from_numpy(np.stack([blocks[i] for i in picks]).astype(np.int64))
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
    ids = [model.config.languages.index(parse_tag(language)[0]) for language in languages]
    with torch.no_grad():
        model.lang_embeddings.weight[row] = model.lang_embeddings.weight[ids].mean(dim=0)


def _mask(tokens: Tensor, tokenizer: LangSAMPTokenizer, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(inputs, labels): 15 % of the tokens that are no special ones become ``<mask>``, always at least one a batch."""
    special = torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(tokens.shape, generator=generator) < MASKED) & ~special
    if not chosen.any() and not special.all():
        chosen.view(-1)[int((~special).view(-1).nonzero()[0])] = True
    labels = torch.where(chosen, tokens, torch.full_like(tokens, -100))
    return torch.where(chosen, torch.full_like(tokens, tokenizer.mask_token_id), tokens), labels


def _head_loss(model: LangSAMPForMaskedLM, vector: Tensor, script: int, inputs: Tensor, labels: Tensor) -> Tensor:
    """The loss as a function of the row alone: frozen encoder, then the head on the masked positions."""
    device = model.device
    inputs, labels = inputs.to(device), labels.to(device)
    with torch.no_grad():
        mask = torch.ne(inputs, int(model.config.pad_token_id or 0))
        hidden = model.roberta(input_ids=inputs, attention_mask=mask.long()).last_hidden_state
        if model.script_embeddings is not None:
            hidden = hidden + model.script_embeddings.weight[script]
    where = labels != -100
    head = model.lm_head
    features = head.layer_norm(torch.nn.functional.gelu(head.dense(hidden[where] + vector.to(hidden))))
    total = linear_cross_entropy(features, head.decoder.weight, head.decoder.bias, labels[where])
    return total / max(1, len(features))


@torch.no_grad()
def _loss(model: LangSAMPForMaskedLM, batches: list[tuple[Tensor, Tensor]], row: int, script: int) -> float:
    """Mean loss over all masked tokens of the batches, with a row of the table."""
    vector, total, count = model.lang_embeddings.weight[row], 0.0, 0
    for inputs, labels in batches:
        n = int((labels != -100).sum())
        if n:
            total, count = total + n * float(_head_loss(model, vector, script, inputs, labels)), count + n
    return total / max(1, count)
