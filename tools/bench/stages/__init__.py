"""What is measured. A stage is a function of the settings that yields contests; a new one is such a function in a file of
its own and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bench.contest import Contest
from bench.settings import Settings
from bench.stages import gpu, gsm8k_generation, mmlu_2023, mmlu_lmeval, perplexity, start, windows

STAGES: Mapping[str, Callable[[Settings], Iterable[Contest]]] = {
    "mmlu-2023": mmlu_2023.contests,
    "mmlu-lmeval": mmlu_lmeval.some,
    "mmlu-all": mmlu_lmeval.whole,
    "gsm8k": gsm8k_generation.contests,
    "perplexity": perplexity.contests,
    "windows": windows.contests,
    "start": start.contests,
    "vllm": mmlu_lmeval.vllm,
    "gpu-mmlu": gpu.mmlu,
    "gpu-gsm8k": gpu.gsm8k,
    "gpu-perplexity": gpu.perplexity,
}
USUAL = [name for name in STAGES if not name.startswith("gpu-")]  # those that `make bench` runs
