"""A real pretrained XLM-R (12 layers, 250,037 pieces) becomes a LangSAMP of 610 languages and passes both doors.

The checkpoint is made from two packages by a tool beside the development data; .ci/run makes it and names its folder in
LANGSAMP_E5.
"""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer
from langsamp.checkpoints.official_ids import read_id_lists

pytestmark = pytest.mark.slow
LANGUAGES, SCRIPTS = read_id_lists()


@pytest.fixture(scope="module")
def real() -> Path:
    folder = Path(os.environ.get("LANGSAMP_E5", "no such folder"))
    if not folder.is_dir():
        pytest.skip("no real checkpoint here (set LANGSAMP_E5 to its folder)")
    return folder


@pytest.fixture(scope="module")
def lines(shared) -> dict[str, list[str]]:
    """A few lines of real text in every script there is, one language a script."""
    import pyarrow.parquet as pq

    found = {}
    for path in sorted((shared / "data" / "mlm").glob("*.parquet")):
        language, _, script = path.stem.partition("_")
        if script not in {tag.partition("_")[2] for tag in found} and language in LANGUAGES:
            found[path.stem] = pq.read_table(path, columns=["text"])["text"].to_pylist()[:20]
    return found


def test_pieces_are_those_of_the_stock_tokenizer_in_over_twenty_scripts(real, lines):
    ours = LangSAMPTokenizer.from_pretrained(real, languages=LANGUAGES, scripts=SCRIPTS)
    stock = AutoTokenizer.from_pretrained(real)  # by its own class, which adds to tokenizer.json
    assert len(ours.languages) == 611
    assert len(ours.scripts) == 31
    assert len(lines) > 20
    for tag, texts in lines.items():
        language, _, script = tag.partition("_")
        encoding = ours(texts, lang=language)
        assert encoding["input_ids"] == stock(texts)["input_ids"], tag
        assert set(encoding["lang_ids"]) == {ours.languages.index(language)}
        if script in ours.scripts:
            assert encoding["script_ids"].count(ours.scripts.index(script)) > len(texts) / 2, tag


def test_two_doors(real, lines, run_fresh, tmp_path):
    """610 languages and 30 scripts, trained-looking rows, folded; both doors agree bit for bit on real text."""
    torch.manual_seed(0)
    model = LangSAMPForMaskedLM.from_pretrained(real, languages=LANGUAGES, scripts=SCRIPTS, dtype=torch.float32)
    with torch.no_grad():
        for table in (model.lang_embeddings, model.script_embeddings):
            table.weight.normal_(std=0.02)
    model.fold_unknown()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    LangSAMPTokenizer.from_pretrained(real, languages=LANGUAGES, scripts=SCRIPTS).save_pretrained(folder)
    texts = [line for texts in lines.values() for line in texts[:1]][:8]
    results = []
    for trust in (True, False):
        out = tmp_path / f"{trust}.safetensors"
        kind = run_fresh(f"""
import sys, torch; sys.modules["langsamp"] = None
from transformers import AutoModelForMaskedLM, AutoTokenizer
from safetensors.torch import save_file
tok = AutoTokenizer.from_pretrained({str(folder)!r}, trust_remote_code={trust})
model = AutoModelForMaskedLM.from_pretrained({str(folder)!r}, trust_remote_code={trust}).eval()
batch = tok({texts!r}, padding=True, truncation=True, max_length=32, return_tensors="pt")
batch = {{key: batch[key] for key in ("input_ids", "attention_mask")}}
with torch.no_grad():
    output = model(**batch, output_hidden_states=True)
hidden = {{f"hidden.{{i}}": h.contiguous() for i, h in enumerate(output.hidden_states)}}
save_file({{**hidden, "input_ids": batch["input_ids"], "logits": output.logits[:, :4].contiguous()}}, {str(out)!r})
print(type(model).__name__)
""")
        assert kind.split()[-1] == ("LangSAMPForMaskedLM" if trust else "XLMRobertaForMaskedLM")
        results.append(load_file(out))
    assert len(results[0]) == 15
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name]), name
