"""Stock parts of a checkpoint: an encoder and a tokenizer without anything of LangSAMP in them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedTokenizerFast

from langsamp.core.files import atomic_write
from langsamp.core.model.config import read_config
from langsamp.core.model.tokenizer import load_tokenizer
from langsamp.safe_files import read_json
from langsamp.tokenization_langsamp import as_class


def stock_encoder(folder: Path, layers: int) -> Any:
    """A stock encoder of the first blocks of a checkpoint, its weights at random; no pooler.

    Raises:
        ValueError: the folder is no checkpoint of a family that LangSAMP knows.
    """
    config = read_config(folder)
    kind = getattr(transformers, config.family.stock + "Model")
    options = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind).parameters else {}
    return kind(config.stock(num_hidden_layers=layers), **options)


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
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": tokenizer.model_input_names}
    atomic_write(path, json.dumps(config, ensure_ascii=False, indent=2) + "\n")
