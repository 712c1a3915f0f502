"""Caches of keys and values, as transformers hands them to layers.

transformers names the argument `past_key_values` up to 5.23 and `cache` from 5.24, and its layers take any keyword
(`**kwargs`). A layer that does not know the current name ignores the cache and attends to the newest tokens alone: no error,
plausible logits, wrong figures. So a layer of ours takes it under either name (`take`), and its remaining keywords may hold
none (`refuse_unread`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from transformers import Cache

from qwen_eval.schema import CheckpointError

NAMES = ("cache", "past_key_values")  # the newer one first


def take(keywords: dict[str, Any]) -> Any:
    """The cache among a layer's keywords, removed from them, or None. Raises CheckpointError for one under a name that is
    not known here."""
    given = [keywords.pop(name, None) for name in NAMES]
    refuse_unread(keywords)
    return next((cache for cache in given if cache is not None), None)


def refuse_unread(keywords: Mapping[str, Any]) -> None:
    """Raises CheckpointError for a cache among keywords that nothing reads."""
    for name, value in keywords.items():
        if isinstance(value, Cache):
            raise CheckpointError(
                f"transformers {transformers.__version__} hands the layers their cache as {name}, which this model's layers do "
                "not read; install a version of transformers that was tried with this harness"
            )
