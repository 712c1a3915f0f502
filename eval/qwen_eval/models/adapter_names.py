"""Adapters that were trained on a model's original code, in the names of the model that runs here.

Qwen-1's original code has one matrix for query, key and value, and other names; the checkpoint is translated while it is loaded
(qwen1.py), by renamings and by splitting matrices by their rows. A LoRA of such a matrix is split alike: what multiplies the
input serves every part, what gives the output has its rows split, and so have the lengths of DoRA's rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightConverter

from qwen_eval.schema import CheckpointError

_FRONT = "base_model.model."
_OF_LORA = re.compile(r"(?P<path>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(?P<end>\.weight|\.bias|)$")
_BY_ROWS = ("lora_B", "lora_magnitude_vector")


def translated(config: Any, weights: dict[str, Tensor], model: Any, folder: Path) -> dict[str, Tensor]:
    """An adapter's tensors in the model's names; the names in its config (of PEFT) are changed with them. Unchanged where the
    names are the model's, or the model is not one that is translated. Raises CheckpointError for what cannot be."""
    mapping: Any = get_checkpoint_conversion_mapping  # has no types
    rules: Any = mapping(model.config.model_type)
    modules = {name for name, _ in model.named_modules()}
    if not rules or all(_path(key) in modules for key in weights):
        return weights
    if str(config.peft_type.value) != "LORA" or config.rank_pattern or config.alpha_pattern or config.target_parameters:
        raise CheckpointError(
            f"{folder}: its names are those of the model's original code, and of such adapters only LoRA with one rank and "
            "alpha for all layers can be translated; train it on a copy in Qwen2's format (tools/export_qwen2.py)"
        )
    found: dict[str, Tensor] = {}
    layers: set[str] = set()
    whole: set[str] = set()
    for key, value in weights.items():
        for path, end, part in _parts(key, value, rules, model):
            found[f"{_FRONT}{path}{end}"] = part
            (layers if "lora_" in end else whole).add(path)
    config.target_modules, config.exclude_modules, config.layers_to_transform = layers, None, None
    config.modules_to_save = sorted(whole) or None
    return found


def _path(key: str) -> str:
    """The module that a tensor is of."""
    name = key.removeprefix(_FRONT)
    match = _OF_LORA.match(name)
    return match["path"] if match else name.rpartition(".")[0]


def _parts(key: str, value: Tensor, rules: Any, model: Any) -> Iterator[tuple[str, str, Tensor]]:
    """What a tensor becomes: by module of the model, the rest of its name and its own rows."""
    path = _path(key)
    end = key.removeprefix(_FRONT).removeprefix(path)
    name, converter, source = f"{path}.weight", None, None
    for rule in rules:
        name, matched = rule.rename_source_key(name)
        if matched is not None and isinstance(rule, WeightConverter):
            converter, source = rule, matched
    match = _OF_LORA.match(key.removeprefix(_FRONT))
    if converter is None or source is None:
        yield name.removesuffix(".weight"), end, value
        return
    targets: list[str] = converter.target_patterns
    names = {target: name.replace(targets[0], target) for target in targets}
    pieces: Mapping[str, Any] = dict.fromkeys(targets, value)
    if match is None or match["part"] in _BY_ROWS:
        for operation in converter.operations:
            pieces = operation.convert(
                {source: [value]}, source_patterns=[source], target_patterns=targets, full_layer_name=name, model=model,
                config=model.config,
            )  # fmt: skip
    for target, piece in pieces.items():
        yield names[target].removesuffix(".weight"), end, (piece[0] if isinstance(piece, list) else piece).contiguous()
