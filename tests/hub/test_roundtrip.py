"""The life of a checkpoint, each step a new process: train, push, load by name, evaluate, push again, pull, resume."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.loopback import GOOD_TOKEN

from langsamp.core.manifest import verify_manifest
from langsamp.hub.pull import pull

TRAIN = "--max_steps 6 --save_steps 3 --per_device_train_batch_size 4 --use_cpu true --seed 3 --disable_tqdm true"

LOAD = """
import sys, json
sys.modules["langsamp"] = None  # as on a machine without the package
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
name, revision = sys.argv[1], sys.argv[2]
found = {}
for trust in (True, False):
    tok = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust)
    model = AutoModelForMaskedLM.from_pretrained(name, revision=revision, trust_remote_code=trust).eval()
    body = AutoModel.from_pretrained(name, revision=revision, trust_remote_code=trust).eval()
    batch = tok(["Das Haus steht am <mask>."], return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        logits = model(**inputs).logits.double().sum().item()
        hidden = body(**inputs).last_hidden_state.double().sum().item()
    found[type(model).__name__] = [logits, hidden]
print(json.dumps(found))
"""


@pytest.fixture
def run(hub_env, tmp_path):
    """Run a command in a new process against the loopback Hub; its output must not hold the token."""

    def call(*words: str | Path, home: str = "home") -> str:
        env = {**hub_env, "HF_HOME": str(tmp_path / home), "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [str(word) for word in words],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        assert GOOD_TOKEN not in done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture
def langsamp(run):
    return lambda *words, **options: run(sys.executable, "-m", "langsamp", *words, **options)


@pytest.fixture
def load(run):
    """{class: [sum of logits, sum of hidden states]} through both doors, without the package."""
    return lambda name, revision: json.loads(run(sys.executable, "-I", "-c", LOAD, name, revision).splitlines()[-1])


@pytest.fixture
def corpus(texts, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for language, sentences in texts.items():
        (folder / f"{language}.txt").write_text("\n".join(f"{text} {i}" for i in range(20) for text in sentences))
    return folder


@pytest.fixture
def data(texts, tmp_path):
    """Evaluation data: held-out text of three languages."""
    folder = tmp_path / "data" / "lm"
    folder.mkdir(parents=True)
    for language in ("deu_Latn", "eng_Latn", "rus_Cyrl"):
        rows = [json.dumps({"text": text, "split": "test"}) for text in texts[language]]
        (folder / f"{language}.jsonl").write_text("\n".join(rows) + "\n")
    return folder.parent


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_life_of_a_checkpoint(hub, run, langsamp, load, corpus, data, tiny_xlmr_dir, tmp_path, outcome):
    prepare = ["prepare", "--corpus", corpus, "--tokenizer", tiny_xlmr_dir, "--output", "store", "--block-size", "32"]
    langsamp(*prepare, "--num-proc", "1", "--heldout", "2")
    train = ["train", "--base", tiny_xlmr_dir, "--store", "store", *TRAIN.split()]
    langsamp(*train, "--output", "run", "--push_to_hub", "true", "--hub_model_id", "user/x")
    repo = hub.repos["user/x"]
    assert repo.titles("checkpoints")[:2] == ["Training, step 6", "Training, step 3"]
    commit = repo.resolve("main")

    doors = load("user/x", commit)
    assert doors == load(str(tmp_path / "run"), "main")
    assert doors["LangSAMPForMaskedLM"] == doors["XLMRobertaForMaskedLM"]  # unknown language = stock head, bit for bit

    langsamp("eval", "--model", f"user/x@{commit}", "--tasks", "lm", "--data", data, "--output", "results")
    records = [json.loads(line) for line in (tmp_path / "results" / "results.jsonl").read_text().splitlines()]
    assert {record["revision"] for record in records} == {commit}
    langsamp("pull", "user/x", "model")
    langsamp("push", "model", "user/x", "--results", "results")
    card = repo.files()["README.md"].decode()
    assert re.search(r"(?im)^\|.*(loss|lm)\b.*\d", card)
    assert repo.files()["results.jsonl"] == (tmp_path / "results" / "results.jsonl").read_bytes()
    assert "nothing to push" in langsamp("push", "model", "user/x")

    langsamp("pull", "user/x", "elsewhere", home="another machine")
    assert verify_manifest(tmp_path / "elsewhere") == []
    assert sha256(tmp_path / "elsewhere" / "model.safetensors") == sha256(tmp_path / "run" / "model.safetensors")
    shutil.rmtree(tmp_path / "run" / "checkpoint-3")
    langsamp(*train, "--output", "resumed", "--resume", "user/x@step-3", home="another machine")
    assert (tmp_path / "resumed" / "train.jsonl").is_file()
    assert sha256(tmp_path / "resumed" / "model.safetensors") == sha256(tmp_path / "run" / "model.safetensors")

    run(Path(sys.executable).with_name("hf"), "upload", "user/raw", "run", ".")  # the folder as training left it
    assert not [name for name in hub.repos["user/raw"].files() if name.startswith(("checkpoint-", ".langsamp"))]
    assert load("user/raw", hub.repos["user/raw"].resolve("main")) == doors
    pull("user/raw", tmp_path / "raw", strict=True)
    outcome("none", "train, push, load, evaluate, push results, pull, resume", "resumed weights bit-equal")


@pytest.mark.parametrize("tool", ["hf", "huggingface-cli"])
@pytest.mark.slow
def test_upload_by_the_client_alone(hub, run, load, tiny_model_dir, tmp_path, outcome, tool):
    program = Path(sys.executable).with_name(tool)
    if not program.exists():
        pytest.skip(f"this huggingface_hub has no {tool}")
    run(program, "upload", "user/z", tiny_model_dir, ".")
    commit = hub.repos["user/z"].resolve("main")
    assert load("user/z", commit) == load(str(tiny_model_dir), "main")
    result = pull("user/z", tmp_path / "out")
    assert result.commit == commit
    outcome("none", f"{tool} upload", "loads through both doors; pull takes it")
