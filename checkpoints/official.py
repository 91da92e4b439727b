"""Reading a checkpoint of the official code (cisnlp/LangSAMP), or a stock XLM-R one: config, tensors, kind of head.

Nothing here runs code from a checkpoint: safetensors, or torch state dicts read with ``weights_only=True``.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from langsamp.core.manifest import not_fetched
from langsamp.safe_files import read_json

LANG_TABLE = "roberta.embeddings.lang_type_embeddings.weight"
SCRIPT_TABLE = "roberta.embeddings.script_type_embeddings.weight"
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model.safetensors", "pytorch_model.bin")
# Not parameters: buffers that some versions of transformers and of the official code have saved.
_BUFFERS = ("position_ids", "token_type_ids", "token_lang_ids", "token_script_ids")
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel and torch.compile, in either order
_OFFICIAL_KEYS = (
    "lang_size",
    "script_size",
    "use_lang_embedding",
    "use_script_embedding",
    "decouple_at_input_embeddings",
    "architectures",
    "auto_map",
    "model_type",
    "transformers_version",
    "_name_or_path",
)


@dataclass(frozen=True)
class Official:
    """A checkpoint as read: ``state`` has every key with the prefix ``roberta.`` or of a head."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    kind: str  # "masked-lm", "sequence-classification", "token-classification" or "encoder"

    @property
    def backbone(self) -> dict[str, Any]:
        """The config without what only the official code knows."""
        return {key: value for key, value in self.config.items() if key not in _OFFICIAL_KEYS}


def read_official(folder: Path) -> Official:
    """Read a folder of the official code, of any size, variant and head.

    Raises:
        FileNotFoundError: config.json or the weights are missing.
        ValueError: not XLM-R, a variant that cannot be represented, a damaged file, or weights that only a pickle could
            give.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a checkpoint folder.")
    config = read_json(path)
    _check_config(config, folder)
    state = {_name(key): tensor for key, tensor in read_state(folder).items()}
    state = {key: tensor for key, tensor in state.items() if key.rpartition(".")[2] not in _BUFFERS}
    kind = _kind(config, state, folder)
    _check_tables(config, state, folder, kind)
    return Official(config, state, kind)


def read_state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, from one file or from shards; safetensors are preferred.

    Raises:
        FileNotFoundError: no weights, or a shard that the index names is missing.
        ValueError: a pickle of whole Python objects, a damaged file, or an index that names files elsewhere.
    """
    for whole, index in zip(_WHOLE, _INDEXES):
        if (folder / whole).is_file():
            return _load(folder / whole)
        if (folder / index).is_file():
            shards = read_json(folder / index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
                raise ValueError(f"{folder / index} has no weight_map, so it is not an index of shards; save it again.")
            state: dict[str, Tensor] = {}
            for name in sorted(set(shards.values())):
                if Path(name).name != name or not name.endswith(Path(whole).suffix):
                    raise ValueError(f"{folder / index} names {name!r}, which is no *{Path(whole).suffix} beside it.")
                if not (folder / name).is_file():
                    raise FileNotFoundError(f"{folder} has no {name}, but {index} names it; download it again.")
                state.update(_load(folder / name))
            return state
    raise FileNotFoundError(f"{folder} holds no weights; it needs one of {', '.join((*_WHOLE, *_INDEXES))}.")


def _load(path: Path) -> dict[str, Tensor]:
    if problem := not_fetched(path):
        raise ValueError(f"{path.parent} cannot be read ({problem}).")
    state: Any
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is a pickle of whole Python objects, which could run code, or it is damaged; save its "
            "state_dict() with the code that made it, or as safetensors."
        ) from None
    except OSError:
        raise
    except Exception as error:  # a torn pickle may raise anything
        reason = str(error).partition("\n")[0].partition(". ")[0] or "it is empty"
        raise ValueError(f"{path} is damaged ({reason}); download or save it again.") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is not a state dict of tensors.")
    return state


def _name(key: str) -> str:
    """The key of the bare model; the encoder saved on its own has no prefix and gets it."""
    while key.startswith(_WRAPPERS):
        key = key.partition(".")[2]
    return f"roberta.{key}" if key.startswith(("embeddings.", "encoder.", "pooler.")) else key


def _check_config(config: dict[str, Any], folder: Path) -> None:
    if config.get("model_type") != "xlm-roberta":
        raise ValueError(f"{folder} is a {config.get('model_type')!r} model; only XLM-R and LangSAMP can be converted.")
    uses = [config.get(f"use_{name}_embedding", True) for name in ("lang", "script")]  # True: the official default
    if config.get("decouple_at_input_embeddings") and any(uses):
        raise ValueError(
            f"{folder} has decouple_at_input_embeddings=true: its language and script vectors enter below the encoder "
            "(where the official code also indexes the script table with language ids), so its encoder needs ids and "
            "is not a LangSAMP encoder; only models that add them at the output can be converted."
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"{folder} has {config['position_embedding_type']!r} position embeddings; XLM-R has absolute ones."
        )


def _check_tables(config: dict[str, Any], state: dict[str, Tensor], folder: Path, kind: str) -> None:
    """The tables are those that the flags announce, as the official code would load them; unused ones are taken out.

    Only the masked LM needs them: in the other classes they change nothing, so that they may have been left out.
    """
    for name, key in (("lang", LANG_TABLE), ("script", SCRIPT_TABLE)):
        used = config.get(f"use_{name}_embedding", key in state)
        if not used:
            state.pop(key, None)
        elif key not in state:
            if kind != "masked-lm":
                continue
            raise ValueError(f"{folder} has use_{name}_embedding=true, but its weights lack {key}.")
        elif config.get(f"{name}_size", len(state[key])) != len(state[key]):
            raise ValueError(
                f"{key} has {len(state[key])} rows, but {folder / 'config.json'} says {config[f'{name}_size']}."
            )


def _kind(config: dict[str, Any], state: dict[str, Tensor], folder: Path) -> str:
    """The head that the tensors make up."""
    if any(key.startswith("lm_head.") for key in state):
        return "masked-lm"
    if "classifier.out_proj.weight" in state:
        return "sequence-classification"
    if "classifier.weight" in state and not any("MultipleChoice" in name for name in config.get("architectures") or []):
        return "token-classification"
    heads = sorted({key.partition(".")[0] for key in state} - {"roberta"})
    if heads:
        raise ValueError(
            f"{folder} has a head that LangSAMP has no class for ({', '.join(heads)}); masked LM, sequence and token "
            "classification and the encoder alone can be converted."
        )
    return "encoder"
