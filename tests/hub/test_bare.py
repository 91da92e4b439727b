"""A pushed checkpoint by name where nothing but torch, transformers and what they need is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from langsamp.hub.documents import complete
from langsamp.hub.push import push

CHECK = """
import sys
sys.path.append(sys.argv[1])
import importlib.util, json, runpy
from huggingface_hub import snapshot_download
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline
name = sys.argv[2]
tok = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
batch = tok(["Das Haus <mask> am Fluss."], lang="de", return_tensors="pt")
logits = AutoModelForMaskedLM.from_pretrained(name, trust_remote_code=True)(**batch).logits
filled = pipeline("fill-mask", model=name, trust_remote_code=True)("Das <mask>.", tokenizer_kwargs={"lang": "deu"})
stock = AutoModel.from_pretrained(name)
folder = snapshot_download(name)
handler = runpy.run_path(folder + "/handler.py")["EndpointHandler"](folder)
answer = handler({"inputs": "Das <mask>.", "parameters": {"lang": "deu_Latn", "top_k": 5}})
print(json.dumps({
    "row": batch["lang_ids"].tolist(), "shape": list(logits.shape), "stock": type(stock).__name__,
    "same": [a["token"] for a in answer] == [a["token"] for a in filled],
    "there": [m for m in ("langsamp", "langcodes", "datasets", "sklearn") if importlib.util.find_spec(m)],
}))
"""  # fmt: skip


@pytest.fixture(scope="session")
def bare(tmp_path_factory) -> Path:
    """A folder of packages: torch, transformers and all that these require, as installed here, and no others."""
    folder = tmp_path_factory.mktemp("bare")
    wanted, seen = ["torch", "transformers"], set()
    while wanted:
        name = wanted.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # required on other systems only
            continue
        if found.name in seen:
            continue
        seen.add(found.name)
        wanted += [re.split(r"[^\w.-]", r)[0] for r in found.requires or [] if "extra ==" not in r]
        for part in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (folder / part).exists():
                (folder / part).symlink_to(found.locate_file(part))
    return folder


def test_by_name_with_torch_and_transformers_alone(hub, hub_env, bare, tiny_model_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    complete(folder, "user/x")
    push(folder, "user/x")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CHECK, bare, "user/x"], env=hub_env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["row"] == [1]
    assert found["stock"] == "XLMRobertaModel"
    assert found["same"]
    assert found["there"] == []
