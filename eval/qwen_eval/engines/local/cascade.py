"""Attention of many packed runs of tokens to the runs they share, without padding and without copying keys.

The nodes of a trie of prompts (trie.py) are packed one after another in a single row of tokens. Each attends to itself
causally, and to the keys and values of each of its ancestors, in one product per ancestor for all its descendants;
the softmaxes are merged exactly through their log-sum-exps:

    out = out_ancestor * w + out_own * (1 - w),  w = sigmoid(lse_ancestor - lse_own)

(the merge of partial softmaxes as in FlashAttention, Dao et al. 2022, and cascade inference, Ye et al. 2024). A layer with a
window or chunk takes of each ancestor only the keys that a query sees; an attention sink is one more partial softmax, of output
0.

The function is registered with transformers as an attention implementation; the state of a pass reaches it through a context
variable, since not every model hands its layers' keywords on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.local.kernels import Packed, attend_to_all, merge
from qwen_eval.engines.local.rules import EVERYTHING, Asked, Rule, Span, Unsupported, asked

NAME = "harness_cascade"


class Mask(NamedTuple):
    """What layers get as their mask: which of those that the model made in this pass, and what it is made from."""

    number: int
    function: Callable[..., Any] | None


class Layer(NamedTuple):
    """A layer's call of the attention function: queries [rows, heads, tokens, d], keys [rows, kv heads, tokens, d], values
    [rows, kv heads, tokens, e] as the layer made them."""

    module: torch.nn.Module
    number: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Mask
    scale: float
    asked: Asked


class State(Protocol):
    """What the layers of a forward pass attend through. rows, tokens: of the pass. masks: how many the model has made. only:
    (layer, indices): where in the packed row that layer's output is wanted, None for everywhere. position_ids: [rows, tokens],
    given by the runtime."""

    rows: int
    tokens: int
    masks: int
    only: tuple[int, np.ndarray] | None
    position_ids: Tensor | None

    def attend(self, layer: Layer) -> Tensor: ...


_state: ContextVar[State | None] = ContextVar("state", default=None)


@contextmanager
def attending(state: State) -> Iterator[None]:
    """Within it the layers attend through `state`."""
    token = _state.set(state)
    try:
        yield
    finally:
        _state.reset(token)


def current() -> State | None:
    """The state of the pass that is going on, None outside."""
    return _state.get()


def register() -> None:
    """Makes the implementation known to transformers. Safe to repeat."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _make_mask)


def _make_mask(*args: Any, mask_function: Callable[..., Any] | None = None, **settings: Any) -> Mask | None:
    """transformers' maker of masks: the layers get a Mask, which none but `attention` can read."""
    state = _state.get()
    if state is None:
        return None
    state.masks += 1
    return Mask(state.masks - 1, mask_function)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function. Returns ([rows, tokens, heads, e], None). Raises Unsupported where the layer needs
    something that is not computed here."""
    wanted = asked(keywords)
    state = _state.get()
    index = getattr(module, "layer_idx", None)
    if state is None or not isinstance(index, int):
        raise Unsupported("its layers do not tell their index")
    if not isinstance(attention_mask, Mask):
        raise Unsupported("its layers make their masks themselves")
    if query.shape[0] != state.rows or key.shape[2] != state.tokens or query.shape[2] != state.tokens:
        raise Unsupported("its layers change the number of keys")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    out = state.attend(Layer(module, index, query, key, value, attention_mask, scale, wanted))
    return out.transpose(1, 2).contiguous(), None


@dataclass(frozen=True)
class Attention:
    """How the model's layers attend, as found in a pass of its own (features.py). masks: by layer, which of the model's masks
    it gets. spans: by layer, what that mask lets through. scale_query: applied to the queries [rows, heads, tokens, d]
    (LogN)."""

    masks: Mapping[int, int]
    spans: Mapping[int, Span]
    scale_query: Callable[[Tensor], Tensor] | None = None

    def rule(self, layer: Layer) -> Rule:
        """How a layer attends in this pass. Raises Unsupported for one that does not as was found."""
        if self.masks and self.masks.get(layer.number) != layer.mask.number:
            raise Unsupported("its layers do not attend alike in every pass")
        span = self.spans.get(layer.number, EVERYTHING)
        return Rule(layer.scale, span, layer.asked.softcap, layer.asked.s_aux)


PLAIN = Attention({}, {})


@dataclass(frozen=True, eq=False)
class Ancestor:
    """What its descendants attend to. layers: (keys, values) by layer, [1, kv heads, P, d] each. first, last: the
    span in the packed row of the tokens that do. start: the position of its first token."""

    layers: Mapping[int, tuple[Tensor, Tensor]]
    first: int
    last: int
    start: int = 0

    @property
    def length(self) -> int:
        """P, its tokens."""
        return next(iter(self.layers.values()))[0].shape[2]


class Part(NamedTuple):
    """Queries that see keys of one ancestor. queries: a slice of the row, or indices in it. keys: which of the ancestor's.
    mask: bool [queries, keys], None where all see all."""

    ancestor: Ancestor
    queries: slice | Tensor
    keys: slice
    mask: Tensor | None


def visible(first: np.ndarray, start: int, length: int) -> tuple[np.ndarray, slice, np.ndarray | None] | None:
    """The queries that see any of the keys at positions start .. start + length - 1, all of which come before the queries;
    which keys, and a mask bool [queries, keys] where not all see all of these. None where none sees any. first: [queries], the
    first position that each sees."""
    sees = np.flatnonzero(first < start + length)
    if not len(sees):
        return None
    first = np.maximum(first[sees], start)
    lowest = int(first.min())
    keys = slice(lowest - start, length)
    if int(first.max()) == lowest:
        return sees, keys, None
    return sees, keys, np.arange(lowest, start + length)[None, :] >= first[:, None]


@dataclass
class Cascade:
    """A pass over nodes packed one after another in one row.

    lengths: tokens of each node, in order. starts: the position of each node's first token, all 0 where not given. ancestors:
    what they attend to beside themselves. keep: called with layer, keys and values [1, kv heads, N, d] (to store them). only:
    (layer, indices ascending): in that layer the output is wanted at these indices of the row only, and is 0 elsewhere.
    """

    lengths: Sequence[int]
    ancestors: Sequence[Ancestor] = ()
    keep: Callable[[int, Tensor, Tensor], None] | None = None
    only: tuple[int, np.ndarray] | None = None
    starts: Sequence[int] = ()
    attention: Attention = PLAIN
    rows: int = 1
    masks: int = 0
    position_ids: Tensor | None = None
    _own: dict[Span, Packed] = field(default_factory=dict)
    _parts: dict[tuple[Span, bool], list[Part]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = sum(self.lengths)
        self.starts = self.starts or [0] * len(self.lengths)
        nodes = zip(self.starts, self.lengths, strict=True)
        self.positions = np.concatenate([np.arange(start, start + length) for start, length in nodes])

    def attend(self, layer: Layer) -> Tensor:
        """[1, heads, N, e]: every node to its ancestors and to itself."""
        rule = self.attention.rule(layer)
        query, key, value = layer.query, layer.key, layer.value
        if self.attention.scale_query is not None:
            query = self.attention.scale_query(query)
        if self.keep is not None:
            self.keep(layer.number, key, value)
        pruned = self.only is not None and self.only[0] == layer.number
        parts = self._seen(rule.span, pruned, query.device)
        with_lse = bool(parts) or rule.sinks is not None
        out, lse = self._packed(rule.span).attend(query, key, value, rule.scale, with_lse, rule.softcap)
        if not pruned:
            return rule.drain(*_merged(layer.number, query, out, lse, rule, parts))
        assert self.only is not None
        wanted = torch.from_numpy(self.only[1]).to(query.device)
        whole = torch.zeros_like(out)
        lse = lse[:, :, wanted] if with_lse else lse
        whole[:, :, wanted] = rule.drain(
            *_merged(layer.number, query[:, :, wanted], out[:, :, wanted], lse, rule, parts)
        )
        return whole

    def _packed(self, span: Span) -> Packed:
        """The nodes by themselves; a chunk cuts them."""
        if span not in self._own:
            lengths = list(self.lengths)
            if span.chunk is not None:
                cuts = [
                    np.flatnonzero(np.diff(np.arange(start, start + length) // span.chunk)) + 1
                    for start, length in zip(self.starts, lengths, strict=True)
                ]
                pieces = [np.diff([0, *cut, length]) for cut, length in zip(cuts, lengths, strict=True)]
                lengths = np.concatenate(pieces).tolist()
            self._own[span] = Packed(lengths, span.window)
        return self._own[span]

    def _seen(self, span: Span, pruned: bool, device: torch.device) -> list[Part]:
        """What the queries see of the ancestors, or those queries alone that are wanted (`pruned`)."""
        if (span, pruned) not in self._parts:
            rows = self.only[1] if pruned and self.only else np.arange(self.tokens)
            first = span.first(self.positions[rows])
            parts = []
            for above in self.ancestors:
                begin, end = np.searchsorted(rows, [above.first, above.last]).tolist()
                found = visible(first[begin:end], above.start, above.length)
                if found is not None:
                    sees, keys, mask = found
                    whole = len(sees) == end - begin
                    queries = slice(begin, end) if whole else torch.from_numpy(begin + sees).to(device)
                    seen = None if mask is None else torch.from_numpy(mask).to(device)
                    parts.append(Part(above, queries, keys, seen))
            self._parts[span, pruned] = parts
        return self._parts[span, pruned]


def _merged(
    layer: int, query: Tensor, out: Tensor, lse: Tensor, rule: Rule, parts: Sequence[Part]
) -> tuple[Tensor, Tensor]:
    """out and lse, the attention of the queries to their own nodes, merged with that to the ancestors."""
    for part in parts:
        key, value = (tensor[:, :, part.keys] for tensor in part.ancestor.layers[layer])
        other = attend_to_all(query[:, :, part.queries], key, value, rule.scale, rule.softcap, part.mask)
        both = merge(out[:, :, part.queries], lse[:, :, part.queries], *other)
        if part.queries == slice(0, query.shape[2]):
            out, lse = both
        else:
            out[:, :, part.queries], lse[:, :, part.queries] = both
    return out, lse
