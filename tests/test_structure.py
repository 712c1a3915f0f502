"""The house keeps its shape: imports go one way, scripts start without torch, nothing shadows a library."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import subprocess
import sys
from pathlib import Path

import pytest

EVAL = Path(__file__).resolve().parents[1] / "eval"
SCRIPTS = sorted(EVAL.glob("*.py"))
TOOLS = {"report", "compare", "suite"}

# module of the package -> modules of the package it may import ("*": any)
MAY_IMPORT = {
    "schema": set(),
    "lazy": set(),
    "data": {"schema", "hub", "lazy"},
    "hub": {"schema"},
    "demo": {"schema"},
    "prompts": {"schema", "data"},
    "extract": {"schema"},
    "metrics": {"schema"},
    "sandbox": {"schema", "lazy"},
    "multiple_choice": {"schema", "data", "prompts", "metrics", "free_text", "extract", "arguments"},
    "free_text": {"schema", "arguments", "metrics"},
    "hfagent": {"schema", "data", "sandbox"},
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
    "arguments": {"schema", "data", "demo"},
    "answering": {"schema", "parallel", "store"},
    "runner": {
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
    "arguments", "data", "extract", "free_text", "hfagent", "metrics", "multiple_choice", "prompts",
    "results_csv", "runner", "sandbox", "schema", "stand_in", "store",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """The modules a file imports, those of the package as "harness.part"."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "harness":
                found |= {f"harness.{name.name}" for name in node.names}
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
    else:
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


def test_help_answers_without_torch() -> None:
    """One interpreter start with an import hook that fails on heavy libraries."""
    block = (
        "import sys; sys.modules.update({m: None for m in ('torch', 'transformers', 'pandas', 'datasets', 'numpy')})"
    )
    for script in SCRIPTS:
        code = f"{block}; import runpy; sys.argv=['x', '--help']; runpy.run_path({str(script)!r}, run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(EVAL)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "--help" in done.stdout


def test_no_path_of_a_machine_in_the_repository() -> None:
    root = EVAL.parent
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    homes = (str(root) + "/", str(Path.home()) + "/")
    for name in listed.stdout.split("\0"):
        path = root / name
        if path.is_file() and path.stat().st_size < 1_000_000:
            text = path.read_bytes()
            assert not any(home.encode() in text for home in homes), name
