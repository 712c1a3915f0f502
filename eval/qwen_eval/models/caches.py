"""Caches of keys and values: passed to a model under the name that it reads, and checked to have been used.

transformers names the argument `past_key_values` up to 5.23 and `cache` from 5.24, and its layers take any keyword
(`**kwargs`). A layer that does not know the current name ignores the cache and attends to the newest tokens alone: no error,
plausible logits, wrong figures. So a cache is passed under a name that the model declares, a layer's
remaining keywords may hold none (`refuse_unread`), and after a pass it has to hold the tokens of the pass (`check_filled`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import transformers
from transformers import Cache

from qwen_eval.schema import CheckpointError

NAMES = ("cache", "past_key_values")  # the newer one first


def name_in(forward: Any) -> str:
    """The keyword under which a model's forward takes a cache. Raises CheckpointError where it declares neither."""
    parameters = inspect.signature(forward).parameters
    for name in NAMES:
        if name in parameters:
            return name
    raise CheckpointError(
        f"{type(getattr(forward, '__self__', forward)).__name__} takes no cache under a name known here ({', '.join(NAMES)}); "
        f"install a version of transformers that was tried with this harness instead of {transformers.__version__}"
    )


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


def check_filled(cache: Any, tokens: int, model: Any) -> None:
    """Raises CheckpointError unless a cache holds `tokens` tokens, as it does after passes over so many. A cache of models
    without attention counts none and is not checked, nor is None."""
    if not isinstance(cache, Cache):
        return
    try:
        held = int(cache.get_seq_length())
    except ValueError:  # no layer of attention
        return
    if held != tokens:
        raise CheckpointError(
            f"{type(model).__name__} left {held} of {tokens} tokens in its cache with transformers "
            f"{transformers.__version__}, so its figures would be wrong; install a version of transformers that was tried with "
            "this harness"
        )
