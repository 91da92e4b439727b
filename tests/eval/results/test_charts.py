from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from langsamp.eval.results.report import charts, heatmap


def test_names_on_a_map_never_touch():
    rng = np.random.default_rng(0)
    points = [charts.Point(x, y, f"language {i}", "", "c0") for i, (x, y) in enumerate(rng.normal(size=(300, 2)))]
    x, y = charts.scale([p.x for p in points]), charts.scale([p.y for p in points])
    placed = charts.place(points, x, y, 700, 1.5, 60)
    assert len(placed) > 20
    boxes = []
    for i, (dx, dy, anchor) in placed.items():
        width = len(points[i].name) * charts.CHAR_WIDTH
        left = float(x.at(points[i].x)[:-1]) * 7 + dx - {"start": 0, "mid": width / 2, "end": width}[anchor]
        top = 700 / 1.5 * (1 - float(y.at(points[i].y)[:-1]) / 100) + dy - 10
        boxes.append((left, top, left + width, top + charts.LINE_HEIGHT))
    for n, a in enumerate(boxes):
        assert a[0] >= -0.01
        assert a[2] <= 700.01
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:n])


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.0, 100.0], 0, 100),
        ([3.0, 3.0], 2.9, 3.1),
        ([0.0, 0.0], -0.01, 0.01),
        ([], 0, 0.01),
        ([-2.0, 5.0], -2, 5),
    ],
)
def test_axes_are_round_and_hold_the_values(values, low, high):
    for zero in (False, True):
        axis = charts.scale(values, zero=zero)
        assert axis.low <= low
        assert axis.high >= high
        assert all(axis.low <= value <= axis.high for value in [*values, *([0.0] if zero else [])])
        assert 3 <= len(axis.ticks()) <= 9
    assert charts.Scale(0, 100).ticks() == [0, 20, 40, 60, 80, 100]
    assert charts.Scale(-0.5, 4.5).ticks(whole=True) == [0, 1, 2, 3, 4]


def test_the_picture_is_a_png_that_other_software_reads():
    image = pytest.importorskip("PIL.Image")
    import io

    indices = (np.arange(300 * 300) % 200).reshape(300, 300).astype(np.uint8)
    picture = image.open(io.BytesIO(heatmap.png(indices, heatmap.palette())))
    assert picture.size == (300, 300)
    assert (np.asarray(picture.convert("RGB")) == heatmap.palette()[indices]).all()


def test_similar_languages_are_neighbours_in_the_heat_map():
    groups = np.array([0, 1, 0, 1, 0, 1])
    matrix = np.where(groups[:, None] == groups, 0.9, 0.1)
    assert groups[heatmap.order(matrix)].tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    with pytest.raises(ValueError, match="square matrix with 2 rows"):
        heatmap.heatmap(["a", "b"], np.ones((2, 3)), "")


@pytest.mark.slow
def test_a_built_wheel_has_the_page_and_the_metrics(tmp_path):
    root = Path(__file__).resolve().parents[3]
    files = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if files.returncode:
        pytest.skip("needs a git clone to copy from")
    for name in files.stdout.splitlines():
        if (root / name).is_file():
            (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, tmp_path / "src" / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path / "src", capture_output=True, text=True, check=False)
    if "BackendUnavailable" in done.stderr or "No module named 'setuptools" in done.stderr:
        pytest.skip("needs setuptools >= 77 in this environment")
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    folder = "eval/results/report/templates"
    templates = {f"langsamp/{folder}/{path.name}" for path in (root / folder).iterdir()}
    assert templates
    assert templates <= names
    assert {f"langsamp/eval/metrics/{name}/{name}.py" for name in ("acc_at_k", "macro_f1", "span_f1", "ndcg")} <= names
