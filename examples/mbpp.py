"""MBPP: 500 Python problems for beginners, each judged by its tests (Austin et al. 2021).

qwen-eval run mbpp.py -c Qwen/Qwen-7B          3-shot, from the hub
qwen-eval run mbpp.py -c Qwen/Qwen-7B -d DIR   DIR holds prompt.jsonl and test.jsonl
qwen-eval run mbpp.py -c demo                  problems of our own, in seconds
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_eval.data.tables import Dataset
from qwen_eval.main import main
from qwen_eval.sandbox import Program
from qwen_eval.tasks.code import Code
from qwen_eval.tasks.extract.code import builtin_overrides


class Mbpp(Code):
    name, version, title = "mbpp", 2, "MBPP"
    shots = {"base": 3, "chat": 0}
    stop = ("[DONE]",)
    split_shown = "prompt"
    dataset = Dataset(
        "google-research-datasets/mbpp",
        "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
        {split: f"full/{split}-00000-of-00001.parquet" for split in ("prompt", "test")},
    )
    demo_data = Path(__file__).with_name("mbpp")

    def turn(self, row: Mapping[str, Any]) -> str:
        tests = "\n".join(row["test_list"])
        task = f"You are an expert Python programmer, and here is your task: {row['text']}"
        return f"{task} Your code should pass these tests:\n\n{tests}\n"

    def prompt(self, row: Mapping[str, Any]) -> str:
        return f"{self.turn(row)}[BEGIN]\n"

    def answer(self, row: Mapping[str, Any]) -> str:
        return f"{self.solution(row)}\n[DONE]"

    def solution(self, row: Mapping[str, Any]) -> str:
        return str(row["code"]).replace("\r\n", "\n")

    def identifier(self, row: Mapping[str, Any], index: int) -> str:
        return str(row["task_id"])

    def program(self, row: Mapping[str, Any], text: str) -> Program:
        tests = "\n".join(row["test_list"])
        return Program(text, tests, context=row["test_setup_code"], overrides=builtin_overrides(self.solution(row)))


if __name__ == "__main__":
    main(Mbpp)
