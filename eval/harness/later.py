"""The package's modules as scripts import them: each loads at its first use, so that --help waits for none.

    from harness.later import data, schema

The standard library's LazyLoader does the same, but Python 3.11's shows a half-loaded module to a second thread; here
the import itself, with its lock, does the loading.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness import against as against
    from harness import comparison as comparison
    from harness import comparison_text as comparison_text
    from harness import data as data
    from harness import demo as demo
    from harness import estimate as estimate
    from harness import foreign as foreign
    from harness import free_text as free_text
    from harness import hfagent as hfagent
    from harness import metrics as metrics
    from harness import multiple_choice as multiple_choice
    from harness import page as page
    from harness import paired as paired
    from harness import prompts as prompts
    from harness import results_csv as results_csv
    from harness import runner as runner
    from harness import runs as runs
    from harness import sandbox as sandbox
    from harness import schema as schema
    from harness import store as store
    from harness import tables as tables
    from harness.extract import code as code
    from harness.extract import letters_2023 as letters_2023
    from harness.extract import numbers as numbers
    from harness.extract import react as react
    from harness.reporting import figures as figures
    from harness.reporting import hub_results as hub_results
    from harness.reporting import layout as layout
    from harness.reporting import lines as lines
    from harness.reporting import render as render
    from harness.reporting import verification as verification
    from harness.reporting import words as words

EXTRACT = ("code", "letters_2023", "numbers", "react")
REPORTING = ("figures", "hub_results", "layout", "lines", "render", "verification", "words")
PARTS = {**dict.fromkeys(EXTRACT, "extract."), **dict.fromkeys(REPORTING, "reporting.")}


class Waiting(ModuleType):
    """Stands for a module of that name, and is it to whoever takes, sets or deletes something in it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(importlib.import_module(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(importlib.import_module(self.__name__), name)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> ModuleType:
        if name.startswith("__"):  # what the import machinery asks of any module
            raise AttributeError(name)
        return Waiting(f"harness.{PARTS.get(name, '')}{name}")
