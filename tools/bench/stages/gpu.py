"""The original 7B layout with random weights in bfloat16, against what the device could do at best.

Each stage has the floor as its baseline: the time that the work's operations take at the matrix rate measured here, or its
bytes at the measured bandwidth; the ratio of wall times is the share of the floor that is reached. `make bench-gpu` runs
them; `--shape 128x2` makes them small enough to be tried on a CPU.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bench import counts, workload
from bench.contest import Call, Contest, Timing, timed
from bench.settings import Settings
from qwen_eval.data import demo
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.schema import Measure, ModelSpec

HEAD = 128
NEW_TOKENS, LENGTH = 256, 16384
ROOM = 0.9  # of the memory that the weights leave, for keys and values
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Model:
    """The checkpoint, its engine, and what one token costs. operations: multiply and add are two."""

    def __init__(self, settings: Settings) -> None:
        self.width, self.layers = settings.shaped(32 * HEAD, 32)
        self.inner = 11008 * self.width // 4096
        folder = write_original(settings, self.width, self.layers, self.inner)
        self.engine = HFEngine(ModelSpec(str(folder), device=DEVICE))
        self.model, self.tokenizer = self.engine.runtime.model, self.engine.checkpoint.tokenizer
        self.name = f"Qwen-1 layout, {self.width} x {self.layers}, bfloat16, {device_name()}"
        products = self.layers * (4 * self.width**2 + 3 * self.width * self.inner)
        self.body = 2 * products
        self.head = 2 * self.width * workload.VOCABULARY
        self.weight_bytes = 2 * (products + self.width * workload.VOCABULARY)
        self.cache_bytes = 2 * 2 * self.layers * self.width  # keys and values of one token

    def operations(self, tokens: int, pairs: int, scored: int) -> float:
        """tokens through the body, pairs of a query and a key that it sees, positions under the output matrix."""
        return self.body * tokens + 4 * self.width * self.layers * pairs + self.head * scored


def mmlu(settings: Settings) -> Iterator[Contest]:
    """All questions. Floor: each distinct token once."""
    samples, origin = workload.mmlu_samples(settings)
    samples = workload.first_of_each(samples, settings.items) if settings.items else samples
    task = Model(settings)
    prompts = task.tokenizer.encode_batch([sample.request.prompt() for sample in samples])
    tokens, pairs = counts.distinct_tokens(prompts), counts.distinct_pairs(prompts)
    requests = [sample.request for sample in samples]
    task.engine.choose(requests[:64], lambda *_: None)  # the first pass chooses kernels
    yield Contest(
        stage=f"GPU, MMLU 5-shot, {origin}",
        model=task.name,
        items=len(samples),
        ours=timed(lambda: finish(task.engine.choose(requests, lambda *_: None)), workload.token_counter(task.engine)),
        baselines=floor(task.operations(tokens, pairs, len(samples)), 0),
        more=lambda: {"tokens_distinct": str(tokens)},
    )


def gsm8k(settings: Settings) -> Iterator[Contest]:
    """256 new tokens for every problem. Floor: prompts' operations, then for every step the weights, each text's own keys
    and values and the shared ones once, with as many texts at a time as fit in memory."""
    requests, origin = workload.gsm8k_requests(settings, settings.items, NEW_TOKENS)
    task = Model(settings)
    prompts = task.tokenizer.encode_batch([str(request.text()) for request in requests])
    shared = counts.shared_prefix(prompts)
    own = [len(prompt) - shared for prompt in prompts]
    room = ROOM * (memory() - task.weight_bytes)
    at_once = max(1, min(len(own), int(room // (task.cache_bytes * (max(own) + NEW_TOKENS)))))
    steps = -(-len(own) // at_once) * NEW_TOKENS
    read = sum((length + NEW_TOKENS / 2) * NEW_TOKENS for length in own) + steps * shared
    total = sum(own) + shared + NEW_TOKENS * len(own)
    pairs = counts.distinct_pairs(prompts) + sum(NEW_TOKENS * (len(prompt) + NEW_TOKENS // 2) for prompt in prompts)
    task.engine.generate(requests[:2], lambda *_: None)
    yield Contest(
        stage=f"GPU, GSM8K 8-shot, {NEW_TOKENS} new tokens, {origin}",
        model=task.name,
        items=len(requests),
        ours=timed(
            lambda: finish(task.engine.generate(requests, lambda *_: None)), workload.token_counter(task.engine)
        ),
        baselines=floor(
            task.operations(total, pairs, NEW_TOKENS * len(own)), steps * task.weight_bytes + read * task.cache_bytes
        ),
    )


def perplexity(settings: Settings) -> Iterator[Contest]:
    """One chunk. Floor: its operations, half of all pairs."""
    task = Model(settings)
    samples, origin = workload.mmlu_samples(settings)
    text = "\n".join(sample.request.prompt() for sample in samples)[: 8 * LENGTH]
    request = Measure((text,), LENGTH, max_tokens=1)

    def measure() -> None:
        finish(task.engine.measure([request], lambda *_: None))

    measure()
    yield Contest(
        stage=f"GPU, perplexity, {LENGTH} tokens, {origin}",
        model=task.name,
        items=1,
        ours=with_peak(measure, workload.token_counter(task.engine)),
        baselines=floor(task.operations(LENGTH, LENGTH**2 // 2, LENGTH), 0),
    )


def finish(answers: Sequence[Any]) -> None:
    """Waits for the device; answers are not compared with a floor."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def with_peak(call: Callable[[], None], tokens: Callable[[], tuple[int, int]]) -> Call:
    """As `timed`, with the allocator's peak above what is allocated before."""
    if DEVICE != "cuda":
        return timed(call, tokens)

    def run() -> Timing:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timing = timed(call, tokens)()
        return Timing(
            timing.cpu, timing.wall, None, timing.tokens, (torch.cuda.max_memory_allocated() - before) / 2**30
        )

    return run


def floor(operations: float, read: float) -> dict[str, Call]:
    """A baseline that takes the time of the operations at the measured matrix rate or of the bytes at the measured
    bandwidth, whichever is longer."""
    by_rate = operations / matrix_rate()
    by_bandwidth = read / bandwidth()
    what = "bandwidth" if by_bandwidth > by_rate else "matrix rate"
    return {f"floor by the measured {what}": lambda: Timing(None, max(by_rate, by_bandwidth))}


def matrix_rate() -> float:
    """Operations a second of large products in bfloat16, the best of several."""
    size = 8192 if DEVICE == "cuda" else 1024
    left, right = torch.randn(2, size, size, device=DEVICE).bfloat16()
    return 2 * size**3 / best(lambda: left @ right)


def bandwidth() -> float:
    """Bytes a second read and written by a large copy, the best of several."""
    size = 2**31 if DEVICE == "cuda" else 2**28
    source = torch.ones(size, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * size / best(lambda: target.copy_(source))


def best(call: Callable[[], Any], tries: int = 10) -> float:
    """The shortest wall time of a call in seconds, the first one left out."""
    times = []
    for _ in range(tries + 1):
        start = time.perf_counter()
        call()
        finish(())
        times.append(time.perf_counter() - start)
    return min(times[1:])


def memory() -> float:
    """Bytes of the device's memory."""
    return float(torch.cuda.mem_get_info()[1]) if DEVICE == "cuda" else 8 * 2.0**30


def device_name() -> str:
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"


def write_original(settings: Settings, width: int, layers: int, inner: int) -> Path:
    """Random weights in bfloat16 under Qwen-1's own names, a file a layer, with its config and tokenizer."""
    folder = settings.folder / f"original-{width}x{layers}"
    if folder.exists():
        return folder
    folder.mkdir()
    config = {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "bf16": True,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD,
        "kv_channels": HEAD,
        "intermediate_size": 2 * inner,
        "vocab_size": workload.VOCABULARY,
        "seq_length": 8192,
        "max_position_embeddings": 32768,
        "layer_norm_epsilon": 1e-6,
        "rotary_emb_base": 10000,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "no_bias": True,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    real = settings.shared / "checkpoints/qwen1-tokenizer" if settings.shared else demo.FOLDER / "checkpoint"
    shutil.copy(real / "qwen.tiktoken", folder)
    torch.manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=DEVICE, dtype=torch.bfloat16).mul_(0.02).cpu()

    places: dict[str, str] = {}

    def write(number: int, tensors: dict[str, torch.Tensor]) -> None:
        file = f"model-{number:05d}-of-{layers + 1:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, file))

    ones = torch.ones(width, dtype=torch.bfloat16)
    for layer in range(layers):
        tensors = {
            "ln_1.weight": ones.clone(),
            "attn.c_attn.weight": normal(3 * width, width),
            "attn.c_attn.bias": normal(3 * width),
            "attn.c_proj.weight": normal(width, width),
            "ln_2.weight": ones.clone(),
            "mlp.w1.weight": normal(inner, width),
            "mlp.w2.weight": normal(inner, width),
            "mlp.c_proj.weight": normal(width, inner),
        }
        write(layer + 1, {f"transformer.h.{layer}.{name}": tensor for name, tensor in tensors.items()})
    outer = {"transformer.wte.weight": normal(workload.VOCABULARY, width), "transformer.ln_f.weight": ones}
    write(layers + 1, {**outer, "lm_head.weight": normal(workload.VOCABULARY, width)})
    index = {"metadata": {"total_size": sum(path.stat().st_size for path in folder.iterdir())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
