"""Ours, saved through the stock door: it names code it does not have, until convert has written it anew."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from langsamp.checkpoints.convert import convert
from langsamp.hub.push import push

HEADS = [
    (AutoModelForSequenceClassification, "sequence-classification"),
    (AutoModelForTokenClassification, "token-classification"),
    (AutoModelForQuestionAnswering, "question-answering"),
]


@pytest.fixture
def derived(tiny_model_dir, tmp_path):
    """Make a folder as a fine-tuning script without remote code leaves it."""

    def make(auto, **options):
        torch.manual_seed(0)
        auto.from_pretrained(tiny_model_dir, **options).save_pretrained(tmp_path / "derived")
        AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "derived")
        return tmp_path / "derived"

    return make


@pytest.mark.parametrize(("auto", "kind"), HEADS)
def test_a_fine_tuned_one_gets_its_code_back(derived, tmp_path, auto, kind):
    folder = derived(auto)
    assert not list(folder.glob("*.py"))
    done = convert(str(folder), tmp_path / "whole")
    assert (done.kind, done.languages, done.dropped) == (kind, 6, [])
    batch = AutoTokenizer.from_pretrained(folder)(["Das Haus", "Дом стоит"], padding=True, return_tensors="pt")
    with torch.no_grad():
        before = auto.from_pretrained(folder).eval()(**batch)[0]
        for trust in (True, False):
            model = auto.from_pretrained(tmp_path / "whole", trust_remote_code=trust).eval()
            assert type(model).__name__.startswith("LangSAMP" if trust else "XLMRoberta")
            tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole", trust_remote_code=trust)
            assert torch.equal(
                model(**tokenizer(["Das Haus", "Дом стоит"], padding=True, return_tensors="pt"))[0], before
            )


def test_push_names_the_remedy_and_the_remedy_works(derived, tmp_path):
    folder = derived(AutoModelForSequenceClassification, num_labels=3)
    with pytest.raises(FileNotFoundError, match=f"`langsamp convert {folder} NEW`"):
        push(folder, "user/x", dry_run=True)
    convert(str(folder), tmp_path / "whole")
    assert "modeling_langsamp.py" in push(tmp_path / "whole", "user/x", dry_run=True).files
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {name: f"user/other--{target}" for name, target in config["auto_map"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"from another repository .*user/other--.*`langsamp convert"):
        push(folder, "user/x", dry_run=True)
    convert(str(folder), tmp_path / "again")
    assert "user/other" not in (tmp_path / "again" / "config.json").read_text()


def test_a_masked_lm_that_lost_its_tables_goes_on_without(derived, tmp_path, caplog):
    folder = derived(AutoModelForMaskedLM)
    done = convert(str(folder), tmp_path / "whole")
    assert (done.kind, done.languages, done.scripts) == ("masked-lm", 0, 0)
    assert "has lost its language rows" in caplog.text
    AutoModelForMaskedLM.from_pretrained(tmp_path / "whole", trust_remote_code=True)


def test_weights_without_the_head_their_config_names_are_refused(derived, tiny_model_dir, tmp_path):
    folder = derived(AutoModelForSequenceClassification)
    shutil.copy(tiny_model_dir / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"lack classifier\.dense\.bias"):
        convert(str(folder), tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_whole_one_is_used_as_it_is(tiny_model_dir, tmp_path):
    with pytest.raises(ValueError, match="is a checkpoint of this package already"):
        convert(str(tiny_model_dir), tmp_path / "out")
