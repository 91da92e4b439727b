"""LangSAMP's configuration: an encoder's own, plus which language and script each row of the two tables stands for.

The encoder is a choice: ``FAMILIES`` has all there are. What LangSAMP adds stands once, in ``LangSAMPConfigMixin``.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import transformers
from transformers import PretrainedConfig, XLMRobertaConfig
from transformers.dynamic_module_utils import get_relative_import_files

from .language_codes import LANGUAGE_PATTERN, SCRIPT_PATTERN, UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT, suggest
from .safe_files import tables_disagree

TASKS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
# what of a configuration says nothing to a stock class
NOT_STOCK = (
    "model_type",
    "auto_map",
    "architectures",
    "transformers_version",
    "languages",
    "scripts",
    "table_initializer_range",
)


@dataclass(frozen=True)
class Family:
    """An encoder that LangSAMP can stand on.

    Attributes:
        stock: how the names of its classes in transformers begin.
        ours: how the names of ours begin.
        layers: where the encoder has its layers.
        norm: where it has the norm behind its last layer, if it normalises before each layer instead of after it.
        dense: where the masked LM has its head's first linear layer, whose bias the unknown rows fold into.
        head: what the head does up to its decoder: modules of the masked LM, one after the other, and ``gelu``.
        after_padding: whether its positions are counted from the padding id on.
        needs: settings that the configuration must have, for that layer to have a bias.
        added: a pattern of the tensors that they add to a checkpoint without them; these start at zero.
    """

    stock: str
    ours: str
    layers: str
    dense: str
    head: "tuple[str, ...]"
    norm: "str | None" = None
    after_padding: bool = False
    needs: "dict[str, Any]" = field(default_factory=dict)
    added: str = r"(?!)"

    def lacking(self, missing: "Iterable[str]") -> "list[str]":
        """Of the tensors that a checkpoint is missing those that it should have: all but what LangSAMP adds to it."""
        ours = re.compile(rf"^(lang|script)_embeddings\.|position_ids$|{self.added}")
        return sorted(name for name in missing if not ours.search(name))

    def auto_map(self) -> "dict[str, str]":
        """Every class that the checkpoint can be loaded as with remote code."""
        models = {"AutoModel": "Model", **{f"AutoModelFor{task}": f"For{task}" for task in TASKS}}
        # hasattr would import torch and the model, and dir takes a tenth of a second
        known = set(transformers.__all__)  # type: ignore[attr-defined]
        return {"AutoConfig": f"configuration_langsamp.{self.ours}Config"} | {
            auto: f"modeling_langsamp.{self.ours}{kind}" for auto, kind in models.items() if self.stock + kind in known
        }


_ROBERTA: Any = {
    "layers": "encoder.layer",
    "dense": "lm_head.dense",
    "head": ("lm_head.dense", "gelu", "lm_head.layer_norm"),
    "after_padding": True,
}
FAMILIES = {
    "xlm-roberta": Family("XLMRoberta", "LangSAMP", **_ROBERTA),
    "xlm-roberta-xl": Family("XLMRobertaXL", "LangSAMPXLMRobertaXL", norm="encoder.LayerNorm", **_ROBERTA),
    "bert": Family(
        "Bert",
        "LangSAMPBert",
        layers="encoder.layer",
        dense="cls.predictions.transform.dense",
        head=("cls.predictions.transform",),
    ),
    "modernbert": Family(
        "ModernBert",
        "LangSAMPModernBert",
        layers="layers",
        dense="head.dense",
        head=("head",),
        norm="final_norm",
        needs={"classifier_bias": True},
        added=r"(^|\.)head\.dense\.bias$",
    ),
    "eurobert": Family(  # its head is the decoder alone, and one switch gives it and all feed-forward layers a bias
        "EuroBert",
        "LangSAMPEuroBert",
        layers="layers",
        dense="lm_head",
        head=(),
        norm="norm",
        needs={"mlp_bias": True},
        added=r"(^lm_head|mlp\.\w+_proj)\.bias$",
    ),
}
AUTO_MAP = FAMILIES["xlm-roberta"].auto_map()


def table_rows(codes: "list[str] | tuple[str, ...] | None", kind: str) -> "list[str]":
    """The rows of one table: the unknown row first, then the codes in the order given. No codes: no table, no rows.

    Args:
        codes: ISO 639-3 codes (``kind="languages"``) or ISO 15924 codes (``kind="scripts"``), with or without row 0.
        kind: what the codes are; also the name used in errors.

    Raises:
        ValueError: malformed or repeated codes, all of them named.
    """
    unknown, pattern, example = {
        "languages": (UNKNOWN_LANGUAGE, LANGUAGE_PATTERN, "ISO 639-3 codes like 'deu'"),
        "scripts": (UNKNOWN_SCRIPT, SCRIPT_PATTERN, "ISO 15924 codes like 'Latn'"),
    }[kind]
    if isinstance(codes, str):
        raise ValueError(f"{kind} must be a list of {example}, not the string {codes!r}.")
    given = list(codes or [])
    rest = given[1:] if given and given[0] == unknown else given
    malformed = [code for code in rest if not (isinstance(code, str) and pattern.fullmatch(code))]
    if malformed:
        raise ValueError(f"{kind} must be {example}; malformed: {_some(malformed)}.")
    repeated = [code for code, times in Counter([unknown, *rest]).items() if times > 1]
    if repeated:
        raise ValueError(f"{kind} must name each row once ({unknown!r} is row 0); repeated: {_some(repeated)}.")
    return [unknown, *rest] if rest else []


def _some(values: list) -> str:
    """Up to ten offenders, so that an error stays one sentence."""
    shown = ", ".join(repr(value) for value in values[:10])
    return shown + (f" and {len(values) - 10} more" if len(values) > 10 else "")


_Stock: Any = object  # a stock configuration stands behind the mix-in; to mypy it has whatever that asks of it


class LangSAMPConfigMixin(_Stock):
    """What LangSAMP adds to the configuration of a family: the rows of the language and the script table.

    ``model_type`` stays the stock one on purpose: without remote code the same folder loads as a stock model with the
    identical encoder. ``auto_map`` always names every class, whichever class the checkpoint was saved from.

    Attributes:
        languages: ISO 639-3 codes, index = ``lang_ids``. Row 0 is ``und`` and is added. Empty: no language table.
        scripts: ISO 15924 codes, index = ``script_ids``. Row 0 is ``Zyyy`` and is added. Empty: no script table.
            Both empty is the baseline of the paper's ablation.
        table_initializer_range: standard deviation of new table rows. 0 starts from exactly the backbone's logits;
            the official code has 0.02 (paper notes, section 1).
    """

    family: Family  # of the class
    languages: "list[str]"
    scripts: "list[str]"

    def __init__(
        self,
        languages: "list[str] | None" = None,
        scripts: "list[str] | None" = None,
        table_initializer_range: float = 0.0,
        **kwargs: Any,
    ):
        self.languages = languages or []  # __setattr__ adds row 0
        self.scripts = scripts or []
        self.table_initializer_range = table_initializer_range
        kwargs |= {**self.family.needs, "auto_map": {**(kwargs.get("auto_map") or {}), **self.family.auto_map()}}
        super().__init__(**kwargs)

    def __setattr__(self, key: str, value: Any) -> None:
        """Keep the tables valid however they are set, also by ``from_pretrained(..., languages=[...])``."""
        if key in ("languages", "scripts"):
            value = table_rows(value, key)
        elif key == "architectures" and value:  # tools that run no remote code find the stock class by this name
            value = [name.replace(self.family.ours, self.family.stock) for name in value]
        super().__setattr__(key, value)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: "str | PathLike", **kwargs: Any) -> Any:
        """As in transformers, for a folder of any family: the class is that of its ``model_type``.

        Raises:
            ValueError: it is of no family of LangSAMP, or of one that the installed transformers lacks; or an entry is
                of the wrong kind.
        """
        kind = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)[0].get("model_type")  # type: ignore[attr-defined]
        family: Any = super(LangSAMPConfigMixin, config_class(str(kind)) if kind else cls)
        try:
            return family.from_pretrained(pretrained_model_name_or_path, **kwargs)
        except (OSError, ValueError):
            raise
        except Exception as error:  # each version of transformers has its own for a value of the wrong kind
            reason = " ".join(str(error).split())
            raise ValueError(f"the configuration of {pretrained_model_name_or_path} is damaged ({reason}).") from error

    def save_pretrained(self, save_directory: "str | PathLike", *args: Any, **kwargs: Any) -> None:
        """As in transformers, with the code of the models too: ``model.base_model``, a stock one, brings none."""
        super().save_pretrained(save_directory, *args, **kwargs)
        code = Path(__file__).with_name("modeling_langsamp.py")
        for file in (str(code), *get_relative_import_files(code)) if code.is_file() else ():
            shutil.copy(file, save_directory)

    @classmethod
    def from_backbone(
        cls,
        backbone: PretrainedConfig,
        languages: "list[str] | None" = None,
        scripts: "list[str] | None" = None,
        **kwargs: Any,
    ) -> Any:
        """The LangSAMP configuration around a stock one; ``languages`` and ``scripts`` come without row 0.

        Raises:
            ValueError: the backbone is of no family of LangSAMP.
        """
        stock = {key: value for key, value in backbone.to_dict().items() if key not in NOT_STOCK}
        return config_class(backbone.model_type)(**{**stock, **kwargs}, languages=languages, scripts=scripts)

    def stock(self, **changes: Any) -> PretrainedConfig:
        """The stock configuration without anything of LangSAMP, with changes: what the encoder alone needs."""
        values = {key: value for key, value in self.to_dict().items() if key not in NOT_STOCK} | changes
        layers = values["num_hidden_layers"]
        if values.get("layer_types"):  # one entry a layer
            values["layer_types"] = values["layer_types"][:layers]
        return getattr(transformers, self.family.stock + "Config")(**values)

    def row(self, kind: str, name: "str | None") -> int:
        """The id of a code in ``languages`` or ``scripts``.

        Raises:
            ValueError: it has none; the nearest are named.
        """
        names = getattr(self, kind)
        if name not in names:
            raise ValueError(f"{name!r} has no row in this model; nearest: {', '.join(suggest(name or '', names))}.")
        return names.index(name)

    @property
    def max_tokens(self) -> int:
        """The tokens a text can have, specials included."""
        return self.max_position_embeddings - (self.pad_token_id + 1 if self.family.after_padding else 0)

    def to_dict(self) -> "dict[str, Any]":
        """As in transformers, whose 5 writes ModernBERT's attention under names that 4 would overlook."""
        values = super().to_dict()
        rope, kinds = values.get("rope_parameters") or {}, values.get("layer_types") or []
        for name, kind in (("global", "full_attention"), ("local", "sliding_attention")):
            if kind in rope:
                values[f"{name}_rope_theta"] = rope[kind]["rope_theta"]
        if "full_attention" in kinds[1:]:
            values["global_attn_every_n_layers"] = kinds.index("full_attention", 1)
        return values

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Make sure that a tokenizer's ids mean the rows of these tables.

        Raises:
            ValueError: the first row that differs, by table, number and both names.
        """
        kinds = ("languages", "scripts")
        problem = tables_disagree(*({kind: getattr(one, kind, []) for kind in kinds} for one in (self, tokenizer)))
        if problem:
            raise ValueError(f"{problem}.")


class LangSAMPConfig(LangSAMPConfigMixin, XLMRobertaConfig):  # type: ignore[misc]
    """The configuration of a LangSAMP on XLM-R; :meth:`from_backbone` and :meth:`from_pretrained` know every family."""

    model_type, family = "xlm-roberta", FAMILIES["xlm-roberta"]
    __init__ = LangSAMPConfigMixin.__init__  # transformers 5 makes one for a class that names none


def config_class(model_type: str) -> Any:
    """The configuration class of a family.

    Raises:
        ValueError: there is no such family, or the installed transformers lacks it.
    """
    if model_type not in FAMILIES:
        raise ValueError(f"LangSAMP knows no encoder of type {model_type!r}; it knows {', '.join(FAMILIES)}.")
    return globals().get(FAMILIES[model_type].ours + "Config") or _made(model_type)


def as_langsamp(config: Any) -> Any:
    """A configuration as ours: a stock one, or that of another copy of this code, becomes one with what stands in it.

    Raises:
        ValueError: it is of no family of LangSAMP.
    """
    if isinstance(config, LangSAMPConfigMixin):
        return config
    return config_class(str(config.model_type)).from_dict(config.to_dict())


def _made(model_type):
    """The configuration class of a family, made when it is first asked for: most programs need one family only."""
    family = FAMILIES[model_type]
    stock = getattr(transformers, family.stock + "Config", None)
    if stock is None:
        raise ValueError(
            f"transformers {transformers.__version__} has no {family.stock}, which a model of type {model_type!r} is; "
            "install a newer transformers."
        )
    doc = f"The configuration of a LangSAMP on {family.stock}."
    own = {"__init__": LangSAMPConfigMixin.__init__, "family": family, "model_type": model_type}
    about = {"__module__": __name__, "__doc__": doc}
    made: Any = type(family.ours + "Config", (LangSAMPConfigMixin, stock), own | about)
    made.register_for_auto_class()
    return globals().setdefault(made.__name__, made)


def __getattr__(name: str) -> Any:
    """``LangSAMPModernBertConfig`` and its like (PEP 562)."""
    for model_type, family in FAMILIES.items():
        if name == family.ours + "Config":
            return config_class(model_type)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


LangSAMPConfig.register_for_auto_class()
