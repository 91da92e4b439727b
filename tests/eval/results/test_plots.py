from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from langsamp.core.record import Record, split_code, with_interval
from langsamp.eval.results import rundir
from langsamp.eval.results.compare import comparison
from langsamp.eval.results.gather import Results
from langsamp.eval.results.plots import embedding_map, plot_comparison, write_plots
from langsamp.eval.results.records import append

CODES = ["fra_Latn", "deu_Latn", "rus_Cyrl", "tha_Thai", "cym_Latn", "kor_Hang", "aak_Latn", "bod_Tibt", "mri_Latn"]


def record(code, value, task, metric, model, **fields):
    language, script = split_code(code) if code else (None, None)
    return Record(task=task, language=language, script=script, metric=metric, value=value, model=model, **fields)


def everything(model, gain):
    found = []
    for i, code in enumerate(CODES):
        found += [record(code, 0.3 + gain + i / 50, "sr-bible", "acc@10", model, layer=layer) for layer in (4, 8)]
        found += [record(code, 3 - gain, "lm", metric, model) for metric in ("loss", "loss_missing", "loss_wrong")]
        found += [record(code, float(v), "embedding-map", f"pca_{a}", model) for a, v in (("x", i), ("y", i % 4))]
    for layer in (4, 8):
        found += with_interval(record(None, 0.6, "neutrality", "cosine", model, layer=layer), 0.5, 0.7)
    return found


def matrix_in(folder, count):
    (folder / "neutrality").mkdir(parents=True)
    values = np.random.default_rng(0).random((count, count))
    names = [f"{a}{b}{c}_Latn" for a in "qrstu" for b in "abcdefgh" for c in "abcdefgh"][:count]
    np.savez(folder / "neutrality" / "layer08.npz", languages=np.array(names), cosine=values)


def size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_every_plot_appears_with_its_records_and_is_the_same_each_time(tmp_path):
    append(tmp_path / "run", everything("base", 0.0) + everything("ours $x_1$ <b>", 0.02))
    matrix_in(tmp_path / "run", 60)
    files = write_plots(tmp_path / "run", tmp_path / "plots")
    assert [path.stem for path in files] == ["scores", "differences", "layers", "losses", "neutrality", "map"]
    again = write_plots(tmp_path / "run", tmp_path / "again")
    for one, two in zip(files, again):
        assert one.read_bytes() == two.read_bytes()
        width, height = size(one)
        assert 500 < width < 2400
        assert 200 < height < 2400
        assert str(tmp_path).encode() not in one.read_bytes()


def test_plots_without_their_records_are_left_out(tmp_path):
    append(tmp_path / "run", [record(code, 0.5, "sib200", "macro_f1", "one") for code in CODES])
    assert [path.stem for path in write_plots(tmp_path / "run", tmp_path / "plots")] == ["scores"]
    with pytest.raises(FileNotFoundError, match="langsamp eval"):
        write_plots(tmp_path / "nothing", tmp_path / "plots")


def test_a_plot_of_one_comparison(tmp_path):
    found = comparison(everything("base", 0.0), everything("ours", 0.02))
    assert size(plot_comparison(found, tmp_path / "c.png"))[0] > 500


def test_scores_on_dev_are_no_bars(tmp_path):
    append(tmp_path / "run", [record(code, 0.5, "ner-300steps", "dev_f1", "one") for code in CODES])
    assert write_plots(tmp_path / "run", tmp_path / "plots") == []


def test_names_of_tasks_and_scripts_start_no_formula(tmp_path):
    evil = r"a $\frac$ b"
    append(tmp_path / "run", [record(code, 0.5, evil, "f1", model) for code in CODES for model in ("a", "b")])
    rows = [record(code, float(i), "embedding-map", f"pca_{a}", "b") for i, code in enumerate(CODES) for a in "xy"]
    append(tmp_path / "run", [replace(row, script=r"$\frac$") for row in rows])
    assert {path.stem for path in write_plots(tmp_path / "run", tmp_path / "plots")} >= {"differences", "map"}


def test_the_map_is_that_of_one_model(tmp_path):
    """Rows of two models lie in different planes."""
    sides = (("base", CODES, 100), ("ours", CODES[:5], 1))
    for model, codes, scale in sides:
        rows = [record(code, scale * float(i), "embedding-map", f"pca_{a}", model) for i, code in enumerate(codes)
                for a in "xy"]  # fmt: skip
        append(tmp_path, rows)
    [axis] = embedding_map(Results.of(rundir.load(tmp_path))).axes
    assert max(point[0] for marks in axis.collections for point in marks.get_offsets()) == 4
    assert axis.get_title(loc="left") == "Language rows, ours, first two principal components (5\nlanguages)"
