"""The model card: metadata the Hub accepts, what a person wrote kept, nothing hostile or private let through."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import huggingface_hub
import langcodes
import pytest
import yaml
from huggingface_hub import ModelCard

from langsamp.eval.results.card.card import write_card
from langsamp.eval.results.card.metadata import hub_language, language_name
from langsamp.eval.results.card.tables import scores
from langsamp.eval.results.records import Record, append

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "card.md"

# The parts of the Hub's metadata schema that a card of ours uses (huggingface.co/docs/hub/model-cards).
ALLOWED_KEYS = {
    "language", "license", "library_name", "pipeline_tag", "mask_token", "base_model", "datasets", "tags", "widget",
}  # fmt: skip


def check_schema(meta: dict) -> None:
    """What ``/api/validate-yaml`` checks, offline."""
    assert set(meta) <= ALLOWED_KEYS
    assert meta["pipeline_tag"] == "fill-mask"
    assert meta["library_name"] == "transformers"
    assert isinstance(meta["license"], str)
    for code in meta.get("language", []):
        assert isinstance(code, str), f"YAML read {code!r} as something else than a language code"
        assert re.fullmatch("[a-z]{2,3}", code)
        assert code in ("hbs", "tok") or langcodes.Language.get(code, normalize=False).is_valid()
    for key in ("datasets", "base_model"):
        values = meta.get(key, [])
        for value in [values] if isinstance(values, str) else values:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", value), value
    for example in meta["widget"]:
        assert set(example) == {"text", "example_title"}
        assert example["text"].count(meta["mask_token"]) == 1


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    (folder / "plots").mkdir(parents=True)
    (folder / "plots" / "language_map.png").write_bytes(b"png")
    codes = ["deu", "nor", "rus", "ell", "hin", "jpn", "hbs", "eml"]
    scripts = ["Latn", "Cyrl", "Grek", "Deva", "Jpan", "Arab"]
    config = {"languages": ["und", *codes], "scripts": ["Zyyy", *scripts], "num_hidden_layers": 12, "hidden_size": 768}
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 401145}))
    tags = zip(codes, ["Latn", "Latn", "Cyrl", "Grek", "Deva", "Jpan", "Latn", "Latn"])
    sampling = [
        {"language": f"{code}_{script}", "blocks": 1000 * (8 - i), "probability": (8 - i) / 36}
        for i, (code, script) in enumerate(tags)
    ]
    training = {
        "base_model": "FacebookAI/xlm-roberta-base@0123456789abcdef0123456789abcdef01234567",
        "datasets": ["cis-lmu/Glot500", "/home/jane.doe/secret corpus"],
        "steps": 20000,
        "tokens": 10485760000,
        "seconds": 93784.2,
        "losses": {"first": 2.91, "last": 1.8765, "heldout_loss": 1.9},
        "settings": {"learning_rate": 5e-5, "alpha": 0.3, "output_dir": "/home/jane.doe/out", "fp16": True},
        "sampling": sampling,
    }
    (folder / "training.json").write_text(json.dumps(training))
    common = {"model": "langsamp", "n": 204}
    append(
        folder,
        [
            Record(task="sib200", language=code, script=script, metric="macro_f1", value=value + seed / 100,
                   seed=seed, source="eng_Latn", **common)
            for seed in (0, 2)
            for code, script, value in (("deu", "Latn", 0.8), ("rus", "Cyrl", 0.7), ("hin", "Deva", 0.3))
        ]
        + [
            Record(task="sr-tatoeba", language="deu", script="Latn", metric=metric, value=value, layer=layer,
                   direction="en->x", **common)
            for layer in (0, 4, 8, 12)
            for metric, value in (("acc@1", 0.5), ("acc@1_lo", 0.4512), ("acc@1_hi", 0.5488))
        ]
        + [Record(task="lm", metric="loss", value=1.23456, **common)],
    )  # fmt: skip
    return folder


def test_golden(checkpoint):
    """The whole card, byte for byte; LANGSAMP_UPDATE_GOLDEN=1 rewrites the file."""
    text = write_card(checkpoint, repo="jane/langsamp-base", license="apache-2.0").read_text(encoding="utf-8")
    if os.environ.get("LANGSAMP_UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8"), "run with LANGSAMP_UPDATE_GOLDEN=1 and look at the difference"


def test_metadata_is_what_the_hub_takes(checkpoint):
    card = ModelCard.load(write_card(checkpoint, license="apache-2.0"))
    meta = card.data.to_dict()
    check_schema(meta)
    # hbs keeps its three letters (its two are withdrawn), eml is retired and left out, "no" is no boolean
    assert meta["language"] == ["de", "el", "hbs", "hi", "ja", "no", "ru"]
    assert meta["base_model"] == "FacebookAI/xlm-roberta-base"
    assert meta["datasets"] == ["cis-lmu/Glot500"]
    assert len(meta["widget"]) == 6
    assert len({langcodes.Language.get("und")} | {example["text"] for example in meta["widget"]}) == 7


def test_evaluation_table_by_hand(checkpoint):
    table = {
        line.split("|")[1].strip(): line for line in write_card(checkpoint).read_text().splitlines() if "|" in line
    }
    row = [cell.strip() for cell in table["Topic classification, SIB-200"].split("|")]
    # seeds first: 81, 71, 31; then the mean over three languages
    assert row[5].startswith("61.0 (")
    assert row[6:8] == ["hin_Deva 31.0", "deu_Latn 81.0"]
    tatoeba = [cell.strip() for cell in table["Sentence retrieval, Tatoeba"].split("|")]
    assert tatoeba[3] == "en→x, layer 8"
    assert tatoeba[5] == "50.0 (45.1–54.9)"  # one language: the interval that was measured
    assert "| Masked language modelling | loss |  |  | 1.235 |" in table["Masked language modelling"]


def test_lowest_language_of_a_loss_is_the_one_with_the_highest_value():
    records = [
        Record(task="lm", language=code, metric="loss", value=value, model="m")
        for code, value in (("deu", 1.0), ("rus", 3.0))
    ]
    (score,), _ = scores(records)
    assert (score.worst, score.best) == ("rus 3.000", "deu 1.000")


def test_models_are_compared_on_the_languages_that_all_have():
    def record(model, code, value):
        return Record(task="ner", language=code, metric="f1", value=value, model=model)

    measured = [("a", "deu", 0.2), ("a", "rus", 0.4), ("a", "hin", 0.9), ("b", "deu", 0.1), ("b", "rus", 0.1)]
    first, second = scores([record(*row) for row in measured])[0]
    assert (first.model, first.languages, round(first.mean, 9)) == ("a", 2, 0.3)
    assert (second.model, second.languages) == ("b", 2)


def test_coordinates_are_no_scores():
    common = {"task": "embedding-map", "language": "deu", "value": 1.0, "model": "m"}
    table, hidden = scores([Record(metric=name, **common) for name in ("pca_x", "row_norm", "purity_script@5")])
    assert [score.metric for score in table] == ["purity_script@5"]
    assert hidden == 0


def test_measures_come_in_the_order_of_their_numbers():
    records = [Record(task="t", language="deu", metric=f"acc@{k}", value=0.5, model="m") for k in (10, 1, 5)]
    assert [score.metric for score in scores(records)[0]] == ["acc@1", "acc@5", "acc@10"]


def test_what_a_person_wrote_is_kept(checkpoint):
    path = write_card(checkpoint, license="apache-2.0")
    text = path.read_text().replace(
        "<!-- begin limits: write here -->\n",
        "<!-- begin limits: write here -->\n\n* mine: 🦜 & <b>bold</b> | {{ x }}\n\n",
    )
    text = text.replace("license: apache-2.0", "license: cc-by-4.0\nthumbnail: x.png")
    text = text.replace("- custom_code\n", "- custom_code\n- parrots\n")
    text = text.replace("## Citation", "<!-- begin extra -->\nmy own section\n<!-- end extra -->\n\n## Citation")
    path.write_text(text)
    once = write_card(checkpoint).read_text()
    assert "* mine: 🦜 & <b>bold</b> | {{ x }}" in once
    assert "my own section" in once
    head = ModelCard(once).data
    assert (head.license, head.get("thumbnail")) == ("cc-by-4.0", "x.png")
    assert "parrots" in head.tags
    assert write_card(checkpoint).read_text() == once  # and nothing grows


def test_line_endings_of_windows_survive(checkpoint):
    path = write_card(checkpoint)
    edited = (
        path.read_bytes()
        .replace(b"\n", b"\r\n")
        .replace(b"<!-- end notes", b"two\r\nlines \xf0\x9f\xa6\x9c\r\n<!-- end notes")
    )
    path.write_bytes(edited)
    again = write_card(checkpoint).read_bytes()
    assert again == edited
    assert b"\n" not in again.replace(b"\r\n", b"")
    check_schema(ModelCard.load(path).data.to_dict())


def test_a_card_we_did_not_make_is_kept_whole(checkpoint):
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n\nHello.\n")
    text = write_card(checkpoint).read_text()
    assert "# Mine\n\nHello." in text.split("<!-- begin notes")[1]
    assert ModelCard(text).data.license == "mit"
    assert write_card(checkpoint).read_text() == text


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("<!-- begin notes -->\ntext", "has no end"),
        ("text\n<!-- end notes -->", "no partner"),
        ("<!-- begin notes -->a<!-- end notes --><!-- begin notes -->b<!-- end notes -->", "comes twice"),
        ("<!-- begin notes -->a<!-- begin about -->b<!-- end about -->", "no partner"),
        ("---\nlicense: [\n---\n", "not YAML"),
        ("---\n- a\n---\n", "key: value"),
    ],
)
def test_a_broken_card_is_an_error_and_stays(checkpoint, card, message):
    (checkpoint / "README.md").write_text(card)
    with pytest.raises(ValueError, match=message):
        write_card(checkpoint)
    assert (checkpoint / "README.md").read_text() == card


def test_nothing_hostile_or_private_gets_through(checkpoint):
    facts = json.loads((checkpoint / "training.json").read_text())
    facts["settings"]["note"] = "<script>alert(1)</script> | `x` [a](b)\n## Not a heading"
    facts["settings"]["corpus"] = "C:\\Users\\jane\\corpus"
    facts["settings"]["tokenizer"] = "/home/jane.doe/tok and ~/tok2"
    facts["device"] = "/home/jane.doe/<img src=x>"
    facts["base_model"] = str(checkpoint)
    (checkpoint / "training.json").write_text(json.dumps(facts))
    append(checkpoint, [Record(task="<b>evil|task</b>", metric="acc@1", value=0.5, model=str(checkpoint))])
    text = write_card(checkpoint).read_text()
    for bad in ("<script", "<img", "<b>", "\n## Not a heading", "/home", "jane", "C:\\", str(checkpoint.parent)):
        assert bad not in text, bad
    assert "base_model" not in ModelCard(text).data.to_dict()
    row = next(line for line in text.splitlines() if "evil" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", "||||||||")) + 1  # with the column of models


def test_610_languages(checkpoint):
    from langsamp.checkpoints.official_ids import official_languages, official_scripts

    languages, scripts = official_languages(), official_scripts()
    config = {"languages": ["und", *languages], "scripts": ["Zyyy", *scripts], "vocab_size": 1}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "training.json").unlink()
    text = write_card(checkpoint).read_text()
    meta = ModelCard(text).data.to_dict()
    check_schema(meta)
    assert len(meta["language"]) == 609  # all but eml
    assert "<summary>610 languages</summary>" in text
    assert text.count("\n| ") > 610
    assert "only current ISO 639 codes: `eml`." in text


def test_a_bare_folder_still_gets_a_valid_card(tmp_path):
    text = write_card(tmp_path).read_text()
    meta = ModelCard(text).data.to_dict()
    check_schema(meta)
    assert meta["license"] == "unknown"
    assert "Not evaluated yet" in text
    assert "needs no code from this repository" in text
    assert "trust_remote_code" not in text
    assert not (tmp_path / ".eval_results").exists()


def test_a_classifier_gets_the_card_of_a_classifier(tmp_path):
    config = {"architectures": ["XLMRobertaForTokenClassification"], "languages": [], "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = write_card(tmp_path, repo="jane/tagger").read_text()
    meta = ModelCard(text).data.to_dict()
    assert meta["pipeline_tag"] == "token-classification"
    assert not {"widget", "mask_token"} & set(meta)
    assert 'pipeline("token-classification", model="jane/tagger")' in text
    assert "<mask>" not in text


def test_errors_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        write_card(tmp_path / "missing")
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(ValueError, match=r"training\.json is not JSON"):
        write_card(tmp_path)
    (tmp_path / "training.json").write_text("[]")
    with pytest.raises(ValueError, match=r"training\.json holds no JSON object"):
        write_card(tmp_path)


def test_eval_results(checkpoint):
    write_card(checkpoint)
    (entry,) = yaml.safe_load((checkpoint / ".eval_results" / "sib200.yaml").read_text())
    assert entry["dataset"] == {"id": "mteb/sib200", "task_id": "sib200"}
    assert entry["value"] == 61.0
    assert "3 languages (from eng_Latn), 95 % interval" in entry["notes"]
    (retrieval,) = yaml.safe_load((checkpoint / ".eval_results" / "sr-tatoeba.yaml").read_text())
    assert retrieval["value"] == 50.0
    if hasattr(huggingface_hub, "parse_eval_result_entries"):
        (parsed,) = huggingface_hub.parse_eval_result_entries([entry])
        assert huggingface_hub.eval_result_entries_to_yaml([parsed]) == [entry]


def test_a_baselines_score_is_not_published_as_this_models(checkpoint):
    append(
        checkpoint,
        [Record(task="sib200", language="deu", metric="macro_f1", value=0.1, source="eng_Latn", model="baseline")],
    )
    text = write_card(checkpoint).read_text()
    assert "| baseline |" in text
    assert not (checkpoint / ".eval_results").exists()
    write_card(checkpoint, model="langsamp")
    assert yaml.safe_load((checkpoint / ".eval_results" / "sib200.yaml").read_text())[0]["value"] == 61.0


@pytest.mark.parametrize(
    ("code", "expected", "name"),
    [
        ("deu_Latn", "de", "German"),
        ("cmn_Hani", "cmn", "Mandarin Chinese"),
        ("hbs", "hbs", "Serbo-Croatian"),
        ("tgl", "tl", "Tagalog"),
        ("nor", "no", "Norwegian"),
        ("aak", "aak", "Ankave"),
        ("eml", None, "eml"),
        ("und", None, "und"),
        ("qaa", None, None),
        ("xx", None, None),
    ],
)
def test_language_codes_of_the_hub(code, expected, name):
    assert hub_language(code) == expected
    if name:
        assert language_name(code) == name
