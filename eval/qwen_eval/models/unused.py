"""Tensors of a checkpoint that its model has no place for: which of them say that the config is another model's.

Files hold more than a model reads: masks, rotary tables, heads for training, layers that predict further tokens. But a bias
where config.json has none, the scales of a quantized matrix, or one more layer of those that the model has mean that figures
would be computed with a part of the model missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_SHOWN = 3
# fmt: off
_OF_QUANTIZED = (
    "qweight", "qzeros", "scales", "g_idx", "weight_scale", "weight_scale_inv", "weight_packed", "weight_shape", "input_scale",
    "absmax", "SCB", "W_q",
)
# fmt: on
_OF_A_CACHE = (
    "k_scale",
    "v_scale",
    "kv_scale",
    "k_zero_point",
    "v_zero_point",
)  # of a cache in few bits, which none is here


def listed(names: Sequence[str]) -> str:
    """The first few names and how many there are."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown}{', ...' if len(names) > _SHOWN else ''} ({len(names)} tensors)"


def of_quantized(names: Sequence[str]) -> str:
    """What unused tensors mean that only quantized weights have, "" where there are none."""
    first = next((name for name in names if name.rpartition(".")[2] in _OF_QUANTIZED), "")
    if not first:
        return ""
    return (
        f"{first} is of quantized weights, and config.json has no quantization_config that says how (older tools wrote it to "
        "quantize_config.json or quant_config.json: put it into config.json, with its quant_method)"
    )


def misplaced(names: Sequence[str], model: Any) -> list[str]:
    """Those of a model's unused tensors that belong to one of its layers: of a module that has parameters itself, or of one
    more in a row of layers (unless the config says that further ones predict further tokens)."""
    modules = dict(model.named_modules())
    further = getattr(model.config.get_text_config(), "num_nextn_predict_layers", 0)
    names = [name for name in names if name.rpartition(".")[2] not in _OF_A_CACHE]
    return [name for name in names if _of_a_module(name, modules) or (not further and _one_more(name, modules))]


def _of_a_module(name: str, modules: dict[str, Any]) -> bool:
    owner = modules.get(name.rpartition(".")[0])
    return owner is not None and any(True for _ in owner.parameters(recurse=False))


def _one_more(name: str, modules: dict[str, Any]) -> bool:
    """Whether a tensor is of a numbered module that the model lacks, where it has the same one of number 0."""
    for number in re.finditer(r"\.(\d+)(?=\.)", name):
        before, after = name[: number.start()], name[number.end() :].rpartition(".")[0].lstrip(".")
        first = ".".join(part for part in (before, "0", after) if part)
        if f"{before}.{number[1]}" not in modules and first in modules:
            return True
    return False
