"""ALiBi through the engine's attention, as further dimensions of queries and keys (models/alibi.py).

Models that do this in code of their own are listed here by the class of their attention, whose forward pass is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from qwen_eval.engines.local.cascade import NAME, attention, current
from qwen_eval.engines.local.rules import Unsupported
from qwen_eval.models.alibi import appended, beside


def _bloom(module: Any) -> Callable[..., Any]:
    """The forward pass of transformers' BloomAttention: gives (output [rows, tokens, width] with the residual added, None)."""
    build: Any = sys.modules[type(module).__module__].build_alibi_tensor
    two = torch.ones(1, 2)
    slopes = module.beta * build(two, module.num_heads, torch.float32)[:, 0, 1]  # its second key is at position 1

    def forward(hidden_states: Tensor, residual: Tensor, alibi: Tensor, attention_mask: Any, **_: Any) -> Any:
        state = current()
        if state is None or state.position_ids is None or (module.pretraining_tp > 1 and module.slow_but_exact):
            raise Unsupported("its attention is code of its own")
        query, key, value = module._reshape(module.query_key_value(hidden_states))
        added = beside(slopes, state.position_ids, module.inv_norm_factor, query.shape[-1], query.dtype)
        query, key = appended(query, key, *added)
        out, _weights = attention(module, query, key, value, attention_mask, scaling=module.inv_norm_factor)
        return module.dense(out.flatten(2)) + residual, None

    return forward


# by module and class, what makes the forward pass in the place of that class's own
REPLACED: dict[tuple[str, str], Callable[[Any], Callable[..., Any]]] = {
    ("transformers.models.bloom.modeling_bloom", "BloomAttention"): _bloom,
}


@contextmanager
def replaced(model: Any) -> Iterator[None]:
    """Within it the attentions that are known here run through the engine's, under whose name their masks are made, too."""
    with ExitStack() as stack:
        for module in model.modules():
            make = REPLACED.get((type(module).__module__, type(module).__qualname__))
            if make is not None and "forward" not in vars(module):
                module.forward = make(module)
                stack.callback(delattr, module, "forward")
                stack.callback(setattr, model.config, "_attn_implementation", model.config._attn_implementation)
                model.config._attn_implementation = (
                    NAME  # transformers sets it only where it calls an attention by its name
                )
        yield
