"""The structure of the package: imports go one way, scripts start without torch, nothing shadows a library."""

from __future__ import annotations

import importlib.machinery
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import structure

EVAL = structure.EVAL
SCRIPTS = sorted(EVAL.glob("*.py"))
TOOLS = {"report", "compare", "suite"}

PACKAGE = EVAL / "qwen_eval"
LOOSE = {"__init__", "schema", "options", "terminal", "main"}  # what all rooms use, and what talks to the user
HEAVY = {"torch", "transformers", "numpy", "pandas", "datasets", "sacrebleu", "matplotlib"}

# room of the package -> the rooms it may import; all may import schema
MAY_IMPORT: dict[str, set[str]] = {
    "schema": set(),
    "terminal": set(),
    "stats": set(),
    "data": set(),
    "models": set(),
    "sandbox": set(),
    "options": {"data"},
    "tasks": {"options", "data", "stats", "sandbox"},
    "engines": {"options", "models"},
    "runs": {"options", "terminal", "data", "stats", "engines", "tasks"},
    "compare": {"runs", "stats", "data", "tasks", "terminal"},
    "report": {"runs", "stats", "data", "tasks", "terminal"},
    "main": {"options", "terminal", "models", "engines", "runs", "compare", "tasks"},
}
SCRIPTS_MAY_IMPORT = {"main", "options", "data", "tasks", "stats", "sandbox", "runs"}


def test_rooms_import_one_way() -> None:
    """`make structure` shows them."""
    found = structure.rooms()
    assert not structure.circles(found)[0]
    for name, used in found.items():
        if name != "__init__":
            assert used - {"schema"} <= MAY_IMPORT[name], name


def test_no_circle_among_modules() -> None:
    assert not structure.circles(structure.graph())[0]


def package(top: Path, files: dict[str, str]) -> Path:
    """Writes a package of these modules and their text."""
    for name, text in {"__init__": "", **files}.items():
        path = top / "qwen_eval" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return top


def test_the_rooms_of_a_small_package_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "schema": "import json\n",
        "data/__init__": "from qwen_eval.data.files import read\n",
        "data/files": "from qwen_eval import schema\n\nfrom .deep.sums import add\n",
        "data/deep/__init__": "",
        "data/deep/sums": "from .. import other\nfrom . import last\nfrom numpy import array\n",
        "data/deep/last": "",
        "data/other": "",
        "runs/__init__": "def late():\n    import qwen_eval.data.files\n    from qwen_eval.schema import Name\n",
    }
    top = package(tmp_path, files)
    assert structure.graph(top) == {
        "qwen_eval": set(),
        "qwen_eval.schema": set(),
        "qwen_eval.data": {"qwen_eval.data.files"},
        "qwen_eval.data.files": {"qwen_eval.schema", "qwen_eval.data.deep.sums"},
        "qwen_eval.data.deep": set(),
        "qwen_eval.data.deep.sums": {"qwen_eval.data.other", "qwen_eval.data.deep.last"},
        "qwen_eval.data.deep.last": set(),
        "qwen_eval.data.other": set(),
        "qwen_eval.runs": {"qwen_eval.data.files", "qwen_eval.schema"},
    }
    assert structure.main(top) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["floor", "room", "modules", "lines", "imports"],
        ["0", "__init__", "1", "0", "-"],
        ["0", "schema", "1", "1", "-"],
        ["1", "data", "6", "7", "schema"],
        ["2", "runs", "1", "3", "data,", "schema"],
    ]


def test_a_circle_is_reported_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = package(
        tmp_path,
        {
            "a/__init__": "import qwen_eval.b.y",
            "b/__init__": "",
            "b/y": "from qwen_eval.c import name",
            "c/__init__": "import qwen_eval.a",
            "d/__init__": "",
            "d/x": "import qwen_eval.d.y",  # one room, two modules
            "d/y": "import qwen_eval.d.x",
        },
    )
    assert structure.main(top) == 1
    said = [line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("circle: ")]
    assert [(len(found), found[0] == found[-1], set(found) - {"->"}) for found in said] == [
        (7, True, {"a", "b", "c"}),
        (7, True, {"qwen_eval.a", "qwen_eval.b.y", "qwen_eval.c"}),
        (5, True, {"qwen_eval.d.x", "qwen_eval.d.y"}),
    ]
    used = {"a": "b", "b": "c", "c": "a"}
    start = said[0][::2]
    assert all(used[name] == after for name, after in itertools.pairwise(start))


def test_few_modules_are_loose_at_the_top() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_no_engine_no_torch_and_not_each_other(path: Path) -> None:
    if path.stem not in TOOLS:
        used = structure.imports(path)
        assert {structure.room(name) for name in used if name.startswith("qwen_eval.")} - {
            "schema"
        } <= SCRIPTS_MAY_IMPORT
        assert not used & ({script.stem for script in SCRIPTS} | HEAVY)


def test_nothing_in_eval_shadows_a_library() -> None:
    # a library of that name would be found in site-packages or the standard library when eval/ is not on the path
    known = [entry for entry in sys.path if Path(entry or ".").resolve() != EVAL]
    for path in EVAL.iterdir():
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__"):
            assert importlib.machinery.PathFinder.find_spec(path.stem, known) is None, path
            assert path.stem not in sys.stdlib_module_names


def fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    """What a new process prints that can import the harness and has not yet. It has to succeed."""
    env = {**os.environ, "PYTHONPATH": str(EVAL)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_loads_nothing_but_the_command_line(script: Path) -> None:
    """--help waits for no library that takes long to load (`make bench` measures its CPU seconds)."""
    code = (
        "import runpy, sys\nsys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n    print(*sys.modules, file=sys.stderr)"
    )
    done = fresh_python(code)
    assert "--help" in done.stdout
    loaded = set(done.stderr.split())
    assert not loaded & HEAVY


def test_no_path_of_a_machine_in_the_repository() -> None:
    root = EVAL.parent
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    homes = {folder for folder in (root, Path.home()) if folder != Path("/")}
    # as a whole path: a checkout at /demo does not forbid other paths that end in it
    named = re.compile("|".join(r"(?<![\w.~})-])" + re.escape(str(home)) + "/" for home in homes).encode())
    for name in listed.stdout.split("\0"):
        path = root / name
        if path.is_file() and path.stat().st_size < 1_000_000:
            text = path.read_bytes()
            assert not named.search(text), name
