"""The shape of the project: who imports whom, what the package holds, what a wheel carries."""

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLAT = {
    "configuration_langsamp",
    "modeling_langsamp",
    "linear_cross_entropy",
    "safe_files",
    "tokenization_langsamp",
    "unicode_scripts",
    "language_codes",
}
# room -> what its modules may import of ours, beside each other and the flat files
ALLOWED = {
    "core": set(),
    "train": {"core"},
    "eval": {"core"},
    "checkpoints": {"core", "eval.results", "train.text", "train.blocks"},
    "hub": {"core", "eval.results"},
}
# rooms within rooms that must not see their neighbours
WITHIN = {
    "core.language": set(),
    "core.model": {"core"},
    "core.compute": set(),
    "train.batches": {"core", "train.blocks"},
    "train.saves": {"core"},
    "eval.data": {"core"},
    "train.text": {"core"},
    "train.fast": {"core"},
    "train.blocks": {"core", "train.text"},
    "eval.results": {"core"},
    "eval.metrics": {"core", "eval"},
    "eval.engines": {
        "core",
        "eval.data",
        "eval.task",
        "eval.labelled",
        "eval.metrics",
        "eval.results.records",
    },
}


JOURNEYS = {"A text to its loss": 14, "A checkpoint to a number in the report": 18, "A folder to the Hub": 11}


def _imports(path: Path) -> set[str]:
    """Our own modules that a file imports, anywhere in it: ``train.store``, ``runtime``."""
    found = set()
    package = [] if path.parent == ROOT else list(path.parent.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ["langsamp", *package][: 1 + len(package) - (node.level - 1)]
            names = [".".join([*base, node.module])] if node.module else [".".join([*base, a.name]) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "langsamp":
            names = [f"langsamp.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        found |= {name.removeprefix("langsamp.") for name in names if name.startswith("langsamp.")}
    return found


def _modules(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "space" not in path.parts]


@pytest.mark.parametrize("name", [*sorted(FLAT), "hub/handler"])
def test_what_travels_imports_only_each_other_and_what_its_users_have(name):
    """Transformers copies what a top-level ``from .name import`` names, and wants every other import installed."""
    path = ROOT / f"{name}.py"
    assert _imports(path) <= FLAT
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found |= {name.partition(".")[0] for name in names}
    assert found - sys.stdlib_module_names <= {"torch", "transformers"}


def _room(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


@pytest.mark.parametrize("room", sorted(ALLOWED | WITHIN))
def test_imports_go_one_way(room):
    public = {"LangSAMPConfig", "LangSAMPModel", "LangSAMPForMaskedLM", "LangSAMPForSequenceClassification",
              "LangSAMPForTokenClassification", "LangSAMPTokenizer", "normalize_tag", "parse_tag", "script_of",
              "__version__"}  # fmt: skip
    allowed = FLAT | {room} | (ALLOWED | WITHIN)[room]
    for path in _modules(room.replace(".", "/")):
        for name in _imports(path) - public:
            assert _room(name, allowed), f"{path}: {name}"


def test_no_import_cycle_not_even_a_lazy_one():
    files = [*ROOT.glob("*.py"), *(path for folder in ALLOWED for path in _modules(folder))]
    graph = {path: {_file(name) for name in _imports(path)} - {path, None} for path in files}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " -> ".join(str(p.relative_to(ROOT)) for p in (*trail[trail.index(path) :], path))
        if path not in done:
            for other in sorted(graph.get(path, ())):
                visit(other, (*trail, path))
            done.add(path)

    for path in files:
        visit(path, ())


def _file(name: str) -> Path | None:
    """The file of one of our modules; a name in it counts as the module."""
    for parts in (name.split("."), name.split(".")[:-1]):
        path = ROOT.joinpath(*parts)
        if parts and path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
        if parts and (path / "__init__.py").is_file():
            return path / "__init__.py"
    return None


def test_the_tour_names_every_module_in_its_room_and_nothing_else():
    """CONTRIBUTING.md: a heading a room (`### train/blocks/`), its modules below in backticks."""
    tour = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## A tour")[2].partition("### Beside")[0]
    named = set()
    for part in tour.split("### ")[1:]:
        room, _, text = part.partition("\n")
        named |= {(ROOT / room.replace("The root", "") / name) for name in re.findall(r"`([\w/]+\.py)`", text)}
    files = {*ROOT.glob("*.py"), *(path for folder in ALLOWED for path in _modules(folder))}
    files = {path for path in files if path.name != "__init__.py"}
    assert {str(path.relative_to(ROOT)) for path in files - named} == set(), "not in the tour of CONTRIBUTING.md"
    assert {str(path.relative_to(ROOT)) for path in named - files} == set(), "in the tour, but no module"


@pytest.mark.parametrize("name", JOURNEYS)
def test_a_journey_is_as_short_as_it_says(name):
    """Each file of a journey is there, and one of the others imports it or names it (tasks, metrics)."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition(f"**{name}** (")[2].partition("\n\n")[0]
    way, _, around = text.partition("(Setting up:")
    files, others = ([ROOT / path for path in re.findall(r"`([\w/]+\.py)`", part)] for part in (way, around))
    assert len(set(files)) == len(files) == int(text.split()[0]) <= JOURNEYS[name]
    reached = {_file(found) for path in (*files, *others) for found in _imports(path)}
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    lost = [path for path in files[1:] if path not in reached and not re.search(rf'"{path.stem}[":]', sources)]
    assert lost == []


def test_every_package_of_the_tree_is_declared():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    declared = set(config["options"]["packages"].split())
    tree = {"langsamp"}
    for folder in ALLOWED:
        tree |= {
            "langsamp." + ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / folder).rglob("__init__.py")
        }
    assert declared == tree


@pytest.mark.parametrize("name", ["langsamp", "langsamp.cli"])
def test_importing_the_package_is_cheap(name):
    heavy = ("torch", "transformers", "datasets", "pyarrow", "numpy")
    code = f"import sys, {name}; print(int(any(m in sys.modules for m in {heavy})))"
    assert subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True).stdout.strip() == "0"


@pytest.mark.parametrize(
    "name",
    [
        "eval.results.report.report",
        "eval.results.compare_runs",
        "eval.results.plots",
        "hub.push",
        "hub.pull",
        "hub.documents",
    ],
)
def test_commands_that_compute_no_model_do_not_wait_for_torch(name):
    code = f"import sys, langsamp.{name}; print(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True).stdout.strip() == "0"


def test_every_command_has_help():
    from langsamp.cli import build_parser, commands

    expected = {"quickstart", "prepare", "extend-vocab", "train", "eval", "compare", "report", "push", "pull", "export",
                "convert", "add-language", "average"}  # fmt: skip
    assert expected <= set(commands())
    for name in commands():
        with pytest.raises(SystemExit) as done:
            build_parser().parse_args([name, "--help"])
        assert done.value.code == 0


def test_exit_codes(capsys, tmp_path, monkeypatch):
    from langsamp.cli import main

    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as usage:
        main(["no-such-command"])
    assert usage.value.code == 2
    capsys.readouterr()
    assert main(["report", "no-such-folder", "--output", "x.html"]) == 1
    assert capsys.readouterr().err.startswith("langsamp: error: ")
    assert not Path("x.html").exists()


def test_loggers_have_one_name():
    for path in (*ROOT.glob("*.py"), *(path for folder in ALLOWED for path in _modules(folder))):
        names = re.findall(r"^(\w+) = logging\.getLogger", path.read_text(encoding="utf-8"), re.M)
        assert set(names) <= {"logger"}, path


IN_PROSE = re.compile(r"[.;:]\s+(?:Returns|Yields|Raises)\s|\b[Rr]aises?\s+\w*(?:Error|Exception)\b")


@pytest.mark.parametrize("room", ["", "core", "train", "eval", "checkpoints", "hub", "experiments"])
def test_docstrings_speak_of_results_and_errors_in_sections(room):
    """``Returns:``, ``Yields:`` and ``Raises:``, not sentences; what comes back may stand in the first one."""
    for path in _modules(room) if room else ROOT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                prose = IN_PROSE.search(ast.get_docstring(node) or "")
                assert prose is None, f"{path}: {getattr(node, 'name', 'the module')}: {prose and prose[0]}"


PLACE = re.compile(r"\b(?:core|train|eval|checkpoints|hub|experiments|benchmarks|tools)/[\w/]+\.(?:py|json|txt)\b")


def test_files_that_code_names_are_there():
    """After a move docstrings, comments and tools still speak of what there is."""
    for path in (*ROOT.glob("*.py"), *(path for room in (*ALLOWED, "tools") for path in _modules(room))):
        named = set(PLACE.findall(path.read_text(encoding="utf-8")))
        assert [name for name in sorted(named) if not (ROOT / name).is_file()] == [], path


def test_the_table_of_families_is_made_where_it_is_read(tmp_path):
    for name in ("tools/make_language_families.py", "core/language/families.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    groups = {"version": {"_cldrVersion": "0"}, "languageGroups": {"ine": "gem", "gem": "deu"}}
    (tmp_path / "groups.json").write_text(json.dumps({"supplemental": groups}))
    subprocess.run(
        [sys.executable, tmp_path / "tools" / "make_language_families.py", tmp_path / "groups.json"], check=True
    )
    assert (tmp_path / "core" / "language" / "families.txt").read_text() == "ine: deu gem\n"


def test_every_public_name_is_there():
    import langsamp

    assert all(hasattr(langsamp, name) for name in langsamp.__all__)


def test_no_function_is_longer_than_a_screen():
    for path in (*ROOT.glob("*.py"), *(path for folder in ALLOWED for path in _modules(folder))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno or 0) - inside[0].lineno + 1 if inside else 0
                assert lines <= 60, f"{path}: {node.name} has {lines} lines"


def test_no_file_is_long():
    files = [*ROOT.glob("*.py"), *(path for folder in ALLOWED for path in _modules(folder))]
    assert {str(path): n for path in files if (n := path.read_text(encoding="utf-8").count("\n")) > 400} == {}


def test_every_file_that_is_not_python_reaches_the_wheel():
    """model2vec once shipped without its card template."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = set(config["options"]["packages"].split())
    data = {package: globs.replace(",", " ").split() for package, globs in config["options.package_data"].items()}
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*"):
            parts = path.relative_to(ROOT).parts
            if not path.is_file() or "__pycache__" in parts:
                continue
            package = next(".".join(("langsamp", *parts[:k])) for k in range(len(parts) - 1, 0, -1)
                           if ".".join(("langsamp", *parts[:k])) in packages)  # fmt: skip
            inside = path.relative_to(ROOT.joinpath(*package.split(".")[1:]))
            if inside.suffix == ".py" and len(inside.parts) == 1:
                continue
            assert any(inside.match(glob) and inside.as_posix().count("/") == glob.count("/")
                       for glob in data.get(package, ())), f"{path}: not in package_data"  # fmt: skip
