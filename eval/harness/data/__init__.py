"""Benchmark data as typed rows: `data.mmlu(...)` and its fellows, the subjects, and the hash that names a data set.

One module a format (choice, ...), on top of files (bytes to rows, errors with file and line) and catalogue (subjects).
"""

from harness.data.catalogue import SubjectInfo, choose_subjects, subjects
from harness.data.choice import LETTERS, ChoiceRow, ChoiceSet, ceval, cmmlu, mmlu
from harness.data.files import Source, content_hash

__all__ = [
    "LETTERS",
    "ChoiceRow",
    "ChoiceSet",
    "Source",
    "SubjectInfo",
    "ceval",
    "choose_subjects",
    "cmmlu",
    "content_hash",
    "mmlu",
    "subjects",
]
