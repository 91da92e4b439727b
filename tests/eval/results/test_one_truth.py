"""One file of records through card, report, plots, comparison and summary: equal numbers, units and intervals."""

from __future__ import annotations

import html
import re

import pytest

from langsamp.core.record import Record, split_code, with_interval
from langsamp.eval.results import catalog, plots, rundir
from langsamp.eval.results.aggregate import Cell, overall, series
from langsamp.eval.results.card.card import write_card
from langsamp.eval.results.compare import compared
from langsamp.eval.results.compare_runs import compare_runs, write_comparison
from langsamp.eval.results.gather import Results
from langsamp.eval.results.records import append
from langsamp.eval.results.report.report import render, verdict

CODES = ("deu_Latn", "rus_Cyrl", "tha_Thai", "aak_Latn", "bod_Tibt")
VALUES = (0.744, 0.701, 0.503, 0.312, 0.255)
MODELS = ("baseline", "langsamp")
ACC, LOSS, COSINE, PROBE = (
    Cell("sr-tatoeba", "acc@10", 8, "en->x"),
    Cell("lm", "loss"),
    Cell("neutrality", "cosine_centred", 8),
    Cell("neutrality", "language_probe", 8),
)


@pytest.fixture
def run(tmp_path):
    """Five languages, two models; retrieval of a sixth by one of them; neutrality with an interval over pairs."""
    found = []
    for gain, model in zip((0.0, 0.02), MODELS):
        for code, value in zip(CODES, VALUES):
            language, script = split_code(code)
            for cell, shown in ((ACC, value + gain), (LOSS, 3 - value), (COSINE, value / 4), (PROBE, 0.9)):
                found.append(Record(language=language, script=script, value=shown, model=model, n=99, **cell._asdict()))
        mean = Record(value=0.159 + gain, n=5, model=model, **COSINE._asdict())
        found += with_interval(mean, 0.143 + gain, 0.175 + gain)
    found.append(Record(language="fra", script="Latn", value=0.99, model="langsamp", **ACC._asdict()))
    append(tmp_path / "run", found)
    return tmp_path / "run"


def text_of(page):
    """The words of a page, tags and all but single spaces taken off."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_every_page_tells_the_same_number_with_its_unit_and_interval(run, tmp_path):
    results = Results.of(rundir.load(run))
    model = tmp_path / "model"
    model.mkdir()
    append(model, results.run.records)
    card = write_card(model).read_text(encoding="utf-8")
    report = text_of(re.sub(r"<(style|script).*?</\1>", "", render(results), flags=re.DOTALL))
    for cell in (ACC, LOSS, COSINE):
        metric, task = catalog.metric(cell.metric), catalog.task(cell.task).title
        for system, mean in results.means(cell):
            value, bounds = metric.text(mean.mean).split(" ", 1)
            assert (value, bounds) == (metric.show(mean.mean.value), metric.bounds(mean.mean))
            what = ", ".join([metric.titled, *catalog.setting(cell)])
            assert f"| {task} | {what} | {results.label(system)} | 5 | {value} {bounds} |" in card
            assert f"{task} {what} {results.label(system)} 5 {value} {bounds}" in report  # the table of means
            assert f"{value} {bounds}" in report.split("By group of languages", 1)[1]  # the chart of groups
    assert "0.159 [0.143, 0.175]" in card  # the interval over pairs that was recorded, and no other beside it
    assert report.count("0.159 [") == report.count("0.159 [0.143, 0.175]") > 1
    assert "| Language probe (%) | layer 8 | baseline | 5 | 90.0 [90.0, 90.0] |" in card
    assert "Language probe (%) 8 90.0 [90.0, 90.0]" in report


def test_plots_draw_the_numbers_of_the_card(run):
    results = Results.of(rundir.load(run))
    axis = plots.scores(results).axes[0]
    bars = sorted(patch.get_height() for patch in axis.patches if patch.get_x() < 0.5)  # the group `all`
    means = [mean.mean for _, mean in results.means(ACC)]
    assert bars == pytest.approx([100 * mean.value for mean in means])
    spans = [path.vertices[:, 1].tolist() for line in axis.collections for path in line.get_paths()]
    assert all([100 * mean.low, 100 * mean.high] in [pytest.approx(span) for span in spans] for mean in means)
    assert axis.get_title(loc="left") == "SR-Tatoeba, Acc@10 (%)"
    assert "n = 5" in axis.get_xticklabels()[0].get_text()


def test_comparison_and_summary_tell_the_differences_of_these_means(run, tmp_path):
    results = Results.of(rundir.load(run))
    [(folder, found)] = compare_runs([str(run)], tmp_path / "out")
    page = write_comparison(found, folder).read_text(encoding="utf-8")
    [pair] = results.comparisons
    assert {entry.cell: entry.difference for entry in found} == {entry.cell: entry.difference for entry in pair}
    for entry in found:
        for mean, (_, shown) in zip((entry.mean_a, entry.mean_b), results.means(entry.cell)):
            if entry.cell != COSINE:  # its mean over languages is not the recorded one over pairs
                assert mean == pytest.approx(shown.mean.value)
        assert f"| {entry.metric.show(entry.difference.value, True)} |" in page
    summary = " ".join(verdict(results))
    report = text_of(render(results))
    for entry in (entry for entry in found if entry.headline):
        for text in (summary, report, page.replace("\\", "")):
            assert entry.sentence in text
    assert "mean difference +2.0 points [+2.0, +2.0] over 5 languages" in summary


def test_a_model_alone_is_measured_over_all_of_its_languages(run):
    alone = [record for record in rundir.load(run).records if record.model == "langsamp"]
    [(_, mean)] = Results.of(rundir.Run(alone)).means(ACC)
    assert (mean.n, mean.mean.value) == (6, pytest.approx((sum(VALUES) + 0.02 * 5 + 0.99) / 6))


def test_an_interval_of_several_seeds_is_not_that_of_one():
    one = with_interval(Record(task="t", language="deu", metric="f1", value=0.5, seed=1, model="m"), 0.4, 0.6)
    [entry] = series(one).values()
    assert overall(entry).mean == (0.5, 0.4, 0.6)
    two = [*one, Record(task="t", language="deu", metric="f1", value=0.7, seed=2, model="m")]
    [entry] = series(two).values()
    assert entry.interval("deu") is None
    assert overall(entry).mean == (0.6, None, None)


def test_a_model_without_rows_has_one_loss_with_and_without_ids():
    base = {Cell("lm", "loss"): 3.0}
    ours = {Cell("lm", "loss"): 2.0, Cell("lm", "loss_missing"): 4.0, Cell("lm", "loss_wrong"): 5.0}
    sides = []
    for values in (base, ours):
        records = [
            Record(language=code[:3], value=value + i / 10, model="m", **cell._asdict())
            for cell, value in values.items()
            for i, code in enumerate(CODES)
        ]
        sides.append({cell: entry for (_, cell), entry in series(records).items()})
    found = {entry.cell.metric: entry.difference.value for entry in compared(sides[0], sides[1], ("base", "ours"))}
    assert found == {"loss": -1.0, "loss_missing": 1.0}


@pytest.mark.parametrize(
    ("name", "kind", "k", "of", "label", "score"),
    [
        ("acc@10", "acc", 10, "", "Acc@10", True),
        ("acc@1_csls", "acc", 1, "csls", "Acc@1, csls", True),
        ("dev_macro_f1", "f1", 0, "dev", "Macro-F1 on dev", True),
        ("ndcg@3_language+script-row", "ndcg", 3, "language+script-row", "NDCG@3, language+script row", True),
        ("regret_random", "regret", 0, "random", "Regret, random", True),
        ("purity_family@5", "purity", 5, "family", "Nearest 5 of the same family", True),
        ("purity_family@5_chance", "chance", 5, "family", "The same by chance, family", True),
        ("language_pca_variance_1", "variance", 1, "language", "Variance on axis 1, language", False),
        ("umap_y", "umap", 0, "y", "UMAP, y", False),
        ("similarity_language-row", "similarity", 0, "language-row", "Similarity, language row", False),
        ("loss_missing", "loss", 0, "missing", "Loss without ids", True),
        ("my_{score}", "my_{score}", 0, "", "My {score}", True),
    ],
)
def test_the_grammar_of_measures(name, kind, k, of, label, score):
    found = catalog.metric(name)
    assert (found.kind, found.k, found.of, found.label, found.score) == (kind, k, of, label, score)


def test_every_task_of_the_catalogue_that_can_run_is_one():
    from langsamp.eval.run import load_task

    for name, task in catalog.TASKS.items():
        if task.run:
            assert load_task(name).name == name
        else:
            with pytest.raises(ValueError, match=f"there is no task {name!r}; the tasks are sr-bible, "):
                load_task(name)
