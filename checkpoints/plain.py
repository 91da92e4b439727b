"""Stock XLM-R parts of a checkpoint: a config and a tokenizer without anything of LangSAMP in them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast, XLMRobertaConfig

from langsamp.core.files import atomic_write
from langsamp.tokenization_langsamp import MODEL_MAX_LENGTH

CONFIG_KEYS = ("auto_map", "languages", "scripts", "table_initializer_range", "architectures", "transformers_version")
_TOKENIZER_KEYS = (
    "auto_map",
    "languages",
    "scripts",
    "lang",
    "unknown_lang",
    "name_or_path",
    "special_tokens_map_file",
)
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


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
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") != "xlm-roberta":
        raise ValueError(f"{folder} is a {config.get('model_type')!r} model, not XLM-R or LangSAMP.")
    return config


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer, its language and script tables left out: the same pieces and ids, stock classes only.

    With the same folder twice, only tokenizer_config.json is set right.

    Raises:
        FileNotFoundError: there is no tokenizer in the source folder.
    """
    if not (source / "tokenizer.json").is_file():
        if not (source / "sentencepiece.bpe.model").is_file():
            raise FileNotFoundError(f"{source} holds no tokenizer (tokenizer.json), and an export needs its own.")
        with tempfile.TemporaryDirectory(prefix="langsamp-tokenizer-") as fast:
            AutoTokenizer.from_pretrained(source).save_pretrained(fast)  # sentencepiece to tokenizer.json
            copy_tokenizer(Path(fast), target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        if (source / name).is_file() and source != target:
            shutil.copyfile(source / name, target / name)
    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config = {key: value for key, value in config.items() if key not in _TOKENIZER_KEYS}
    if (config.get("model_max_length") or 10**9) > 10**6:  # without a limit nothing would be truncated
        config["model_max_length"] = MODEL_MAX_LENGTH
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # both transformers 4 and 5 then take tokenizer.json as it is
    config["model_input_names"] = ["input_ids", "attention_mask"]
    atomic_write(path, json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def stock_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint, loaded as a stock one."""
    with tempfile.TemporaryDirectory(prefix="langsamp-tokenizer-") as plain:
        copy_tokenizer(folder, Path(plain))
        return PreTrainedTokenizerFast.from_pretrained(plain)
