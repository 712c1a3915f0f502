"""Checkpoints that are stored quantized (GPTQ, AWQ, FP8, MXFP4, bitsandbytes ...): what results call them, and what they need.

transformers reads them with a package of each format. A format that it does not know it leaves out without a word, and would
take packed numbers for weights; where it has no kernel for one it computes with the dequantized weights.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig
from transformers.quantizers import auto

from qwen_eval.models import imports
from qwen_eval.models.tokenizers import one_line
from qwen_eval.schema import CheckpointError, ModelSpec

# what a format needs: module -> package
_PACKAGES: Mapping[str, Mapping[str, str]] = {
    "gptq": {"optimum": "optimum", "gptqmodel": "gptqmodel"},
    "awq": {"gptqmodel": "gptqmodel"},
    "compressed-tensors": {"compressed_tensors": "compressed-tensors"},
    "bitsandbytes": {"bitsandbytes": "bitsandbytes"},
    "hqq": {"hqq": "hqq"},
    "torchao": {"torchao": "torchao"},
    "quanto": {"optimum": "optimum-quanto"},
    "aqlm": {"aqlm": "aqlm[gpu,cpu]"},
    "vptq": {"vptq": "vptq"},
    "spqr": {"spqr_quant": "spqr_quant[gpu]"},
    "higgs": {"flute": "flute-kernel"},
    "eetq": {"kernels": "kernels"},
    "fp_quant": {"fp_quant": "fp_quant"},
    "auto-round": {"auto_round": "auto-round"},
    "quark": {"quark": "amd-quark"},
    "sinq": {"sinq": "sinq"},
    "fbgemm_fp8": {"fbgemm_gpu": "fbgemm-gpu"},
}


def settings(config: PreTrainedConfig) -> dict[str, Any] | None:
    """What a config says of its quantization, None where it says nothing."""
    for part in (config, config.get_text_config()):
        own = getattr(part, "quantization_config", None)
        if own:
            return dict(own) if isinstance(own, Mapping) else dict(own.to_dict())
    return None


def label(found: Mapping[str, Any]) -> str:
    """What results call a quantization: "gptq4", "bitsandbytes:nf4", "compressed-tensors:int4", "fp8"."""
    method = _method(found)
    if method == "bitsandbytes":
        return f"{method}:{found.get('bnb_4bit_quant_type', 'fp4') if found.get('load_in_4bit') else 'int8'}"
    if method == "compressed-tensors":
        groups = found.get("config_groups") or {}
        kinds = {_weights(group) for group in groups.values() if isinstance(group, Mapping)}
        return ":".join([method, *(["/".join(sorted(kinds))] if kinds - {""} else [])])
    if method == "torchao":
        kind = found.get("quant_type")
        kind = kind.get("default", kind) if isinstance(kind, Mapping) else kind
        kind = kind.get("_type", "") if isinstance(kind, Mapping) else kind
        return f"{method}:{kind}" if isinstance(kind, str) and kind else method
    if method == "hqq":
        inner = (found.get("quant_config") or {}).get("weight_quant_params") or {}
        return f"{method}{inner.get('nbits', '')}"
    if method == "quanto":
        return f"{method}:{found.get('weights', '')}".rstrip(":")
    return f"{method}{found.get('bits', found.get('w_bit', ''))}"


def _weights(group: Mapping[str, Any]) -> str:
    """The weights' type of one of compressed-tensors' groups: "int4", "float8"."""
    weights = group.get("weights")
    return f"{weights.get('type', '')}{weights.get('num_bits', '')}" if isinstance(weights, Mapping) else ""


def _method(found: Mapping[str, Any]) -> str:
    if found.get("load_in_8bit") or found.get("load_in_4bit"):
        return "bitsandbytes"
    method = found.get("quant_method")
    return str(getattr(method, "value", method) or "")


def check(found: Mapping[str, Any], spec: ModelSpec, device: str, path: Path) -> bool:
    """Whether transformers computes with the dequantized weights here. path: of the config. Raises CheckpointError where the
    format is unknown, needs a package or a GPU that is not there, or is to be quantized or adapted again."""
    method = _method(found)
    known = auto.AUTO_QUANTIZATION_CONFIG_MAPPING
    if not any(name == method or name.startswith(f"{method}_") for name in known) or not method:
        said = f"quantization method {method!r}, which transformers {transformers.__version__} does not read"
        raise CheckpointError(
            f"{path}: {said if method else 'its quantization_config names no quant_method'}; use the checkpoint that it was "
            "made from, or serve it and use --engine api"
        )
    if spec.quantize != "none":
        raise CheckpointError(f"{path}: the checkpoint is quantized already ({label(found)}); leave out --quantize")
    if spec.adapter is not None and spec.adapter_mode == "merge":
        raise CheckpointError(
            f"{path}: an adapter cannot be merged into quantized weights ({label(found)}) without rounding them again; use "
            "--adapter-mode apply, or the checkpoint that it was made from"
        )
    needed = _PACKAGES.get(method, {})
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise CheckpointError(
            f"{path}: the checkpoint is quantized ({label(found)}), and transformers reads it with {' and '.join(missing)}; "
            f"run: pip install {' '.join(missing)}"
        )
    try:
        quantizer: Any = auto.AutoHfQuantizer.from_config(dict(found), pre_quantized=True)
        quantizer.validate_environment(device_map=None if device == "cpu" else {"": device}, weights_only=False)
    except Exception as error:  # anything, from ImportError to NotImplementedError
        raise CheckpointError(
            f"{path}: the checkpoint is quantized ({label(found)}), and transformers cannot read it here: {one_line(error)}"
            f"{imports.remedy(error)}"
        ) from error
    return bool(getattr(quantizer.quantization_config, "dequantize", False))


def check_type(model: Any, dtype: torch.dtype, where: Path) -> None:
    """Raises CheckpointError where a format's reader made the weights narrower than was asked for, or of the other 16 bits."""
    narrow = {parameter.dtype for parameter in model.parameters() if parameter.dtype in (torch.bfloat16, torch.float16)}
    for taken in narrow - {dtype}:
        name = str(taken).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: transformers computes this quantized checkpoint in {name} here; add --dtype {name}"
        )
