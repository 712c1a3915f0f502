"""A causal language model in two halves: its body, and what makes logits of the body's hidden states.

Logits are made by the model's own code, whatever it does beside the product with the output matrix (Gemma caps them, Granite
and Cohere scale them): the body is replaced meanwhile by one that gives the hidden states at hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qwen_eval.schema import InputError


class Head:
    """The halves of a model, checked on a short input. Raises InputError for a model that has none."""

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        ids = torch.arange(1, 9, device=model.device)[None]
        with torch.inference_mode():
            expected = model(input_ids=ids, use_cache=False).logits[0].float()
            if not any(self._halves(body, ids, expected) for body in _bodies(model)):
                raise InputError(
                    f"the logits of {name} do not follow from hidden states of a part of it, so its perplexity cannot be "
                    "computed in slices; this model is not supported"
                )

    def _halves(self, body: Any, ids: Tensor, expected: Tensor) -> bool:
        """Whether this part of the model is its body."""
        self._body = body
        self._positions = "position_ids" in inspect.signature(body.forward).parameters
        self._output: Any = body(input_ids=ids, use_cache=False)
        hidden = getattr(self._output, "last_hidden_state", None)
        if hidden is None:
            return False
        found = self.logits(hidden[0].clone().neg_()).float()  # not those that the body would give
        alike = torch.equal(expected, expected[:1].expand_as(expected))  # whatever the hidden states are
        if found.shape == expected.shape and torch.allclose(found, expected, atol=1e-3, rtol=1e-3) and not alike:
            return False  # the model does not use what the body gives
        found = self.logits(hidden[0]).float()
        return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-3, rtol=1e-3)

    def hidden(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        """The hidden states [rows, length, width] that logits are made of. ids, positions: [rows, length]; None for those that
        the model counts itself."""
        given = {"position_ids": positions} if self._positions and positions is not None else {}
        hidden: Tensor = self._body(input_ids=ids, use_cache=False, **given).last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, width] -> [n, vocabulary]"""
        output = type(self._output)(**{**self._output, "last_hidden_state": hidden[None]})
        ids = torch.ones(1, len(hidden), dtype=torch.long, device=hidden.device)
        with _forward(self._body, output):
            logits: Tensor = self._model(input_ids=ids, use_cache=False).logits[0]
        return logits


def _bodies(model: Any) -> Iterator[Any]:
    """The parts of a model that hold its embedding and not its output matrix, the largest first."""
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    part: nn.Module = model
    while part is not embedding:
        if not any(module is output for module in part.modules()):
            yield part
        inner = [child for child in part.children() if any(module is embedding for module in child.modules())]
        if not inner:
            return
        part = inner[0]


@contextmanager
def _forward(module: Any, output: Any) -> Iterator[None]:
    """Within it a module's forward pass gives `output`."""
    own = vars(module).get("forward")
    module.forward = lambda *args, **keywords: output
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
