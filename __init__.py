"""LangSAMP: language-script aware multilingual pretraining. Names load lazily: importing it is cheap."""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "LangSAMPConfig": "configuration_langsamp",
    "LangSAMPModel": "modeling_langsamp",
    "LangSAMPForMaskedLM": "modeling_langsamp",
    "LangSAMPForSequenceClassification": "modeling_langsamp",
    "LangSAMPForTokenClassification": "modeling_langsamp",
    "LangSAMPTokenizer": "tokenization_langsamp",
    "normalize_tag": "core.language.languages",
    "parse_tag": "language_codes",
    "script_of": "unicode_scripts",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'langsamp' has no attribute {name!r}")
    return getattr(importlib.import_module("." + _PUBLIC[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
