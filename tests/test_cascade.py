"""Attention of packed nodes of a trie to their ancestors and themselves, against one masked softmax in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qwen_eval.engines.local import kernels
from qwen_eval.engines.local.cascade import Ancestor, Cascade, Unsupported, attention
from qwen_eval.engines.local.kernels import _attend_in_slices, attend

# a forest: (parent, tokens) of each node, parents first, in traversal order
FOREST = [(None, 9), (0, 5), (0, 30), (2, 1), (2, 7), (2, 2), (4, 3), (4, 1), (0, 1), (None, 4), (9, 6), (None, 2)]


def reference(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float) -> Tensor:
    """query [heads, N, d]; key, value [kv heads, N, d]; seen: bool [N, N]. One masked softmax in float64."""
    repeat = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(repeat, 0).double(), value.repeat_interleave(repeat, 0).double()
    scores = (query.double() @ key.transpose(-1, -2) * scale).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ value).float()


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


class Layer(nn.Module):
    layer_idx = 3


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_a_forest_pack_by_pack_equals_one_masked_softmax(
    heads: tuple[int, int], only: bool, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs of one level each, so that packs mix nodes with different ancestors, deep and shallow; one call per node,
    and nodes of similar length padded to each other."""
    if padded:
        monkeypatch.setattr(kernels, "CHEAP_CALLS", set())
    torch.manual_seed(0)
    lengths = [length for _, length in FOREST]
    total, ends = sum(lengths), np.cumsum(lengths).tolist()
    query = torch.randn(1, heads[0], total, 16)
    key, value = torch.randn(2, 1, heads[1], total, 16)
    expected = reference(query[0], key[0], value[0], forest_mask(), 0.3)

    def tokens(node: int) -> list[int]:
        return list(range(ends[node] - lengths[node], ends[node]))

    def above(node: int) -> list[int]:
        parent = FOREST[node][0]
        return [] if parent is None else [*above(parent), parent]

    for pack in ([0, 9, 11], [1, 2, 10], [3, 4, 5, 8, 10], [6, 7]):
        places = [place for node in pack for place in tokens(node)]
        ancestors = []
        for ancestor in sorted({number for node in pack for number in above(node)}):
            behind = [index for index, node in enumerate(pack) if ancestor in above(node)]
            starts = np.cumsum([0, *(lengths[node] for node in pack)]).tolist()
            stored = {3: (key[:, :, tokens(ancestor)], value[:, :, tokens(ancestor)])}
            ancestors.append(Ancestor(stored, starts[behind[0]], starts[behind[-1] + 1]))
        wanted = np.arange(0, len(places), 3)
        state = Cascade([lengths[node] for node in pack], ancestors, only=(3, wanted) if only else None)
        part = (tensor[:, :, places] for tensor in (query, key, value))
        out, _ = attention(Layer(), *part, None, scaling=0.3, cascade=state)
        kept = wanted if only else np.arange(len(places))
        ours, theirs = out[0].transpose(0, 1)[:, kept], expected[:, places][:, kept]
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
        assert state.calls == 1
        assert state.sees == max(lengths[node] + sum(lengths[number] for number in above(node)) for node in pack)


def test_keep_is_given_the_keys_and_values_of_the_pass() -> None:
    query, key, value = torch.randn(3, 1, 2, 9, 8)
    store: dict[int, tuple[Tensor, ...]] = {}
    state = Cascade([9], keep=lambda layer, *found: store.update({layer: found}))
    out, _ = attention(Layer(), query, key, value, None, cascade=state)
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


@pytest.mark.parametrize("wants", [{"sliding_window": 8}, {"softcap": 30.0}, {"s_aux": torch.zeros(2)}])
def test_what_it_cannot_compute_it_refuses(wants: dict) -> None:
    query, key, value = torch.randn(3, 1, 2, 9, 8)
    with pytest.raises(Unsupported):
        attention(Layer(), query, key, value, None, cascade=Cascade([9]), **wants)


def test_a_window_that_nothing_exceeds_is_full_attention() -> None:
    query, key, value = torch.randn(3, 1, 2, 9, 8)
    out, _ = attention(Layer(), query, key, value, None, cascade=Cascade([9]), sliding_window=9)
    assert out.shape == (1, 9, 2, 8)
