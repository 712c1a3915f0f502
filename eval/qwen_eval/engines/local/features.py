"""What a model's attention consists of, found on the loaded model: what the engine replaces, or why it does not.

No model is known by name. The model runs a few short rows with an attention in place of its own that notes what each layer
asks for, and lets no token reach another:

- what the layers ask for (masks, keywords) has to be known (rules.py), and each layer has to attend once;
- what they attend with (queries, keys, values) and the logits have to follow from a token and its position alone. Where a token
  before it, its place in the row or the longest position in the row changes them, something beside attention carries
  information between tokens: recurrent or convolutional state, attention that is not replaced, a place counted in the row, a
  rotation that follows the length. Prompts that are packed in one row would then reach each other.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from qwen_eval.engines.local import cascade
from qwen_eval.engines.local.cascade import Layer
from qwen_eval.engines.local.rules import EVERYTHING, Span, Unsupported, recognise

ROW = 24  # tokens of a row
# How far numbers may differ, relative to the largest: by rounding alone, in rows of one shape and of others
ALIKE = {torch.float32: (1e-5, 1e-4)}
COARSE = (2e-2, 6e-2)


@dataclass(frozen=True)
class LayerFeatures:
    """What one layer attends with. mask: which of the model's masks it gets. heads, kv_heads: of queries, of keys and
    values."""

    mask: int
    span: Span
    softcap: float | None
    sinks: bool
    heads: int
    kv_heads: int
    key_width: int
    value_width: int

    def __str__(self) -> str:
        parts = [str(self.span)]
        parts += [f"soft cap {self.softcap:g}"] if self.softcap else []
        parts += ["sinks"] if self.sinks else []
        parts += [f"values of {self.value_width} for keys of {self.key_width}"] * (self.value_width != self.key_width)
        return ", ".join(parts)


@dataclass(frozen=True)
class Features:
    """What the engine puts in the place of a model's attention. layers: by index; empty where nothing is replaced, for
    `reason`."""

    layers: dict[int, LayerFeatures]
    reason: str = ""

    @property
    def replaced(self) -> bool:
        """Whether the engine's attention takes the place of the model's."""
        return not self.reason

    @property
    def masks(self) -> dict[int, int]:
        """By layer, which of the model's masks it gets."""
        return {index: layer.mask for index, layer in self.layers.items()}

    @property
    def spans(self) -> dict[int, Span]:
        """By layer, which keys a query sees."""
        return {index: layer.span for index, layer in self.layers.items()}

    @property
    def numbers(self) -> int:
        """Numbers in the keys and values of one token, in all layers."""
        return sum(layer.kv_heads * (layer.key_width + layer.value_width) for layer in self.layers.values())

    def __str__(self) -> str:
        """One line: "4 layers: full; 20 layers: window 512, soft cap 50", or why nothing is replaced."""
        if self.reason:
            return f"the model's own attention: {self.reason}"
        kinds: dict[str, int] = {}
        for layer in self.layers.values():
            kinds[str(layer)] = kinds.get(str(layer), 0) + 1
        return "; ".join(f"{count} layer{'s' * (count != 1)}: {kind}" for kind, count in kinds.items())


def discover(model: Any, limit: int) -> Features:
    """What the layers of a model attend with, its attention being `cascade.NAME` meanwhile. limit: positions that the model
    has."""
    try:
        with torch.inference_mode():
            return _discover(model, limit)
    except Unsupported as reason:
        return Features({}, str(reason))
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return Features({}, f"its layers use their mask in a way of their own ({type(error).__name__})")


def _discover(model: Any, limit: int) -> Features:
    size = min(ROW, limit)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = vocabulary // 8 + np.arange(2 * size) % max(1, vocabulary // 2)
    places = np.arange(size)
    plain = _look(model, ids[:size], places)
    layers = {index: _features(calls, plain.spans) for index, calls in plain.calls.items()}
    if not layers:
        raise Unsupported("its attention is code of its own")
    one_shape, any_shape = ALIKE.get(next(model.parameters()).dtype, COARSE) if _plain(model) else COARSE
    if not _alike(plain, places, _look(model, ids[:size], None), places, one_shape):
        raise Unsupported("its positions are not counted from 0")
    kept = places[::2]
    others = np.where(places % 2, ids[size:], ids[:size])
    neighbours = _look(model, others, places, {call.module for calls in plain.calls.values() for call in calls})
    if neighbours.counts:
        raise Unsupported("its attention counts the places of its row")
    if not _alike(plain, kept, neighbours, kept, one_shape):
        raise Unsupported("its tokens reach each other beside the attention that can be replaced")
    turned = kept[::-1]  # the same tokens at the same positions, elsewhere in the row, among far ones
    far = limit - 1 - places
    row, positions = others.copy(), far.copy()
    row[kept], positions[kept] = ids[turned], places[turned]
    if not _alike(plain, turned, _look(model, row, positions), kept, any_shape):
        raise Unsupported(
            "what it computes for a token depends on where the token stands in its row, or on the longest"
        )
    return Features(layers)


def _plain(model: Any) -> bool:
    """Whether every token is multiplied alone: a quantized layer may round a row by the others of its pass."""
    return getattr(model, "quantization_method", None) is None and not getattr(model, "is_quantized", False)


def _features(calls: Sequence[Layer], spans: dict[int, Span | None]) -> LayerFeatures:
    call = calls[0]
    if len(calls) > 1:
        raise Unsupported("a layer attends more than once")
    span = spans[call.mask.number]
    if span is None:
        raise Unsupported("its mask is neither causal nor a window or chunk")
    window = call.asked.sliding_window
    if window is not None and window != span.window and span != EVERYTHING.within(window):
        raise Unsupported(f"a layer asks for a window of {window} and its mask lets through: {span}")
    if call.query.shape[1] % call.key.shape[1] or call.key.shape[1] != call.value.shape[1]:
        raise Unsupported("its numbers of heads do not divide")
    return LayerFeatures(
        call.mask.number,
        span,
        call.asked.softcap,
        call.asked.s_aux is not None,
        call.query.shape[1],
        call.key.shape[1],
        call.key.shape[3],
        call.value.shape[3],
    )


@dataclass
class _Looking:
    """The state of a pass in which every token attends to itself alone. calls: by layer."""

    tokens: int
    rows: int = 1
    masks: int = 0
    only: Any = None
    position_ids: Tensor | None = None
    counts: int = 0  # calls of torch.arange within the modules that attend
    calls: dict[int, list[Layer]] = field(default_factory=dict)
    spans: dict[int, Span | None] = field(default_factory=dict)
    logits: Tensor | None = None

    def attend(self, layer: Layer) -> Tensor:
        if layer.mask.number not in self.spans:
            function = layer.mask.function
            self.spans[layer.mask.number] = None if function is None else recognise(function, layer.query.device)
        self.calls.setdefault(layer.number, []).append(layer)
        return layer.value.repeat_interleave(layer.query.shape[1] // layer.value.shape[1], dim=1)


def _look(
    model: Any, ids: np.ndarray, positions: np.ndarray | None, watched: Sequence[Any] | set[Any] = ()
) -> _Looking:
    """A pass over one row. positions: None for those that the model counts itself. watched: modules in which the calls of
    torch.arange are counted."""
    device = model.device
    places = np.arange(len(ids)) if positions is None else positions
    state = _Looking(len(ids), position_ids=torch.from_numpy(places[None].astype(np.int64)).to(device))
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids[None].astype(np.int64)).to(device)}
    if positions is not None and "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = state.position_ids
    with cascade.attending(state), _counting(watched) as counted:
        state.logits = model(**inputs, use_cache=False).logits
    state.counts = counted[0]
    return state


def _alike(one: _Looking, places: np.ndarray, other: _Looking, others: np.ndarray, tolerance: float) -> bool:
    """Whether two passes attended with the same, and gave the same logits, at these places of the one and those of the
    other."""
    assert one.logits is not None and other.logits is not None
    pairs = [(one.logits, other.logits)]
    for index, calls in one.calls.items():
        for call, again in zip(calls, other.calls.get(index, ()), strict=True):
            pairs += [
                (getattr(call, name).transpose(1, 2), getattr(again, name).transpose(1, 2))
                for name in ("query", "key", "value")
            ]
    here, there = places.tolist(), others.tolist()
    return all(_close(a[0, here], b[0, there], tolerance) for a, b in pairs)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    one, other = one.float(), other.float()
    largest = float(one.abs().max())
    return math.isfinite(largest) and float((one - other).abs().max()) <= tolerance * max(largest, 1e-6)


@contextmanager
def _counting(modules: Sequence[Any] | set[Any]) -> Iterator[list[int]]:
    """Counts the calls of torch.arange within modules."""
    inside, counted = [0], [0]

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if inside[0] and function is torch.arange:
                counted[0] += 1
            return function(*args, **(kwargs or {}))

    def enter(*_: Any) -> None:
        inside[0] += 1

    def leave(*_: Any) -> None:
        inside[0] -= 1

    hooks = [module.register_forward_pre_hook(enter) for module in modules]
    hooks += [module.register_forward_hook(leave) for module in modules]
    with ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        if modules:
            stack.enter_context(Watch())
        yield counted
