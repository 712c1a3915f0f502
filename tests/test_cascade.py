"""Attention of packed nodes of a trie to their ancestors and themselves, against one masked softmax in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    sliding_window_causal_mask_function,
)

from qwen_eval.engines.local import kernels
from qwen_eval.engines.local.cascade import Ancestor, Attention, Cascade, Mask, attending, attention
from qwen_eval.engines.local.kernels import _attend_in_slices, attend
from qwen_eval.engines.local.rules import EVERYTHING, Span, Unsupported, asked, recognise
from qwen_eval.engines.local.slots import Slots, Step

# a forest: (parent, tokens) of each node, parents first, in traversal order
FOREST = [(None, 9), (0, 5), (0, 30), (2, 1), (2, 7), (2, 2), (4, 3), (4, 1), (0, 1), (None, 4), (9, 6), (None, 2)]


def reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """query [heads, N, d]; key, value [kv heads, N, d or e]; seen: bool [N, N]. One masked softmax in float64, with the sinks
    as one more column."""
    repeat = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(repeat, 0).double(), value.repeat_interleave(repeat, 0).double()
    scores = query.double() @ key.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(-1, scores.shape[1], 1)], -1)
    return (scores.softmax(-1)[:, :, : key.shape[1]] @ value).float()


def forest_mask() -> Tensor:
    """bool [N, N]: a token sees its own node up to itself and all of the nodes above it."""
    owner = torch.tensor([number for number, (_, length) in enumerate(FOREST) for _ in range(length)])
    place = torch.arange(len(owner))
    seen = (owner[:, None] == owner[None, :]) & (place[:, None] >= place[None, :])
    for number, (above, _) in enumerate(FOREST):
        while above is not None:
            seen |= (owner[:, None] == number) & (owner[None, :] == above)
            above = FOREST[above][0]
    return seen


def forest_positions() -> np.ndarray:
    """int [N]: the place of every token in its own prompt."""
    starts: list[int] = []
    for above, _ in FOREST:
        starts.append(0 if above is None else starts[above] + FOREST[above][1])
    return np.concatenate([start + np.arange(length) for start, (_, length) in zip(starts, FOREST, strict=True)])


class Module(nn.Module):
    layer_idx = 3


def attend_through(state: Cascade | Step, *tensors: Tensor, scaling: float = 0.3, **keywords: object) -> Tensor:
    """The attention function as a layer calls it, with the first mask of the pass."""
    with attending(state):
        return attention(Module(), *tensors, Mask(0, causal_mask_function), scaling=scaling, **keywords)[0]


KINDS = {
    "plain": (EVERYTHING, {}),
    "window": (Span(window=7), {}),
    "window of one": (Span(window=1), {}),
    "chunk": (Span(chunk=10), {}),
    "window in chunk": (Span(window=5, chunk=12), {}),
    "soft cap": (EVERYTHING, {"softcap": 0.7}),
    "sinks": (EVERYTHING, {"s_aux": True}),
    "all": (Span(window=20), {"softcap": 0.7, "s_aux": True}),
}


@pytest.mark.parametrize(("heads", "width"), [((4, 4), 16), ((6, 2), 24), ((3, 1), 6)])
@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_forest_pack_by_pack_equals_one_masked_softmax(
    heads: tuple[int, int], only: bool, kind: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs of one level each, so that packs mix nodes with different ancestors, deep and shallow; one call per node,
    and nodes of similar length padded to each other; values as wide as keys, narrower and wider."""
    if width == 6:
        monkeypatch.setattr(kernels, "CHEAP_CALLS", set())
    monkeypatch.setattr(kernels, "BLOCK", 8)
    torch.manual_seed(0)
    span, wants = KINDS[kind]
    sinks = torch.randn(heads[0]) if "s_aux" in wants else None
    given = {name: sinks if name == "s_aux" else value for name, value in wants.items()}
    lengths = [length for _, length in FOREST]
    total, ends = sum(lengths), np.cumsum(lengths).tolist()
    query, key = torch.randn(1, heads[0], total, 16), torch.randn(1, heads[1], total, 16)
    value = torch.randn(1, heads[1], total, width)
    places = forest_positions()
    near = torch.from_numpy(places[None, :] >= span.first(places)[:, None])
    expected = reference(query[0], key[0], value[0], forest_mask() & near, 0.3, wants.get("softcap"), sinks)

    def tokens(node: int) -> list[int]:
        return list(range(ends[node] - lengths[node], ends[node]))

    def above(node: int) -> list[int]:
        parent = FOREST[node][0]
        return [] if parent is None else [*above(parent), parent]

    for pack in ([0, 9, 11], [1, 2, 10], [3, 4, 5, 8, 10], [6, 7]):
        row = [place for node in pack for place in tokens(node)]
        ancestors = []
        for ancestor in sorted({number for node in pack for number in above(node)}):
            behind = [index for index, node in enumerate(pack) if ancestor in above(node)]
            starts = np.cumsum([0, *(lengths[node] for node in pack)]).tolist()
            stored = {3: (key[:, :, tokens(ancestor)], value[:, :, tokens(ancestor)])}
            first = int(places[tokens(ancestor)[0]])
            ancestors.append(Ancestor(stored, starts[behind[0]], starts[behind[-1] + 1], first))
        wanted = np.arange(0, len(row), 3)
        state = Cascade(
            [lengths[node] for node in pack],
            ancestors,
            only=(3, wanted) if only else None,
            starts=[int(places[tokens(node)[0]]) for node in pack],
            attention=Attention({3: 0}, {3: span}),
        )
        out = attend_through(state, *(tensor[:, :, row] for tensor in (query, key, value)), **given)
        kept = wanted if only else np.arange(len(row))
        ours, theirs = out[0].transpose(0, 1)[:, kept], expected[:, row][:, kept]
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("past", [0, 13])
def test_a_step_equals_one_masked_softmax(kind: str, past: int) -> None:
    """New tokens of slots of unequal length, behind a shared prefix or none: some rows see none of the prefix any more."""
    torch.manual_seed(0)
    span, wants = KINDS[kind]
    sinks = torch.randn(4) if "s_aux" in wants else None
    given = {name: sinks if name == "s_aux" else value for name, value in wants.items()}
    lengths = [0, 3, 30, 11]
    prefix = torch.randn(1, 2, past, 8), torch.randn(1, 2, past, 6)
    slots = Slots(5, 40)
    own = [(torch.randn(1, 2, length + 1, 8), torch.randn(1, 2, length + 1, 6)) for length in lengths]
    held = [torch.cat([part[:, :, :-1] for part in parts], 2) for parts in zip(*own, strict=True)]
    slots.write_packed(0, lengths, 3, held[0], held[1])
    query = torch.randn(4, 4, 1, 8)
    newest = [torch.cat([part[:, :, -1:] for part in parts]) for parts in zip(*own, strict=True)]
    attention = Attention({3: 0}, {3: span})
    state = Step(slots, lengths, {3: prefix} if past else {}, attention)
    out = attend_through(state, query, *newest, **given)
    for row, length in enumerate(lengths):
        key, value = (torch.cat([start, mine], 2)[0] for start, mine in zip(prefix, own[row], strict=True))
        place = past + length
        seen = torch.arange(place + 1) >= int(span.first(np.array([place]))[0])
        expected = reference(query[row], key, value, seen[None], 0.3, wants.get("softcap"), sinks)
        torch.testing.assert_close(out[row].transpose(0, 1), expected, atol=2e-6, rtol=0)


def test_keep_is_given_the_keys_and_values_of_the_pass() -> None:
    query, key, value = torch.randn(3, 1, 2, 9, 8)
    store: dict[int, tuple[Tensor, ...]] = {}
    out = attend_through(
        Cascade([9], keep=lambda layer, *found: store.update({layer: found})), query, key, value, scaling=8**-0.5
    )
    assert torch.equal(store[3][0], key) and torch.equal(store[3][1], value)
    causal = torch.ones(9, 9, dtype=torch.bool).tril()
    torch.testing.assert_close(
        out[0].transpose(0, 1), reference(query[0], key[0], value[0], causal, 8**-0.5), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("causal", [False, True])
def test_the_fallback_in_slices_equals_the_kernel(causal: bool) -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 2, 2, 600, 8)
    kernel = attend(query, key, value, causal=causal, scale=0.4)
    slices = _attend_in_slices(query, key, value, causal, 0.4)
    for ours, theirs in zip(slices, kernel, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", ["fused", "slices"])
def test_scores_are_not_rounded_before_the_softmax(
    dtype: torch.dtype, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys with a large common part, as Qwen's biases give them: scores of some hundreds, raw products beyond float16's range.
    What is left is the rounding of queries, keys and values themselves, which the reference reads rounded, and of the
    output."""
    if kernel == "slices":
        monkeypatch.setattr(kernels, "DROPPED", {kernels.FLASH_CPU, kernels.SDPA})
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 64, 128)
    query, key = (query + 24).to(dtype), (key + 24).to(dtype)
    value = value.to(dtype)
    out, lse = attend(query, key, value, causal=True, scale=128**-0.5)
    causal = torch.ones(64, 64, dtype=torch.bool).tril()
    exact = torch.stack(
        [reference(*(tensor[row] for tensor in (query, key, value)), causal, 128**-0.5) for row in (0, 1)]
    )
    assert float((query.float() @ key.float().mT).max()) > 65504
    assert float((out.float() - exact).abs().max()) < (3e-2 if dtype == torch.bfloat16 else 6e-3)
    assert torch.isfinite(lse).all()


def test_unknown_keywords_are_refused_and_empty_ones_are_not() -> None:
    for name, value in {"position_bias": torch.zeros(1), "indices": [1], "dropout": 0.1, "is_causal": False}.items():
        with pytest.raises(Unsupported, match=name):
            asked({name: value})
    found = asked({"dropout": 0.0, "is_causal": True, "output_attentions": False, "softcap": 5.0, "position_ids": [1]})
    assert (found.softcap, found.sliding_window, found.s_aux) == (5.0, None, None)


def test_a_layer_that_does_not_get_a_mask_of_the_pass_is_refused() -> None:
    query, key, value = torch.randn(3, 1, 2, 9, 8)
    with attending(Cascade([9])), pytest.raises(Unsupported, match="masks themselves"):
        attention(Module(), query, key, value, None)
    with attending(Cascade([9], attention=Attention({3: 1}, {}))), pytest.raises(Unsupported, match="alike"):
        attention(Module(), query, key, value, Mask(0, causal_mask_function))
    with attending(Cascade([9])), pytest.raises(Unsupported, match="number of keys"):
        attention(Module(), query, key[:, :, :5], value, Mask(0, causal_mask_function))


def test_masks_are_known_by_what_they_let_through() -> None:
    none = torch.zeros(1, dtype=torch.int64)
    assert recognise(causal_mask_function) == EVERYTHING
    for size in (1, 2, 24, 4096, 131072):
        assert recognise(sliding_window_causal_mask_function(size)) == Span(window=size)
    for size in (2, 24, 8192):
        assert recognise(chunked_causal_mask_function(size, none)) == Span(chunk=size)


@pytest.mark.parametrize(
    "mask",
    [
        bidirectional_mask_function,
        chunked_causal_mask_function(24, torch.ones(1, dtype=torch.int64)),  # chunks that begin elsewhere
        or_masks(causal_mask_function, lambda batch, head, query, key: (query < 9) & (key < 9)),
        and_masks(causal_mask_function, lambda batch, head, query, key: key % 2 == query % 2),
        and_masks(causal_mask_function, lambda batch, head, query, key: (key > 0) | (query < 9)),
        and_masks(causal_mask_function, lambda batch, head, query, key: torch.zeros(5, 5).bool()[query, key]),
    ],
)
def test_other_masks_are_not_known(mask: Any) -> None:
    assert recognise(mask) is None
