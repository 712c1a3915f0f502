"""CMMLU: 67 subjects, 11,582 multiple-choice questions in Chinese (Li et al. 2023).

python eval/cmmlu.py -c Qwen/Qwen-7B           from the hub
python eval/cmmlu.py -c Qwen/Qwen-7B -d DIR    DIR holds dev/<subject>.csv and test/<subject>.csv
python eval/cmmlu.py -c demo                   the embedded demonstration, in seconds
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_eval.data.choice import ChoiceSet, cmmlu
from qwen_eval.data.official import official
from qwen_eval.main import main
from qwen_eval.tasks.choice import ChineseExam, five_shot
from qwen_eval.tasks.facts import Table


class Cmmlu(ChineseExam):
    name, version, title, order = "cmmlu", 1, "CMMLU", 3
    shots = {"base": 5}
    writes = ()
    recipes = ("default", "qwen2023")
    released = True
    has_subjects = True
    sums = official("cmmlu")
    hub = ("haonan-li/cmmlu", "test")
    suite = {"base": ((),)}
    columns = {
        "main": five_shot({"CMMLU": ("acc", "all")}),
        "cmmlu": five_shot(
            {
                "Average": ("acc", "all"),
                **{name: ("acc", name) for name in ("STEM", "Humanities", "Social Science", "Other", "China specific")},
                "Micro": ("acc_micro", "all"),
            }
        ),
    }
    tables = (Table("cmmlu", "CMMLU by category", order=10, chinese={"CMMLU by category": "CMMLU 各类别"}),)

    def read(self) -> Mapping[str, ChoiceSet[Any]]:
        return cmmlu(self.source, self.subjects())


if __name__ == "__main__":
    main(Cmmlu)
