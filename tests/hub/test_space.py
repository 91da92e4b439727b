"""The Gradio Space: what its three tabs show, from the file as it is copied to a Space."""

from __future__ import annotations

import importlib.util
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml

SPACE = Path(str(files("langsamp.hub"))) / "space"
pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def explorer(app, tiny_model_dir):
    return app.Explorer(str(tiny_model_dir))


def test_told_and_unknown_side_by_side(explorer, app):
    text = "Das <mask> steht am Fluss."
    told, unknown = explorer.fill(text, "deu")
    assert told != unknown
    assert all(0 < share <= 1 for share in told.values())
    assert explorer.fill(text, "rus")[1] == unknown
    assert explorer.fill(text, app.UNKNOWN)[0] == unknown
    batch = explorer.tokenizer(text, return_tensors="pt")
    stock = explorer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    at = (explorer.tokenizer(text)["input_ids"]).index(explorer.tokenizer.mask_token_id)
    best = stock[0, at].softmax(-1).max().item()
    assert max(unknown.values()) >= best - 1e-6


def test_missing_masks_are_explained(explorer):
    with pytest.raises(ValueError, match="Write <mask> where"):
        explorer.fill("no mask", "deu")
    with pytest.raises(ValueError, match="Write <mask> where"):
        explorer.fill("", "deu")
    with pytest.raises(ValueError, match="beyond the first 512"):
        explorer.fill("word " * 700 + "<mask>", "deu")


def test_map_has_every_language(explorer):
    table = explorer.positions
    assert len(table) == 6
    assert "German (deu)" in set(table["language"])
    assert set(table["script"]) == {"Latn", "Cyrl", "Grek", "Deva", "Jpan"}
    assert 0 < table.attrs["share"] <= 1
    assert "German" in set(table["name"])


def test_only_languages_with_room_are_named(app, explorer, monkeypatch):
    monkeypatch.setattr(app, "NAMED", 2)
    monkeypatch.delitem(explorer.__dict__, "positions", raising=False)
    table = explorer.positions
    named = table[table["name"] != ""]
    assert len(named) == 2
    points = torch.tensor(table[["component 1", "component 2"]].to_numpy())
    gaps = torch.cdist(points, points).fill_diagonal_(torch.inf).amin(dim=1)
    assert set(named.index) == set(gaps.topk(2).indices.tolist())
    del explorer.__dict__["positions"]


def test_relatives_by_hand(explorer, app):
    rows = explorer.model.lang_embeddings.weight.detach()[1:]
    rows = rows - rows.mean(0)
    cosines = torch.nn.functional.cosine_similarity(rows, rows[explorer.languages.index("deu")][None])
    order = sorted((c for c in explorer.languages if c != "deu"), key=lambda c: -cosines[explorer.languages.index(c)])
    table = explorer.relatives("deu")
    assert list(table["language"]) == [app.name_of(code) for code in order]
    assert table["cosine"].is_monotonic_decreasing
    assert list(explorer.relatives("deu", ["rus", "xxx", "deu"])["language"]) == ["Russian (rus)"]


def test_a_model_without_rows_is_refused(app, tiny_xlmr_dir, tmp_path):
    from langsamp import LangSAMPForMaskedLM, LangSAMPTokenizer

    LangSAMPForMaskedLM.from_pretrained(tiny_xlmr_dir).save_pretrained(tmp_path)
    LangSAMPTokenizer.from_pretrained(tiny_xlmr_dir).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no language vectors"):
        app.Explorer(str(tmp_path))


def test_page_is_built(app, explorer):
    pytest.importorskip("gradio")
    pytest.importorskip("plotly")
    page = app.build(explorer)
    assert {"fill", "relatives"} <= {dependency["api_name"] for dependency in page.config["dependencies"]}


def test_what_the_page_shows(app, explorer):
    """An error is HTML, in which a bare <mask> would vanish; a language that is not told has no panel of its own."""
    gradio = pytest.importorskip("gradio")
    pytest.importorskip("plotly")
    fill = next(known.fn for known in app.build(explorer).fns.values() if known.api_name == "fill")
    with pytest.raises(gradio.Error, match="Write &lt;mask&gt; where a word is to be guessed"):
        fill("no mask", "deu")
    told, unknown = fill("Das <mask> steht.", "deu")
    assert (told.label, told.visible) == ("Told: German (deu)", True)
    assert unknown == explorer.fill("Das <mask> steht.", app.UNKNOWN)[1]
    assert fill("Das <mask> steht.", app.UNKNOWN)[0].visible is False


def test_files_of_a_space():
    head = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    assert len(head["short_description"]) <= 60  # the Hub's limit
    wanted = (SPACE / "requirements.txt").read_text().split()
    assert any(line.startswith("gradio") and head["sdk_version"].split(".")[0] in line for line in wanted)
