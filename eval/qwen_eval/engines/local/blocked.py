"""Linear layers on a CPU with their matrices in oneDNN's own blocked layout, reordered once.

torch multiplies by a plain matrix through a BLAS that reorders it in every call: 10 to 20% of a pack of 2,048 tokens,
more than half of a decoding step of a few rows (BENCHMARKS.md). The two differ by rounding alone, but oneDNN sums more
products in a row than a BLAS does, and its error is twice as large. Where that matters, in front of the softmax of the
attention, float32 products are summed in runs of `RUN`: then the error is the BLAS's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwen_eval.models.memory import copy_from_file, free_bytes

DTYPES = (torch.float32, torch.bfloat16)
ROWS = 1024  # of a typical product, a hint for the layout
RUN = 256  # products
ROOM = 2.0  # times the size of the weights that must be free: the plain matrices may still be in memory meanwhile


class BlockedLinear(nn.Module):
    """nn.Linear without its plain matrix. run: how many products are summed in a row, None for all. blocked: the matrix's
    columns, `run` at a time, opaque tensors in oneDNN's layout."""

    def __init__(self, linear: nn.Linear, run: int | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self.run = run or linear.in_features
        self.blocked: list[Tensor] = [
            torch.ops.mkldnn._reorder_linear_weight(columns.contiguous(), ROWS)
            for columns in torch.split(linear.weight.data, self.run, dim=1)
        ]

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]"""
        first, *others = torch.split(inputs, self.run, dim=-1)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(first, self.blocked[0], self.bias, "none", [], "")
        for part, columns in zip(others, self.blocked[1:], strict=True):
            product = torch.ops.mkldnn._linear_pointwise.binary(part, product, columns, None, "add")
        return product

    @property
    def weight(self) -> Tensor:
        """The plain matrix [out_features, in_features], rebuilt: some layers read the weight of another."""
        return torch.cat([columns.to_dense() for columns in self.blocked], dim=1)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class BlockedGate(nn.Module):
    """down(silu(gate(x)) * up(x)) with the activation and the product fused into oneDNN's products while a result is in the
    cache: three passes fewer over the widest tensors of a layer."""

    def __init__(self, gated: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gated.gate_proj, gated.up_proj, gated.down_proj
        self.replaced = (gated,)  # in a tuple, so that its parts are not the model's twice

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] -> [..., width]"""
        product = torch.ops.mkldnn._linear_pointwise
        gate, up = self.gate_proj, self.up_proj
        active = product(inputs, gate.blocked[0], gate.bias, "swish", [], "")
        down: Tensor = self.down_proj(product.binary(inputs, active, up.blocked[0], up.bias, "mul"))
        return down


def block(model: nn.Module) -> None:
    """Replaces the model's plain linear layers on a CPU, where torch has the operations, the processor computes them
    right and memory is enough to reorder the matrices. A matrix that is also the embedding stays."""
    shared = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    layers = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and _plain(module) and id(module.weight) not in shared
    }
    kinds = {layer.weight.dtype for layer in layers.values()}
    size = sum(parameter.nbytes for parameter in model.parameters())
    if not layers or free_bytes(torch.device("cpu")) < ROOM * size or not all(works(dtype) for dtype in kinds):
        return
    with torch.no_grad():
        for name in list(layers):
            layer = layers.pop(name)  # the last reference, so that no more than one matrix is in memory twice
            model.set_submodule(name, BlockedLinear(layer, _run(name, layer)))
        _fuse_gates(model)
        copy_from_file(model)


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """Within it the replaced layers compute as they did before `block`: products by plain matrices, each rebuilt while it is
    used, and gated layers of separate parts."""

    def multiplied(linear: BlockedLinear, inputs: Tensor) -> Tensor:
        return F.linear(inputs, linear.weight, linear.bias)

    gates = [(name, module) for name, module in model.named_modules() if isinstance(module, BlockedGate)]
    linears = [module for module in model.modules() if isinstance(module, BlockedLinear)]
    for name, gate in gates:
        model.set_submodule(name, gate.replaced[0])
    for linear in linears:
        linear.forward = partial(multiplied, linear)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward  # the class's own again
        for name, gate in gates:
            model.set_submodule(name, gate)


def _fuse_gates(model: nn.Module) -> None:
    """Replaces the gated layers whose parts are blocked: they are recognised by the names of their parts, and checked by
    comparing outputs. In bfloat16 there is nothing to gain."""
    for name, module in list(model.named_modules()):
        parts: list[Any] = [getattr(module, part, None) for part in ("gate_proj", "up_proj", "down_proj")]
        if not all(isinstance(part, BlockedLinear) and len(part.blocked) == 1 for part in parts) or _hooked(module):
            continue
        fused = BlockedGate(module)
        if parts[0].blocked[0].dtype == torch.float32 and _same(module, fused, parts[0].in_features):
            model.set_submodule(name, fused)


def _same(one: nn.Module, other: nn.Module, width: int) -> bool:
    """Whether two layers give the same output for a few rows."""
    rows = torch.linspace(-2, 2, 3 * width).view(1, 3, width)
    try:
        expected, found = one(rows), other(rows)
    except (AttributeError, RuntimeError, TypeError):  # no such operation, or a layer that takes more arguments
        return False
    scale = float(expected.abs().max())
    return expected.shape == found.shape and torch.allclose(expected, found, rtol=1e-4, atol=1e-5 * scale)


def _run(name: str, layer: nn.Linear) -> int | None:
    """How many products of a layer are summed in a row. In bfloat16 every sum would be rounded to 8 bits: all of them."""
    in_attention = re.search(r"attn|attention", name) is not None
    return RUN if in_attention and layer.weight.dtype == torch.float32 else None


def _plain(layer: Any) -> bool:
    """Whether a linear layer is in main memory, in a type that oneDNN takes, without hooks."""
    return layer.weight.device.type == "cpu" and layer.weight.dtype in DTYPES and not _hooked(layer)


def _hooked(module: Any) -> bool:
    """Whether the module has hooks of torch or of accelerate, which may observe it or move it, or a forward of its own, as
    libraries give it that round its inputs (compressed-tensors)."""
    hooks = module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook")
    return bool(hooks or "forward" in vars(module))


def works(dtype: torch.dtype) -> bool:
    """Whether torch has the blocked products and this processor computes them right, checked on a small layer. The memory
    that oneDNN itself takes stays allocated from then on."""
    if dtype not in DTYPES:
        return False
    layer = nn.Linear(64, 48, dtype=dtype)
    inputs = torch.linspace(-1, 1, 3 * 64).view(1, 3, 64).to(dtype)
    try:
        with torch.no_grad():
            blocked, plain = BlockedLinear(layer, 32)(inputs), layer(inputs)
    except (AttributeError, RuntimeError):  # no such operation, or one that is not supported here
        return False
    close = 1e-4 if dtype == torch.float32 else 2e-2
    return torch.allclose(blocked.float(), plain.float(), rtol=close, atol=close * float(plain.float().abs().max()))
