"""Benchmark data as typed rows: `data.mmlu(...)` and its fellows, the subjects, and the hash that names a data set.

A module for each kind (choice, problems, tools, translation, long_texts) on top of files (bytes to rows, errors with file
and line) and catalogue (the subjects). Modules load when a name of theirs is first used: --help needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.lazy import exports

if TYPE_CHECKING:
    from harness.data.catalogue import SubjectInfo, choose_subjects, subjects
    from harness.data.choice import LETTERS, ChoiceRow, ChoiceSet, ceval, cmmlu, mmlu
    from harness.data.files import Source, content_hash, text_lines
    from harness.data.long_texts import Documents, documents
    from harness.data.official import changed, changed_choices
    from harness.data.problems import CodeTask, Gsm8k, HumanEval, MathProblem, completions, gsm8k, humaneval
    from harness.data.tools import AgentSet, AgentTask, FakeTool, ReactItem, agent_set, option, react_items, tool_files
    from harness.data.translation import Segment, TranslationShot, Wmt22, translation_shots, wmt22

_NAMES = {
    "catalogue": (
        "SubjectInfo",
        "choose_subjects",
        "subjects",
    ),
    "choice": (
        "LETTERS",
        "ChoiceRow",
        "ChoiceSet",
        "ceval",
        "cmmlu",
        "mmlu",
    ),
    "long_texts": (
        "Documents",
        "documents",
    ),
    "files": (
        "Source",
        "content_hash",
        "text_lines",
    ),
    "official": (
        "changed",
        "changed_choices",
    ),
    "problems": (
        "CodeTask",
        "Gsm8k",
        "HumanEval",
        "MathProblem",
        "completions",
        "gsm8k",
        "humaneval",
    ),
    "tools": (
        "AgentSet",
        "AgentTask",
        "FakeTool",
        "ReactItem",
        "agent_set",
        "option",
        "react_items",
        "tool_files",
    ),
    "translation": (
        "Segment",
        "TranslationShot",
        "Wmt22",
        "translation_shots",
        "wmt22",
    ),
}

__all__ = [
    "LETTERS",
    "AgentSet",
    "AgentTask",
    "ChoiceRow",
    "ChoiceSet",
    "CodeTask",
    "Documents",
    "FakeTool",
    "Gsm8k",
    "HumanEval",
    "MathProblem",
    "ReactItem",
    "Segment",
    "Source",
    "SubjectInfo",
    "TranslationShot",
    "Wmt22",
    "agent_set",
    "ceval",
    "changed",
    "changed_choices",
    "choose_subjects",
    "cmmlu",
    "completions",
    "content_hash",
    "documents",
    "gsm8k",
    "humaneval",
    "mmlu",
    "option",
    "react_items",
    "subjects",
    "text_lines",
    "tool_files",
    "translation_shots",
    "wmt22",
]


__getattr__ = exports(__name__, _NAMES)
