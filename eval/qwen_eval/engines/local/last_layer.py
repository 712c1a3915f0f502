"""The last layer only where its output is read.

Of the last layer's output only the scored positions are used; the others are needed only as keys and values. Its queries
are reduced by the attention (cascade.Cascade.only), and after them its output projection and its whole feed-forward part
run over the kept positions: a saving of about two thirds of one layer for every token but those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qwen_eval.engines.local.cascade import current

# the parts of the pre-norm block of Llama, Qwen and Mistral, which is computed here; any other block is left as it is
PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}


def last_layer(model: Any) -> nn.Module | None:
    """The model's last block if it can be computed at some positions only, else None."""
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    layer = layers[-1]
    moved = hasattr(layer, "_hf_hook")  # spread over devices by accelerate, which wraps forward itself
    plain = {name for name, _ in layer.named_children()} == PARTS and hasattr(layer.self_attn, "o_proj")
    return layer if plain and not moved else None


@contextmanager
def pruned(layer: nn.Module) -> Iterator[None]:
    """Within it the block's output has only the kept positions, [1, kept, width], in passes whose state names them
    (cascade.Cascade.only)."""
    whole = layer.forward

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        state = current()
        if state is None or state.only is None:
            return whole(hidden_states, *args, **kwargs)
        kept = torch.from_numpy(state.only[1]).to(hidden_states.device)
        parts: Any = layer
        hook = parts.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, kept],))
        try:
            attended = parts.self_attn(parts.input_layernorm(hidden_states), *args, **kwargs)[0]
        finally:
            hook.remove()
        hidden = hidden_states[:, kept] + attended
        return hidden + parts.mlp(parts.post_attention_layernorm(hidden))

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward  # the class's own again
