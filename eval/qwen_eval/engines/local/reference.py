"""What the engine is held against: transformers' own forward of the same weights, one whole prompt at a time.

No cache, no padding, no packing, no blocked matrices, and neither our attention nor what context.py and window.py put on a
model: dynamic NTK, LogN and window attention are computed here a second time, by their formulas on whole matrices.

In float32 the attention is transformers' eager one. In 16 bits that one rounds its scores before the softmax, which on some
models is worse than anything the engine does; there it is given float32 queries, keys and values. What rounding does on a model
is seen where it is computed once more: in float32 by transformers' sdpa, in 16 bits with every number in float32.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from qwen_eval.models.context import ContextExtension, install, installed, own_attention, rotary_modules
from qwen_eval.models.memory import free_bytes
from qwen_eval.schema import InputError

EAGER, SDPA, WIDE, WIDEST = "eager", "sdpa", "harness_reference", "harness_reference_double"
FLOAT32 = "float32"  # no attention: the first one, with every number in float32
NARROW = (torch.float16, torch.bfloat16)
_DTYPES = {WIDE: torch.float32, WIDEST: torch.float64}
_LOST_BY_SDPA = ("s_aux", "softcap", "position_bias")  # keywords of layers that transformers' sdpa may ignore


class NoReference(Exception):
    """This attention cannot serve as a reference for this model."""


@dataclass
class _State:
    """Of the pass that is being computed: the extension, and how many layers attended through `_attend`."""

    extension: ContextExtension | None = None
    calls: int = 0


_state = _State()


def attentions(model: Any, context: ContextExtension, longest: int) -> tuple[str, str | None]:
    """The attention of the reference, and what it is computed with a second time, to tell how much rounding does on this model;
    None where there is nothing to compare with. longest: tokens of the longest prompt."""
    wide = model.dtype not in NARROW
    plain = all(parameter.dtype in (torch.float32, *NARROW) for parameter in model.parameters())
    second = FLOAT32 if plain and not wide else None
    if not _switches(model):
        # transformers' eager Falcon adds ALiBi twice
        return (SDPA if model.config.model_type == "falcon" else model.config._attn_implementation), second
    if context.logn or context.windows or context.dynamic_ntk:
        return WIDE, second or WIDEST
    heads = getattr(model.config.get_text_config(), "num_attention_heads", None) or 1
    bytes_taken = 4 * longest**2 * (3 * heads if wide else 2)
    if bytes_taken > free_bytes(model.device) / 2 and model._supports_sdpa:
        return SDPA, second
    if not wide:
        return WIDE, second or WIDEST
    return EAGER, SDPA if model._supports_sdpa else WIDEST


def log_probabilities(
    model: Any,
    ids: np.ndarray,
    scored: int,
    attention: str,
    context: ContextExtension,
    prompt: int,
    exact: bool = False,
) -> Tensor:
    """Log-probabilities of the next token at the last `scored` positions of a text, float32 [scored, vocabulary], on the CPU.

    attention: one of `attentions`. context: the extension in force. prompt: the number of tokens from which dynamic NTK takes
    its factor. exact: compute with every number in float32. Raises NoReference; InputError where an extension does not reach
    the model's attention.
    """
    _register()
    inputs = torch.from_numpy(ids.astype(np.int64))[None].to(model.device)
    alpha = _alpha(prompt, context.trained_length) if context.dynamic_ntk else 1.0
    _state.extension, _state.calls = context, 0
    with torch.inference_mode(), ExitStack() as stack:
        stack.enter_context(_without_extension(model, context))
        stack.enter_context(_attention(model, attention))
        stack.enter_context(_InFloat32() if exact else nullcontext())
        stack.enter_context(_rotated(model, alpha, torch.float64 if attention == WIDE else torch.float32))
        found = model(input_ids=inputs, use_cache=False, **_only_last(model, scored))
    if (context.logn or context.windows) and not _state.calls:
        switch = "--window off" if context.windows else "--logn off"
        raise InputError(f"{type(model).__name__} does not let its attention be replaced, use {switch}")
    logits: Tensor = found.logits[0, -scored:]
    return logits.float().log_softmax(-1).cpu()


class _InFloat32(TorchFunctionMode):
    """Within it functions of torch take and give float32 in place of 16 bits; weights are widened one at a time."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") == "__get__":  # an attribute: nothing is computed
            return _widened(func(*args)) if isinstance(func(*args), torch.dtype) else func(*args)
        args, kwargs = tree_map(_widened, (tuple(args), dict(kwargs or {})))
        return func(*args, **kwargs)


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in NARROW and value.layout == torch.strided:  # not a blocked matrix
        return value.float()
    return torch.float32 if isinstance(value, torch.dtype) and value in NARROW else value


def _only_last(model: Any, count: int) -> dict[str, int]:
    """The keyword that makes a model compute its last logits only, where it has one."""
    return {"logits_to_keep": count} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def _switches(model: Any) -> bool:
    """Whether transformers lets the attention of this model be chosen after it was loaded."""
    return bool(model._can_set_attn_implementation())


@contextmanager
def _without_extension(model: Any, context: ContextExtension) -> Iterator[None]:
    """Within it nothing of context.py is on the model."""
    extension = installed(model)
    if extension is None:
        yield
        return
    extension.remove()
    try:
        yield
    finally:
        install(model, context)


@contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    """Within it the model attends by the attention of that name."""
    before = model.config._attn_implementation
    if not _switches(model):  # Falcon, whose layers ask the config, or the attention that the model has anyway
        model.config._attn_implementation = name
        try:
            yield
        finally:
            model.config._attn_implementation = before
        return
    model.set_attn_implementation("harness_reference_sdpa" if name == SDPA else name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _rotated(model: Any, alpha: float, dtype: torch.dtype) -> Iterator[None]:
    """Within it the rotary frequencies are those of base * alpha ** (d / (d - 2)), computed in `dtype`."""
    modules: Sequence[Any] = rotary_modules(model) if alpha != 1.0 else ()
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    before = [module.inv_freq for module in modules]
    for module, own in zip(modules, before, strict=True):
        size = 2 * len(own)
        index = torch.arange(0, size, 2, dtype=dtype)
        plain = rope.get("rope_type", "default") == "default" and isinstance(rope.get("rope_theta"), float | int)
        if plain and len(own) * 2 == size:
            base = torch.tensor(float(rope["rope_theta"]), dtype=dtype) * alpha ** (size / (size - 2))
            stretched = base ** (-index / size)
        else:
            stretched = own.cpu().to(dtype) * torch.tensor(alpha, dtype=dtype) ** (-index / (size - 2))
        module.inv_freq = stretched.float().to(own.device)
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.inv_freq = own


def _alpha(length: int, trained: int) -> float:
    """The factor of dynamic NTK: 1 up to the trained length, 3 up to twice that, 7 up to four times, 15 up to eight times."""
    reach, factor = trained, 1
    while reach < length:
        reach, factor = 2 * reach, 2 * factor + 1
    return float(factor)


def _register() -> None:
    """Makes the attentions of this module known to transformers. Safe to repeat."""
    for name, dtype in _DTYPES.items():
        AttentionInterface.register(name, _wide(dtype))
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[EAGER])
    AttentionInterface.register("harness_reference_sdpa", _sdpa)
    AttentionMaskInterface.register("harness_reference_sdpa", ALL_MASK_ATTENTION_FUNCTIONS[SDPA])


def _wide(dtype: torch.dtype) -> Callable[..., Any]:
    """The model's own eager attention on queries, keys and values of `dtype`, with LogN and windows by their formulas: whole
    matrices of scores, a slice of queries at a time."""

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
        extension = _state.extension
        _state.calls += 1
        length, own = query.shape[2], own_attention(module)
        places = torch.arange(length, device=query.device)
        if extension is not None and extension.logn:
            factor = [max(1.0, math.log(place + 1) / math.log(extension.trained_length)) for place in range(length)]
            query = query * torch.tensor(factor, device=query.device).to(query.dtype)[:, None]
        if mask is None:
            mask = torch.where(places[None, :] > places[:, None], torch.finfo(query.dtype).min, 0.0)[None, None]
        if extension is not None and extension.windows:
            past = places[None, :] <= places[:, None] - extension.windows[int(module.layer_idx)]  # type: ignore[arg-type]
            mask = mask.masked_fill(past, torch.finfo(mask.dtype).min)
        rows = max(16, min(128, 2**26 // (length * query.shape[1])))  # scores of at most 256 MiB in float32
        parts = [
            own(
                module,
                query[:, :, start : start + rows].to(dtype),
                key.to(dtype),
                value.to(dtype),
                mask[:, :, start : start + rows],
                **kwargs,
            )[0]
            for start in range(0, length, rows)
        ]
        return torch.cat(parts, 1).to(query.dtype), None

    return attend


def _sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
    """transformers' sdpa where it leaves nothing out. Raises NoReference."""
    lost = [name for name in _LOST_BY_SDPA if kwargs.get(name) is not None]
    if lost:
        raise NoReference(f"sdpa may leave out {lost[0]}")
    return ALL_ATTENTION_FUNCTIONS[SDPA](module, query, key, value, mask, **kwargs)
