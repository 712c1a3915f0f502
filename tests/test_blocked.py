"""Linear layers in oneDNN's layout against the plain ones, and which layers are left alone."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from qwen_eval.engines.local import blocked
from qwen_eval.engines.local.blocked import BlockedGate, BlockedLinear, block
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import Choose, Generate, Measure, ModelSpec

TEXT = " ".join(tiny.CORPUS)
pytestmark = pytest.mark.skipif(
    not blocked.works(torch.float32), reason="torch has no blocked products for this processor"
)


def names(model: nn.Module) -> set[str]:
    return {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, BlockedLinear)}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "close", "run"), [(torch.float32, 1e-6, None), (torch.float32, 1e-6, 16), (torch.bfloat16, 8e-3, None)]
)
def test_a_blocked_product_is_the_product(dtype: torch.dtype, close: float, run: int | None, bias: bool) -> None:
    """Against the exact product in float64, for any number of rows, sizes that are not multiples of a block, and rows
    that are not contiguous. bfloat16 rounds the result to 8 bits."""
    torch.manual_seed(0)
    for inside, outside in ((8, 8), (33, 70), (64, 1001), (513, 17)):
        layer = nn.Linear(inside, outside, bias=bias).to(dtype)
        made = BlockedLinear(layer, run)
        for shape in ((1, inside), (7, inside), (2, 3, inside), (1, 300, inside)):
            rows = torch.randn(shape).to(dtype)
            with torch.inference_mode():
                found, plain = made(rows), layer.double()(rows.double())
            layer.to(dtype)
            assert torch.equal(made.weight, layer.weight)
            assert found.dtype == dtype and found.shape == plain.shape
            torch.testing.assert_close(found.double(), plain, rtol=close, atol=close * float(plain.abs().max()))
        wide = torch.randn(5, 2 * inside).to(dtype)[:, ::2]
        with torch.inference_mode():
            torch.testing.assert_close(made(wide), made(wide.contiguous()), rtol=0, atol=0)


class Gated(nn.Module):
    """The gated layer as transformers' models have it."""

    def __init__(self, width: int, inner: int, bias: bool, act: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias, dtype=dtype)
        self.up_proj = nn.Linear(width, inner, bias=bias, dtype=dtype)
        self.down_proj = nn.Linear(inner, width, bias=bias, dtype=dtype)
        self.act_fn = act

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(rows)) * self.up_proj(rows))


@pytest.mark.parametrize("bias", [True, False])
def test_a_fused_gate_is_the_gated_layer(bias: bool) -> None:
    """Against the exact layer in float64, also where the activation saturates."""
    torch.manual_seed(0)
    for width, inner in ((8, 24), (33, 70), (256, 688)):
        model = nn.ModuleDict({"mlp": Gated(width, inner, bias, nn.SiLU())})
        exact = copy.deepcopy(model).double()
        block(model)
        assert isinstance(model["mlp"], BlockedGate)
        for scale in (1.0, 100.0):
            for shape in ((1, 1, width), (2, 7, width), (1, 300, width)):
                rows = scale * torch.randn(shape)
                with torch.inference_mode():
                    found, right = model["mlp"](rows), exact["mlp"](rows.double())
                torch.testing.assert_close(found.double(), right, rtol=3e-6, atol=3e-6 * float(right.abs().max()))


def test_layers_that_compute_something_else_are_not_fused() -> None:
    class Swapped(Gated):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.down_proj(self.gate_proj(rows) * self.act_fn(self.up_proj(rows)))

    class Routed(Gated):
        def forward(self, rows: torch.Tensor, expert: int) -> torch.Tensor:  # type: ignore[override]
            return super().forward(rows)

    model = nn.ModuleDict(
        {
            "gelu": Gated(16, 40, False, nn.GELU()),
            "swapped": Swapped(16, 40, False, nn.SiLU()),
            "routed": Routed(16, 40, False, nn.SiLU()),
            "rounded": Gated(16, 40, False, nn.SiLU(), torch.bfloat16),
            "watched": Gated(16, 40, False, nn.SiLU()),
        }
    )
    model["watched"].register_forward_hook(lambda *_: None)
    block(model)
    assert names(model) == {"gate_proj", "up_proj", "down_proj"}
    assert not any(isinstance(module, BlockedGate) for module in model.modules())


@pytest.mark.parametrize("write", [tiny.write_qwen1, tiny.write_llama, tiny.write_qwen3])
def test_answers_are_those_of_the_plain_model(write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, texts and perplexity with blocked layers and without."""
    spec = ModelSpec(str(write(tmp_path, positions=4096)))  # type: ignore[operator]
    questions = [Choose("", (TEXT[:90],), TEXT[start : start + 60], (" A", " B")) for start in range(0, 300, 30)]
    prompts = [Generate(TEXT[start : start + 40], 12) for start in range(0, 200, 40)]

    def answers() -> tuple[np.ndarray, list[tuple[str, ...]], float]:
        engine = HFEngine(spec)
        chosen = engine.choose(questions, lambda *_: None)
        texts = engine.generate(prompts, lambda *_: None)
        (cell,) = engine.measure([Measure((TEXT,), 128)], lambda *_: None)
        assert bool(names(engine.runtime.model)) == monkeypatch_is_off
        return np.array([item.logprobs for item in chosen]), [item.texts for item in texts], sum(cell.nll)

    monkeypatch_is_off = True
    ours = answers()
    monkeypatch.setattr("qwen_eval.engines.local.blocked.block", lambda model: None)
    monkeypatch_is_off = False
    plain = answers()
    np.testing.assert_allclose(ours[0], plain[0], atol=1e-4)
    assert ours[1] == plain[1]
    assert ours[2] == pytest.approx(plain[2], rel=1e-6)


def test_queries_and_keys_are_as_exact_as_the_plain_ones() -> None:
    """The error against float64 of a projection of 4,096 units: twice the plain one's when summed in one run, about the
    same in runs of 256. A feed-forward layer's may be larger: no softmax amplifies it."""
    torch.manual_seed(0)
    layer, rows = nn.Linear(4096, 64, bias=False), torch.randn(512, 4096)
    assert blocked._run("model.layers.0.self_attn.q_proj", layer) == blocked.RUN
    assert blocked._run("model.layers.0.mlp.up_proj", layer) is None
    assert blocked._run("model.layers.0.self_attn.q_proj", nn.Linear(8, 8).bfloat16()) is None

    def error(product: torch.Tensor) -> float:
        return float((product.double() - rows.double() @ layer.weight.double().T).square().mean().sqrt())

    with torch.inference_mode():
        ours = error(BlockedLinear(layer, blocked.RUN)(rows))
        assert ours < 1.5 * error(layer(rows)) and ours < 0.8 * error(BlockedLinear(layer)(rows))


def test_every_matrix_is_blocked_except_one_tied_to_the_embedding(tmp_path: Path) -> None:
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    apart = HFEngine(ModelSpec(str(tiny.write_qwen3(tmp_path / "apart", tie_word_embeddings=False))))
    assert names(apart.runtime.model) == projections | {"lm_head"}
    tied = HFEngine(ModelSpec(str(tiny.write_qwen3(tmp_path / "tied", tie_word_embeddings=True))))
    assert names(tied.runtime.model) == projections
    # the bytes of the weights are those of the file's tensors, whatever layout they are kept in
    assert apart.usage()["weights_gb"] > tied.usage()["weights_gb"]


def test_layers_of_other_types_and_with_hooks_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    hooked = nn.Linear(8, 8)
    hooked.register_forward_hook(lambda *_: None)
    wrapped = nn.Linear(8, 8)  # as compressed-tensors does, to round the inputs
    wrapped.forward = lambda inputs: nn.functional.linear(inputs.round(), wrapped.weight)  # type: ignore[method-assign]
    layers = {"own": Own(8, 8), "small": nn.Linear(8, 8).half(), "hooked": hooked, "wrapped": wrapped}
    model = nn.ModuleDict(layers)
    block(model)
    assert not names(model)


def test_without_the_products_or_the_memory_the_plain_layers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> nn.Module:
        return nn.ModuleDict({"a": nn.Linear(8, 8)})

    with monkeypatch.context() as patch:
        patch.setattr(blocked, "free_bytes", lambda device: 4 * 72 * blocked.ROOM - 1)
        block(short := model())
        patch.setattr(blocked, "free_bytes", lambda device: 4 * 72 * blocked.ROOM)
        block(enough := model())
    assert not names(short) and names(enough) == {"a"}
    monkeypatch.setattr(
        BlockedLinear, "forward", lambda self, inputs: inputs[..., : self.out_features] + 1
    )  # a product that is wrong
    block(wrong := model())
    assert not names(wrong)
