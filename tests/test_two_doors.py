"""One saved folder, two doors, each tried in a fresh process that has no network and no installed langsamp in sight."""

import json
import shutil

import pytest
import torch

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer

HEADS = ["MaskedLM", "SequenceClassification", "TokenClassification"]
AUTO_CLASSES = ["AutoModel", *(f"AutoModelFor{head}" for head in HEADS)]

# The installed package must not help: the folder has to be complete by itself.
HIDE = "import sys; sys.modules['langsamp'] = None\n"


@pytest.fixture(scope="module")
def saved(tiny_model_dir, tmp_path_factory):
    """A checkpoint saved from the masked-LM class only, its unknown rows folded into the head."""
    folder = tmp_path_factory.mktemp("two-doors")
    model = LangSAMPForMaskedLM.from_pretrained(tiny_model_dir)
    model.fold_unknown()
    model.save_pretrained(folder)
    LangSAMPTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def test_the_folder_is_complete_and_points_nowhere_else(folder):
    names = {path.name for path in folder.iterdir()}
    code = {"configuration_langsamp.py", "modeling_langsamp.py", "tokenization_langsamp.py", "language_codes.py"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "unicode_scripts.py", *code} <= names
    for name in ("config.json", "tokenizer_config.json"):
        auto_map = json.loads((folder / name).read_text())["auto_map"]
        assert "--" not in json.dumps(auto_map)
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 512


def test_both_doors_in_fresh_processes(folder, run_fresh, tmp_path):
    """Hidden states are bit-identical; the stock head gives exactly LangSAMP's logits for unknown ids."""
    script = HIDE + """
import torch, transformers
from transformers import AutoConfig, AutoTokenizer
trust, folder, out = {trust}, {folder!r}, {out!r}
config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
tok = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
batch = dict(tok(["Das Haus steht am Fluss.", "Дом стоит"], padding=True, return_tensors="pt"))
names = [type(config).__name__, type(tok).__name__]
result = {{}}
for name in {classes!r}:
    torch.manual_seed(0)
    model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=trust).eval()
    names.append(type(model).__name__)
    inputs = {{k: v for k, v in batch.items() if k in ("input_ids", "attention_mask")}}
    with torch.no_grad():
        if name == "AutoModel":
            for i, h in enumerate(model(**inputs, output_hidden_states=True).hidden_states):
                result[f"hidden.{{i}}"] = h
        if name == "AutoModelForMaskedLM":
            result["unknown_logits"] = model(**inputs).logits
from safetensors.torch import save_file
save_file({{k: v.contiguous() for k, v in result.items()}}, out)
print(" ".join(names))
"""  # fmt: skip
    names, tensors = {}, {}
    for trust in (True, False):
        out = tmp_path / f"{trust}.safetensors"
        text = run_fresh(script.format(trust=trust, folder=str(folder), out=str(out), classes=AUTO_CLASSES))
        names[trust] = text.split("\n")[-2].split()
        from safetensors.torch import load_file

        tensors[trust] = load_file(out)
    kinds = ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"]
    assert names[True] == ["LangSAMPConfig", "LangSAMPTokenizer", *(f"LangSAMP{kind}" for kind in kinds)]
    assert names[False][2:] == [f"XLMRoberta{kind}" for kind in kinds]
    assert "LangSAMP" not in " ".join(names[False])
    assert tensors[True].keys() == tensors[False].keys()
    for name, tensor in tensors[True].items():
        assert torch.equal(tensor, tensors[False][name]), name


def test_pipelines_through_the_remote_code_door(folder, run_fresh):
    out = run_fresh(HIDE + f"""
from transformers import pipeline
import numpy as np
folder, kwargs = {str(folder)!r}, dict(trust_remote_code=True)
fill = pipeline("fill-mask", model=folder, top_k=3, **kwargs)
plain = fill("Das Haus <mask> am Fluss.")
german = fill("Das Haus <mask> am Fluss.", tokenizer_kwargs={{"lang": "deu_Latn"}})
hindi = fill("Das Haus <mask> am Fluss.", tokenizer_kwargs={{"lang": "hin_Deva"}})
assert len(german) == 3
assert [x["score"] for x in german] != [x["score"] for x in hindi] != [x["score"] for x in plain]
features = pipeline("feature-extraction", model=folder, **kwargs)("Das Haus")
assert np.asarray(features).shape[-1] == 32
labels = pipeline("text-classification", model=folder, batch_size=2, **kwargs)(["Das Haus", "Дом"])
assert len(labels) == 2 and "label" in labels[0]
tags = pipeline("token-classification", model=folder, **kwargs)("Das Haus steht")
assert isinstance(tags, list)
print("pipelines fine")
""")  # fmt: skip
    assert "pipelines fine" in out


def test_the_stock_door_runs_the_widgets_pipeline(folder, run_fresh):
    out = run_fresh(HIDE + f"""
from transformers import pipeline
fill = pipeline("fill-mask", model={str(folder)!r})
print(type(fill.model).__name__, len(fill("Das Haus <mask> am Fluss.")))
""")  # fmt: skip
    assert out.strip().endswith("XLMRobertaForMaskedLM 5")


def test_saving_again_keeps_the_code_and_the_local_map(folder, run_fresh, tmp_path):
    again = tmp_path / "again"
    run_fresh(HIDE + f"""
from transformers import AutoModelForTokenClassification, AutoTokenizer
AutoModelForTokenClassification.from_pretrained({str(folder)!r}, trust_remote_code=True).save_pretrained({str(again)!r})
AutoTokenizer.from_pretrained({str(folder)!r}, trust_remote_code=True).save_pretrained({str(again)!r})
""")  # fmt: skip
    assert (again / "modeling_langsamp.py").exists()
    config = json.loads((again / "config.json").read_text())
    assert "AutoModel" in config["auto_map"]
    assert "--" not in json.dumps(config["auto_map"])
    assert config["languages"][0] == "und"


def test_the_encoder_saved_alone_opens_through_both_doors(folder, run_fresh, tmp_path):
    alone = tmp_path / "alone"
    out = run_fresh(HIDE + f"""
from transformers import AutoModel, AutoModelForMaskedLM
model = AutoModelForMaskedLM.from_pretrained({str(folder)!r}, trust_remote_code=True)
model.base_model.save_pretrained({str(alone)!r})
doors = [AutoModel.from_pretrained({str(alone)!r}, trust_remote_code=remote) for remote in (True, False)]
same = [door.embeddings.word_embeddings.weight.equal(model.get_input_embeddings().weight) for door in doors]
print(*(type(door).__name__ for door in doors), *same)
""")  # fmt: skip
    assert out.strip().endswith("LangSAMPModel XLMRobertaModel True True")


def test_nothing_of_the_folder_runs_through_the_stock_door(folder, run_fresh):
    """A sentinel in the folder's code must not fire without trust."""
    (folder / "modeling_langsamp.py").write_text("raise SystemExit('remote code ran')")
    out = run_fresh(HIDE + f"""
from transformers import AutoModelForMaskedLM
print(type(AutoModelForMaskedLM.from_pretrained({str(folder)!r})).__name__)
""")  # fmt: skip
    assert out.strip().endswith("XLMRobertaForMaskedLM")
