"""Attention over a shared prefix and packed questions, against one masked softmax in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from harness.engines.cascade import Cascade, Unsupported, _attend_in_slices, attend, attention


def reference(query: Tensor, key: Tensor, value: Tensor, prefix: int, lengths: list[int], scale: float) -> Tensor:
    """query [heads, N, d]; key, value [kv heads, P + N, d]: every question sees the prefix and its own past."""
    repeat = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(repeat, 0).double(), value.repeat_interleave(repeat, 0).double()
    owner = torch.tensor([number for number, length in enumerate(lengths) for _ in range(length)])
    place = torch.arange(sum(lengths))
    own = (owner[:, None] == owner[None, :]) & (place[:, None] >= place[None, :])
    seen = torch.cat([torch.ones(len(place), prefix, dtype=torch.bool), own], 1)
    scores = (query.double() @ key.transpose(-1, -2) * scale).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ value).float()


class Layer(nn.Module):
    layer_idx = 3


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("lengths", [[5], [1, 1, 1], [7, 2, 30, 1]])
@pytest.mark.parametrize("prefix", [0, 1, 40])
def test_equals_masked_softmax(heads: tuple[int, int], lengths: list[int], prefix: int) -> None:
    torch.manual_seed(0)
    total = sum(lengths)
    query = torch.randn(1, heads[0], total, 16)
    key, value = torch.randn(2, 1, heads[1], prefix + total, 16)
    stored = {3: (key[:, :, :prefix], value[:, :, :prefix])} if prefix else {}
    state = Cascade(lengths, prefix=stored)
    out, _ = attention(Layer(), query, key[:, :, prefix:], value[:, :, prefix:], None, scaling=0.3, cascade=state)
    expected = reference(query[0], key[0], value[0], prefix, lengths, 0.3)
    torch.testing.assert_close(out[0].transpose(0, 1), expected, atol=2e-6, rtol=0)
    assert state.calls == 1


def test_capture_keeps_keys_and_values_and_is_causal() -> None:
    query, key, value = torch.randn(3, 1, 2, 9, 8)
    store: dict[int, tuple[Tensor, Tensor]] = {}
    out, _ = attention(Layer(), query, key, value, None, cascade=Cascade([9], prefix=store, capture=True))
    assert torch.equal(store[3][0], key) and torch.equal(store[3][1], value)
    torch.testing.assert_close(
        out[0].transpose(0, 1), reference(query[0], key[0], value[0], 0, [9], 8**-0.5), atol=2e-6, rtol=0
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
