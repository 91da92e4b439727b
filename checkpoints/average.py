"""The mean of checkpoints' weights, which often keeps what each of them knows (Wortsman et al. 2022, "Model soups").

Languages and scripts are matched by name and pieces of the vocabulary by their text, never by number. What only some of
the checkpoints have (a language, a piece, a whole table or head) is the mean over those that have it.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from langsamp.core.model.vocabulary import ROLES
from langsamp.core.outputs import HANDLER, add_handler, must_be_new, new_folder
from langsamp.core.runtime import ModelSource, resolve_model
from langsamp.eval.results.card.card import write_card
from langsamp.modeling_langsamp import LangSAMPForMaskedLM
from langsamp.tokenization_langsamp import LangSAMPTokenizer

logger = logging.getLogger(__name__)

TABLES = {"lang_embeddings.weight": "languages", "script_embeddings.weight": "scripts"}

_UNNAMED = "\0"  # begins what no piece is called


@dataclass(frozen=True)
class Averaged:
    """What was written: the shares, the rows of the two tables, and pieces of others that the first does not have."""

    path: Path
    shares: list[float]
    languages: int
    scripts: int
    left_out: int


class Part:
    """A checkpoint as tensors whose rows have names.

    Args:
        source: a folder with a masked LM or an encoder alone, ours or a stock one.
    """

    def __init__(self, source: ModelSource) -> None:
        self.source = source
        self.model, found = LangSAMPForMaskedLM.from_pretrained(source.path, dtype="auto", output_loading_info=True)
        self.tokenizer = LangSAMPTokenizer.from_pretrained(source.path)
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        self.tensors = {name: value.detach() for name, value in parameters.items() if name not in found["missing_keys"]}
        decoder = self.model.get_output_embeddings()
        ends = {id(end) for end in (self.model.get_input_embeddings().weight, decoder.weight, decoder.bias)}
        self.shape = parameters.keys() - TABLES.keys()
        self.of_vocabulary = {name for name, value in parameters.items() if id(value) in ends}
        self.pieces = self._pieces(self.tokenizer.get_vocab())

    def _pieces(self, vocabulary: dict[str, int]) -> list[str]:
        """The name of each row of the vocabulary; special tokens by their role, rows without a piece by number."""
        names = [f"{_UNNAMED}{row}" for row in range(self.model.config.vocab_size)]
        for piece, row in vocabulary.items():
            names[row] = piece
        for role in ROLES:
            if (piece := getattr(self.tokenizer, role)) in vocabulary:
                names[vocabulary[piece]] = _UNNAMED + role
        return names

    def names(self, tensor: str) -> list[str] | None:
        """What the rows of a tensor are called, in order; None if they have no names."""
        if tensor in TABLES:
            return getattr(self.model.config, TABLES[tensor])
        return self.pieces if tensor in self.of_vocabulary else None


def average(models: Sequence[str], output: str | Path, weights: Sequence[float] = ()) -> Averaged:
    """Write the mean of two or more checkpoints of one shape.

    The vocabulary, the tokenizer and the number type are the first one's; the tables have the rows of all.

    Args:
        models: folders or Hub ids; stock XLM-R shaped checkpoints are fine.
        output: a folder that does not exist yet.
        weights: how much each counts, positive; they are divided by their sum. Default: all the same.

    Raises:
        FileExistsError: there is something at the output.
        ValueError: fewer than two models, weights that do not fit, or models of different shapes.
    """
    must_be_new(output)
    if len(models) < 2:
        raise ValueError("a mean needs two models at least.")
    weights = list(weights) or [1.0] * len(models)
    if len(weights) != len(models) or not all(math.isfinite(w) and w > 0 for w in weights):
        raise ValueError(f"{len(models)} models need {len(models)} positive weights, not {weights}.")
    shares = [weight / sum(weights) for weight in weights]
    parts = [Part(resolve_model(model)) for model in models]
    first = parts[0]
    for part in parts[1:]:
        if different := sorted(part.shape ^ first.shape):
            where = first if different[0] in first.shape else part
            raise ValueError(
                f"{part.source.name} and {first.source.name} are of different shapes: {where.source.name} alone has "
                f"{different[0]}; only models that were trained from one start can be averaged."
            )
    model, tokenizer = _empty(parts), first.tokenizer
    left_out = len({piece for part in parts for piece in part.pieces} - {*first.pieces})
    if left_out:
        logger.warning("%d pieces that %s does not have are left out", left_out, first.source.name)
    with torch.no_grad():
        for name, target in model.named_parameters():
            names = getattr(model.config, TABLES[name]) if name in TABLES else first.names(name)
            target.copy_(_mean(name, target, names, parts, shares))
    tokenizer.languages, tokenizer.scripts = model.config.languages, model.config.scripts
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if (first.source.path / HANDLER).is_file():
            add_handler(folder)
        write_card(folder, repo=Path(output).name, base_model=first.source.name if first.source.revision else None)
    languages, scripts = (max(0, len(names) - 1) for names in (model.config.languages, model.config.scripts))
    return Averaged(Path(output), shares, languages, scripts, left_out)


def _empty(parts: Sequence[Part]) -> LangSAMPForMaskedLM:
    """A model of the first one's shape, vocabulary and type with the languages and scripts of all."""
    config = copy.deepcopy(parts[0].model.config)
    for kind in TABLES.values():
        setattr(config, kind, list(dict.fromkeys(code for part in parts for code in getattr(part.model.config, kind))))
    return LangSAMPForMaskedLM(config).to(parts[0].model.dtype).eval()


def _mean(
    name: str, target: Tensor, names: Sequence[str] | None, parts: Sequence[Part], shares: Sequence[float]
) -> Tensor:
    """The mean of a tensor in double precision, each row over the parts that have it.

    Raises:
        ValueError: nobody has it, or it has different shapes.
    """
    total = torch.zeros(target.shape, dtype=torch.float64)
    weight = torch.zeros(len(target), dtype=torch.float64)
    for part, share in zip(parts, shares):
        if (tensor := part.tensors.get(name)) is None:
            continue
        rows = {row: number for number, row in enumerate(part.names(name) or ())}
        if tensor.shape[1:] != target.shape[1:] or (names is None and len(tensor) != len(target)):
            raise ValueError(
                f"{part.source.name} is of another shape: {name} is {tuple(tensor.shape)}, not {tuple(target.shape)}; "
                "only models that were trained from one start can be averaged."
            )
        found = range(len(target)) if names is None else [rows.get(row, -1) for row in names]
        at = torch.tensor(found)
        total[at >= 0] += share * tensor.double()[at[at >= 0]]
        weight[at >= 0] += share
    if not weight.all():
        raise ValueError(f"none of the models has {name}, or all of its rows; a masked-LM head is needed in one.")
    return total / weight.reshape(-1, *[1] * (target.dim() - 1))
