"""An interpreter whose files have other paths from now on: in a new root, or behind open folders.

A program's user may not look into the folders above the interpreter (/root is its owner's alone), and where nothing can be
mounted they stay there. An open folder leads past them: /proc/self/fd/N is the folder itself.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

_FIRST = 20  # number of the first open folder, above those of a role's files


def hold(paths: Iterable[str]) -> list[int]:
    """Opens the folders of an import path, for this process and its copies, and makes them the path. Returns their numbers."""
    held: dict[Path, int] = {}
    for path in dict.fromkeys(Path(path).resolve() for path in paths):
        if path.is_dir():
            held[path] = _FIRST + len(held)
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
            if fd != held[path]:
                os.dup2(fd, held[path])
                os.close(fd)
    nearest = sorted(held, key=lambda path: -len(path.parts))

    def behind(path: Path) -> Path:
        path = path.resolve()
        for folder in nearest:
            if path.is_relative_to(folder):
                return Path(f"/proc/self/fd/{held[folder]}", path.relative_to(folder))
        raise OSError(f"{path} lies in none of the folders")

    relocate(behind, [f"/proc/self/fd/{number}" for number in held.values()])
    return list(held.values())


def relocate(moved: Callable[[Path], Path], path: Iterable[str]) -> None:
    """Tells this interpreter where its files are: a new import path, and that of every module, where `moved` knows it (it
    raises OSError for others)."""

    def place(value: object) -> object:
        if isinstance(value, str) and value.startswith("/"):
            with contextlib.suppress(OSError):
                return str(moved(Path(value)))
        return value

    def change(owner: object, *names: str) -> None:
        for name in names:
            value = getattr(owner, name, None)
            with contextlib.suppress(AttributeError):  # some cannot be set
                if isinstance(value, list):
                    value[:] = map(place, value)
                elif isinstance(value, str):
                    setattr(owner, name, place(value))

    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        change(module, "__file__", "__path__", "__cached__")
        change(spec, "origin", "submodule_search_locations", "cached")
        change(getattr(spec, "loader", None), "path")
    change(
        sys, "prefix", "exec_prefix", "base_prefix", "base_exec_prefix", "executable", "_base_executable", "_stdlib_dir"
    )
    sys.path[:] = path
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
