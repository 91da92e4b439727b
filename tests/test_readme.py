"""The front page is true: its Python runs as printed, its commands are in its table, its head is a valid model card."""

import ast
import pkgutil
import re
import shutil
from pathlib import Path

from huggingface_hub import ModelCard

from langsamp.cli import commands

ROOMS = ("core", "train", "eval", "checkpoints", "hub")
README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_runs_in_order_as_printed(tiny_model_dir, tmp_path, monkeypatch, capsys):
    """Every block, in one namespace, on a folder that stands where the quickstart leaves its checkpoint."""
    shutil.copytree(tiny_model_dir, tmp_path / "quickstart" / "langsamp")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["batch"]["lang_ids"].tolist() == [3, 6]
    assert len(ast.literal_eval(capsys.readouterr().out.splitlines()[1])) == 2  # one best piece a text
    assert names["logits"].shape[:2] == names["batch"]["input_ids"].shape
    assert names["vectors"].shape == (2, 32)
    assert type(names["encoder"]).__name__ == "XLMRobertaModel"


def test_every_command_is_in_the_table():
    for name in commands():
        assert re.search(rf"`(langsamp )?{name}`", README), name


def test_it_is_a_model_card():
    card = ModelCard(README)
    assert card.data.pipeline_tag == "fill-mask"
    assert card.data.license == "apache-2.0"
    assert "langsamp" in card.data.tags


def test_what_documents_and_docstrings_name_is_there():
    """README, docs, the right column of the changelog's table: `langsamp.room.module.name`; docstrings."""
    root = Path(__file__).resolve().parents[1]
    texts = [README, *(path.read_text(encoding="utf-8") for path in root.glob("docs/*.md"))]
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    texts += re.findall(r"^\| `[^|]+ \| ([^|]+) \|$", changes, flags=re.M)
    sources = [*root.glob("*.py"), *(path for room in ROOMS for path in (root / room).rglob("*.py"))]
    texts += [role for path in sources for role in re.findall(r":\w+:`~?([\w.]+)`", path.read_text(encoding="utf-8"))]
    found = {name for text in texts for name in re.findall(r"\blangsamp(?:\.[A-Za-z_]\w*)+", text)}
    assert {name for name in found if not _resolves(name)} == set()
    for page in (root / "README.md", *root.glob("docs/*.md")):
        for path in re.findall(r"`(\w+/[\w/]+\.py)`", page.read_text(encoding="utf-8")):
            assert (root / path).is_file(), f"{page.name}: {path}"


def _resolves(name: str) -> bool:
    try:
        return pkgutil.resolve_name(name) is not None
    except (AttributeError, ImportError):
        return "gpu_kernels" in name  # needs triton


def test_every_test_that_a_table_names_is_there():
    tests = Path(__file__).resolve().parent
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (tests / "README.md").read_text(encoding="utf-8"))
    assert len(named) > 80
    missing = [name for name in named if f"def {name[1]}(" not in (tests / name[0]).read_text(encoding="utf-8")]
    assert missing == []


def test_links_to_files_exist():
    root = Path(__file__).resolve().parents[1]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target
