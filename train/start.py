"""The start of a run: a base model, a tokenizer and the languages of a store become a LangSAMP model and its tokenizer.

Comes after :mod:`langsamp.train.blocks.store`, before :mod:`langsamp.train.pretrain`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from langsamp.core.compute.kernels import patch
from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.core.model.vocabulary import NewRows, carry_rows
from langsamp.core.runtime import resolve_model
from langsamp.language_codes import UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT, family, parse_tag
from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer

logger = logging.getLogger(__name__)


def starting_model(
    base: str | os.PathLike[str],
    languages: Iterable[str],
    tokenizer: str | os.PathLike[str] | LangSAMPTokenizer | None = None,
    lang: bool = True,
    script: bool = True,
    new_rows: NewRows = "mean",
    table_init: float = 0.0,
    seed: int = 42,
) -> tuple[LangSAMPForMaskedLM, LangSAMPTokenizer]:
    """Make the model that training starts from, in fp32.

    Args:
        base: folder or Hub id (``@revision``) of a LangSAMP or an encoder of any family it knows: XLM-R, Glot500-m,
            mmBERT, mBERT, ...
        languages: ``lang_Script`` of everything that will be trained on. A LangSAMP base keeps its rows and gets the
            missing ones, each a copy of its unknown row.
        tokenizer: the vocabulary to train with; default the base's own. Another one takes over the base's rows piece
            by piece, whatever the ids.
        lang: a language table; False for the ablation without.
        script: a script table; both False is the baseline.
        new_rows: how pieces start that the base does not have: ``mean`` of their old pieces or ``random`` (paper).
        table_init: standard deviation of new table rows. 0 starts at exactly the base's logits; the paper has 0.02.
        seed: for everything that starts at random.

    Returns:
        The model, with ``config.languages`` and ``config.scripts`` sorted by code after what the base had, and the
        tokenizer that emits ids of those rows.

    Raises:
        FileNotFoundError: no such base or tokenizer.
        ValueError: a malformed language, or a tokenizer whose padding id the base cannot use.
    """
    folder = resolve_model(base).path
    pairs = [parse_tag(language) for language in languages]
    # text of unknown language or script trains the unknown rows, which every table has
    codes = sorted({code for code, _ in pairs} - {UNKNOWN_LANGUAGE}) if lang else []
    scripts = sorted({code for _, code in pairs if code} - {UNKNOWN_SCRIPT}) if script else []
    own = load_tokenizer(folder)
    new = own if tokenizer is None else tokenizer
    if not isinstance(new, LangSAMPTokenizer):
        new = load_tokenizer(new)
    set_seed(seed)
    model = _model(folder, codes, scripts, table_init)
    if new is own and model.config.vocab_size > len(own):  # rows that pad the matrix; nothing to look up
        model.resize_token_embeddings(len(own), mean_resizing=False)
    elif new is not own or model.config.vocab_size != len(own):
        before, after = own.get_vocab(), new.get_vocab()
        if before != after or model.config.vocab_size != len(new):
            logger.info("vocabulary: %d pieces, %d new to the base", len(new), len(after.keys() - before.keys()))
            carry_rows(model, own, new, new_rows, seed)
    new.languages, new.scripts = model.config.languages, model.config.scripts
    return model, new


def _model(folder: Path, codes: list[str], scripts: list[str], table_init: float) -> LangSAMPForMaskedLM:
    """The base with exactly the tables asked for; rows it has already stay as they are, in their order."""
    options: dict[str, Any] = {"table_initializer_range": table_init}
    known = LangSAMPForMaskedLM.config_class.from_pretrained(folder)
    if not (codes and known.languages) and not (scripts and known.scripts):
        return _load(folder, languages=codes, scripts=scripts, **options)
    if bool(codes) != bool(known.languages) or bool(scripts) != bool(known.scripts):
        raise ValueError(
            f"{folder} has {len(known.languages)} language and {len(known.scripts)} script rows; go on with the same "
            "--no-lang/--no-script as it was trained with, or with both to drop its tables."
        )
    model = _load(folder, **options)
    for what, had, has in (("languages", known.languages, codes), ("scripts", known.scripts, scripts)):
        left = len(set(had[1:]) - set(has))
        if left:
            logger.warning(
                "the store has text in %d of the base's %d %s; the rows of the other %d are kept, but not trained on "
                "while the encoder changes",
                len(had) - 1 - left, len(had) - 1, what, left,
            )  # fmt: skip
    for code in codes:
        if code not in model.config.languages:
            if near := family(code, known.languages[1:]):
                logger.warning(
                    "%s gets a row of its own beside the base's %s; to train that row instead: --same-as %s=%s",
                    code, ", ".join(near), code, near[0],
                )  # fmt: skip
            model.add_language(code)
    return _with_scripts(model, scripts)


def _load(folder: Path, **options: Any) -> LangSAMPForMaskedLM:
    """Load in fp32; new tables are expected, anything else that the base lacks is told."""
    options |= {"dtype": torch.float32, "output_loading_info": True}
    with patch(logging.getLogger("transformers.modeling_utils"), "disabled", True):  # which tells of missing tables
        model, found = LangSAMPForMaskedLM.from_pretrained(folder, **options)
    lacking = model.config.family.lacking(found["missing_keys"])
    if lacking:
        logger.warning("%s has no %s; they start at random", folder, ", ".join(lacking))
    return model


def _with_scripts(model: LangSAMPForMaskedLM, scripts: list[str]) -> LangSAMPForMaskedLM:
    """Add rows for scripts that a LangSAMP base lacks, copies of its unknown row."""
    missing = [code for code in scripts if code not in model.config.scripts]
    if missing:
        old = model.script_embeddings.weight.detach()
        model.script_embeddings = torch.nn.Embedding(len(old) + len(missing), old.shape[1])
        with torch.no_grad():
            model.script_embeddings.weight.copy_(torch.cat([old, old[:1].expand(len(missing), -1)]))
        model.config.scripts = [*model.config.scripts, *missing]
    return model
