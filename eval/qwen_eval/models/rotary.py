"""Rotations that follow the length of the sequence (rope types "dynamic" and "longrope" of transformers), as if each were
alone.

transformers makes their tables from the longest position of a forward pass, and those of "dynamic" also from the longest
sequence seen before. Sequences that are computed together, or a sequence computed in parts, need the table of their own
length: `as_if` gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def _types(module: nn.Module) -> dict[str, str]:
    """The rope types of a rotary module by the prefix of its attributes ("" where it has one type)."""
    kind: Any = getattr(module, "rope_type", None)
    if isinstance(kind, str):
        return {"": kind}
    if isinstance(kind, dict):
        return {f"{layer_type}_": str(value) for layer_type, value in kind.items()}
    return {}


def _adjusts(kind: str) -> bool:
    return "dynamic" in kind or kind == "longrope"


class Rotation:
    """The rotary modules of a model whose tables follow the length; none in most models."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if any(map(_adjusts, _types(module).values()))]
        self._borders = [_border(module, prefix) for module, prefix, _ in self._parts()]
        self._grows = any("dynamic" in kind for *_, kind in self._parts())

    def __bool__(self) -> bool:
        return bool(self._modules)

    def _parts(self) -> Iterator[tuple[nn.Module, str, str]]:
        for module in self._modules:
            for prefix, kind in _types(module).items():
                if _adjusts(kind):
                    yield module, prefix, kind

    @property
    def border(self) -> int | None:
        """The longest sequence whose tables are those of all shorter ones, None where tables do not change."""
        return min(self._borders, default=None)

    def table(self, length: int) -> int:
        """The length of a sequence that is rotated as one of `length` tokens; 0 for all that no border lies within."""
        passed = [border for border in self._borders if length > border]
        return (length if self._grows else max(passed) + 1) if passed else 0

    def forget(self) -> None:
        """Drops the table of the longest sequence so far, so that the next pass is as the first."""
        for module, prefix, kind in self._parts():
            if "dynamic" in kind:
                one: Any = module
                setattr(one, f"{prefix}max_seq_len_cached", one.original_max_seq_len)
                own: Tensor = getattr(one, f"{prefix}original_inv_freq")
                setattr(one, f"{prefix}inv_freq", own.to(getattr(one, f"{prefix}inv_freq").device))

    def _longer(self, length: int) -> Any:
        """A hook before a rotary module: one more position, the last of a sequence of this length."""

        def longer(positions: Tensor) -> Tensor:
            return torch.cat([positions, torch.full_like(positions[..., :1], length - 1)], -1)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            self.forget()
            if "position_ids" in kwargs:
                return args, {**kwargs, "position_ids": longer(kwargs["position_ids"])}
            return (args[0], longer(args[1]), *args[2:]), kwargs

        return hook

    @contextmanager
    def as_if(self, length: int) -> Iterator[None]:
        """Within it every forward pass rotates as one over a single sequence of `length` tokens does."""
        with ExitStack() as stack:
            for module in self._modules:
                before = module.register_forward_pre_hook(self._longer(length), with_kwargs=True)
                after = module.register_forward_hook(_cut)
                stack.callback(before.remove)
                stack.callback(after.remove)
            yield


def _border(module: Any, prefix: str) -> int:
    rope: Any = module.config.rope_parameters
    rope = rope.get(prefix.removesuffix("_"), rope) if prefix else rope
    if _types(module)[prefix] == "longrope":
        return int(rope["original_max_position_embeddings"])
    return int(module.original_max_seq_len)


def _cut(module: nn.Module, args: tuple[Any, ...], tables: Any) -> Any:
    """A hook after it: the tables without the additional position."""
    return tuple(table[:, :-1] for table in tables)
