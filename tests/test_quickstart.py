"""The quickstart, made small: everything it promises is there, says what it measured, and goes on where it stopped."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from support.families import stock_model, train_tokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer

from langsamp.cli import main
from langsamp.core.manifest import verify_manifest
from langsamp.eval.results.records import read
from langsamp.quickstart import Size, quickstart
from langsamp.quickstart_summary import EXAMPLES
from langsamp.train.text import cldr

SMALL = Size(
    vocabulary=2000, hidden=32, layers=2, block=32, batch=8, steps=6,
    languages=tuple(sorted({*EXAMPLES, "deu_Latn", "fra_Latn"})),
)  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    quickstart(folder, size=SMALL, progress=False)
    return folder


@pytest.mark.slow
def test_everything_it_promises_is_there(output):
    model = output / "langsamp"
    assert verify_manifest(model) == []
    for name in (
        "README.md",
        "model.safetensors",
        "modeling_langsamp.py",
        "results.jsonl",
        "report.html",
        "training.json",
        "handler.py",
    ):
        assert (model / name).is_file(), name
    assert list((model / "plots").glob("*.png"))
    page = (output / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="https?://', page), "the report must work offline"
    assert {path.name for path in (output / "comparison").iterdir()} >= {"compare.md", "compare.json"}


@pytest.mark.slow
def test_the_two_models_differ_in_the_tables_only(output):
    configs = [json.loads((output / name / "config.json").read_text()) for name in ("baseline", "langsamp")]
    tables = [(config.pop("languages"), config.pop("scripts")) for config in configs]
    assert configs[0] == configs[1]
    assert tables[0] == ([], [])
    assert len(tables[1][0]) == 1 + len({tag[:3] for tag in SMALL.languages})
    facts = [json.loads((output / name / "training.json").read_text()) for name in ("baseline", "langsamp")]
    assert facts[0]["sampling"] == facts[1]["sampling"]
    assert facts[0]["loss_curve"][0] == facts[1]["loss_curve"][0], "same start, same first batch: the same first loss"
    assert facts[0]["loss_curve"][-1] != facts[1]["loss_curve"][-1]


@pytest.mark.slow
def test_the_records_have_their_n_and_the_summary_is_measured(output):
    records = [record for name in ("baseline", "langsamp") for record in read(output / "results" / name)]
    retrieval = [r for r in records if r.task == "sr-cldr" and r.metric == "acc@1" and r.direction == "en->x"]
    assert len(retrieval) == 2 * (len(SMALL.languages) - 1)
    assert all(record.n > 20 for record in retrieval)
    text = (output / "summary.txt").read_text(encoding="utf-8")
    assert "bit-identical" in text
    assert "loss with right ids" in text
    assert re.search(r"SR-CLDR, Acc@1.*over 7 languages", text)
    examples = re.findall(r"(\w{3}_\w{4}): .*<mask>.*\n    told (.+); not told (.+)", text)
    assert [tag for tag, *_ in examples] == list(EXAMPLES)
    assert all(len(guesses.split(", ")) >= 3 for _, *both in examples for guesses in both)
    assert re.search(r"\d+ phrases in \d languages: baseline [\d.]+ %, LangSAMP not told [\d.]+ %, told [\d.]+ %", text)


@pytest.mark.slow
def test_a_second_call_goes_on_and_another_size_is_refused(output):
    before = (output / "langsamp" / "model.safetensors").stat().st_mtime_ns
    quickstart(output, size=SMALL, progress=False)
    assert (output / "langsamp" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another size"):
        quickstart(output, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modernbert", "xlm-roberta"])
def test_it_starts_from_an_encoder_that_there_is(name, output, tmp_path):
    base = tmp_path / "base"
    if name == "modernbert":
        stock_model(name, train_tokenizer(name, [text for tag in EXAMPLES for text in cldr.documents(tag)]), base)
    else:
        shutil.copytree(output / "start", base)
    (base / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n", encoding="utf-8")
    output = tmp_path / "out"
    quickstart(output, size=replace(SMALL, base=str(base)), progress=False)
    model = output / "langsamp"
    assert verify_manifest(model) == []
    stock = AutoModelForMaskedLM.from_pretrained(base)
    configs = [json.loads((output / kind / "config.json").read_text()) for kind in ("baseline", "langsamp")]
    assert [config["model_type"] for config in configs] == [name, name]
    assert [len(config["languages"]) for config in configs] == [0, 1 + len({tag[:3] for tag in SMALL.languages})]
    assert AutoTokenizer.from_pretrained(model).get_vocab() == AutoTokenizer.from_pretrained(base).get_vocab()
    words = [AutoModelForMaskedLM.from_pretrained(output / kind).get_input_embeddings().weight for kind in
             ("baseline", "langsamp")]  # fmt: skip
    for weight in words:  # both went a few small steps from it
        assert 0 < (weight - stock.get_input_embeddings().weight).abs().max().item() < 0.1
    facts = [json.loads((output / kind / "training.json").read_text()) for kind in ("baseline", "langsamp")]
    assert facts[0]["loss_curve"][0] == facts[1]["loss_curve"][0], "same start, same first batch: the same first loss"
    layer = {"modernbert": 2, "xlm-roberta": 1}[name]  # two thirds of three, of two
    assert {r.layer for r in read(output / "results" / "langsamp") if r.task == "sr-cldr"} == {layer}
    card = ModelCard.load(model / "README.md")
    assert card.data.license == "cc-by-4.0", "that of the weights it came from"
    assert name in card.data.tags
    assert {"modernbert": "**Stock ModernBERT**", "xlm-roberta": "**Stock XLM-R**"}[name] in card.text
    text = (output / "summary.txt").read_text(encoding="utf-8")
    assert "bit-identical" in text
    assert "a short run" in text
    assert re.search(r"\d+ phrases in \d languages: baseline [\d.]+ %, LangSAMP not told [\d.]+ %, told [\d.]+ %", text)


@pytest.mark.slow
def test_it_goes_on_from_a_langsamp_and_keeps_its_rows(output, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(output / "langsamp", base)
    languages = (*SMALL.languages, "swa_Latn")
    quickstart(tmp_path / "out", size=replace(SMALL, base=str(base), languages=languages), progress=False)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "out/langsamp"))
    assert after["languages"] == [*before["languages"], "swa"]
    assert json.loads((tmp_path / "out/baseline/config.json").read_text())["languages"] == []


def test_a_base_that_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, capsys):
    """In one sentence each: of no family, without a fast tokenizer, without a mask, nowhere."""
    tokenizer = train_tokenizer("bert", ["a b c"])
    slow, gpt, maskless = tmp_path / "slow", tmp_path / "gpt", tmp_path / "maskless"
    stock_model("bert", tokenizer, slow)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (slow / file).unlink()
    (slow / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    tokenizer.save_pretrained(gpt)
    (gpt / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    tokenizer.mask_token = None
    stock_model("bert", tokenizer, maskless)
    expected = {
        slow: f"{slow} holds no tokenizer, neither a tokenizer.json nor a SentencePiece model.",
        gpt: "LangSAMP knows no encoder of type 'gpt2'",
        maskless: "the tokenizer has no mask or no pad token",
        tmp_path / "nowhere": "there is no folder",
    }
    for base, words in expected.items():
        assert main(["quickstart", "--base", str(base), "--output", str(tmp_path / "out")]) == 1
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1
        assert not (tmp_path / "out").exists()
