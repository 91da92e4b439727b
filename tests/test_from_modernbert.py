"""The whole command line from a ModernBERT: text to a model that loads by name, and blocks as long as it reads."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from support.families import stock_model, train_tokenizer

from langsamp.cli import main
from langsamp.eval.results.records import read

pytestmark = pytest.mark.slow

LANGUAGES = ("eng_Latn", "deu_Latn", "fin_Latn", "swh_Latn")
SYLLABLES = [consonant + vowel for consonant in "bdgklmnprstvz" for vowel in "aeiou"]
TRAIN = "--use_cpu true --seed 3 --disable_tqdm true --lr_scheduler_type linear"

DOORS = """
import json, sys
sys.modules["langsamp"] = None  # as on a machine without the package
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
found = {}
for trust in (True, False):
    how = {"revision": sys.argv[2], "trust_remote_code": trust}
    batch = AutoTokenizer.from_pretrained(sys.argv[1], **how)(["baba ke<mask> lo"], return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    model = AutoModelForMaskedLM.from_pretrained(sys.argv[1], **how).eval()
    encoder = AutoModel.from_pretrained(sys.argv[1], **how).eval()
    with torch.no_grad():
        results = [model(**inputs).logits, encoder(**inputs).last_hidden_state]
    found[type(model).__name__] = [inputs["input_ids"].tolist(), *(result.tolist() for result in results)]
print(json.dumps(found))
"""


def sentences(language, count, seed):
    """Sentences of numbered meanings, the same in every language; each language has its own word for a meaning."""
    draw, words = random.Random(seed), random.Random(language)
    lexicon = ["".join(words.choices(SYLLABLES, k=2)) for _ in range(60)]
    return [" ".join(lexicon[int(60 * draw.random() ** 2)] for _ in range(4)) for _ in range(count)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus, evaluation data, and a stock ModernBERT with a tokenizer of its kind."""
    folder = tmp_path_factory.mktemp("world")
    for kind in ("corpus", "data/bible_retrieval", "data/lm"):
        (folder / kind).mkdir(parents=True)
    for language in LANGUAGES:
        (folder / "corpus" / f"{language}.txt").write_text("\n".join(sentences(language, 1500, language)))
        for kind in ("bible_retrieval", "lm"):
            rows = enumerate(sentences(language, 40, 7))
            lines = [json.dumps({"id": f"{i:08}", "text": text, "split": "test"}) for i, text in rows]
            (folder / "data" / kind / f"{language}.jsonl").write_text("\n".join(lines) + "\n")
    tokenizer = train_tokenizer("modernbert", [line for name in LANGUAGES for line in sentences(name, 200, name)])
    stock_model("modernbert", tokenizer, folder / "base")
    return folder


@pytest.fixture
def langsamp(world, tmp_path, monkeypatch):
    """A command in the test's own folder; ``base``, ``corpus`` and ``data`` are those of the world."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "corpus", "data"):
        (tmp_path / name).symlink_to(world / name)

    def call(line):
        assert main(line.split()) == 0

    return call


def test_from_text_to_a_model_that_loads_by_name(hub, hub_env, langsamp, tmp_path):
    langsamp("prepare --corpus corpus --tokenizer base --block-size 32 --output store --heldout 8 --num-proc 1")
    how = f"{TRAIN} --max_steps 100 --logging_steps 10 --eval_strategy steps --eval_steps 50"
    rates = "--per_device_train_batch_size 16 --learning_rate 5e-3 --table_lr 5e-2"
    langsamp(f"train --base base --store store --output model {how} {rates}")
    losses = json.loads((tmp_path / "model" / "training.json").read_text())["losses"]
    assert losses["last"] < losses["first"] - 0.5
    assert losses["heldout_loss"] < losses["heldout_loss_missing"] - 0.05
    assert losses["heldout_loss"] < losses["heldout_loss_wrong"] - 0.05

    langsamp("eval --model model --tasks sr-bible,lm,neutrality --data data --output results --sentences 20")
    records = read(tmp_path / "results")
    assert {record.language for record in records if record.task == "lm"} >= {"eng", "deu", "fin", "swh"}
    assert {record.layer for record in records if record.task == "sr-bible"} == {2}  # two thirds of three
    assert {record.task for record in records} == {"sr-bible", "lm", "neutrality"}

    langsamp("export --to encoder --layer 2 model encoder")
    langsamp("export --to monolingual --language fin_Latn model finnish")
    for folder, kind in (("encoder", "ModernBertModel"), ("finnish", "ModernBertForMaskedLM")):
        config = json.loads((tmp_path / folder / "config.json").read_text())
        assert config["architectures"] == [kind]
        assert "auto_map" not in config

    langsamp("push model user/modern --results results")
    name = ["user/modern", hub.repos["user/modern"].resolve("main")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", DOORS, *name], env=hub_env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours, stock = (json.loads(done.stdout.splitlines()[-1])[f"{own}ForMaskedLM"] for own in (
        "LangSAMPModernBert", "ModernBert",
    ))  # fmt: skip
    assert ours == stock  # no ids: the head IS "language unknown"


def test_blocks_of_8192_tokens_train_and_are_evaluated(langsamp, tmp_path):
    langsamp("prepare --corpus corpus --tokenizer base --block-size 8192 --output store --heldout 1 --num-proc 1")
    how = f"{TRAIN} --max_steps 5 --logging_steps 1 --eval_strategy steps --eval_steps 5 --learning_rate 1e-2"
    langsamp(f"train --base base --store store --output long {how} --per_device_train_batch_size 1")
    facts = json.loads((tmp_path / "long" / "training.json").read_text())
    assert facts["tokens_per_step"] == 8192
    assert facts["losses"]["last"] < facts["losses"]["first"]
    assert facts["losses"]["heldout_loss"] > 0
    langsamp("eval --model long --tasks lm --data data --output results --sentences 5")
