"""Our own checkpoints that were saved through the stock door, fine-tuned for example: they name our code and lack it.

Loaded by our classes and saved again, they have it; that is all, and `langsamp convert` does it.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel

from langsamp import modeling_langsamp
from langsamp.configuration_langsamp import TASKS, LangSAMPConfig
from langsamp.safe_files import read_json

logger = logging.getLogger(__name__)


def is_ours(folder: Path) -> bool:
    """Whether a folder holds one of our checkpoints.

    Raises:
        ValueError: one that has its code beside it already, so that there is nothing to mend or convert.
    """
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    names = json.dumps(config.get("auto_map") or {})
    if "languages" not in config and "modeling_langsamp" not in names:
        return False
    if (folder / "modeling_langsamp.py").is_file() and "--" not in names:
        raise ValueError(f"{folder} is a checkpoint of this package already; it is used as it is.")
    return True


def reloaded(folder: Path) -> tuple[PreTrainedModel, list[str]]:
    """The model of a folder in our class for its head, and the names of tensors that have no place in it.

    A masked LM that a stock class saved has lost its tables, and goes on without.

    Raises:
        ValueError: tensors of the encoder or the head are missing.
    """
    config: Any = LangSAMPConfig.from_pretrained(folder)
    head = (config.architectures or [""])[0]
    task = next((task for task in TASKS if head.endswith(f"For{task}")), None)
    tables = {name for name in _tensors(folder) if name.startswith(("lang_embeddings", "script_embeddings"))}
    if task == "MaskedLM" and not tables and (config.languages or config.scripts):
        logger.warning("%s was saved without remote code and has lost its language rows; it goes on without", folder)
        config.languages, config.scripts = [], []
    kind = getattr(modeling_langsamp, config.family.ours + (f"For{task}" if task else "Model"))
    model, found = kind.from_pretrained(folder, config=config, dtype="auto", output_loading_info=True)
    if lacking := sorted(found["missing_keys"]):
        raise ValueError(f"the weights in {folder} lack {', '.join(lacking)}: this is not a whole {head} checkpoint.")
    return model.eval(), sorted(found["unexpected_keys"])


def _tensors(folder: Path) -> set[str]:
    """The names of all tensors in a folder."""
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names |= set(file.keys())
    return names
