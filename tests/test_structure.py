"""The structure of the package: imports go one way, scripts start without torch, nothing shadows a library."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EVAL = Path(__file__).resolve().parents[1] / "eval"
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
    "main": {"options", "terminal", "models", "engines", "runs", "tasks"},
}
SCRIPTS_MAY_IMPORT = {"main", "options", "data", "tasks", "stats", "sandbox", "runs"}


def imports(path: Path) -> set[str]:
    """The modules a file imports, wherever in it the import stands; of the package the modules that names are taken from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.level:  # inside the sandbox: the modules beside this one
                found.add(f"{module_name(path).rpartition('.')[0]}.{node.module}")
            else:
                inner = {f"{node.module}.{name.name}" for name in node.names}
                found |= {name if module_path(name) else node.module for name in inner}
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(EVAL).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_path(name: str) -> Path | None:
    """The file of a module of the package."""
    base = EVAL.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def graph() -> dict[str, set[str]]:
    """The modules of the package, each with those of the package that it imports."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {module_name(path): {name for name in imports(path) if module_path(name)} for path in files}


def room(module: str) -> str:
    """qwen_eval.engines.local.trie -> engines"""
    return [*module.split("."), "__init__"][1]


def rooms() -> dict[str, set[str]]:
    """The rooms of the package, each with those that it imports."""
    found: dict[str, set[str]] = {}
    for module, used in graph().items():
        found.setdefault(room(module), set()).update(map(room, used))
    return {name: used - {name, "__init__"} for name, used in found.items()}


def test_rooms_import_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    found = rooms()
    floors: dict[str, int] = {}
    while len(floors) < len(found):
        lowest = [name for name in found if name not in floors and found[name] <= set(floors)]
        assert lowest, f"a circle among {sorted(set(found) - set(floors))}"
        floors |= dict.fromkeys(lowest, max(floors.values(), default=-1) + 1)
    with capsys.disabled():
        print()
        for name in sorted(found, key=lambda name: (floors[name], name)):
            print(f"  floor {floors[name]}  {name:9} -> {', '.join(sorted(found[name])) or '-'}")
    for name, used in found.items():
        if name != "__init__":
            assert used - {"schema"} <= MAY_IMPORT[name], name


def test_no_circle_among_modules() -> None:
    left = graph()
    while left:
        free = [module for module, used in left.items() if not used & (left.keys() - {module})]
        assert free, f"a circle among {sorted(left)}"
        for module in free:
            del left[module]


def test_few_modules_are_loose_at_the_top() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_no_engine_no_torch_and_not_each_other(path: Path) -> None:
    if path.stem not in TOOLS:
        used = imports(path)
        assert {room(name) for name in used if name.startswith("qwen_eval.")} - {"schema"} <= SCRIPTS_MAY_IMPORT
        assert not used & ({script.stem for script in SCRIPTS} | HEAVY)


def test_nothing_in_eval_shadows_a_library() -> None:
    # a library of that name would be found in site-packages or the standard library when eval/ is not on the path
    known = [entry for entry in sys.path if Path(entry or ".").resolve() != EVAL]
    for path in EVAL.iterdir():
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__"):
            assert importlib.machinery.PathFinder.find_spec(path.stem, known) is None, path
            assert path.stem not in sys.stdlib_module_names


def fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    """What a new process says that finds the harness and has loaded nothing of it. It has to end well."""
    env = {**os.environ, "PYTHONPATH": str(EVAL)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_loads_nothing_but_the_command_line(script: Path) -> None:
    """--help waits for no library that takes long to load (`make bench` measures its time)."""
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
    # as a whole path: a checkout at /demo is no reason against a path that ends so
    named = re.compile("|".join(r"(?<![\w.~})-])" + re.escape(str(home)) + "/" for home in homes).encode())
    for name in listed.stdout.split("\0"):
        path = root / name
        if path.is_file() and path.stat().st_size < 1_000_000:
            text = path.read_bytes()
            assert not named.search(text), name
