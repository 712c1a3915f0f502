"""lm-evaluation-harness run on questions in MMLU's official files, with its own MMLU prompt; by default on the demonstration's
questions and checkpoint, which is exported for transformers.

The questions become tasks whose prompt is that of lm-evaluation-harness's `mmlu`: description, questions without a label.
`python tests/lm_eval_peer.py FOLDER [SHOTS [MAX_LENGTH]]` leaves FOLDER/samples/*.jsonl; it needs lm-eval
(`pip install -e '.[bench]'`).
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qwen_eval.data import demo
from qwen_eval.models.export import export_qwen2
from qwen_eval.schema import ModelSpec

LETTERS = "ABCD"
DATA = demo.FOLDER / "data" / "mmlu"
DESCRIPTION = "The following are multiple choice questions (with answers) about {}.\n\n"
OPTIONS = "".join(f"{letter}. {{{{choices[{index}]}}}}\n" for index, letter in enumerate(LETTERS))


def documents(subject: str, split: str, data: Path = DATA) -> list[dict]:
    """Questions as lm-evaluation-harness gets MMLU's from the hub."""
    with (data / split / f"{subject}_{split}.csv").open(encoding="utf-8", newline="") as file:
        return [
            {"question": row[0], "subject": subject, "choices": row[1:5], "answer": LETTERS.index(row[5])}
            for row in csv.reader(file)
        ]


def write_task(folder: Path, subject: str, data: Path = DATA) -> str:
    """A subject's task file and data. Returns the task's name."""
    files = {}
    for split in ("dev", "test"):
        path = folder / f"{subject}_{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in documents(subject, split, data)), encoding="utf-8")
        files[split] = str(path)
    task = {
        "task": f"mmlu_{subject}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "multiple_choice",
        "description": DESCRIPTION.format(subject.replace("_", " ")),
        "doc_to_text": f"{{{{question.strip()}}}}\n{OPTIONS}Answer:",
        "doc_to_choice": list(LETTERS),
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / f"{subject}.yaml").write_text(json.dumps(task, indent=1), encoding="utf-8")  # JSON is YAML
    return f"mmlu_{subject}"


def run(
    folder: Path,
    shots: int = 0,
    max_length: int = 512,
    model: Path | None = None,
    data: Path = DATA,
    subjects: Sequence[str] | None = None,
    limit: int | None = None,
) -> Path:
    """Runs lm-eval and returns the folder of its samples. max_length: of its model, in tokens; longer prompts are
    truncated on the left. model: a folder for transformers, None for the demonstration. limit: questions of a subject."""
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    every = sorted(path.stem.removesuffix("_dev") for path in (data / "dev").glob("*.csv"))
    names = [write_task(tasks, subject, data) for subject in subjects or every]
    if model is None:
        model = folder / "checkpoint"
        export_qwen2(ModelSpec(str(demo.checkpoint()), device="cpu", max_seq_len=512), model)
    samples = folder / "samples"
    given = f"pretrained={model},dtype=float32,max_length={max_length}"
    # fmt: off
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", given, "--device", "cpu",
        "--include_path", str(tasks), "--tasks", ",".join(names), "--num_fewshot", str(shots), "--batch_size", "16",
        "--log_samples", "--output_path", str(samples), *(["--limit", str(limit)] if limit else []),
    ]
    # fmt: on
    subprocess.run(command, check=True, capture_output=True)
    (made,) = {path.parent for path in samples.rglob("samples_*.jsonl")}
    return made


if __name__ == "__main__":
    print(run(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:])))
