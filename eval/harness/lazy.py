"""Names of a package that load their module when they are first used, so that --help waits for none of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A `__getattr__` for the package (PEP 562). names: by submodule, the names of it that the package exports."""
    where = {name: module for module, own in names.items() for name in own}

    def load(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"{package} has no {name}")
        value = getattr(importlib.import_module(f"{package}.{where[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
