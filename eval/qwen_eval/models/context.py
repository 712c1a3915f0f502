"""Context extension as Qwen-1 has it, for any rotary model of transformers: dynamic NTK, LogN and window attention.

Dynamic NTK stretches the rotary base by a factor that depends on the sequence's length; LogN sharpens the queries past
the trained length. Both are put on a loaded model from outside (`install`) and taken off again (`Installed.remove`), so that
one model can be measured with and without them. Formulas: the Qwen technical report (2023), section on context length,
and the released 2023-12 code, whose logits the tests compare with.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from qwen_eval.models.caches import refuse_unread
from qwen_eval.models.window import window_attention
from qwen_eval.schema import CheckpointError

Alpha: TypeAlias = float | Sequence[float] | Tensor

_ATTRIBUTE = "_context_extension"  # of the model, which holds what is installed on it
_SELF_ADJUSTING = ("dynamic", "longrope")  # rope types that change their own frequencies with the length


@dataclass(frozen=True)
class ContextExtension:
    """Which extensions to apply, and the length in tokens the model was trained with (Qwen-1: seq_length).

    windows: for window attention, the keys a query sees in each layer; empty for full attention.
    """

    dynamic_ntk: bool
    logn: bool
    trained_length: int
    windows: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """ "none" or those of "dynamic_ntk+logn+local_attn" that are on, as tables and signatures name it."""
        switches = {"dynamic_ntk": self.dynamic_ntk, "logn": self.logn, "local_attn": bool(self.windows)}
        return "+".join(name for name, on in switches.items() if on) or "none"

    def alpha(self, length: int) -> float:
        """The NTK factor of a sequence of `length` tokens; 1.0 where NTK is off."""
        return ntk_alpha(length, self.trained_length) if self.dynamic_ntk else 1.0


def ntk_alpha(length: int, trained_length: int) -> float:
    """The factor of dynamic NTK for `length` tokens: max(2 ** ceil(log2(length / trained) + 1) - 1, 1), so 1 up to the
    trained length, 3 up to twice that, 7 up to four times, 15 up to eight times."""
    if length <= trained_length:
        return 1.0
    return float(2 ** math.ceil(math.log2(length / trained_length) + 1) - 1)


def ntk_inv_freq(inv_freq: Tensor, alpha: float, theta: float | None = None) -> Tensor:
    """Rotary frequencies [d / 2] under dynamic NTK: those of base * alpha ** (d / (d - 2)).

    Where the frequencies are the plain ones of base `theta`, they are computed from the new base in float32 as the
    released code does, to the last bit. Else (llama3, yarn: scaled already) frequency i takes the factor
    alpha ** (-2i / (d - 2)), which is the same thing.
    """
    size = 2 * inv_freq.shape[-1]
    own = inv_freq.detach().cpu().float()
    steps = torch.arange(0, size, 2).float()
    if theta is not None and torch.allclose(own, 1.0 / theta ** (steps / size), rtol=1e-5, atol=0.0):
        stretched: Tensor = 1.0 / (theta * alpha ** (size / (size - 2))) ** (steps / size)
    else:
        stretched = (own.double() * alpha ** -(steps.double() / (size - 2))).float()
    return stretched.to(inv_freq.device)


def logn_factor(position_ids: Tensor, trained_length: int, dtype: torch.dtype) -> Tensor:
    """What LogN multiplies rotated queries by: max(1, log(p + 1) / log(trained length)) at 0-based position p.

    position_ids: positions among real tokens, any shape. Returns the same shape in `dtype`; a query [rows, heads,
    length, head size] takes it as factor[:, None, :, None].
    """
    exact = torch.float32 if position_ids.device.type == "mps" else torch.float64  # Metal has no float64
    ratio: Tensor = torch.log((position_ids + 1).to(exact)) / math.log(trained_length)
    return ratio.clamp(min=1.0).float().to(dtype)


class Installed:
    """Context extension on one model. Made by `install`.

    NTK's factor is state: a row that contains position 0 is a prefill and sets the row's factor from its length, later
    forwards of the same rows keep it, as Qwen-1 keeps it while it decodes with a cache. Two generations must therefore
    not interleave. Where rows come and go between forwards, or a forward starts from a cached prefix, the caller gives
    the factors with `alpha`.
    """

    def __init__(self, model: PreTrainedModel, extension: ContextExtension) -> None:
        self.extension = extension
        self._model = model
        self._given: list[float] | None = None
        self._rows: list[float] | None = None
        self._tables: dict[tuple[int, float], Tensor] = {}
        self._hooks: list[Any] = []
        self._base_attention: str | None = None
        if extension.dynamic_ntk:
            for module in rotary_modules(model):
                self._hooks.append(module.register_forward_hook(self._rotate, with_kwargs=True))
        _refuse_own_spans(model, extension)
        if extension.logn or extension.windows:
            self._base_attention = model.config._attn_implementation or "eager"
            reached: set[Any] = set()
            model.set_attn_implementation(_register(self._base_attention, extension, reached))
            try:
                _check_reached(model, extension, reached)
            except CheckpointError:
                self.remove()
                raise

    @contextmanager
    def alpha(self, value: Alpha) -> Iterator[None]:
        """Within it every forward uses these NTK factors: one number for all rows, or one per row (list or 1-D tensor).

        For a forward that starts from a cached prefix give `extension.alpha(total length)`, when the prefix is computed
        and when it is continued. Without NTK it does nothing.
        """
        before = self._given
        values = value.flatten().tolist() if isinstance(value, Tensor) else value
        self._given = [float(item) for item in values] if isinstance(values, Sequence) else [float(values)]
        try:
            yield
        finally:
            self._given = before

    def remove(self) -> None:
        """Removes the extension: the model is as before `install`."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._tables.clear()
        if self._base_attention is not None:
            self._model.set_attn_implementation(self._base_attention)
            self._base_attention = None
        if getattr(self._model, _ATTRIBUTE, None) is self:
            delattr(self._model, _ATTRIBUTE)

    def _factors(self, position_ids: Tensor) -> list[float]:
        """One NTK factor per row of position_ids (or a single one for all rows)."""
        if self._given is not None:
            return self._given
        first, last = torch.stack([position_ids.amin(-1), position_ids.amax(-1)]).tolist()
        if all(start == 0 for start in first):
            self._rows = [self.extension.alpha(end + 1) for end in last]
            return self._rows
        kept = self._rows
        if kept is not None and len(kept) != len(first) and len(set(kept)) == 1:
            kept = kept[:1] * len(first)
        if kept is None or len(kept) != len(first):
            raise ValueError("rows changed since their prefill: give the NTK factors with Installed.alpha(...)")
        self._rows = [
            self.extension.alpha(end + 1) if start == 0 else old
            for start, end, old in zip(first, last, kept, strict=True)
        ]
        return self._rows

    def _rotate(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The forward hook of a rotary module: its tables recomputed with stretched frequencies where the factor is not 1."""
        position_ids = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        factors = self._factors(position_ids)
        if all(factor == 1.0 for factor in factors):
            return output
        x = kwargs["x"] if "x" in kwargs else args[0]
        others = {key: value for key, value in kwargs.items() if key not in ("x", "position_ids")}
        if len(set(factors)) == 1:
            return self._stretched(module, factors[0], x, position_ids, *args[2:], **others)
        position_ids = position_ids.expand(len(factors), -1)
        rows = [
            self._stretched(module, factor, x, position_ids[row : row + 1], *args[2:], **others)
            for row, factor in enumerate(factors)
        ]
        return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))

    def _stretched(
        self, module: nn.Module, alpha: float, x: Tensor, position_ids: Tensor, *args: Any, **kw: Any
    ) -> Any:
        """The module's own forward with its frequencies replaced, so that every layout of the tables comes out right."""
        own: Any = module.inv_freq
        key = (id(module), alpha)
        if key not in self._tables or self._tables[key].device != own.device:
            self._tables[key] = ntk_inv_freq(own, alpha, _theta(self._model))
        module.inv_freq = self._tables[key]
        try:
            return module.forward(x, position_ids, *args, **kw)
        finally:
            module.inv_freq = own


def install(model: PreTrainedModel, extension: ContextExtension) -> Installed:
    """Installs an extension on a model, in place of any other. Raises CheckpointError where the model has no rotary
    embedding or one that changes its own frequencies."""
    before = installed(model)
    if before is not None:
        before.remove()
    handle = Installed(model, extension)
    setattr(model, _ATTRIBUTE, handle)
    return handle


def installed(model: PreTrainedModel) -> Installed | None:
    """What `install` installed on this model last, None for nothing."""
    return getattr(model, _ATTRIBUTE, None)


def rotary_modules(model: PreTrainedModel) -> list[nn.Module]:
    """The modules of a model that make rotary tables from position_ids."""
    found = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "inv_freq", None), Tensor)
        and "position_ids" in inspect.signature(module.forward).parameters
    ]
    kind = model.config.model_type
    if not found:
        why = f"{kind} has no rotary module with one table of frequencies"
        raise CheckpointError(f"dynamic NTK cannot be applied: {why}; use --dynamic-ntk off")
    for module in found:
        if getattr(module, "rope_type", None) in _SELF_ADJUSTING:
            raise CheckpointError(
                f"this {kind} checkpoint already extends its context (rope type {module.rope_type}); "
                "use --dynamic-ntk off"
            )
    return found


def _theta(model: PreTrainedModel) -> float | None:
    """The rotary base that the config gives, None where it gives several (one per layer type) or none."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return rope.get("rope_theta")


# Keywords of a layer's attention that window attention in its place does not compute
_OWN = {
    "softcap": "a soft cap",
    "s_aux": "attention sinks",
    "position_bias": "biases by position",
}


def _refuse_own_spans(model: PreTrainedModel, extension: ContextExtension) -> None:
    """Raises CheckpointError for window attention in the place of chunks or of narrower windows."""
    config: Any = model.config.get_text_config()
    window, chunk = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    own = f"windows of {window} keys" if isinstance(window, int) and window < max(extension.windows, default=0) else ""
    own = f"chunks of {chunk} tokens" if isinstance(chunk, int) and extension.windows else own
    if own:
        raise CheckpointError(f"this model has {own}, which window attention would drop; use --window off")


def _check_reached(model: PreTrainedModel, extension: ContextExtension, reached: set[Any]) -> None:
    """Raises CheckpointError unless the attention of every layer is the one that was installed: transformers says nothing where
    a model's attention is code of its own. reached: the layers in which the attention was called."""
    reached.clear()
    ids = torch.arange(1, 5, device=model.device)[None]
    with torch.inference_mode():
        model(input_ids=ids, use_cache=False)
    layers = int(model.config.get_text_config().num_hidden_layers)
    if len(reached) != layers:
        wanted = [option for option, on in (("--logn", extension.logn), ("--window", extension.windows)) if on]
        raise CheckpointError(
            f"{' and '.join(wanted)} would reach {len(reached)} of the {layers} layers of this {model.config.model_type} "
            f"model, whose attention is code of its own; use {' '.join(f'{option} off' for option in wanted)}"
        )


def _register(base: str, extension: ContextExtension, reached: set[Any]) -> str:
    """Register `base` attention with LogN before it, or window attention in its place, under a name of its own; returns
    the name.

    base: the name of a registered attention or "eager", which is each model's own function. reached: takes the index of every
    layer that attends by it.
    """
    windows = extension.windows
    sizes = "_".join(map(str, windows))
    name = f"extended{extension.trained_length}_{int(extension.logn)}_{sizes}_{base}"

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
        refuse_unread(kwargs)
        reached.add(getattr(module, "layer_idx", None))
        if extension.logn:
            position_ids = kwargs.get("position_ids")
            if position_ids is None:
                raise CheckpointError(f"{type(module).__name__} hides positions from its attention; use --logn off")
            factor = logn_factor(position_ids, extension.trained_length, query.dtype).to(query.device)
            query = query * factor[:, None, :, None]
        if not windows:
            with _named(module, base):
                return _attention(base, module)(module, query, key, value, mask, **kwargs)
        lost = [name for name in _OWN if kwargs.get(name) is not None]
        if lost:
            raise CheckpointError(
                f"this model's attention has {', '.join(_OWN[name] for name in lost)}, which window attention would drop; "
                "use --window off"
            )
        if mask is not None and not bool(mask[:, 0].all()):
            raise CheckpointError("window attention takes no batches padded on the left")
        scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        out = window_attention(query, key, value, windows[int(module.layer_idx)], scale)  # type: ignore[arg-type]
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register(name, attend)
    # window attention makes its own band mask; of the mask it needs the padding only
    masks = ALL_MASK_ATTENTION_FUNCTIONS["flash_attention_2" if windows else base]
    AttentionMaskInterface.register(name, masks)
    return name


@contextmanager
def _named(module: nn.Module, base: str) -> Iterator[None]:
    """Within it the module's config names the attention `base`: flash attention picks its kernels by that name."""
    config: Any = module.config
    name = config._attn_implementation
    config._attn_implementation = base
    try:
        yield
    finally:
        config._attn_implementation = name


def _attention(base: str, module: nn.Module) -> Callable[..., Any]:
    """The function behind an attention's name; "eager" is the one in the file that defines the module."""
    if base in ALL_ATTENTION_FUNCTIONS:
        registered: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[base]
        return registered
    return own_attention(module)


def own_attention(module: nn.Module) -> Callable[..., Any]:
    """The eager attention in the file that defines a layer's class. Raises CheckpointError where there is none."""
    for kind in type(module).__mro__:
        own: Callable[..., Any] | None = getattr(sys.modules[kind.__module__], "eager_attention_forward", None)
        if own is not None:
            return own
    raise CheckpointError(f"{type(module).__name__} has no eager attention to apply LogN to; use --attn sdpa")
