"""Start: --help of a benchmark's script and of the commands beside them, and the CPU seconds until the engine is ready beside
the import of the model class alone (a ratio of 1 would mean that all else costs nothing)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import partial

from bench import child, workload
from bench.contest import Contest
from bench.settings import Settings

READY = (
    "import sys; from qwen_eval.schema import ModelSpec; from qwen_eval.engines.local.engine import HFEngine; "
    "HFEngine(ModelSpec(sys.argv[1], device='cpu')).runtime.model"
)
HELP_LIMIT = 0.3  # CPU seconds; more is said while the bench runs: some library is loaded for the command line
CLASS = "from transformers import Qwen2ForCausalLM"


def contests(settings: Settings) -> Iterator[Contest]:
    python = sys.executable
    lm_eval = partial(run, [python, "-m", "lm_eval", "--help"])
    for script in ("mmlu", "suite", "report", "compare"):
        yield Contest(
            stage="--help, CPU seconds" if script == "mmlu" else f"--help of {script}.py, CPU seconds",
            model="none",
            items=1,
            ours=partial(show_help, script),
            baselines={"lm_eval --help": lm_eval} if importlib.util.find_spec("lm_eval") else {},
            alone="nothing: lm-evaluation-harness is not installed",
        )
    folder = workload.write_qwen2(settings, 64, 2)
    yield Contest(
        stage="Engine ready, CPU seconds",
        model="64 x 2, Qwen2 format",
        items=1,
        ours=partial(run, [python, "-c", READY, str(folder)]),
        baselines={"import of the model class alone": partial(run, [python, "-c", CLASS])},
    )


def run(words: list[str]) -> child.Timing:
    """A process from start to end, without what it printed."""
    timing = child.spawn(words)
    return child.Timing(timing.cpu, timing.wall)


def show_help(script: str) -> child.Timing:
    """A script's --help; says on stderr when it takes longer than the limit."""
    timing = run([sys.executable, str(child.ROOT / f"eval/{script}.py"), "--help"])
    if timing.cpu is not None and timing.cpu > HELP_LIMIT:
        print(f"bench: {script}.py --help took {timing.cpu:.2f} CPU seconds, over {HELP_LIMIT}", file=sys.stderr)
    return timing
