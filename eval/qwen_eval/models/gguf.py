"""GGUF files, which llama.cpp and its relatives use: the header, and a check of what transformers makes of it.

transformers reads config, tokenizer and weights of such a file, and ignores what it has no use for: scaled rotations, widths
that its config classes assume. So what a file says about its model is compared with the config here, and corrected or refused.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import importlib.util
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isclose, isfinite, prod
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from qwen_eval.schema import CheckpointError

MAGIC = b"GGUF"
SUFFIX = ".gguf"
_AGAIN = "get it again"
_ORIGINAL = "use the checkpoint that the file was made from"
_SHORT = 4096  # an array of so many numbers is kept: it has one per layer, not one per token
_VERSIONS = (2, 3)
# what transformers' reader was compared with other readers on (tests/test_gguf.py)
TRIED = ("llama", "qwen2", "qwen3", "gemma3")
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# keys of an architecture, and the attributes of a config that have to hold the same
_SAME = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size", "n_embd"),
    "block_count": ("num_hidden_layers", "n_layer"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
}
# Gemma scales its attention by a width of its own, which the file does not say. llama.cpp (src/models/gemma2.cpp, gemma3.cpp)
# takes a head's width, and hidden / heads for the 27B models, which it knows by their number of layers.
_GEMMAS = {"gemma2": 46, "gemma3": 62}


@dataclass(frozen=True)
class Tensor:
    """A tensor as a header describes it. shape: as torch has it. kind: F32, Q4_1 ... offset: from the data's start, in bytes;
    size: in bytes."""

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """The header of a GGUF file. metadata: its keys and values, without arrays of texts and long ones; tensors by name; start:
    where the tensors' data begins."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    start: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name for it, such as qwen2."""
        return str(self.metadata["general.architecture"])

    @cached_property
    def kinds(self) -> dict[str, int]:
        """How many tensors there are of each type, the most frequent first."""
        found: dict[str, int] = {}
        for tensor in self.tensors.values():
            found[tensor.kind] = found.get(tensor.kind, 0) + 1
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @cached_property
    def file_type(self) -> str:
        """What the file calls its quantization, such as Q4_K_M; without a name, the type of most of its numbers."""
        import gguf

        number = self.metadata.get("general.file_type")
        if number is not None and number in list(gguf.LlamaFileType):
            return gguf.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
        numbers: dict[str, int] = {}
        for tensor in self.tensors.values():
            numbers[tensor.kind] = numbers.get(tensor.kind, 0) + prod(tensor.shape)
        return max(numbers, key=lambda kind: numbers[kind])

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are without loss: their own type where they are plain numbers of one type (vectors are always stored
        in float32), else float32."""
        kinds = {tensor.kind for tensor in self.tensors.values() if len(tensor.shape) > 1}
        return _FLOATS.get(next(iter(kinds)), torch.float32) if len(kinds) == 1 else torch.float32

    def own(self) -> dict[str, Any]:
        """The keys of its architecture, without the prefix."""
        prefix = f"{self.architecture}."
        return {key.removeprefix(prefix): value for key, value in self.metadata.items() if key.startswith(prefix)}


def read_header(path: Path) -> Header:
    """The header of a GGUF file, which is checked to be complete.

    Raises CheckpointError: no GGUF file, a truncated or damaged one, one part of several, tensors of a type that is not known
    here, a missing package.
    """
    if importlib.util.find_spec("gguf") is None:
        raise CheckpointError(f"{path} needs the package gguf; run: pip install -e '.[gguf]'")
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            header = _Reader(path, content).header()
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise CheckpointError(f"{path} cannot be read ({error}); {_AGAIN}") from None
    parts = header.metadata.get("split.count")
    if parts not in (None, 0, 1):
        raise CheckpointError(
            f"{path} is one of {parts} parts; join them first: llama-gguf-split --merge {path} OUT.gguf"
        )
    _check_types(header)
    return header


class _Reader:
    """Reads a header from the file's bytes, never beyond them."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.at = path, content, 0

    def header(self) -> Header:
        if self.content[:4] != MAGIC:
            raise CheckpointError(f"{self.path} is no GGUF file; {_AGAIN}")
        self.at = 4
        version = self._number("I")
        if version not in _VERSIONS:
            raise CheckpointError(
                f"{self.path} is GGUF version {version}, and versions 2 and 3 are read; convert it again"
            )
        tensors, keys = self._number("Q"), self._number("Q")
        metadata = {}
        for _ in range(keys):
            key = self._text()
            value = self._value(self._number("I"))
            if value is not None:
                metadata[key] = value
        if not isinstance(metadata.get("general.architecture"), str):
            raise CheckpointError(f"{self.path}: general.architecture is missing; convert the model again")
        described = [self._tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged()
        start = -(-self.at // alignment) * alignment
        for tensor in described:
            if start + tensor.offset + tensor.size > len(self.content):
                need = start + max(tensor.offset + tensor.size for tensor in described)
                text = f"{self.path} is truncated ({len(self.content)} of {need} bytes)"
                raise CheckpointError(f"{text}; {_AGAIN}")
        if len({tensor.name for tensor in described}) < len(described):
            raise self._damaged()
        return Header(self.path, metadata, {tensor.name: tensor for tensor in described}, start)

    def _damaged(self) -> CheckpointError:
        return CheckpointError(f"{self.path} has a damaged or truncated header (at byte {self.at}); {_AGAIN}")

    def _skip(self, size: int) -> int:
        """Goes `size` bytes on. Returns where they began."""
        if size > len(self.content) - self.at:
            raise self._damaged()
        self.at += size
        return self.at - size

    def _number(self, form: str) -> Any:
        return struct.unpack_from(f"<{form}", self.content, self._skip(struct.calcsize(f"<{form}")))[0]

    def _text(self) -> str:
        size = self._number("Q")
        start = self._skip(size)
        return self.content[start : start + size].decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        """A value; None for an array of texts and a long one."""
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise self._damaged()
        element, length = self._number("I"), self._number("Q")
        if element in _NUMBERS:
            start = self._skip(length * struct.calcsize(f"<{_NUMBERS[element]}"))
            if length <= _SHORT:
                return struct.unpack_from(f"<{length}{_NUMBERS[element]}", self.content, start)
        elif element == _STRING:
            for _ in range(length):
                self._skip(self._number("Q"))
        else:
            raise self._damaged()
        return None

    def _tensor(self) -> Tensor:
        import gguf

        name = self._text()
        shape = tuple(self._number("Q") for _ in range(min(self._number("I"), 9)))[::-1]
        number, offset = self._number("I"), self._number("Q")
        try:
            kind = gguf.GGMLQuantizationType(number)
            values, size = gguf.GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise CheckpointError(
                f"{self.path}: {name} is of type {number}, which gguf {_version()} does not know; use another quantization"
            ) from None
        return Tensor(name, shape, kind.name, offset, prod(shape) // values * size)


def _version() -> str:
    from importlib.metadata import version

    return version("gguf")


def _check_types(header: Header) -> None:
    """Raises CheckpointError for a type of tensor whose numbers cannot be computed."""
    import gguf
    import numpy as np

    for kind in header.kinds:
        if kind in _FLOATS:
            continue
        number = gguf.GGMLQuantizationType[kind]
        try:
            gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[number][1]), np.uint8), number)
        except NotImplementedError:
            raise CheckpointError(
                f"{header.path}: its type {kind} cannot be dequantized by gguf {_version()}; use another quantization"
            ) from None


def complete_config(header: Header, config: PreTrainedConfig) -> None:
    """Makes transformers' config of a file say what the file says. Raises CheckpointError for a key whose meaning is not known
    here or that the config has no attribute for, and for a value that the key cannot have."""
    try:
        _complete(header, config)
    except (TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError) as error:
        raise CheckpointError(f"{header.path}: its metadata describe no model ({error}); {_ORIGINAL}") from error


def _complete(header: Header, config: PreTrainedConfig) -> None:
    own = header.own()
    for key, value in own.items():
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"{key} is {value}")
    scaling = {key: own.pop(key) for key in list(own) if key.startswith("rope.scaling.")}
    for key, value in own.items():
        if key in _SAME:
            _set(header, config, key, value)
        elif key == "rope.freq_base":
            _rotation(config)["rope_theta"] = float(value)
        elif key == "rope.dimension_count":
            _check_rotated(header, config, value)
        else:
            raise CheckpointError(
                f"{header.path}: {header.architecture}.{key} says something about the model that transformers' reader "
                f"ignores; {_ORIGINAL}"
            )
    _scale_rotation(header, config, scaling)
    if header.architecture in _GEMMAS:
        large = own.get("block_count") == _GEMMAS[header.architecture]
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if large else config.head_dim
    config.dtype = header.dtype


def _set(header: Header, config: PreTrainedConfig, key: str, value: Any) -> None:
    name = next((name for name in _SAME[key] if getattr(config, name, None) is not None), None)
    if name is None:
        name = next((name for name in _SAME[key] if hasattr(config, name)), None)
    if name is None:
        kind = type(config).__name__
        raise CheckpointError(
            f"{header.path}: {header.architecture}.{key} is {value}, and transformers' {kind} has no place for it; "
            f"{_ORIGINAL}"
        )
    if isinstance(value, tuple):  # one per layer
        if len(set(value)) != 1:
            raise CheckpointError(f"{header.path}: {header.architecture}.{key} differs between layers; {_ORIGINAL}")
        value = value[0]
    now = getattr(config, name)
    if now is None or not isclose(now, value, rel_tol=1e-6):
        setattr(config, name, value)


def _rotation(config: PreTrainedConfig) -> dict[str, Any]:
    """The settings of the rotation, of the layers that see the whole text where layers differ."""
    settings: dict[str, Any] = config.rope_parameters
    inner: dict[str, Any] = settings.get("full_attention", settings)
    return inner


def _check_rotated(header: Header, config: PreTrainedConfig, value: int) -> None:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    share = _rotation(config).get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    if value != round(width * share):
        raise CheckpointError(
            f"{header.path}: {header.architecture}.rope.dimension_count is {value}, and transformers' reader rotates "
            f"{round(width * share)} dimensions; {_ORIGINAL}"
        )


def _scale_rotation(header: Header, config: PreTrainedConfig, scaling: Mapping[str, Any]) -> None:
    """Scaled rotations: linear, YaRN, and Llama 3's, whose factors are a tensor."""
    kind = scaling.get("rope.scaling.type", "none")
    factor = scaling.get("rope.scaling.factor", 1.0)
    known = {
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
    }
    strange = sorted(set(scaling) - known)
    if strange or kind not in ("none", "linear", "yarn"):
        what = strange[0] if strange else f"rope.scaling.type {kind!r}"
        raise CheckpointError(f"{header.path}: {header.architecture}.{what} is not read here; {_ORIGINAL}")
    rotation = _rotation(config)
    if kind != "none" and factor != 1.0:
        rotation.update(rope_type=kind, factor=float(factor))
        if kind == "yarn":
            original = scaling.get("rope.scaling.original_context_length")
            if original is None:
                raise CheckpointError(
                    f"{header.path}: YaRN without rope.scaling.original_context_length; convert it again"
                )
            rotation["original_max_position_embeddings"] = int(original)
    if "rope_freqs.weight" in header.tensors:
        _llama3_rotation(header, rotation)


def _llama3_rotation(header: Header, rotation: dict[str, Any]) -> None:
    """The parameters of Llama 3.1's scaling from the factors that a file stores instead of them. Those that all its models were
    released with are tried, with the factors 8 and 32; raises CheckpointError where neither gives the file's."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    stored = read_tensor(header, "rope_freqs.weight").double()
    if torch.all(stored == 1):
        return
    theta, width = rotation["rope_theta"], 2 * len(stored)
    plain = 1.0 / theta ** (torch.arange(0, width, 2).double() / width)
    for factor in (8.0, 32.0):
        settings = {
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        trial = LlamaConfig(hidden_size=width, num_attention_heads=1, head_dim=width, rope_parameters=dict(settings))
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](trial, device=torch.device("cpu"))
        if torch.allclose(plain / scaled.double(), stored, rtol=1e-4):
            rotation.update(settings)
            return
    raise CheckpointError(
        f"{header.path}: the factors of its rotation (rope_freqs.weight) are not those of Llama 3.1 to 3.3; {_ORIGINAL}"
    )


def read_tensor(header: Header, name: str) -> torch.Tensor:
    """One tensor of a file, in float32."""
    import gguf
    import numpy as np

    tensor = header.tensors[name]
    raw = np.fromfile(header.path, np.uint8, tensor.size, offset=header.start + tensor.offset)
    kind = gguf.GGMLQuantizationType[tensor.kind]
    rows = raw.reshape(prod(tensor.shape[:-1]), -1)
    values = raw.view(np.float32) if kind.name == "F32" else gguf.dequantize(rows, kind)
    return torch.from_numpy(np.ascontiguousarray(values)).reshape(tensor.shape)


def check_numbers(header: Header, model: PreTrainedModel) -> None:
    """A tensor of the file that the model does not use would be lost without a word. Raises CheckpointError where the model has
    another number of parameters than the file."""
    stored = sum(prod(tensor.shape) for name, tensor in header.tensors.items() if name != "rope_freqs.weight")
    used = sum(parameter.numel() for parameter in model.parameters())  # a tied matrix once
    if stored != used:
        raise CheckpointError(
            f"{header.path} holds {stored:,} numbers and transformers' model of it {used:,}; {_ORIGINAL}"
        )
