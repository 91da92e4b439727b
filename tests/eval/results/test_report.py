from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest

from langsamp.core.record import Record, split_code, with_interval
from langsamp.eval.results import rundir
from langsamp.eval.results.compare import comparison
from langsamp.eval.results.compare_runs import compare_runs, write_comparison
from langsamp.eval.results.gather import Results
from langsamp.eval.results.records import append
from langsamp.eval.results.report import report
from langsamp.eval.results.report.report import write_report
from langsamp.eval.results.report.tables import language_table, means_table

CODES = ["fra_Latn", "deu_Latn", "rus_Cyrl", "tha_Thai", "cym_Latn", "kor_Hang", "aak_Latn", "bod_Tibt", "mri_Latn"]
NAMES = ["French", "German", "Russian", "Thai", "Welsh", "Korean", "Ankave", "Tibetan", "Māori"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser in the path")


def record(code=None, value=0.5, task="sr-tatoeba", metric="acc@10", model="base", **fields):
    language, script = split_code(code) if code else (None, None)
    return Record(task=task, language=language, script=script, metric=metric, value=value, model=model, **fields)


def two_models(gain=0.02, codes=CODES):
    return [
        record(
            code, 0.3 + i * 0.05 + (gain if model == "ours" else 0), model=model, n=100 + i, direction="en->x", layer=8
        )
        for model in ("base", "ours")
        for i, code in enumerate(codes)
    ]


def verdict(run, baseline=None):
    return report.verdict(Results.of(run, baseline))


def render(run, title=None):
    return report.render(Results.of(run), title)


def page_of(records, **sides):
    return render(rundir.Run(list(records), **sides))


class Reader(HTMLParser):
    """Collects what a browser would: tags that are not closed, attributes, texts."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data.strip())


def read(html):
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_the_summary_is_computed_from_the_intervals():
    better, same, worse = (verdict(rundir.Run(two_models(gain))) for gain in (0.02, 0.0, -0.02))
    assert better[0] == "ours is better than base on 1 task."
    assert better[1].startswith(
        "SR-Tatoeba, Acc@10, en→x, layer 8: ours is better than base (mean difference +2.0 points"
    )
    assert same[0] == "ours is not shown to be better than base on 1 task: no clear difference on 1."
    assert worse[0] == "ours is worse than base on 1 task."


def test_mixed_verdicts_are_counted():
    records = two_models(0.02)
    for model, value in (("base", 0.6), ("ours", 0.5)):
        records += [record(code, value + i * 0.01, "sib200", "macro_f1", model) for i, code in enumerate(CODES)]
        records += [record(code, value, "ner", "f1", model) for code in CODES[:3]]
    assert verdict(rundir.Run(records))[0] == (
        "ours is better than base on 1 of 3 tasks; worse on 1, too few languages to tell on 1."
    )


def test_one_model_or_nothing_in_common_is_said():
    [only] = verdict(rundir.Run(two_models()[: len(CODES)]))
    assert only == (
        "One model, base, was measured on 1 task and 9 languages. There is no second model to compare it with."
    )
    records = [record("fra_Latn"), record("deu_Latn", model="ours")]
    assert "nothing can be said about which is better" in verdict(rundir.Run(records))[0]
    read(page_of(records))


def test_the_page_is_whole_and_asks_for_nothing_from_outside():
    html = page_of(two_models())
    reader = read(html)
    assert {"svg", "circle", "table", "nav"} <= set(reader.tags)
    for name, value in reader.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#"))
    assert ("href", "#top") in reader.attributes
    assert ("id", "top") in reader.attributes
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html
    for name, code in zip(NAMES, CODES):
        assert name in reader.text
        assert code in reader.text


def test_numbers_in_the_table_are_the_records():
    results = Results.of(rundir.Run(two_models()))
    table = language_table(results, results.headline("sr-tatoeba"))
    by_code = {row[0].note: row for row in table.rows}
    assert [cell.text for cell in by_code["deu_Latn"][3:7]] == ["101", "35.0", "37.0", "+2.0"]
    assert [row[0].note for row in table.rows] == CODES[::-1]  # best first
    base, ours = means_table(results).rows
    # n, then all, head (the first six), tail, Latin script, other scripts
    assert [cell.text for cell in base[2:]] == ["9", "50.0", "42.5", "65.0", "49.0", "51.2"]
    assert [cell.text for cell in ours[2:]] == ["9", "52.0", "44.5", "67.0", "51.0", "53.2"]


def test_markup_in_names_stays_text():
    evil = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7*7 }}", "a'b&amp;"]
    records = []
    for name in evil[:2]:
        for i, code in enumerate(CODES):
            records.append(record(code, 0.3 + i / 20, f"<b>{evil[2]}", "<i>m", name, direction="<u>", source="<s>_<q>"))
            records.append(record(code, 0.3, model=name, revision="<r>"))
        records.append(record(None, 0.5, "neutrality", '"<x>', name, layer=1))
        records.append(record(None, 0.6, "neutrality", '"<x>', name, layer=2))
    run = rundir.Run(records, [rundir.Coverage("<b>", ["<c>", "fra_Latn"], {"<c>": "<why>"})])
    run.coverage.append(rundir.Coverage(f"<b>{evil[2]}", ["<c>", "fra_Latn"], {"<c>": "<why>"}))
    run.losses = [("<t>", [(0.0, 1.0), (1.0, 0.5)])]
    run.records += [record("<l>", 0.5, "embedding-map", f"pca_{axis}", evil[0]) for axis in "xy"]
    matrix = np.array([[np.nan, 0.2], [0.2, np.nan]])
    run.matrices.append(rundir.Matrices("<m>", 8, ["<l>|x", "fra_Latn"], {"cosine": matrix}))
    html = render(run, title=evil[0])
    reader = read(html)
    assert reader.tags.count("script") == 1
    assert not {"b", "i", "u", "s", "x", "q", "c"} - {"b", "i"} & set(reader.tags)
    assert not any(name.startswith("on") for name, _ in reader.attributes)
    assert evil[0] in reader.text
    assert "49" not in reader.text


def test_a_page_holds_no_controls(tmp_path):
    name = "a\x1b[31m\r\u2028\u202eb\x07"
    append(tmp_path / "a", [record(code, 0.5, model=name) for code in CODES])
    page = write_report(tmp_path / "a", tmp_path / "r.html").read_bytes().decode()
    assert not {"\x1b", "\r", "\u2028", "\u202e", "\x07"} & set(page)
    assert r"a\x1b[31m" in page


def test_the_same_records_give_the_same_bytes(tmp_path):
    append(tmp_path / "a", two_models())
    one = write_report(tmp_path / "a", tmp_path / "one.html").read_bytes()
    assert write_report([tmp_path / "a"], tmp_path / "new" / "two.html").read_bytes() == one
    assert str(tmp_path).encode() not in one


def test_sub_folders_are_models_and_a_baseline_can_be_chosen(tmp_path):
    records = two_models()
    append(tmp_path / "run" / "langsamp", [r for r in records if r.model == "ours"])
    append(tmp_path / "run" / "xlmr", [r for r in records if r.model == "base"])
    run = rundir.load(tmp_path / "run")
    assert verdict(run)[0] == "base is worse than ours on 1 task."
    assert verdict(run, "base")[0] == "ours is better than base on 1 task."
    with pytest.raises(ValueError, match="no model 'x' in the records; there are ours, base"):
        write_report(tmp_path / "run", tmp_path / "r.html", baseline="x")
    assert not (tmp_path / "r.html").exists()


def test_missing_or_broken_input_is_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no results\.jsonl in .* run `langsamp eval` first"):
        write_report(tmp_path, tmp_path / "r.html")
    append(tmp_path, [record("fra_Latn")])
    for name, content, message in (
        ("training.json", "{", "training.json is not readable JSON"),
        ("training.json", "[]", "training.json must hold a JSON object, not a list"),
        ("training.json", '{"loss_curve": [[1]]}', r"training.json: loss_curve is '\[1\]', which is not a tuple"),
        ("training.json", "[" * 100_000, "training.json is not readable JSON"),
        ("training.json", b"\xff\xfe{}", "training.json is not readable JSON"),
        ("run.json", '{"coverage": {"ner": []}}', "run.json: coverage holds no JSON object"),
        ("run.json", '{"coverage": {"ner": {"task": "ner"}}}', "run.json: coverage has no asked"),
        ("run.json", "[]", "run.json must hold a JSON object"),
        ("neutrality/layer08.npz", "no zip", "holds no similarities"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=message):
            write_report(tmp_path, tmp_path / "r.html")
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="no records to report"):
        render(rundir.Run([]))


def test_coverage_names_what_is_missing():
    records = [*two_models(), record("jpn_Jpan", 0.9, direction="en->x", layer=8)]
    coverage = [rundir.Coverage("sr-tatoeba", [*CODES, "zza_Latn"], {"zza_Latn": "no data"})]
    texts = read(page_of(records, coverage=coverage)).text
    assert "SR-Tatoeba, base: 10 of 11 languages; missing: zza_Latn (no data)" in texts
    assert "SR-Tatoeba, ours: 9 of 11 languages; missing: jpn_Jpan; zza_Latn (no data)" in texts


def test_coverage_of_a_map_and_of_numbers_over_all_languages_is_a_line_each():
    rows = [record(code, 1.0, "embedding-map", "row_norm") for code in CODES]
    rows += [record(None, 0.5, "embedding-map", "purity_script@5", n=9), record(None, 0.5, "my-task", "accuracy")]
    coverage = [rundir.Coverage("embedding-map", CODES)]
    texts = read(page_of([*rows, *two_models()], coverage=coverage)).text
    assert "Map of the languages, base: 9 of 9 languages" in texts
    assert "Map of the languages, ours: not measured" in texts
    assert "my-task, base: all languages at once" in texts
    assert not any("missing" in text for text in texts)


def test_coverage_of_a_probe_is_that_of_its_task():
    coverage = [rundir.Coverage("sib200", [*CODES, "zza_Latn"], {"zza_Latn": "no data"})]
    texts = read(page_of([record(code, 0.5, "sib200-probe", "macro_f1") for code in CODES], coverage=coverage)).text
    assert "SIB-200 (probe), base: 9 of 10 languages; missing: zza_Latn (no data)" in texts


def test_the_summary_tells_what_speaks_against():
    records = two_models()
    for model, probe, missing in (("base", 0.6, None), ("ours", 0.8, 4.0)):
        for i, code in enumerate(CODES):
            values = {"cosine_centred": 0.5 + 0.2 * (model == "ours"), "language_probe": probe}
            records += [record(code, v + i / 100, "neutrality", m, model, layer=8) for m, v in values.items()]
            records.append(record(code, 3.0 - 0.1 * (model == "ours"), "lm", "loss", model))
            if missing:
                records.append(record(code, missing + i / 100, "lm", "loss_missing", model))
    lead, *sentences = verdict(rundir.Run(records))
    assert lead == (
        "ours is better than base on all 3 tasks. It is worse in: Masked LM, Loss without ids (+1.040 nats); "
        "Neutrality, Language probe (+20.0 points)."
    )
    assert any("Language probe, layer 8: ours is worse than base" in sentence for sentence in sentences)
    assert "What speaks against" in read(page_of(records)).text


def test_the_axis_of_a_share_runs_from_0_to_100_and_layers_say_what_0_is():
    def texts(layers):
        return read(page_of([replace(r, layer=layer) for layer in layers for r in two_models()])).text

    shown = texts((8, 12))
    assert shown.count("100") >= 2  # both sides of the scatter
    assert "layer" in shown
    assert "layer (0 = embeddings)" in texts((0, 8))


def test_groups_of_scripts_say_so_and_two_languages_have_no_interval():
    codes = [f"{a}{b}{c}_{script}" for script in ("Cyrl", "Deva") for a, b, c in ("aba", "abb", "abc")][:5]
    values = dict(zip([*CODES, *codes], np.linspace(0.1, 0.9, 14)))
    texts = read(page_of([record(code, value) for code, value in values.items()])).text
    at = texts.index("Cyrillic script")
    assert texts[at + 1] == "n = 4"  # Russian and three more
    assert "[" in next(text for text in texts[at + 2 :] if re.match(r"\d", text))
    at = texts.index("Devanagari script")
    assert texts[at + 1] == "n = 2"
    assert "[" not in next(text for text in texts[at + 2 :] if re.match(r"\d", text))


def test_heat_maps_of_models_share_scale_and_order():
    run = rundir.Run([record(code, 0.5, "neutrality", "cosine", layer=8) for code in CODES[:3]])
    for folder, top in (("base", 0.9), ("ours", 0.5)):
        matrix = np.array([[np.nan, 0.1, top], [0.1, np.nan, 0.2], [top, 0.2, np.nan]])
        run.matrices.append(rundir.Matrices(folder, 8, CODES[:3], {"cosine": matrix}))
    reader = read(render(run))
    assert [reader.text.count(text) for text in ("0.1", "0.9")] == [2, 2]  # the ends of the two colour bars
    assert len({value for name, value in reader.attributes if name == "data-names"}) == 1


def test_a_single_language_and_a_single_record():
    texts = read(page_of([record("fra_Latn")])).text
    assert "50.0" in texts
    assert "SR-Tatoeba, base: 1 of 1 language" in texts


def test_five_models_and_unknown_tasks():
    records = [
        record(code, 0.1 * m + i / 50, "my-task", "my_score", f"m{m}") for m in range(5) for i, code in enumerate(CODES)
    ]
    html = page_of(records)
    assert "My score" in read(html).text
    assert html.count('class="lead"') == 4


def test_neutrality_layers_and_heat_map():
    records = []
    for layer in range(3):
        for metric in ("cosine", "cosine_centred", "language_probe"):
            overall = record(None, 0.5 + layer / 10, "neutrality", metric, layer=layer, n=9)
            records += with_interval(overall, overall.value - 0.1, overall.value + 0.1)
            records += [record(code, 0.5, "neutrality", metric, layer=layer) for code in CODES]
    matrix = np.full((9, 9), 0.4)
    np.fill_diagonal(matrix, np.nan)
    matrix[0, 1] = 0.9
    run = rundir.Run(records, matrices=[rundir.Matrices("run", 2, CODES, {"cosine": matrix})])
    reader = read(render(run))
    assert "Cosine of translations by layer" in reader.text
    assert "Language probe by layer" in reader.text
    assert "Means with 95 % intervals. Lower is better." in reader.text
    assert reader.tags.count("polygon") == 3  # a band for each measure
    rows = dict(reader.attributes)["data-rows"].split(";")
    assert sorted(value for row in rows for value in row.split(" ")) == ["", *[""] * 8, *["0.400"] * 71, "0.900"]


def test_training_curves(tmp_path):
    append(tmp_path, two_models())
    (tmp_path / "training.json").write_text('{"loss_curve": [[10, 5.5], [20, NaN], [30, 4.5]], "steps": 30}')
    reader = read(write_report(tmp_path, tmp_path / "r.html").read_text())
    assert "Training loss" in reader.text
    [line] = [value for name, value in reader.attributes if name == "points" and value.count(",") == 2]
    assert line.startswith("0.00,")
    assert " 100.00," in line


def test_maps_and_donors_come_from_records():
    records = []
    for i, code in enumerate(CODES):
        records += [record(code, float(v), "embedding-map", f"pca_{a}") for a, v in (("x", i), ("y", i % 3))]
        records.append(record(code, 0.1 * i, "donors", "similarity_language-row", source="eng_Latn"))
        records.append(record("fra_Latn", 0.1 * i, "donors", "similarity_language-row", source=code))
    records += [record(None, 0.75, "embedding-map", "purity_script@5"),
                record("quc_Latn", 1, "embedding-map", "untrained"),
                record(None, 0.5, "embedding-map", "purity_script@5_chance")]  # fmt: skip
    reader = read(page_of(records))
    assert (
        "base: of the 5 nearest rows of a language 75.0 % share its script; by chance it would be 50.0 %."
        in reader.text
    )
    assert "base: 1 row never trained, left out: quc_Latn" in reader.text
    assert any(text.startswith("Thai (tha_Thai) · Thai") for text in reader.text)
    assert any("sources for French (fra_Latn)" in text for text in reader.text)


def test_the_command_writes_page_and_plots(tmp_path, capsys):
    from argparse import ArgumentParser

    from langsamp.eval.cli import COMMANDS

    append(tmp_path / "run", two_models())
    _, add, run = COMMANDS["report"]
    parser = ArgumentParser()
    add(parser)
    page = tmp_path / "report.html"
    assert (
        run(parser.parse_args([str(tmp_path / "run"), "--output", str(page), "--plots", str(tmp_path / "plots")])) == 0
    )
    assert "ours is better than base on 1 task." in capsys.readouterr().out
    assert page.is_file()
    assert (tmp_path / "plots" / "differences.png").is_file()


# ------------------------------------------------------------------------------------------------- in a real browser


def in_browser(tmp_path, html, script):
    """Run `script` in a frame of 390 pixels that shows the page; returns what it returns."""
    assert CHROMIUM is not None
    harness = tmp_path / "harness.html"
    harness.write_text(
        f'<!doctype html><iframe id="f" style="width:390px;height:800px;border:0" srcdoc="{escape(html)}"></iframe>'
        "<script>document.getElementById('f').onload = (event) => {"
        "const page = event.target.contentDocument; const view = event.target.contentWindow;"
        f"Promise.resolve((() => {{ {script} }})()).then((answer) => {{"
        "document.title = JSON.stringify(answer); }); };</script>",
        encoding="utf-8",
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000",
               "--dump-dom", harness.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stderr[-2000:]
    import html as entities

    return json.loads(entities.unescape(title.group(1)))


@needs_chromium
def test_tables_sort_filter_and_fit_a_phone_in_a_browser(tmp_path):
    records = [r for r in two_models() if (r.code, r.model) != ("kor_Hang", "ours")]
    extra = [f"q{a}{b}_Latn" for a in "ab" for b in "abcde"]  # enough rows for the search box
    records += [record(code, 0.2, model=m, n=7, direction="en->x", layer=8) for code in extra for m in ("base", "ours")]
    answer = in_browser(
        tmp_path,
        page_of(records),
        """
        const table = page.querySelector('#task-sr-tatoeba table');
        const button = (name) => [...table.querySelectorAll('th button')].find((b) => b.textContent.startsWith(name));
        const column = () => [...table.tBodies[0].rows].map((row) => row.cells[0].querySelector('small').textContent);
        const found = { width: page.documentElement.scrollWidth, room: page.documentElement.clientWidth };
        button('Language').click(); found.byName = column();
        button('Language').click(); found.byNameDown = column();
        button('base').click(); found.byBase = column();
        found.sort = button('base').closest('th').getAttribute('aria-sort');
        button('ours').click(); found.byOurs = column();
        button('ours').click(); found.byOursUp = column();
        const input = page.querySelector('#task-sr-tatoeba input.filter');
        input.value = 'WELSH'; input.dispatchEvent(new view.Event('input'));
        const visible = [...table.tBodies[0].rows].filter((row) => row.getClientRects().length);
        found.shown = visible.map((row) => row.cells[0].textContent);
        found.hits = page.querySelector('#task-sr-tatoeba .hits').textContent;
        const colour = () => view.getComputedStyle(page.body).backgroundColor;
        page.getElementById('theme').click(); found.light = colour();
        page.getElementById('theme').click(); found.dark = colour();
        found.tips = page.querySelectorAll('circle[data-tip]').length;
        const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
        const text = (element) => { const range = page.createRange(); range.selectNodeContents(element);
            return [...range.getClientRects()]; };
        found.covered = [...page.querySelectorAll('.row')].filter((row) =>
            text(row.querySelector('.label')).some((a) => text(row.querySelector('.value')).some((b) => over(a, b))));
        found.covered = found.covered.map((row) => row.textContent);
        const hints = () => [...page.querySelectorAll('.scroll')].map((box) =>
            [box.scrollWidth > box.clientWidth, !box.previousElementSibling.hidden]);
        return new Promise((done) => view.setTimeout(() => done({ ...found, hints: hints() }), 500));
    """,
    )
    assert answer["width"] == answer["room"] <= 390  # nothing sticks out
    assert answer["byName"][:2] == ["aak_Latn", "fra_Latn"]
    assert answer["byNameDown"][-2:] == ["fra_Latn", "aak_Latn"]
    assert answer["byBase"][:3] == ["mri_Latn", "bod_Tibt", "aak_Latn"]
    assert answer["sort"] == "descending"
    assert answer["byOurs"][:2] == ["mri_Latn", "bod_Tibt"]
    assert answer["byOurs"][-1] == answer["byOursUp"][-1] == "kor_Hang"  # no value: last in both orders
    assert answer["byOursUp"][-2] == "mri_Latn"
    assert answer["shown"] == ["Welshcym_Latn"]
    assert answer["hits"] == "1 of 19"
    assert answer["light"] == "rgb(251, 251, 250)"
    assert answer["dark"] == "rgb(17, 20, 24)"
    assert answer["tips"] == 18
    assert any(cut for cut, _ in answer["hints"])
    assert all(cut == told for cut, told in answer["hints"])  # what is cut off says that it scrolls
    assert answer["covered"] == []


@needs_chromium
def test_long_labels_never_cover_a_value_on_a_phone_in_a_browser(tmp_path):
    records = [
        record(code, (0.2 if model == "ours" else -0.1) + i / 1000, "neutrality", "cosine_centred", model, layer=8)
        for model in ("base", "ours")
        for i, code in enumerate(CODES)
    ]
    answer = in_browser(
        tmp_path,
        page_of(records),
        """
        const text = (element) => { const range = page.createRange(); range.selectNodeContents(element);
            return [...range.getClientRects()]; };
        const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
        return [...page.querySelectorAll('.row')].filter((row) =>
            text(row.querySelector('.label')).some((a) => text(row.querySelector('.value')).some((b) => over(a, b))))
            .map((row) => row.textContent);
    """,
    )
    assert answer == []


@needs_chromium
def test_the_records_come_back_as_a_file_in_a_browser(tmp_path):
    records = [*two_models(), record("cym_Latn", 0.5, model='=1+1,"x"', metric="acc@1")]
    answer = in_browser(
        tmp_path,
        page_of(records),
        """
        const button = page.getElementById('csv');
        const bytes = Uint8Array.from(atob(button.dataset.records), (letter) => letter.charCodeAt(0));
        const stream = new Blob([bytes]).stream().pipeThrough(new view.DecompressionStream('gzip'));
        return new Response(stream).text().then((text) => [button.hidden, text]);
    """,
    )
    hidden, text = answer
    assert hidden is False
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["language"], row["metric"], float(row["value"])) for row in rows] == [
        (r.language, r.metric, r.value) for r in records
    ]
    assert rows[-1]["model"] == '\'=1+1,"x"'  # text that a spreadsheet would compute


@needs_chromium
def test_markup_in_names_does_not_run_in_a_browser(tmp_path):
    evil = "<img src=x onerror=\"parent.document.title='broken'\"><script>window.broken=1</script>"
    answer = in_browser(
        tmp_path,
        page_of([record(code, 0.5, evil, evil, evil) for code in CODES]),
        """
        return [page.images.length, page.scripts.length, view.broken ?? 0];
    """,
    )
    assert answer == [0, 1, 0]


def test_halves_of_characters_in_names_break_no_file(tmp_path):
    """A folder's name that is not UTF-8, a record made elsewhere: half a surrogate pair can be in no file."""
    name = "a\ud800b"
    found = [record(code, 0.5, model=model) for code in CODES for model in (name, "ours")]
    append(tmp_path / "a", found)
    render(rundir.load(tmp_path / "a"), name).encode()
    both = ([entry for entry in found if entry.model == model] for model in (name, "ours"))
    path = write_comparison(comparison(*both), tmp_path / "out")
    assert json.loads(path.with_suffix(".json").read_bytes())[0]["a"] == name
    rundir.RunInfo({"model": name}).write(tmp_path)
    assert rundir.RunInfo.read(tmp_path).settings == {"model": name}


def test_two_runs_with_other_values_of_one_model_are_not_mixed(tmp_path):
    """The folder of the model was trained anew between them."""
    append(tmp_path / "v1", two_models())
    append(tmp_path / "v2", two_models(0.03))
    with pytest.raises(ValueError, match=r"v2 has other values of ours than a run before it \(sr-tatoeba, acc@10\)"):
        rundir.load([tmp_path / "v1", tmp_path / "v2"])
    assert rundir.load([tmp_path / "v1", tmp_path / "v1"]).records == two_models()


def test_two_models_of_one_name_are_not_taken_for_one(tmp_path):
    """Each checkpoint of a run lies in a folder called checkpoint-9; they were measured on different tasks."""
    for name, task in (("a", "sr-tatoeba"), ("b", "sib200")):
        append(tmp_path / name, [record(code, 0.5, task, "acc@10", "checkpoint-9") for code in CODES[:3]])
        settings = {"model": "checkpoint-9", "revision": None, "weights": name * 16}
        rundir.RunInfo(settings).write(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"b is about another checkpoint-9 than a run before it \(other weights\); give"
    ):
        rundir.load([tmp_path / "a", tmp_path / "b"])
    rundir.RunInfo({**settings, "weights": "a" * 16}).write(tmp_path / "b")
    assert len(rundir.load([tmp_path / "a", tmp_path / "b"]).records) == 6


def test_models_that_were_measured_on_other_data_are_told(tmp_path, caplog):
    """With as many sentences: only the hashes of the data tell; a run of before has none."""
    runs = [tmp_path / name for name in ("a", "b", "old")]
    for folder in runs:
        append(folder, [record(code, 0.5, model=folder.name) for code in CODES])
        data = {"tatoeba/deu_Latn": folder.name, "tatoeba/fra_Latn": folder.name, "tatoeba/rus_Cyrl": "same"}
        rundir.RunInfo(data={} if folder.name == "old" else data).write(folder)
    told = f"a and {runs[1]} were measured on different data of tatoeba/deu_Latn (and 1 more)"
    assert told in " ".join(read(render(rundir.load(runs))).text)
    compare_runs([str(run) for run in runs], tmp_path / "out")
    assert told in caplog.text
    assert not rundir.load(runs[1:]).cautions


def test_run_folders_of_one_name_are_told_apart(tmp_path):
    for i, model in enumerate(("v1", "v2")):
        folder = tmp_path / model / "results"
        append(folder, [record(code, 0.5, "neutrality", "cosine", model, layer=8) for code in CODES[:3]])
        (folder / "neutrality").mkdir()
        np.savez(folder / "neutrality/layer08.npz", languages=np.array(CODES[:3]), cosine=np.eye(3) + i)
    texts = read(render(rundir.load([tmp_path / "v1/results", tmp_path / "v2/results"]))).text
    assert [t for t in texts if "layer 8" in t and "results" in t] == [
        f"Cosine of translations: results ({n}), layer 8" for n in (1, 2)
    ]
