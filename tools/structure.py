"""The rooms of the package from the bottom up, as its files import each other: `make structure`.

Each room with its floor, its modules and lines, and the rooms that it imports. Circles, among rooms or among modules, are
lines at the end; exit status 1 where there are any. What a room may import is a rule of tests/test_structure.py.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

EVAL = Path(__file__).resolve().parents[1] / "eval"
PACKAGE = "qwen_eval"


def imports(path: Path, top: Path = EVAL) -> set[str]:
    """The modules a file imports, wherever in it the import stands; of the package the modules that names are taken from.
    top: the folder that the package lies in."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # inside the sandbox: the modules beside this one
                folder = path.parents[node.level - 1].relative_to(top).parts
                base = ".".join([*folder, *base.split(".")]).rstrip(".")
            inner = {f"{base}.{name.name}" for name in node.names}
            found |= {name if module_path(name, top) else base for name in inner}
    return found


def module_name(path: Path, top: Path = EVAL) -> str:
    """eval/qwen_eval/data/__init__.py -> qwen_eval.data"""
    parts = path.relative_to(top).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_path(name: str, top: Path = EVAL) -> Path | None:
    """The file of a module below `top`."""
    base = top.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def modules(top: Path = EVAL) -> dict[str, Path]:
    """The modules of the package, each with its file."""
    return {module_name(path, top): path for path in sorted((top / PACKAGE).rglob("*.py"))}


def graph(top: Path = EVAL) -> dict[str, set[str]]:
    """The modules of the package, each with the others that it imports."""
    files = modules(top)
    return {name: (imports(path, top) & files.keys()) - {name} for name, path in files.items()}


def room(module: str) -> str:
    """qwen_eval.engines.local.trie -> engines"""
    return [*module.split("."), "__init__"][1]


def rooms(top: Path = EVAL) -> dict[str, set[str]]:
    """The rooms of the package, each with the others that it imports."""
    found: dict[str, set[str]] = {}
    for module, used in graph(top).items():
        found.setdefault(room(module), set()).update(map(room, used))
    return {name: used - {name, "__init__"} for name, used in found.items()}


def circles(graph: Mapping[str, set[str]]) -> tuple[list[list[str]], dict[str, set[str]]]:
    """Circles, each from a node back to itself, and the graph without one import of each."""
    left, found = {name: set(used) for name, used in graph.items()}, []
    while True:
        try:
            TopologicalSorter(left).prepare()
            return found, left
        except CycleError as error:
            circle = list(reversed(error.args[1]))  # graphlib's goes from what is imported to what imports it
            found.append(circle)
            left[circle[0]].remove(circle[1])


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room, one above the highest that it imports. For a graph without a circle."""
    found: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        found[name] = max((found[used] + 1 for used in graph[name]), default=0)
    return found


def main(top: Path = EVAL) -> int:
    """Prints the house. Returns the exit status."""
    used, files = rooms(top), modules(top)
    among_rooms, cut = circles(used)
    found = floors(cut)
    rows = [("floor", "room", "modules", "lines", "imports")]
    for name in sorted(used, key=lambda name: (found[name], name)):
        inside = [path for module, path in files.items() if room(module) == name]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in inside)
        rows.append((str(found[name]), name, str(len(inside)), str(lines), ", ".join(sorted(used[name])) or "-"))
    for floor, name, count, lines, imported in rows:
        print(f"{floor:5}  {name:9} {count:>7} {lines:>6}  {imported}")
    circular = [*among_rooms, *circles(graph(top))[0]]
    for circle in circular:
        print(f"circle: {' -> '.join(circle)}")
    return 1 if circular else 0


if __name__ == "__main__":
    sys.exit(main())
