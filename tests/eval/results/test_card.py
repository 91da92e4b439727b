"""The model card: metadata the Hub accepts, what a person wrote kept, nothing hostile or private let through."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from pathlib import Path

import huggingface_hub
import langcodes
import pytest
import yaml
from huggingface_hub import ModelCard

from langsamp.core.facts import TrainingFacts
from langsamp.core.record import Record
from langsamp.eval.results.card.card import write_card
from langsamp.eval.results.card.metadata import hub_language
from langsamp.eval.results.card.tables import headlines, languages, measures
from langsamp.eval.results.catalog import language_name
from langsamp.eval.results.gather import Results
from langsamp.eval.results.records import append
from langsamp.eval.results.rundir import Run

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
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 401145, "model_type": "xlm-roberta"}))
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
            for code, script, value in (
                ("deu", "Latn", 0.8), ("rus", "Cyrl", 0.7), ("hin", "Deva", 0.3), ("ell", "Grek", 0.6)
            )
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


def test_sentence_vectors_are_taken_where_they_were_measured(checkpoint):
    results = checkpoint / "results.jsonl"
    rows = [row for row in results.read_text().splitlines() if '"layer": 8' not in row and '"layer": 4' not in row]
    results.write_text("\n".join(rows) + "\n")
    card = write_card(checkpoint).read_text()
    assert "Acc@1 (%), en→x, layer 12" in card
    assert "tokens of layer 12 (or" in card
    assert "num_hidden_layers=12)" in card


def test_evaluation_table_by_hand(checkpoint):
    lines = [[cell.strip() for cell in line.split("|")] for line in write_card(checkpoint).read_text().splitlines()]
    short = {row[1]: row for row in lines if len(row) == 6}
    # seeds first: 81, 71, 31, 61; then the mean over four languages
    assert short["SIB-200"][2:4] == ["Macro-F1 (%)", "4"]
    assert short["SIB-200"][4].startswith("61.0 [")
    assert short["SR-Tatoeba"][2:5] == ["Acc@1 (%), en→x, layer 8", "1", "50.0 [45.1, 54.9]"]  # the interval measured
    assert short["Masked LM"][2:5] == ["Loss (nats)", "204", "1.235"]
    long = {row[1]: row for row in lines if len(row) == 9}
    assert long["SIB-200"][6:8] == ["hin_Deva 31.0", "deu_Latn 81.0"]
    assert [row[1] for row in lines if len(row) == 6 and "(" in row[2]] == ["SR-Tatoeba", "SIB-200", "Masked LM"]


def results_of(records):
    return Results.of(Run(records))


def test_the_worst_language_of_a_loss_is_the_one_with_the_highest_value():
    records = [
        Record(task="lm", language=code, metric="loss", value=value, model="m")
        for code, value in (("deu", 1.0), ("rus", 3.0))
    ]
    [score], _ = measures(results_of(records))
    assert (score.worst, score.best) == ("rus 3.000", "deu 1.000")


def test_models_are_compared_on_the_languages_that_all_have():
    def record(model, code, value):
        return Record(task="ner", language=code, metric="f1", value=value, model=model)

    measured = [("a", "deu", 0.2), ("a", "rus", 0.4), ("a", "hin", 0.9), ("b", "deu", 0.1), ("b", "rus", 0.1)]
    first, second = headlines(results_of([record(*row) for row in measured]))
    assert (first.model, first.languages, first.value) == ("a", "2", "30.0")
    assert (second.model, second.languages, second.value) == ("b", "2", "10.0")


def test_coordinates_and_similarities_are_no_scores():
    common = {"task": "embedding-map", "language": "deu", "value": 1.0, "model": "m"}
    names = ("pca_x", "umap_y", "row_norm", "untrained", "similarity_centroid", "purity_script@5")
    shown, hidden = measures(results_of([Record(metric=name, **common) for name in names]))
    assert [score.measure for score in shown] == ["Nearest 5 of the same script (%)"]
    assert hidden == 0


def test_measures_come_in_the_order_of_their_numbers():
    records = [Record(task="t", language="deu", metric=f"acc@{k}", value=0.5, model="m") for k in (10, 1, 5)]
    assert [score.measure for score in measures(results_of(records))[0]] == ["Acc@1 (%)", "Acc@5 (%)", "Acc@10 (%)"]


def test_retrieval_comes_first_the_map_last_and_pictures_before_the_long_tables(checkpoint):
    found = (("embedding-map", "purity_script@5", None), ("sr-bible", "acc@10", "deu"))
    append(
        checkpoint, [Record(task=t, metric=m, language=code, value=0.5, n=9, model="langsamp") for t, m, code in found]
    )
    for name in ("scores", "map"):
        (checkpoint / "plots" / f"{name}.png").write_bytes(b"png")
    text = write_card(checkpoint).read_text()
    order = [
        *(f"| {task} |" for task in ("SR-Bible", "SR-Tatoeba", "SIB-200", "Masked LM", "Map of the languages")),
        "](plots/scores.png)", "\n*The headline of each task", "](plots/map.png)", "languages that stand apart",
        "](plots/language_map.png)", "<summary>All measures", "<summary>Language by language",
    ]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_rows_of_a_continued_model_are_counted(checkpoint):
    facts = json.loads((checkpoint / "training.json").read_text())
    facts["sampling"] = facts["sampling"][:3]
    (checkpoint / "training.json").write_text(json.dumps(facts))
    text = write_card(checkpoint).read_text()
    assert "8 languages (3 of them in the training told of below), 6 scripts" in text
    assert "| Greek | `ell` |  |  |" in text
    assert [row.code for row in languages((), ["deu"])] == ["deu"]


def test_the_examples_of_a_card_run(tmp_path, tiny_model_dir):
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    text = write_card(model, repo="user/model").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        exec(compile(example.replace("user/model", str(model)), "card", "exec"), {})
    assert "pip install" in text


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
        ("---\na: " + "[" * 100_000 + "\n---\n", "not YAML"),
    ],
)
def test_a_broken_card_is_an_error_and_stays(checkpoint, card, message):
    (checkpoint / "README.md").write_text(card)
    with pytest.raises(ValueError, match=message):
        write_card(checkpoint)
    assert (checkpoint / "README.md").read_text() == card


HOSTILE = '<img src="https://example.org/pixel">'
BREAKS = ("|", "\r", "\r\r", "\n\n", "\u2028", "\x85", "\x0b", "\x0c", "`", "``` \n", '"""\n', "</code></td></table>")


def live(text):
    """What a browser would make of a card: names of the tags in its HTML."""
    markdown_it = pytest.importorskip("markdown_it")
    html = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(text.split("---\n", 2)[2])
    return set(re.findall(r"<([a-z]\w*)", html)) - {"details", "summary"}, html


def test_names_of_others_never_become_markup_in_the_card(checkpoint):
    plain, _ = live(write_card(checkpoint).read_bytes().decode())
    for between in BREAKS:
        bad = f"x{between}{HOSTILE}"
        (checkpoint / "results.jsonl").unlink(missing_ok=True)
        fields = {"task": bad, "metric": "acc@1", "model": bad, "source": bad, "direction": bad}
        append(checkpoint, [Record(language=bad.replace("_", ""), script=bad, value=0.5, **fields),
                            Record(language="deu", value=0.4, **fields)])  # fmt: skip
        config = json.loads((checkpoint / "config.json").read_text())
        config |= {"languages": ["und", "deu", bad], "scripts": ["Zyyy", bad], "model_type": bad}
        (checkpoint / "config.json").write_text(json.dumps(config))
        (checkpoint / "tokenizer_config.json").write_text(json.dumps({"mask_token": bad}))
        facts = {
            "device": bad,
            "settings": {bad: bad},
            "sampling": [{"language": bad, "probability": 1}, {"language": "deu"}],
        }
        (checkpoint / "training.json").write_text(json.dumps(facts))
        (checkpoint / "README.md").unlink()
        text = write_card(checkpoint, repo=f"jane/{bad}").read_bytes().decode()
        tags, html = live(text)
        assert tags <= plain | {"p", "em"}, between
        assert "example.org" in html
        for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            ast.parse(example)


def test_a_name_never_leaves_the_string_of_an_example(checkpoint):
    bad = 'eng"); __import__("os").system("id") #'
    (checkpoint / "training.json").write_text(
        json.dumps({"sampling": [{"language": bad, "blocks": 1, "probability": 1}]})
    )
    text = write_card(checkpoint, repo=f"jane/{bad}").read_text()
    assert '"); __import__' not in text
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        names = {node.id for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Name)}
        assert "__import__" not in names


def test_nothing_private_gets_through(checkpoint):
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


def test_610_languages(checkpoint):
    from langsamp.checkpoints.official_ids import read_id_lists

    languages, scripts = read_id_lists()
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


def test_the_licence_is_the_one_chosen_else_that_of_the_base(tmp_path):
    def shown(**options):
        return ModelCard(write_card(tmp_path, **options).read_text()).data.license

    assert shown() == "unknown"
    TrainingFacts(license="cc-by-4.0").write(tmp_path)
    assert shown() == "cc-by-4.0", "nobody chose 'unknown'"
    assert shown(license="mit") == "mit"
    assert shown() == "mit"


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
    with pytest.raises(ValueError, match=r"training\.json is not readable JSON"):
        write_card(tmp_path)
    (tmp_path / "training.json").write_text("[]")
    with pytest.raises(ValueError, match=r"training\.json must hold a JSON object, not a list"):
        write_card(tmp_path)
    (tmp_path / "training.json").write_text('{"seconds": "long"}')
    with pytest.raises(ValueError, match=r"training\.json: seconds is 'long', which is not a number"):
        write_card(tmp_path)
    (tmp_path / "training.json").unlink()
    (tmp_path / "README.md").write_bytes("# Modèle".encode("latin-1"))
    with pytest.raises(ValueError, match=r"README\.md is not UTF-8 \(byte 0xe8 at position 5\); save it as UTF-8"):
        write_card(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == "# Modèle".encode("latin-1")


def test_eval_results(checkpoint):
    write_card(checkpoint)
    (entry,) = yaml.safe_load((checkpoint / ".eval_results" / "sib200.yaml").read_text())
    assert entry["dataset"] == {"id": "mteb/sib200", "task_id": "sib200"}
    assert entry["value"] == 61.0
    assert entry["notes"].startswith("mean Macro-F1 over 4 languages, 95 % interval [")
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
