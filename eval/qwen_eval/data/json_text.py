"""JSON as files of other people hold it."""

from __future__ import annotations

import json
from typing import Any

DEPTH = 100  # levels; no file that is read here has ten


def loads(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for a text that is no JSON, also where the standard library does not: for
    more than DEPTH levels, in which whatever calls itself once a level would run out of stack later."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {DEPTH} levels deep") from None
    level: list[Any] = [[value]]
    for _ in range(DEPTH + 1):
        if not level:
            return value
        items = (item for outer in level for item in (outer.values() if type(outer) is dict else outer))
        level = [item for item in items if type(item) in (dict, list)]
    if level:
        raise ValueError(f"nested more than {DEPTH} levels deep")
    return value
