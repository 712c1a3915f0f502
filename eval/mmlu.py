"""MMLU: 57 subjects, 14,042 multiple-choice questions in English (Hendrycks et al. 2021).

python eval/mmlu.py -c Qwen/Qwen-7B            from the hub
python eval/mmlu.py -c Qwen/Qwen-7B -d DIR     DIR holds dev/<subject>_dev.csv and test/<subject>_test.csv
python eval/mmlu.py -c Qwen/Qwen-7B-Chat --chat     0-shot, the letter is read from the reply
python eval/mmlu.py -c demo                    the embedded demonstration, in seconds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_eval.data.choice import ChoiceRow, ChoiceSet, mmlu
from qwen_eval.data.official import official
from qwen_eval.main import main
from qwen_eval.schema import Choose
from qwen_eval.tasks.choice import MultipleChoice, categories, five_shot, option_lines
from qwen_eval.tasks.extract.letters_2023 import mmlu_2023
from qwen_eval.tasks.facts import Column, Table

HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"
CHAT_HEADER = (
    "The following is a multiple-choice question. Please choose the most suitable one among A, B, C and D as the answer "
    "to this question.\n\n"
)
OPTIONS = (" A", " B", " C", " D")
CUT = 2047  # tokens of the prompt that the 2023 script kept
MEMORY = (
    "Memory is the peak of the run: of the process on a CPU, of the device's allocator on a GPU. Weights are all stored "
    "tensors, with the state of quantized ones. Differences are in points, paired by item, with their 95% intervals."
)
MEMORY_ZH = (
    "内存为运行中的峰值：CPU 上为进程的峰值，GPU 上为设备分配器的峰值。权重为全部存储的张量，含量化状态。"
    "差值以百分点计，按题配对，附 95% 区间。"
)


class Mmlu(MultipleChoice):
    name, version, title, order = "mmlu", 1, "MMLU", 1
    versions = {("default", "chat"): 2}
    recipes = ("default", "qwen2023")
    released = True
    has_subjects = True
    sums = official("mmlu")
    hub = ("cais/mmlu", "all")
    suite = {"base": ((),), "chat": (("--chat",),)}
    precisions = True
    columns = {
        "main": five_shot({"MMLU": ("acc", "all")}),
        "precision": (
            Column("MMLU", ("acc", "all"), ("mmlu acc", ""), "5-shot", "5", table="quantization", note=MEMORY,
                   note_zh=MEMORY_ZH),
            Column("Difference to BF16", ("acc_minus_bf16", "all"), setting="5-shot", shots="5", known=False, ranked=False,
                   zh="与 BF16 之差"),
            Column("Weights (GB)", ("acc", "all"), setting="5-shot", shots="5", digits=3, lower=True, known=False,
                   field="weights_gb", zh="权重（GB）"),
            Column("Memory (GB)", ("acc", "all"), ("memory GB", ""), "5-shot", "5", table="quantization", lower=True,
                   known=False, field="peak_memory_gb", zh="内存（GB）"),
        ),
        "chat": (Column("MMLU (0-shot)", ("acc", "all"), ("acc", ""), "0-shot chat", "0", zh="MMLU（0-shot）"),),
        "mmlu": five_shot(
            {
                "Average": ("acc", "all"),
                **{group: ("acc", group) for group in ("STEM", "Social Sciences", "Humanities", "Others")},
                "Macro": ("acc_macro", "all"),
            }
        ),
    }  # fmt: skip
    tables = (Table("mmlu", "MMLU by category", order=8, chinese={"MMLU by category": "MMLU 各类别"}),)

    def read(self) -> Mapping[str, ChoiceSet[Any]]:
        return mmlu(self.source, self.subjects())

    def header(self, row: Any) -> str:
        return HEADER.format(subject=row.subject.replace("_", " "))

    def request(self, row: ChoiceRow, examples: Sequence[ChoiceRow]) -> Choose:
        """Which tokens stand for the options, and what happens to a prompt that is too long, is the recipe's."""
        shots = tuple(f"{self.question(example)} {example.answer}\n\n" for example in examples)
        if self.recipe == "qwen2023":
            return Choose(
                self.header(row), shots, self.question(row), OPTIONS, "keep_last", limit=CUT, scoring="isolated"
            )
        return Choose(self.header(row), shots, self.question(row), OPTIONS, "drop_shots")

    def turn(self, row: Any) -> str:
        return f"{CHAT_HEADER}{row.question}\n{option_lines(row)}"

    def letter_2023(self, text: str, row: ChoiceRow) -> str:
        return mmlu_2023(text, row.question, row.options)

    def categories(self) -> Mapping[str, Sequence[str]]:
        return categories(self.name)


if __name__ == "__main__":
    main(Mmlu)
