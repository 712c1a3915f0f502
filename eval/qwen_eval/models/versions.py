"""The versions that this harness was tried with, of the libraries that compute.

Both change without notice what is relied on here: transformers renames what it passes to a model's layers, and the attention
and the matrix products of torch that are used (engines/local/kernels.py, blocked.py) are private. pyproject.toml has the
same bounds, and `make test-versions` tries both ends of transformers'.
"""

from __future__ import annotations

from importlib import import_module

from packaging.specifiers import SpecifierSet

TRIED = {"torch": ">=2.6,<2.15", "transformers": ">=5.10,<5.25"}
OPTIONAL = {"peft": ">=0.20,<0.22"}  # of the extras


def untried(names: tuple[str, ...] = tuple(TRIED)) -> list[str]:
    """A sentence for each library whose version lies outside the bounds."""
    found = {name: import_module(name).__version__ for name in names}
    bounds = {**OPTIONAL, **TRIED}
    return [
        f"{name} {found[name]} was not tried with this harness ({bounds[name]} was): its figures may be wrong"
        for name in names
        if not SpecifierSet(bounds[name]).contains(found[name])
    ]
