"""Official LangSAMP checkpoints (cisnlp/LangSAMP), and stock XLM-R ones such as Glot500-m, to checkpoints of ours.

What changes: the two tables move from the embeddings to beside the head and get a row 0 for "unknown"; the zero
``token_type_embeddings`` that the official code removed come back, so that stock XLM-R classes compute the same. The
order of the rows stays: official id i is our id i + 1.
"""

from __future__ import annotations

import logging
import math
import string
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import PreTrainedModel

from langsamp import modeling_langsamp
from langsamp.checkpoints.mend import is_ours, reloaded
from langsamp.checkpoints.official import LANG_TABLE, SCRIPT_TABLE, Official, read_official
from langsamp.checkpoints.official_ids import OFFICIAL, read_id_lists
from langsamp.configuration_langsamp import LangSAMPConfig
from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.core.outputs import add_handler, must_be_new, new_folder
from langsamp.core.retry import from_hub
from langsamp.core.runtime import ModelSource, resolve_model
from langsamp.eval.results.card.card import write_card
from langsamp.language_codes import UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT
from langsamp.modeling_langsamp import LangSAMPForMaskedLM, LangSAMPModel
from langsamp.tokenization_langsamp import LangSAMPTokenizer

logger = logging.getLogger(__name__)

_CLASSES = {
    "masked-lm": "ForMaskedLM",
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "multiple-choice": "ForMultipleChoice",
    "encoder": "Model",
}
_ID_FILES = ("full_dicts.pkl", "dicts.pkl")
OFFICIAL_INIT = 0.02  # standard deviation of the official tables at the start (paper notes, section 1)


@dataclass(frozen=True)
class Conversion:
    """What a conversion made, and what a user should know about it."""

    path: Path
    kind: str
    languages: int
    scripts: int
    untrained: list[str]  # codes whose row looks as it did before training
    dropped: list[str]  # tensors that have no place in the result
    tokenizer: bool


def convert(
    source: str,
    output: str | Path,
    *,
    ids: str | Path | None = None,
    tokenizer: str | Path | None = None,
    unknown: Literal["zero", "mean"] = "zero",
) -> Conversion:
    """Convert a checkpoint folder or Hub id and write it, with code, card and manifest, to a new folder.

    One of our own that was saved through the stock door, and so names our code without having it, gets it.

    Args:
        source: folder or Hub id (``name@revision``) with config.json and safetensors or a torch state dict.
        output: a folder that does not exist yet.
        ids: the code of every row, where the tables are not the official 610 and 30: see ``read_id_lists``.
        tokenizer: folder or Hub id of the tokenizer, where the checkpoint has none beside it.
        unknown: what row 0 adds, which the official code does not have: nothing, or the mean of the rows, folded into
            the head so that stock classes have it too. The mean is nearer to what the head saw in training; the known
            languages compute the same either way (to rounding).

    Raises:
        FileNotFoundError: no checkpoint, weights, id lists or tokenizer there.
        FileExistsError: the output exists.
        ValueError: a variant that cannot be converted, lists of another length than the tables, or tensors that are
            missing, left over or of the wrong shape; all of them are named.
    """
    must_be_new(output)
    origin = _with_weights(resolve_model(source))
    untrained: list[str] = []
    if is_ours(origin.path):
        model, dropped = reloaded(origin.path)
    else:
        official = read_official(origin.path)
        with_rows = official.kind == "masked-lm"  # the other classes have no tables: downstream needs no ids
        languages, scripts = _row_names(official, origin.path, ids) if with_rows else ([], [])
        config = LangSAMPConfig(
            **official.backbone, languages=languages, scripts=scripts, table_initializer_range=OFFICIAL_INIT
        )
        model, dropped = _load(official, config)
        untrained = _untrained(official, languages, scripts)
        if unknown == "mean" and isinstance(model, LangSAMPForMaskedLM):
            model.set_unknown("mean")
            model.fold_unknown()
    return _written(Path(output), origin, model, dropped, untrained, tokenizer)


def _written(
    output: Path,
    origin: ModelSource,
    model: PreTrainedModel,
    dropped: list[str],
    untrained: list[str],
    tokenizer: str | Path | None,
) -> Conversion:
    """Model, tokenizer and documents in a new folder."""
    config: Any = model.config
    known = _tokenizer(tokenizer or origin.path, config, required=tokenizer is not None)
    kind = next(kind for kind, ours in _CLASSES.items() if type(model).__name__.endswith(ours))
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        if known is not None:
            known.save_pretrained(folder)
        if kind == "masked-lm":
            add_handler(folder)
            write_card(folder, repo=output.name, base_model=origin.name if origin.revision else None)
    rows = [max(0, len(table) - 1) for table in (config.languages, config.scripts)]
    return Conversion(output, kind, rows[0], rows[1], untrained, dropped, known is not None)


def our_state(official: Official) -> dict[str, Tensor]:
    """The tensors under our names: tables beside the head with a zero row 0, zero token types where there were none."""
    state = dict(official.state)
    for old, new in ((LANG_TABLE, "lang_embeddings.weight"), (SCRIPT_TABLE, "script_embeddings.weight")):
        if old in state:
            table = state.pop(old)
            state[new] = torch.cat([torch.zeros_like(table[:1]), table])
    words = state.get("roberta.embeddings.word_embeddings.weight")
    if words is not None:
        types = words.new_zeros(official.config.get("type_vocab_size", 1), words.shape[1])
        state.setdefault("roberta.embeddings.token_type_embeddings.weight", types)
    bias = state.pop("lm_head.decoder.bias", None)
    if bias is not None:  # one vector under two names, in the official code tied in any case
        state.setdefault("lm_head.bias", bias)
    if official.config.get("tie_word_embeddings", True):  # the official code ties it on loading, whatever is stored
        state.pop("lm_head.decoder.weight", None)
    elif "lm_head.bias" in state:
        state["lm_head.decoder.bias"] = state["lm_head.bias"].clone()
    return state


def _load(official: Official, config: LangSAMPConfig) -> tuple[PreTrainedModel, list[str]]:
    """The model with every tensor in its place, and the names of those that have none in this kind of model."""
    state = our_state(official)
    model = getattr(modeling_langsamp, f"LangSAMP{_CLASSES[official.kind]}")(config)
    dropped = [] if official.kind == "masked-lm" else [key for key in state if key.startswith(("lang_", "script_"))]
    if official.kind != "encoder":
        dropped += [key for key in state if key.startswith("roberta.pooler.")]
    state = {key: value for key, value in state.items() if key not in dropped}
    if official.kind == "encoder":
        if "roberta.pooler.dense.weight" in state:  # a trained one may be in use: keep it
            model = LangSAMPModel(config, add_pooling_layer=True)
        state = {key.removeprefix("roberta."): value for key, value in state.items()}
    _check_state(model, state)
    widest = reduce(torch.promote_types, (tensor.dtype for tensor in state.values()))  # a model has one dtype
    nn.Module.to(model, dtype=widest)
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    return model.eval(), dropped


def _check_state(model: PreTrainedModel, state: dict[str, Tensor]) -> None:
    """Every parameter has its tensor, of its shape, and every tensor its parameter."""
    wanted = model.state_dict()
    tied = {"lm_head.decoder.bias"} | ({"lm_head.decoder.weight"} if model.config.tie_word_embeddings else set())
    missing = sorted(set(wanted) - set(state) - tied)
    leftover = sorted(set(state) - set(wanted))
    shapes = sorted(
        f"{key} {tuple(state[key].shape)}, by config.json {tuple(wanted[key].shape)}"
        for key in set(state) & set(wanted)
        if state[key].shape != wanted[key].shape
    )
    found = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing tensors", missing), ("tensors left over", leftover), ("wrong shapes", shapes))
        if names
    ]
    if found:
        raise ValueError(f"the weights do not fit their config.json; {'; '.join(found)}.")


def _row_names(official: Official, folder: Path, ids: str | Path | None) -> tuple[list[str], list[str]]:
    """The code of every row of the two tables, in official order; empty where there is no table."""
    where = ids or next((folder / name for name in _ID_FILES if (folder / name).is_file()), None)
    tables = ((LANG_TABLE, "languages"), (SCRIPT_TABLE, "scripts"))
    names = []
    for (key, kind), codes in zip(tables, read_id_lists(where or OFFICIAL)):
        rows = len(official.state.get(key, ()))
        if rows and where is None and rows != len(codes):
            codes = private_codes(kind, rows)
        if rows and rows != len(codes):
            raise ValueError(f"the table {key} has {rows} rows, but {where} lists {len(codes)} {kind}.")
        if rows and (unknown := {UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT} & set(codes)):
            raise ValueError(
                f"{where} lists {unknown.pop()!r} among the {kind}, but that is row 0, which is added; name the "
                f"official row otherwise, for example {'qaa' if kind == 'languages' else 'Qaaa'!r}."
            )
        names.append(codes if rows else [])
    return names[0], names[1]


def private_codes(kind: str, rows: int) -> list[str]:
    """Names for rows of which nobody says what they stand for: the codes that ISO leaves for private use.

    Raises:
        ValueError: there are more rows than such codes (520 languages, 50 scripts).
    """
    letters = string.ascii_lowercase
    first, second, third = ("q", letters[:20], letters) if kind == "languages" else ("Qa", "ab", letters)
    codes = [first + b + c for b in second for c in third][: 520 if kind == "languages" else 50]
    if rows > len(codes):
        raise ValueError(
            f"the table of {kind} has {rows} rows, not the official number; give the code of every row with --ids "
            'FILE, JSON {"languages": [...], "scripts": [...]} in the order of the ids.'
        )
    logger.warning(
        "the %d rows of the table of %s are not the official ones: they are named by private codes, %s to %s; give "
        "their names with --ids", rows, kind, codes[0], codes[rows - 1],
    )  # fmt: skip
    return codes[:rows]


def _untrained(official: Official, languages: list[str], scripts: list[str]) -> list[str]:
    """Codes whose row has the length of a fresh one: |N(0, 0.02)| in D dimensions is 0.02 sqrt(D) +- 0.02 / sqrt(2).

    The official code has no weight decay, so that a row no batch has touched keeps its length; a trained row can
    have it by chance. 95 of the 610 languages had too little text for Glot500's filter (paper notes, section 2).
    """
    found = []
    for key, codes in ((LANG_TABLE, languages), (SCRIPT_TABLE, scripts)):
        if not codes:
            continue
        table = official.state[key].float()
        start = OFFICIAL_INIT * math.sqrt(table.shape[1])
        near = (table.norm(dim=1) - start).abs() < 3 * OFFICIAL_INIT / math.sqrt(2)
        found += [code for code, untouched in zip(codes, near.tolist()) if untouched]
    return found


def _with_weights(origin: ModelSource) -> ModelSource:
    """A Hub snapshot holds safetensors only; where a repository has none, fetch its torch state dicts as well."""
    if origin.revision and not any(origin.path.glob("*.safetensors")):
        patterns = ["pytorch_model*.bin", "pytorch_model.bin.index.json", *_ID_FILES]
        from_hub(lambda: snapshot_download(origin.name, revision=origin.revision, allow_patterns=patterns), origin.name)
    return origin


def _tokenizer(source: str | Path, config: LangSAMPConfig, required: bool) -> LangSAMPTokenizer | None:
    """The checkpoint's tokenizer with our tables in it, or None if it has none beside it."""
    try:
        tokenizer = load_tokenizer(source, languages=config.languages, scripts=config.scripts)
    except FileNotFoundError as error:
        if required:
            raise
        logger.warning("%s Give one with --tokenizer (the released model's is cis-lmu/glot500-base)", error)
        return None
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"the tokenizer of {source} has {len(tokenizer):,} pieces, the model {config.vocab_size:,}: not its own."
        )
    return tokenizer
