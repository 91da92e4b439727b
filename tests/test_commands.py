"""Every command that documents, recipes, help and messages print is one that exists; those of the documents run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from langsamp.cli import build_parser, commands, main
from langsamp.eval.results.catalog import TASKS

ROOT = Path(__file__).resolve().parents[1]
PROSE = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted(ROOT.glob("docs/*.md"))]
SCRIPTS = sorted(ROOT.glob("recipes/*/*.sh"))
RECIPES = [*sorted(ROOT.glob("recipes/*.yaml")), *SCRIPTS]
TEMPLATES = [*ROOT.glob("hub/space/README.md"), *ROOT.glob("eval/results/*/*.jinja")]
SOURCES = [path for room in (".", "core", "train", "eval", "checkpoints", "hub") for path in (
    ROOT.glob("*.py") if room == "." else (ROOT / room).rglob("*.py"))]  # fmt: skip
START = re.compile(r"^(?:[#$] +|srun +(?:[^`]*? )?)?(?:torchrun [^`]*?-m )?langsamp +(?=[\w.-])")
_WORD = r"[^-\s`;,()][^\s`;,()]*"
BARE = re.compile(rf"langsamp ((?:{'|'.join(commands())})\b(?: --[\w-]+(?: {_WORD})?| [A-Z./]{_WORD})*)")
OPTION = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")


def _lines(path: Path) -> Iterator[str]:
    """Lines that are a command as a whole: in fences, indented, or in the comments of a recipe."""
    text = re.sub(r" *\\\n[# ]*", " ", path.read_text(encoding="utf-8"))
    for line in text.splitlines():
        line = re.sub(r"(  +#.*|  +[^'\"#]*)$", "", line.strip().removeprefix("#").strip())  # what is said beside it
        if START.match(line):
            yield START.sub("", line).removesuffix("&")


def _mentions(text: str) -> Iterator[str]:
    """Commands within a text: up to the end of the backticks, or of the clause."""
    for quoted in re.findall(r"`+([^`]+)`+", text):
        if START.match(quoted):
            yield " ".join(START.sub("", quoted).split())
    for found in BARE.finditer(re.sub(r"`[^`]*`", "", text)):
        yield found[1]


def _strings(path: Path) -> Iterator[str]:
    """What a module says: its texts and docstrings, with `X` for what is filled in."""
    inside: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            inside.update(id(part) for part in ast.walk(node))
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def _printed() -> list[tuple[str, str]]:
    found = [(path, line) for path in [*PROSE, *RECIPES] for line in _lines(path)]
    for path in [*PROSE, *TEMPLATES]:
        found += [(path, line) for line in _mentions(path.read_text(encoding="utf-8"))]
    found += [(path, line) for path in SOURCES for text in _strings(path) for line in _mentions(text)]
    return sorted({(path.relative_to(ROOT).as_posix(), line.strip()) for path, line in found})


PRINTED = _printed()


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Command -> the options that it has."""
    found = {}
    for name in commands():
        words = {"--help"}
        parser = build_parser()._subparsers._group_actions[0].choices[name]  # type: ignore[union-attr]
        if name == "train":
            parser.parse_known_args([])  # adds them
        for action in parser._actions:
            words.update(action.option_strings)
        found[name] = words
    return found


def test_commands_are_found():
    places = {place.partition("/")[0] for place, _ in PRINTED}
    assert {"README.md", "docs", "recipes", "train", "eval", "hub", "core"} <= places
    assert len(PRINTED) > 100


@pytest.mark.parametrize("place", sorted({place for place, _ in PRINTED}))
def test_commands_options_tasks_and_recipes_exist(place, options):
    for line in (line for where, line in PRINTED if where == place):
        name, _, rest = line.partition(" ")
        if name in ("...", "--version"):
            continue
        assert name in options, line
        for option in OPTION.findall(rest):
            assert f"--{option}" in options[name], line
        for tasks in re.findall(r"--tasks ([\w,-]+)", rest):
            assert all(task in TASKS and TASKS[task].run for task in tasks.split(",")), line
        for recipe in re.findall(r"recipes/[\w.]+", rest):
            assert (ROOT / recipe).is_file(), line


WHOLE = [
    (path.relative_to(ROOT).as_posix(), line)
    for path in [*PROSE, *RECIPES]
    for line in _lines(path)
    if not re.search(r"\.\.\.|\[-", line)
]


@pytest.mark.parametrize(("place", "line"), WHOLE)
def test_whole_commands_parse(place, line):
    assert build_parser().parse_args(shlex.split(line)).command == line.split()[0]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_for_a_cluster_are_shell_and_hold_a_command(script):
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert len([line for where, line in WHOLE if where == script.relative_to(ROOT).as_posix()]) == 1
    assert f"sbatch recipes/slurm/{script.name} " in (ROOT / "docs/scale.md").read_text(encoding="utf-8")


STANDS_FOR = {"FacebookAI/xlm-roberta-base": "xlmr", "cis-lmu/glot500-base": "xlmr", "./baseline": "./xlmr"}
SMALL = {
    "prepare": "--block-size 16 --num-proc 1 --heldout 2",
    "train": "--max_steps 2 --per_device_train_batch_size 2 --use_cpu true --disable_tqdm true",
    "eval": "--data data --probe --layer 2 --no-progress",
    "push": "--dry-run",
}


@pytest.fixture
def desk(tmp_path, monkeypatch, texts, tiny_model_dir, tiny_xlmr_dir, small_store_dir):
    """A folder with everything that the documents' commands name."""
    monkeypatch.chdir(tmp_path)
    for name, folder in {"ours": tiny_model_dir, "langsamp": tiny_model_dir, "xlmr": tiny_xlmr_dir}.items():
        shutil.copytree(folder, name)
    shutil.copytree(tiny_model_dir, "trained")
    Path("my_text").mkdir()
    for tag, lines in texts.items():
        Path("my_text", f"{tag}.txt").write_text("\n".join(lines * 12), encoding="utf-8")
        Path("german.txt").write_text("\n".join(lines), encoding="utf-8")
        for task in ("sib200", "bible_retrieval", "tatoeba"):
            rows = [
                {
                    "id": i,
                    "text": f"{lines[i % len(lines)]} {i}",
                    "english": f"{i}",
                    "label": "ab"[i % 2],
                }
                for i in range(24)
            ]
            for row in rows if task == "sib200" else []:
                row["split"] = ("train", "dev", "test")[int(row["id"]) % 3]
            path = Path("data", task, f"{'eng_Latn' if tag == 'deu_Latn' else tag}.jsonl")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("README.md", r"prepare .*xlm-roberta-base|train .*xlm-roberta-base|eval .*sr-tatoeba|report|push"),
        ("docs/evaluation.md", r"(eval|compare|report) (?!.*--(ray|devices))"),
        ("docs/checkpoints.md", r"convert cis-lmu|export (?!.*onnx)|add-language (?!.*--store)|average"),
    ],
)
def test_commands_of_the_documents_run_one_after_the_other(place, wanted, desk, capsys):
    """As printed but for sizes, for what would be downloaded, and for a new folder each."""
    lines = [line for where, line in WHOLE if where == place and re.match(wanted, line)]
    assert len(lines) > 3
    for number, line in enumerate(lines):
        words = [STANDS_FOR.get(word, word) for word in shlex.split(line.replace("--layer 8", "--layer 2"))]
        if words[0] == "add-language":
            words[2] += str(number)
            words = ["fry_Latn" if word == "nds_Latn" else "deu_Latn" if word == "nld_Latn" else word for word in words]
        assert main([*words, *SMALL.get(words[0], "").split()]) == 0, (line, capsys.readouterr().err)
