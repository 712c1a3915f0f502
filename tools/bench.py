"""Speed of the engine against plain loops: one command, one table, the ratio measured within one run.

    python tools/bench.py                                all stages, as `make bench`
    python tools/bench.py --items 5 --repeat 1           a quick look
    python tools/bench.py --shape 512x8                  a larger model

Ours and each baseline compute the same items with the same loaded model, threads and prompts; repetitions are interleaved
(ours, baselines, ours, ...) and the ratio is the median of the repetitions' ratios. The answers are compared, so a ratio
is only printed for equal work. Rows are added to results/bench.csv, the table is written into BENCHMARKS.md.

A stage is a function of the settings that returns a Contest; a new one is such a function and a line in STAGES.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "eval"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers.utils import logging  # noqa: E402

import gsm8k  # noqa: E402
import mmlu  # noqa: E402
from harness import data, demo, multiple_choice, runner, tables  # noqa: E402
from harness.engines.hf import HFEngine  # noqa: E402
from harness.models import qwen1  # noqa: E402
from harness.schema import Generate, ModelSpec, Sample  # noqa: E402

COLUMNS = (
    "timestamp", "git_commit", "stage", "baseline", "model", "items", "ours_cpu_s", "baseline_cpu_s", "ratio_cpu",
    "ours_wall_s", "baseline_wall_s", "ratio_wall", "tokens_computed", "tokens_in_prompts", "furthest", "machine", "load",
)  # fmt: skip
TABLE = re.compile(r"(<!-- table:bench -->\n)(.*?)(<!-- /table:bench -->)", re.DOTALL)
VOCABULARY = 151_936
BATCH, PROBLEMS, NEW_TOKENS = 8, 24, 64  # of the generation stage
TOLERANCE = 1e-4  # natural-log probability: the engine's promise in float32
# short, middling and long prompts, in about the proportion of all 57 (mean 870 tokens; over all of MMLU 710)
SUBJECTS = (
    "world_religions", "marketing", "astronomy", "econometrics", "professional_medicine", "high_school_us_history",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """folder: where checkpoints are built. shared: the folder with real data and the real tokenizer, None without."""

    folder: Path
    shared: Path | None
    items: int
    width: int
    layers: int


@dataclass(frozen=True)
class Contest:
    """What is timed: ours and the baselines by name, each a call that does all the work and returns its answers. tokens:
    after a call of ours, how many it computed, and how many the prompts have. apart: (baseline, our answers, theirs) ->
    how far apart they are; raises SystemExit where that is not the same work."""

    stage: str
    model: str
    items: int
    ours: Callable[[], np.ndarray]
    baselines: Mapping[str, Callable[[], np.ndarray]]
    tokens: Callable[[], tuple[int, int]]
    apart: Callable[[str, np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Timing:
    cpu: float
    wall: float
    answers: np.ndarray


# ------------------------------------------------------------------------------------------------------------ stages
def choices(settings: Settings) -> Contest:
    """MMLU, 5-shot, against the loop of the 2023 scripts: one question at a time, its full prompt, logits of every
    position, the model's own attention. The same loop with the last position's logits alone is shown beside it, because
    a small model under a large vocabulary makes the first look slower than it is at 7B."""
    checkpoint = write_checkpoint(settings)
    engine = HFEngine(ModelSpec(str(checkpoint)))
    samples, origin = mmlu_samples(settings)
    model, tokenizer = engine.runtime.model, engine.checkpoint.tokenizer

    def ours() -> np.ndarray:
        chosen = engine.choose([sample.request for sample in samples], lambda *_: None)
        return np.array([item.logprobs for item in chosen])

    def loop(**keep: Any) -> np.ndarray:
        letters = [tokenizer.encode(option)[-1] for option in mmlu.OPTIONS]
        rows = []
        with torch.inference_mode():
            for sample in samples:
                ids = torch.tensor([tokenizer.encode(sample.request.prompt())])
                logits = model(input_ids=ids, use_cache=False, **keep).logits
                rows.append(logits[0, -1].float().log_softmax(-1)[letters].double().numpy())
        return np.array(rows)

    baselines = {
        "plain loop (2023 scripts)": loop,
        "plain loop, last logits only": lambda: loop(logits_to_keep=1),
    }
    name = f"{settings.width} x {settings.layers}, vocabulary {VOCABULARY}, float32"
    return Contest(f"MMLU 5-shot, {origin}", name, len(samples), ours, baselines, token_counter(engine), difference)


def generation(settings: Settings) -> Contest:
    """GSM8K, 8-shot, against transformers' generate at the same batch size: prompts padded on the left, a cache a batch.
    Both write the same number of tokens, greedily."""
    checkpoint = write_checkpoint(settings)
    engine = HFEngine(ModelSpec(str(checkpoint)), batch_size=BATCH)
    requests, origin = gsm8k_requests(settings)
    model, tokenizer = engine.runtime.model, engine.checkpoint.tokenizer

    def ours() -> np.ndarray:
        return np.array([item.texts[0] for item in engine.generate(requests, lambda *_: None)])

    def generate() -> np.ndarray:
        texts = []
        for start in range(0, len(requests), BATCH):
            prompts = [tokenizer.encode(str(request.text())) for request in requests[start : start + BATCH]]
            longest = max(map(len, prompts))
            ids = torch.zeros(len(prompts), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, prompt in enumerate(prompts):
                ids[row, longest - len(prompt) :] = torch.tensor(prompt)
                mask[row, longest - len(prompt) :] = 1
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
            )
            texts += [tokenizer.decode(row[longest:].tolist(), skip_special=True) for row in out]
        return np.array(texts)

    name = f"{settings.width} x {settings.layers}, vocabulary {VOCABULARY}, float32"
    stage = f"GSM8K 8-shot, {NEW_TOKENS} new tokens, {origin}"
    baselines = {f"transformers generate, batch {BATCH}": generate}
    return Contest(stage, name, len(requests), ours, baselines, token_counter(engine), same_texts)


STAGES: Mapping[str, Callable[[Settings], Contest]] = {"choices": choices, "generation": generation}


def token_counter(engine: HFEngine) -> Callable[[], tuple[int, int]]:
    """Tokens computed and tokens in prompts since the last call."""
    counted = [0, 0]

    def since() -> tuple[int, int]:
        before, counted[:] = tuple(counted), (engine.usage()["tokens"], engine.usage()["prompt_tokens"])
        return int(counted[0] - before[0]), int(counted[1] - before[1])

    return since


def gsm8k_requests(settings: Settings) -> tuple[list[Generate], str]:
    """Real problems where there are any, else the demonstration's; and which. They end by their length alone."""
    if settings.shared:
        source, origin = data.Source(settings.shared / "data/gsm8k"), "real problems"
    else:
        source, origin = data.Source(demo.data("gsm8k")), "demonstration problems"
    problems = data.gsm8k(source)
    ask = gsm8k.base(gsm8k.parser().parse_args(["--max-new-tokens", str(NEW_TOKENS)]), problems)
    return [dataclasses.replace(ask(problem), stop=()) for problem in problems.test[:PROBLEMS]], origin


def mmlu_samples(settings: Settings) -> tuple[list[Sample], str]:
    """Real questions where there are any, else the demonstration's; and which."""
    if settings.shared:
        source, subjects, origin = data.Source(settings.shared / "data/mmlu"), list(SUBJECTS), "real questions"
    else:
        source, subjects, origin = data.Source(demo.data("mmlu")), demo.subjects("mmlu"), "demonstration questions"
    asked = multiple_choice.samples(data.mmlu(source, subjects), 5, mmlu.ask("default"))
    return [sample for sample in asked if int(sample.id.split("/")[1]) < settings.items], origin


def write_checkpoint(settings: Settings) -> Path:
    """A Qwen-1 checkpoint with random weights in float32, and the real tokenizer where there is one, else the
    demonstration's."""
    config = {
        "model_type": qwen1.MODEL_TYPE,
        "architectures": ["QWenLMHeadModel"],
        "hidden_size": settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.width // 64,
        "intermediate_size": 2 * 4 * settings.width,
        "vocab_size": VOCABULARY,
        "seq_length": 8192,
        "max_position_embeddings": 8192,
        "fp32": True,
        "initializer_range": 0.1,  # large enough that the answers differ from question to question
    }
    qwen1.register()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    folder = settings.folder / f"{settings.width}x{settings.layers}"
    qwen1.QWenLMHeadModel(qwen1.QWenConfig.from_dict(config)).save_pretrained(folder)
    real = settings.shared / "checkpoints/qwen1-tokenizer" if settings.shared else demo.FOLDER / "checkpoint"
    shutil.copy(real / "qwen.tiktoken", folder)
    return folder


# --------------------------------------------------------------------------------------------------------- measuring
def timed(call: Callable[[], np.ndarray]) -> Timing:
    """CPU seconds are the process's, all threads together."""
    cpu, wall = time.process_time(), time.perf_counter()
    answers = call()
    return Timing(time.process_time() - cpu, time.perf_counter() - wall, answers)


def compete(contest: Contest, repeat: int) -> list[dict[str, str]]:
    """One row a baseline. Raises SystemExit when the answers are not the same."""
    ours: list[Timing] = []
    theirs: dict[str, list[Timing]] = {name: [] for name in contest.baselines}
    furthest = 0.0
    computed = asked = 0
    for number in range(1, repeat + 1):
        ours.append(timed(contest.ours))
        computed, asked = contest.tokens()
        for name, call in contest.baselines.items():
            theirs[name].append(timed(call))
            furthest = max(furthest, contest.apart(name, ours[-1].answers, theirs[name][-1].answers))
            report = f"{contest.stage}, repetition {number}: ours {ours[-1].cpu:.1f}, {name} {theirs[name][-1].cpu:.1f}"
            print(f"{report} CPU seconds", file=sys.stderr, flush=True)
    rows = []
    for name, timings in theirs.items():
        row: dict[str, Any] = {"stage": contest.stage, "baseline": name, "model": contest.model, "items": contest.items}
        for unit in ("cpu", "wall"):
            pairs = [(getattr(a, unit), getattr(b, unit)) for a, b in zip(ours, timings, strict=True)]
            row[f"ours_{unit}_s"] = f"{statistics.median(a for a, _ in pairs):.2f}"
            row[f"baseline_{unit}_s"] = f"{statistics.median(b for _, b in pairs):.2f}"
            row[f"ratio_{unit}"] = f"{statistics.median(b / a for a, b in pairs):.2f}"
        row |= {"tokens_computed": computed, "tokens_in_prompts": asked, "furthest": f"{furthest:.1e}"}
        rows.append(row)
    return rows


def difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    """The furthest two log-probabilities of one option are apart. Raises SystemExit beyond the tolerance, and for a
    question that is answered otherwise and is no tie."""
    furthest = float(np.abs(ours - theirs).max())
    ranked = np.sort(theirs, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] >= multiple_choice.TIE_MARGIN
    if furthest > TOLERANCE or (ours.argmax(1) != theirs.argmax(1))[clear].any():
        raise SystemExit(f"bench: ours and {name} do not compute the same (log-probabilities {furthest:.1e} apart)")
    return furthest


def same_texts(name: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Raises SystemExit when more than one text in twenty is another (two tokens can be a near tie)."""
    apart = float((ours != theirs).mean())
    if apart > 0.05:
        raise SystemExit(f"bench: ours and {name} do not write the same ({apart:.0%} of the texts differ)")
    return apart


def machine() -> str:
    """The processor, the threads in use and torch, no names."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    processor = names[0].strip() if names else platform.processor() or platform.machine()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{processor}, {threads}, torch {torch.__version__}"


# ----------------------------------------------------------------------------------------------------------- results
def append(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def newest(path: Path) -> list[dict[str, str]]:
    """The newest row of every stage, baseline and model."""
    with path.open(newline="", encoding="utf-8") as file:
        found = {(row["stage"], row["baseline"], row["model"]): row for row in csv.DictReader(file)}
    return list(found.values())


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The table, and when and on what its rows were measured."""
    head = "| Stage | Against | Model | Items | Ours, CPU s | Baseline, CPU s | Times faster, CPU | wall | Tokens computed |"
    lines = [head, "|:--|:--|:--|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        share = f"{row['tokens_computed']} of {row['tokens_in_prompts']}"
        cells = [row[name] for name in ("stage", "baseline", "model", "items", "ours_cpu_s", "baseline_cpu_s")]
        lines.append("| " + " | ".join(map(str, [*cells, row["ratio_cpu"], row["ratio_wall"], share])) + " |")
    about = {
        f"{row['stage'].split(',')[0]}: measured {row['timestamp']} at commit {row['git_commit']} on {row['machine']}; "
        f"load average {row['load']} when it began."
        for row in rows
    }
    return "\n".join([*lines, "", *sorted(about), ""])


def rewrite(path: Path, table: str) -> None:
    """Puts the table between the markers. Raises SystemExit where there are none."""
    text = path.read_text(encoding="utf-8")
    if not TABLE.search(text):
        raise SystemExit(f"bench: {path} has no <!-- table:bench --> and <!-- /table:bench --> to write between")
    path.write_text(TABLE.sub(lambda found: found[1] + table + found[3], text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument(
        "--items", type=int, default=25, help="questions a subject (default 25; fewer shrink the ratio)"
    )
    parser.add_argument("--shape", default="256x4", metavar="WIDTHxLAYERS", help="of the model (default 256x4)")
    parser.add_argument("--repeat", type=int, default=3, help="interleaved repetitions (default 3)")
    parser.add_argument("--dry", action="store_true", help="print only, write no file")
    args = parser.parse_args()
    width, layers = map(int, args.shape.split("x"))
    root = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    common = {
        "timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git_commit": runner.git_commit(),
        "machine": machine(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), root if root.is_dir() else None, args.items, width, layers)
        for name in args.stages:
            rows += [{**common, **row} for row in compete(STAGES[name](settings), args.repeat)]
    figures = ("ours_cpu_s", "baseline_cpu_s", "ratio_cpu", "ratio_wall")
    cells = [["", "ours CPU s", "baseline CPU s", "times faster", "wall"]]
    cells += [[f"{row['stage']} / {row['baseline']}", *(row[name] for name in figures)] for row in rows]
    print("\n".join(tables.aligned(cells)))
    print(f"{common['machine']}, load {common['load']}, commit {common['git_commit']}")
    if not args.dry:
        append(ROOT / "results/bench.csv", rows)
        rewrite(ROOT / "BENCHMARKS.md", markdown(newest(ROOT / "results/bench.csv")))


if __name__ == "__main__":
    main()
