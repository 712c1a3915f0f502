"""Weights in 8 and 4 bits: what they take up, to the byte; how close their answers stay; what the results say of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import report
import tiny
from known import run_script
from qwen_eval.data import demo
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.runs import results
from qwen_eval.schema import ModelSpec
from shared import REPOSITORY
from test_engine import questions

WIDTH = {"float32": 4, "bfloat16": 2}
MODES = [("none", "float32"), ("none", "bfloat16"), ("int8", "float32"), ("int8", "bfloat16"), ("nf4", "bfloat16")]


def expected_bytes(config: Mapping[str, Any], quantize: str, dtype: str) -> float:
    """By hand. Int8: a byte per weight and a float32 scale per row. NF4: half a byte per weight, a float32 scale for 64
    of them, and the 16 values. Embedding, head, biases and norms stay wide; the rotary frequencies are float32."""
    hidden, inner, wide = config["hidden_size"], config["intermediate_size"], WIDTH[dtype]
    matrices = [(hidden, hidden)] * 4 + [(inner, hidden)] * 2 + [(hidden, inner)]
    size = 0.0
    for rows, columns in matrices:
        count = rows * columns
        size += {"none": count * wide, "int8": count + 4 * rows, "nf4": count / 2 + 4 * count / 64 + 64}[quantize]
    layer = size + wide * (2 * hidden + 3 * hidden)  # two norms, the biases of query, key and value
    ends = wide * (2 * config["vocab_size"] * hidden + hidden)
    return config["num_hidden_layers"] * layer + ends + 4 * config["head_dim"] / 2


PROBE = """
import json, sys
from qwen_eval.engines.local.runtime import Runtime
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.schema import ModelSpec
for folder in sys.argv[3:]:  # a small model first: what the libraries themselves take does not count
    runtime = Runtime(open_checkpoint(ModelSpec(folder, quantize=sys.argv[1], dtype=sys.argv[2], device="cpu")), None)
    runtime.model
names = ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight", "model.layers.1.self_attn.q_proj.bias",
         "model.layers.1.mlp.up_proj.weight")
parts = [(name, *name.rsplit(".", 1)) for name in names]
kinds = {name: str(getattr(runtime.model.get_submodule(layer), own).dtype) for name, layer, own in parts}
print(json.dumps({"usage": runtime.usage(), "kinds": kinds, "config": runtime.model.config.to_dict()}))
"""


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """A native Qwen-1 checkpoint of 26 million parameters in every precision, each in a process of its own: what an earlier
    model leaves in the allocator is megabytes."""
    root = tmp_path_factory.mktemp("models")
    small = tiny.write_qwen1(root / "small", hidden=128)
    wide = tiny.write_qwen1(root / "wide", hidden=768, layers=4, heads=12, inner=1536)
    found = {}
    for mode in MODES:
        command = [sys.executable, "-c", PROBE, *mode, str(small), str(wide)]
        done = subprocess.run(command, cwd=REPOSITORY / "eval", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[mode] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_memory_of_the_weights(mode: tuple[str, str], probed: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    found = probed[mode]
    expected = expected_bytes(found["config"], *mode) / 1e9
    assert found["usage"]["weights_gb"] == pytest.approx(expected, rel=0.01)
    kinds = [size for name, size in found["usage"].items() if name.startswith("weights_gb:")]
    assert sum(kinds) == pytest.approx(found["usage"]["weights_gb"])
    # what the process holds beyond one without the model, which allocators round up
    assert found["usage"]["resident_gb"] == pytest.approx(expected, rel=0.1, abs=0.005)
    assert found["usage"]["peak_memory_gb"] > found["usage"]["resident_gb"]
    narrow = {"none": f"torch.{mode[1]}", "int8": "torch.int8", "nf4": "torch.uint8"}[mode[0]]
    assert found["kinds"].pop("model.layers.1.mlp.up_proj.weight") == narrow
    assert set(found["kinds"].values()) == {f"torch.{mode[1]}"}


def nearest(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    return levels[(values[..., None] - levels).abs().argmin(-1)]


def rounded(weight: torch.Tensor, quantize: str) -> torch.Tensor:
    """A weight as 8 or 4 bits keep it, by the definitions: Int8 (Dettmers et al. 2022) rounds to 127ths of a row's largest
    value, from float16; NF4 (Dettmers et al. 2023, appendix E) takes the nearest of 16 levels times the largest value of 64."""
    if quantize == "int8":
        half = weight.half().float()
        top = half.abs().amax(1, keepdim=True)
        return (half * (127 / top)).round() / 127 * top
    normal = torch.distributions.Normal(0.0, 1.0)
    offset = 0.9677083
    positive = normal.icdf(torch.linspace(offset, 0.5, 9))[:-1]
    negative = -normal.icdf(torch.linspace(offset, 0.5, 8))[:-1]
    levels = torch.cat([positive, torch.zeros(1), negative]).sort().values
    blocks = weight.reshape(-1, 64)
    top = blocks.abs().amax(1, keepdim=True)
    return (nearest(blocks / top, levels / levels.max()) * top).reshape(weight.shape)


def test_matrices_in_8_bits_compute_what_is_defined(tmp_path: Path) -> None:
    """Inputs are rounded, too, each row to 127ths of its largest value; columns with a value of 6 or more stay wide."""
    folder = tiny.write_qwen1(tmp_path, positions=512, hidden=128, heads=2)
    narrow, wide = (
        open_checkpoint(ModelSpec(str(folder), dtype="float32", quantize=quantize)).load()
        for quantize in ("int8", "none")
    )
    generator = torch.Generator().manual_seed(0)
    matrices = [name for name, _ in wide.named_modules() if name.endswith("_proj")]
    assert len(matrices) == 2 * 7
    for name in matrices:
        module = wide.get_submodule(name)
        inputs = torch.randn(9, module.in_features, generator=generator).half().float()
        inputs[:, 3] *= 8
        outlying = (inputs.abs() >= 6).any(0)
        kept = rounded(inputs.masked_fill(inputs.abs() >= 6, 0), "int8")
        weight = rounded(module.weight.data, "int8")
        bias = 0.0 if module.bias is None else module.bias.data
        expected = torch.where(outlying, inputs, kept) @ weight.T + bias
        with torch.inference_mode():
            found, exact = narrow.get_submodule(name)(inputs), module(inputs)
        assert outlying[3] and (found - expected).abs().max() < (found - exact).abs().max() / 4, name


def test_answers_in_4_bits_are_those_of_the_rounded_weights(tmp_path: Path) -> None:
    """Through the engine, against plain forwards of a float32 model whose matrices were rounded here."""
    folder = tiny.write_qwen1(tmp_path, positions=512, hidden=128, heads=2)
    spec = ModelSpec(str(folder), dtype="float32")
    requests = questions(5)
    found = HFEngine(ModelSpec(str(folder), dtype="float32", quantize="nf4")).choose(requests, lambda *_: None)
    plain = open_checkpoint(spec)
    wide, model = HFEngine(spec).choose(requests, lambda *_: None), plain.load()
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.weight"):
            parameter.data = rounded(parameter.data, "nf4")
    moved = 0.0
    for request, one, other in zip(requests, found, wide, strict=True):
        ids = plain.tokenizer.encode(request.prompt())
        options = [plain.tokenizer.encode(request.prompt() + option)[-1] for option in request.options]
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[options].tolist()
        assert one.logprobs == pytest.approx(expected, abs=1e-3)
        moved = max(moved, *(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)))
    assert moved > 1e-2


def test_four_precisions_of_the_demonstration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracy, memory and the table, as a user makes it."""
    config = open_checkpoint(ModelSpec(str(demo.checkpoint()))).config.to_dict()
    words = ["-c", "demo", "--subjects", "formal_logic,nutrition", "--limit", "15"]
    runs = {}
    for quantize, dtype in [("none", "bfloat16"), ("none", "float32"), ("int8", "bfloat16"), ("nf4", "bfloat16")]:
        run = run_script("mmlu", [*words, "--quantize", quantize, "--dtype", dtype], tmp_path, capsys)
        assert run.status == 0, run.err
        runs[run.rows[0]["precision"]] = run
        assert float(run.rows[0]["weights_gb"]) == pytest.approx(
            expected_bytes(config, quantize, dtype) / 1e9, rel=0.01
        )
        assert float(run.rows[0]["peak_memory_gb"]) > 0 and float(run.rows[0]["resident_gb"]) > 0
    assert list(runs) == ["bf16", "fp32", "int8+bf16", "nf4+bf16"]
    (tmp_path / "published.csv").write_text("table,model,metric,group,setting,value,source\n")
    table = report.read(tmp_path).markdown("precision")
    # by hand: Bonett and Price's interval of a paired difference of independent items (docs/intervals.md)
    wide, nf4 = (
        {name: row["stats"]["correct"] for name, row in runs[label].samples.items()} for label in ("bf16", "nf4+bf16")
    )
    assert len(wide) == 30 and wide.keys() == nf4.keys()
    moves = [nf4[name] - wide[name] for name in wide]
    smoothed = sum(moves) / 32
    variance = ((sum(map(abs, moves)) + 2) / 32 - smoothed**2) / 32
    (row,) = [row for row in runs["nf4+bf16"].rows if row["metric"] == "acc_minus_bf16"]
    assert float(row["value"]) == pytest.approx(100 * (sum(nf4.values()) - sum(wide.values())) / 30, abs=1e-4)
    half = 1.959964 * variance**0.5
    bounds = [100 * (smoothed - half), 100 * (smoothed + half)]
    assert [float(row["ci_low"]), float(row["ci_high"])] == pytest.approx(bounds, abs=1e-3)
    assert not [row for row in runs["bf16"].rows if row["metric"] == "acc_minus_bf16"]
    for name in ("demo (BF16)", "demo (FP32)", "demo (Int8+BF16)", "demo (NF4+BF16)"):
        assert f"| {name} " in table
    assert (
        all("|dtype:" in run.signature for run in runs.values()) and len({run.signature for run in runs.values()}) == 4
    )


def test_results_of_an_earlier_version_are_read_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "mmlu.csv"
    old = dict.fromkeys(results.COLUMNS[: -results.ADDED], "1")
    path.write_text(",".join(old) + "\n" + ",".join(old.values()) + "\n")
    new = {**dict.fromkeys(results.COLUMNS, "2"), "weights_gb": "0.5"}
    assert results.append_results(path, [new])
    assert results.read_results(path) == [{**old, "weights_gb": "", "resident_gb": ""}, new]
    assert path.read_text().splitlines()[0] == ",".join(results.COLUMNS)
