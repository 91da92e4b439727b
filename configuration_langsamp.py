"""LangSAMP's configuration: XLM-R's, plus which language and which script each row of the two tables stands for."""

from typing import Any

from transformers import XLMRobertaConfig

from .language_codes import LANGUAGE_PATTERN, SCRIPT_PATTERN, UNKNOWN_LANGUAGE, UNKNOWN_SCRIPT

AUTO_MAP = {
    "AutoConfig": "configuration_langsamp.LangSAMPConfig",
    "AutoModel": "modeling_langsamp.LangSAMPModel",
    "AutoModelForMaskedLM": "modeling_langsamp.LangSAMPForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_langsamp.LangSAMPForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_langsamp.LangSAMPForTokenClassification",
}


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
    repeated = [code for i, code in enumerate(rest) if code == unknown or code in rest[:i]]
    if repeated:
        raise ValueError(f"{kind} must name each row once ({unknown!r} is row 0); repeated: {_some(repeated)}.")
    return [unknown, *rest] if rest else []


def _some(values: list) -> str:
    """Up to ten offenders, so that an error stays one sentence."""
    shown = ", ".join(repr(value) for value in values[:10])
    return shown + (f" and {len(values) - 10} more" if len(values) > 10 else "")


class LangSAMPConfig(XLMRobertaConfig):
    """XLM-R's configuration with the rows of the language and the script table.

    ``model_type`` stays ``"xlm-roberta"`` on purpose: without remote code the same folder loads as stock XLM-R with the
    identical encoder. ``auto_map`` always names every class, whichever class the checkpoint was saved from.

    Attributes:
        languages: ISO 639-3 codes, index = ``lang_ids``. Row 0 is ``und`` and is added. Empty: no language table.
        scripts: ISO 15924 codes, index = ``script_ids``. Row 0 is ``Zyyy`` and is added. Empty: no script table.
            Both empty is the baseline of the paper's ablation.
        table_initializer_range: standard deviation of new table rows. 0 starts from exactly the backbone's logits;
            the official code has 0.02 (paper notes, section 1).
    """

    model_type = "xlm-roberta"

    def __init__(
        self,
        languages: "list[str] | None" = None,
        scripts: "list[str] | None" = None,
        table_initializer_range: float = 0.0,
        **kwargs: Any,
    ):
        self.languages: list[str] = languages or []  # __setattr__ adds row 0
        self.scripts: list[str] = scripts or []
        self.table_initializer_range = table_initializer_range
        kwargs["auto_map"] = {**(kwargs.get("auto_map") or {}), **AUTO_MAP}
        super().__init__(**kwargs)

    def __setattr__(self, key: str, value: Any) -> None:
        """Keep the tables valid however they are set, also by ``from_pretrained(..., languages=[...])``."""
        if key in ("languages", "scripts"):
            value = table_rows(value, key)
        elif key == "architectures" and value:  # tools that run no remote code find the stock class by this name
            value = [name.replace("LangSAMP", "XLMRoberta") for name in value]
        super().__setattr__(key, value)

    @classmethod
    def from_backbone(
        cls,
        backbone: XLMRobertaConfig,
        languages: "list[str] | None" = None,
        scripts: "list[str] | None" = None,
        **kwargs: Any,
    ) -> "LangSAMPConfig":
        """A LangSAMP configuration around a stock XLM-R one; ``languages`` and ``scripts`` come without row 0."""
        stock = backbone.to_dict()
        for key in ("model_type", "architectures", "transformers_version", "auto_map", "languages", "scripts"):
            stock.pop(key, None)
        return cls(**{**stock, **kwargs}, languages=languages, scripts=scripts)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Make sure that a tokenizer's ids mean the rows of these tables.

        Raises:
            ValueError: the first row that differs, by table, number and both names.
        """
        for kind in ("languages", "scripts"):
            ours, theirs = getattr(self, kind), list(getattr(tokenizer, kind, []))
            if not ours:  # no table: ids are ignored
                continue
            for row in range(max(len(ours), len(theirs))):
                mine, other = (table[row] if row < len(table) else "nothing" for table in (ours, theirs))
                if mine != other:
                    raise ValueError(
                        f"the tokenizer's {kind} disagree with the model's: row {row} is {other!r} in the tokenizer "
                        f"and {mine!r} in the model; make the tokenizer with {kind}=model.config.{kind}."
                    )


LangSAMPConfig.register_for_auto_class()
