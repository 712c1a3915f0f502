"""Tests that are a script and use functions, classes and constants of the candidate by name."""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
import types
from itertools import pairwise
from typing import Any

from .exchange import CONTAINERS
from .faults import Unsuited
from .proxies import CheckerEnd, RemoteType

# modules that a test may use without importing them, as the candidate's imports are not the test's: the checker's own
_MODULES = (
    "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools",
    "json", "math", "operator", "random", "re", "statistics", "string", "sys", "typing",
)  # fmt: skip
_PLAIN = frozenset(
    name
    for kind in (int, float, complex, str, bytes, tuple, frozenset, range, type(None), *CONTAINERS)
    for name in dir(kind)
)


_SUBSTITUTES = frozenset({"redirect_stdout", "redirect_stderr", "patch", "monkeypatch"})


class Names(dict[str, Any]):
    """The test's names. One that it has not itself is the candidate's, asked for at each look, so that a variable that
    the candidate changes is seen to change; the language's own come before the candidate's but for `overrides`."""

    def __init__(self, overrides: tuple[str, ...]) -> None:
        super().__init__(__name__="__main__")
        self.overrides = overrides
        self.modules: dict[str, Any] = {}
        self.end = CheckerEnd(self)

    def __missing__(self, name: str) -> Any:
        if name.startswith("__") or (hasattr(builtins, name) and name not in self.overrides):
            raise KeyError(name)
        if name in self.modules:
            return self.modules[name]
        value = self.end.ask("name", name)
        if type(value) is RemoteType:
            self.end.named.add(value)
        return value


class _Main(types.ModuleType):
    """The test's names as the module that was started, in which unittest.main looks for tests."""

    def __init__(self, names: Names) -> None:
        super().__init__("__main__")
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            return self._names[name]
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        return [*self._names]


class Script:
    """A test and its setup, compiled. Raises what compiling them raises, and Unsuited for what shows in their text."""

    def __init__(self, setup: str, test: str, overrides: tuple[str, ...]) -> None:
        self.names = Names(overrides)
        self.end = self.names.end
        trees = ast.parse(setup, "<context>"), ast.parse(test, "<test>")
        used = _Use([*trees[0].body, *trees[1].body])
        self.in_classes = (used.in_classes & {node.id for node in used.loaded}) - used.defined - used.imported
        if (found := used.substitutes()) is not None:
            raise Unsuited(f"the test uses {found}, which cannot reach into the candidate's process")
        self.end.awaits = used.awaits
        self.end.uses_objects = used.uses_objects()
        self.names.modules = {name: importlib.import_module(name) for name in _MODULES if used.means_module(name)}
        self.parts = [
            compile(text, name, "exec", dont_inherit=True) for text, name in ((setup, "<context>"), (test, "<test>"))
        ]

    def run(self) -> None:
        """Runs both. Raises what they raise, and a fault of the candidate's process or of the test even where the
        test has caught it."""
        lacking = False
        for name in self.in_classes:  # the body of a class looks past __missing__
            try:
                self.names[name] = self.names.__missing__(name)
            except KeyError:
                lacking = lacking or not hasattr(builtins, name)
        self.end.asked = lacking
        sys.modules["__main__"] = _Main(self.names)
        try:
            for part in self.parts:
                exec(part, self.names)
        except SystemExit as error:
            if error.code or self.end.exits:  # the test's own end without an error, as unittest.main's, is a pass
                raise
        if self.end.fault is not None:
            raise self.end.fault


class _Use:
    """How a test uses the names that it does not define."""

    def __init__(self, body: list[ast.stmt]) -> None:
        nodes = [node for statement in body for node in ast.walk(statement)]
        self.attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
        self.compared = [node for node in nodes if isinstance(node, ast.Compare)]
        self.handled = [node.type for node in nodes if isinstance(node, ast.ExceptHandler) and node.type]
        self.handled += [
            argument
            for node in nodes
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if node.func.id in ("isinstance", "issubclass")
            for argument in node.args[1:]
        ]
        self.loaded = [node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        self.defined = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        self.in_classes = {
            node.id for each in classes for part in each.body for node in ast.walk(part) if isinstance(node, ast.Name)
        }
        self.awaits = any(isinstance(node, ast.Await) for node in nodes)
        self.imported: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imported |= {(each.asname or each.name).partition(".")[0] for each in node.names}
                self.awaits = self.awaits or "asyncio" in self.imported
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.defined.add(node.name)
            elif isinstance(node, ast.arg):
                self.defined.add(node.arg)

    def substitutes(self) -> str | None:
        """A name by which the test puts something in the place of what is the whole process's, such as its output."""
        named = {node.id for node in self.loaded} & self.imported
        for node in self.attributes:
            root = _root(node)
            if isinstance(root, ast.Name) and root.id in self.imported:
                named.add(node.attr)
                if isinstance(node.ctx, ast.Store) and root.id in ("sys", "builtins"):
                    return f"{root.id}.{node.attr}"
        return min(named & _SUBSTITUTES, default=None)

    def means_module(self, name: str) -> bool:
        """Whether the test uses a name as that of a module, and has not imported it."""
        uses = [node for node in self.loaded if node.id == name]
        known = [node.attr for node in self.attributes if isinstance(node.value, ast.Name) and node.value.id == name]
        if not uses or len(uses) != len(known) or name in self.imported | self.defined:
            return False
        module = importlib.import_module(name)
        return all(hasattr(module, attribute) for attribute in known)

    def uses_objects(self) -> bool:
        """Whether the test has anything to do with objects that are no plain values: it uses an attribute that no plain
        value has, catches or asks for a class by a name that is not its own, or compares what two calls of one such
        name return."""
        for node in self.attributes:
            root = _root(node)
            library = isinstance(root, ast.Name) and (
                root.id in self.imported | {"self"} or (root.id in _MODULES and self.means_module(root.id))
            )
            if node.attr not in _PLAIN and not library:
                return True
        if any(self._names_in([part]) for part in self.handled):
            return True
        for compared in self.compared:
            sides = [self._names_in([each], called=True) for each in (compared.left, *compared.comparators)]
            if any(one & other for one, other in pairwise(sides)):
                return True
        return False

    def _names_in(self, parts: list[ast.expr], called: bool = False) -> set[str]:
        """The names in expressions (called: those that are called) that are neither the test's nor the language's."""
        nodes = [node for part in parts for node in ast.walk(part)]
        if called:
            nodes = [node.func for node in nodes if isinstance(node, ast.Call)]
        found = {node.id for node in nodes if isinstance(node, ast.Name)}
        return {name for name in found - self.defined - self.imported if not hasattr(builtins, name)}


def _root(node: ast.expr) -> ast.expr:
    """What stands before the first dot."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node
