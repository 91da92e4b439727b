"""The quickstart, made small: everything it promises is there, says what it measured, and goes on where it stopped."""

import json
import re

import pytest

from langsamp.core.manifest import verify_manifest
from langsamp.eval.results.records import read
from langsamp.quickstart import EXAMPLES, Size, quickstart

pytestmark = pytest.mark.slow

SMALL = Size(
    vocabulary=2000, hidden=32, layers=2, block=32, batch=8, steps=6,
    languages=tuple(sorted({*EXAMPLES, "deu_Latn", "fra_Latn"})),
)  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    quickstart(folder, size=SMALL, progress=False)
    return folder


def test_everything_it_promises_is_there(output):
    model = output / "langsamp"
    assert verify_manifest(model) == []
    for name in (
        "README.md",
        "model.safetensors",
        "modeling_langsamp.py",
        "results.jsonl",
        "training.json",
        "handler.py",
    ):
        assert (model / name).is_file(), name
    assert list((model / "plots").glob("*.png"))
    page = (output / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="https?://', page), "the report must work offline"
    assert {path.name for path in (output / "comparison").iterdir()} >= {"compare.md", "compare.json"}


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


def test_a_second_call_goes_on_and_another_size_is_refused(output):
    before = (output / "langsamp" / "model.safetensors").stat().st_mtime_ns
    quickstart(output, size=SMALL, progress=False)
    assert (output / "langsamp" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another size"):
        quickstart(output, progress=False)
