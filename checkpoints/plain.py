"""Stock XLM-R parts of a checkpoint: a config and a tokenizer without anything of LangSAMP in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

from langsamp.core.files import atomic_write
from langsamp.core.tokenizer import load_tokenizer
from langsamp.safe_files import read_json
from langsamp.tokenization_langsamp import as_class

CONFIG_KEYS = ("auto_map", "languages", "scripts", "table_initializer_range", "architectures", "transformers_version")


def stock_config(folder: Path, **changes: Any) -> XLMRobertaConfig:
    """The config of a checkpoint folder as a stock one.

    Raises:
        ValueError: the folder is not an XLM-R checkpoint.
    """
    config = read_config(folder)
    return XLMRobertaConfig(**{**{k: v for k, v in config.items() if k not in (*CONFIG_KEYS, "model_type")}, **changes})


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of an XLM-R (or LangSAMP) checkpoint folder, as it is."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a checkpoint folder.")
    config = read_json(path)
    if config.get("model_type") != "xlm-roberta":
        raise ValueError(f"{folder} is a {config.get('model_type')!r} model, not XLM-R or LangSAMP.")
    return config


def stock_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint as a stock one: the same pieces and ids, no language and script tables.

    Raises:
        FileNotFoundError: there is no tokenizer in the folder.
    """
    return as_class(PreTrainedTokenizerFast, load_tokenizer(folder))


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a stock tokenizer so that transformers 4 and 5 take its tokenizer.json as it is."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = {key: value for key, value in read_json(path).items() if key != "name_or_path"}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    atomic_write(path, json.dumps(config, ensure_ascii=False, indent=2) + "\n")
