"""Benchmarks by file: the eight beside the package, and those of one's own."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from qwen_eval.data.files import content_hash
from qwen_eval.schema import InputError
from qwen_eval.tasks.benchmark import SCRIPTS, Benchmark
from qwen_eval.tasks.facts import Facts, from_json


def load(path: Path) -> list[type[Benchmark]]:
    """The benchmarks that a file defines. Its code is run: name only files that you trust.

    Raises InputError for a file that is missing, fails, or defines none.
    """
    found = _defined(_module(path))
    if not found:
        raise InputError(f"{path} defines no benchmark: a class made from one of qwen_eval.tasks that has a name")
    for kind in found:
        check(kind)
    return found


def check(kind: type[Benchmark]) -> None:
    """Raises InputError for a benchmark that could not be run, or whose results would be taken for one of the eight's."""
    kind.check_facts()
    if kind.is_own() and kind.name in official():
        raise InputError(
            f"{inspect.getfile(kind)}: there is a benchmark {kind.name!r} already; give yours another name"
        )


def official() -> dict[str, type[Benchmark]]:
    """The eight by name, in the order of the tables."""
    found = [kind for path in sorted(SCRIPTS.glob("*.py")) for kind in _defined(_module(path))]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.order)}


def known(own: Iterable[Path] = ()) -> dict[str, type[Benchmark]]:
    """The eight and those of the files, by name. Raises InputError for a name that two of them have."""
    found = official()
    for path in own:
        for kind in load(path):
            if kind.name in found:
                raise InputError(f"{path}: there is a benchmark {kind.name!r} already; give yours another name")
            found[kind.name] = kind
    return found


def facts_of(name: str, kinds: Mapping[str, type[Benchmark]], manifest: Mapping[str, Any], source: object) -> Facts:
    """What is to be known of the benchmark of a stored run: from its class where that is known, else as its manifest says,
    else what its name and the usual statistics tell. source: the run, for messages. Raises InputError."""
    if name in kinds:
        return kinds[name].facts()
    if "benchmark" in manifest:
        return from_json(manifest["benchmark"], str(source))
    return Facts(name, name)


def _defined(module: ModuleType) -> list[type[Benchmark]]:
    """The benchmarks of a module in the order of its text."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Benchmark)
        and value.__module__ == module.__name__
        and "name" in vars(value)
    ]


def _module(path: Path) -> ModuleType:
    """The module of a file, loaded once. Raises InputError with file and line for one that fails."""
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"{path} is {'no file' if path.exists() else 'missing'}; name the file of a benchmark")
    # two files of one's own may have one name
    name = path.stem if path.parent == SCRIPTS else f"own_{path.stem}_{content_hash([str(path)])}"
    loaded = sys.modules.get(name)  # what was imported by its name is not loaded again
    file = getattr(loaded, "__file__", None)
    if loaded is not None and file and Path(file).resolve() == path:
        return loaded
    if str(path.parent) not in sys.path:  # so that it finds the modules beside it, as it does when it is run
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or path.suffix != ".py":
        raise InputError(f"{path} is no Python file; name the file of a benchmark")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except InputError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [1])[-1]
        raise InputError(f"{path}:{line}: {type(error).__name__}: {error}") from error
    return module
