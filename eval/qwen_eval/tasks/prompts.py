"""Text of the prompts that several benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from qwen_eval import data
from qwen_eval.schema import InputError

RowT = TypeVar("RowT")


def option_lines(options: Sequence[str]) -> str:
    """`A. first\\nB. second\\n...`, one line an option."""
    return "".join(f"{letter}. {option}\n" for letter, option in zip(data.LETTERS, options, strict=True))


def take_shots(rows: Sequence[RowT], shots: int, what: str) -> Sequence[RowT]:
    """The first `shots` rows. Raises InputError when there are fewer."""
    if len(rows) < shots:
        raise InputError(f"--shots {shots} is more than the {len(rows)} development rows of {what}; ask for fewer")
    return rows[:shots]
