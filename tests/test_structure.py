"""The house keeps its shape: imports go one way, scripts start without torch, nothing shadows a library."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import later

EVAL = Path(__file__).resolve().parents[1] / "eval"
SCRIPTS = sorted(EVAL.glob("*.py"))
TOOLS = {"report", "compare", "suite"}

# module of the package -> modules of the package it may import ("*": any)
MAY_IMPORT = {
    "schema": set(),
    "lazy": set(),
    "entry": {"later", "arguments", "runner", "schema", "tables"},
    "data": {"schema", "hub", "lazy"},
    "hub": {"schema"},
    "demo": {"schema"},
    "prompts": {"schema", "data"},
    "extract": {"schema"},
    "metrics": {"schema"},
    "sandbox": {"schema", "lazy"},
    "multiple_choice": {"schema", "data", "prompts", "metrics", "free_text", "extract", "arguments"},
    "free_text": {"schema", "arguments", "metrics"},
    "hfagent": {"later", "schema", "data", "sandbox"},
    "stand_in": {"schema"},
    "models": {"schema"},
    "engines": {"schema", "models", "extract"},
    "durable": {"schema"},
    "store": {"schema", "durable"},
    "results_csv": {"schema", "durable", "store"},
    "reporting": {"schema", "demo", "results_csv"},
    "estimate": {"schema"},
    "page": {"schema", "reporting", "results_csv", "store"},
    "tables": {"schema"},
    "precision": {"schema", "paired", "store"},
    "parallel": {"schema"},
    "paired": {"metrics"},
    "runs": {"schema", "store"},
    "comparison": {"schema", "paired", "runs", "store"},
    "comparison_text": {"comparison", "paired", "runs"},
    "foreign": {"schema"},
    "self_check": {"schema"},
    "waterfall": {"schema", "foreign"},
    "against": {"schema", "comparison_text", "foreign", "paired", "runs", "waterfall"},
    "arguments": {"later", "schema", "data", "demo"},
    "answering": {"schema", "parallel", "store"},
    "runner": {
        "entry",
        "answering",
        "schema",
        "arguments",
        "data",
        "demo",
        "engines",
        "models",
        "self_check",
        "stand_in",
        "store",
        "tables",
        "parallel",
        "precision",
        "results_csv",
    },
}
SCRIPTS_MAY_IMPORT = {
    "arguments", "data", "entry", "extract", "free_text", "hfagent", "later", "metrics", "multiple_choice", "prompts",
    "results_csv", "runner", "sandbox", "schema", "stand_in", "store",
}  # fmt: skip
WITH_HELP = {"arguments", "entry", "later"}  # what a script loads to answer --help


def imports(path: Path) -> set[str]:
    """The modules a file imports, those of the package as "harness.part"."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "harness":
                found |= {f"harness.{name.name}" for name in node.names}
            elif node.module == "harness.later":
                found |= {"harness.later", *(getattr(later, name.name).__name__ for name in node.names)}
            else:
                found.add(node.module)
    return found


def parts(path: Path) -> set[str]:
    """The parts of the package that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("harness.")} - {"__version__"}


@pytest.mark.parametrize("path", sorted((EVAL / "harness").rglob("*.py")), ids=lambda path: str(path.relative_to(EVAL)))
def test_imports_in_the_package_go_one_way(path: Path) -> None:
    relative = path.relative_to(EVAL / "harness")
    part = relative.parts[0].removesuffix(".py")
    if part == "__init__":
        assert not parts(path)
    elif part != "later":  # it names modules and uses none
        assert parts(path) - {part} <= MAY_IMPORT[part]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_no_engine_no_torch_and_not_each_other(path: Path) -> None:
    if path.stem not in TOOLS:
        assert parts(path) <= SCRIPTS_MAY_IMPORT
        assert not imports(path) & ({script.stem for script in SCRIPTS} | {"torch", "transformers", "pandas"})


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
    """Neither libraries nor the harness itself: --help answers in 0.1 CPU seconds (`make bench` measures it)."""
    code = (
        "import runpy, sys\nsys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n    print(*sys.modules, file=sys.stderr)"
    )
    done = fresh_python(code)
    assert "--help" in done.stdout
    loaded = set(done.stderr.split())
    assert not loaded & {"torch", "transformers", "pandas", "datasets", "numpy", "dataclasses", "hashlib", "subprocess"}
    ours = {name.split(".")[1] for name in loaded if name.startswith("harness.")}
    assert ours <= {*WITH_HELP, *({"hfagent"} if script.stem in ("plugin_eval", "suite") else ())}


def test_a_module_that_waits_is_that_module() -> None:
    code = (
        "import sys\nfrom harness.later import durable, numbers\n"
        "assert 'harness.durable' not in sys.modules and 'harness.extract.numbers' not in sys.modules\n"
        "durable.mark = 1\n"
        "import harness.durable\nassert harness.durable.mark == 1 and durable.Appender is harness.durable.Appender\n"
        "del durable.mark\nassert not hasattr(harness.durable, 'mark')\n"
        "assert numbers.number('7 apples') == 7\n"
        "from harness.later import durable as again\nassert again.Appender is harness.durable.Appender\n"
        "from harness.later import nothing\n"
        "try:\n    nothing.at_all\nexcept ModuleNotFoundError as error:\n    assert 'harness.nothing' in str(error)\n"
        "else:\n    assert False\n"
    )
    fresh_python(code)


def test_threads_that_wait_for_one_module_get_it_whole() -> None:
    code = (
        "import sys, threading\nfrom harness.later import store\nsys.setswitchinterval(1e-6)\n"
        "start, seen = threading.Barrier(8), []\n"
        "def use():\n    start.wait()\n    seen.append(store.write_json_lines)\n"
        "threads = [threading.Thread(target=use) for _ in range(8)]\n"
        "[one.start() for one in threads]\n[one.join() for one in threads]\n"
        "assert len(seen) == 8 and len(set(seen)) == 1"  # the last function of the module: it is there when all is
    )
    fresh_python(code)


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
