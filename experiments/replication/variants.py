"""The models of the replication: the paper's four, and the controls that the paper lacks.

A control changes one thing about "both" and nothing else: same start, blocks, masks, order and learning rates. Whatever
a control shares with "both" is not due to knowing the language.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langsamp import LangSAMPForMaskedLM


class BiasOnly(LangSAMPForMaskedLM):
    """Tables of the same size, but every text takes row 0: one learned vector for all, at the tables' learning rate.

    With Adam this is what the mean over all rows would learn: the same parameters, no language.
    """

    def forward(self, *args: Any, lang_ids: Any = None, script_ids: Any = None, **kwargs: Any) -> Any:
        """As LangSAMP without ids."""
        return super().forward(*args, **kwargs)


class ShuffledIds(LangSAMPForMaskedLM):
    """In training every text takes a random language's row and a random script's: the noise of the rows, no meaning."""

    def forward(self, *args: Any, lang_ids: Any = None, script_ids: Any = None, **kwargs: Any) -> Any:
        """As LangSAMP, with ids drawn from torch's generator of their device."""
        if self.training:
            lang_ids = torch.randint_like(lang_ids, 1, len(self.config.languages))
            script_ids = torch.randint_like(script_ids, 1, len(self.config.scripts))
        return super().forward(*args, lang_ids=lang_ids, script_ids=script_ids, **kwargs)


class AtInput(LangSAMPForMaskedLM):
    """The rows are added to the word embeddings instead of the output, as in XLM (Conneau and Lample, 2019)."""

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        lang_ids: Any = None,
        script_ids: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As LangSAMP; blocks have padding at their end only, so positions may be counted from the left."""
        words = self.get_input_embeddings()(input_ids)
        embeds = super()._add_rows(words, lang_ids, script_ids)
        return super().forward(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)

    def _add_rows(self, hidden: Tensor, *ids: Any) -> Tensor:
        """Nothing at the output."""
        return hidden if len(ids) < 3 or ids[2] is None else hidden.flatten(0, 1).index_select(0, ids[2])

    @torch.no_grad()
    def fold_unknown(self) -> None:
        """Give the unknown rows to the token type that every token has, so that the plain encoder reads them."""
        for table in (self.lang_embeddings, self.script_embeddings):
            self.roberta.embeddings.token_type_embeddings.weight[0] += table.weight[0]
            table.weight -= table.weight[0].clone()


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        about: a few words for tables.
        lang, script: which tables there are.
        kind: the class of the model.
        frozen: the tables start at random (standard deviation 0.02, the paper's) and stay as they are.
        unknown: what the unknown rows become after training.
        lang_dropout: share of blocks trained without ids, after the share `dropout_from` of the steps.
    """

    about: str
    lang: bool = True
    script: bool = True
    kind: type[LangSAMPForMaskedLM] = LangSAMPForMaskedLM
    frozen: bool = False
    unknown: str = "mean"
    lang_dropout: float = 0.0
    dropout_from: float = 0.0

    def prepare(self, model: LangSAMPForMaskedLM) -> LangSAMPForMaskedLM:
        """Turn a LangSAMP model into this variant, in place."""
        model.__class__ = self.kind
        if self.frozen:
            for table in (model.lang_embeddings, model.script_embeddings):
                table.requires_grad_(False)
        return model


VARIANTS: dict[str, Variant] = {
    "baseline": Variant("baseline (no tables)", lang=False, script=False),
    "lang": Variant("language table alone", script=False),
    "script": Variant("script table alone", lang=False),
    "both": Variant("LangSAMP (both tables)"),
    "dropout": Variant("LangSAMP, ids missing in 10 % of blocks", unknown="keep", lang_dropout=0.1),
    "late": Variant(
        "LangSAMP, ids missing in half of the last tenth", unknown="keep", lang_dropout=0.5, dropout_from=0.9
    ),
    "fitted": Variant("LangSAMP, unknown rows fitted at the end", unknown="fitted"),
    "bias": Variant("control: one row for all texts", kind=BiasOnly, unknown="keep"),
    "shuffled": Variant("control: random ids", kind=ShuffledIds),
    "frozen": Variant("control: random rows, not trained", frozen=True),
    "input": Variant("control: rows at the input", kind=AtInput),
}

ZERO = "zero"  # not trained: the loss of "both" with unknown rows of zero instead of the rows' mean


def half(variant: str) -> str:
    """The name of the mean of a trained variant and the start."""
    return f"{variant}-half"


@torch.no_grad()
def halve(model: LangSAMPForMaskedLM, start: LangSAMPForMaskedLM) -> None:
    """Make the encoder the mean of itself and of the start, in place; the masked-LM head stays and no longer fits.

    Such a mean often keeps what the start knew and what was learned (Wortsman et al., 2022).
    """
    for weight, first in zip(model.roberta.parameters(), start.roberta.parameters(), strict=True):
        weight.lerp_(first, 0.5)


def about(name: str) -> str:
    """A few words on a variant, or on what is measured beside the variants."""
    beside = {"start": "the start", ZERO: "LangSAMP, unknown rows zero"}
    beside |= {half(variant): f"mean of the start and {known.about}" for variant, known in VARIANTS.items()}
    return beside[name] if name in beside else VARIANTS[name].about
