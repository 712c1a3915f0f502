"""Writes demo/data: small benchmark files in the official formats, the same bytes every time.

python demo/make_data.py [folder]
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import jsonlines

from corpus import Item, draw_item, with_none
from facts import CEVAL, CMMLU, MMLU, Topic
from tasks import draw_pair, draw_problem, fixed_functions, number_functions
from tool_calls import draw_negative, draw_positive, prompt
from tool_code import TOOLS, instruction, sayings

SHOTS = 5
POSITIVE, NEGATIVE = 40, 30  # ReAct questions


def write(path: Path, text: str) -> None:
    """UTF-8 with line feeds on every system, so that the bytes do not depend on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def table(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def items(name: str, topic: Topic, count: int, test: bool, taken: Sequence[Item] = ()) -> list[Item]:
    """Distinct items; the seed is the file's name, so that adding a subject leaves the others as they are."""
    rng = Random(name)
    found = list(taken)
    while len(found) < len(taken) + count:
        item = draw_item(rng, topic, test)
        if item not in found:
            found.append(item)
    return found[len(taken) :]


def cells(item: Item) -> list[str]:
    return [item.question, *item.options, item.answer]


def mmlu(root: Path) -> None:
    for subject, topic in MMLU.items():
        dev = items(f"mmlu/{subject}/dev", topic, SHOTS, test=False)
        test = items(f"mmlu/{subject}/test", topic, 50, test=True)
        test[7] = with_none(test[7])  # the real files have such cells, and they must reach the prompt as they stand
        write(root / "mmlu" / "dev" / f"{subject}_dev.csv", table(map(cells, dev)))
        write(root / "mmlu" / "test" / f"{subject}_test.csv", table(map(cells, test)))


def ceval(root: Path) -> None:
    head = ["id", "question", *"ABCD", "answer"]
    for subject, topic in CEVAL.items():
        dev = items(f"ceval/{subject}/dev", topic, SHOTS, test=False)
        val = items(f"ceval/{subject}/val", topic, 40, test=True)
        test = items(f"ceval/{subject}/test", topic, 20, test=True, taken=val)
        explained = [
            [i, *cells(item), f"答案是{item.options['ABCD'.index(item.answer)]}。"] for i, item in enumerate(dev)
        ]
        write(root / "ceval" / "dev" / f"{subject}_dev.csv", table([[*head, "explanation"], *explained]))
        write(
            root / "ceval" / "val" / f"{subject}_val.csv", table([head, *([i, *cells(x)] for i, x in enumerate(val))])
        )
        rows = [head[:-1], *([i, *cells(x)[:-1]] for i, x in enumerate(test))]
        write(root / "ceval" / "test" / f"{subject}_test.csv", table(rows))


def cmmlu(root: Path) -> None:
    head = ["", "Question", *"ABCD", "Answer"]
    for subject, topic in CMMLU.items():
        for split, count in (("dev", SHOTS), ("test", 40)):
            drawn = items(f"cmmlu/{subject}/{split}", topic, count, test=split == "test")
            rows = [head, *([i, *cells(item)] for i, item in enumerate(drawn))]
            write(root / "cmmlu" / split / f"{subject}.csv", table(rows))


def lines(rows: Iterable[dict[str, object]]) -> str:
    text = io.StringIO()
    with jsonlines.Writer(text) as writer:
        writer.write_all(rows)
    return text.getvalue()


def gsm8k(root: Path) -> None:
    for split, count in (("train", 12), ("test", 50)):
        rng = Random(f"gsm8k/{split}")
        problems = [draw_problem(rng, test=split == "test") for _ in range(count)]
        rows = ({"question": p.question, "answer": f"{p.solution}\n#### {p.answer}"} for p in problems)
        write(root / "gsm8k" / f"{split}.jsonl", lines(rows))


def humaneval(root: Path) -> None:
    functions = fixed_functions() + number_functions(test=True)
    rows = (
        {
            "task_id": f"HumanEval/{i}",
            "prompt": function.prompt,
            "entry_point": function.name,
            "canonical_solution": function.body,
            "test": function.test(),
        }
        for i, function in enumerate(functions)
    )
    write(root / "humaneval" / "HumanEval.jsonl", lines(rows))


def wmt22(root: Path) -> None:
    for direction, source, target in (("en-zh", "src.en", "ref.A.zh"), ("zh-en", "src.zh", "ref.A.en")):
        rng = Random(f"wmt22/{direction}")
        drawn = [draw_pair(rng, test=True) for _ in range(40)]
        for side in (source, target):
            column = 0 if side.endswith("en") else 1
            text = "".join(pair[column] + "\n" for pair in drawn)
            write(root / "wmt22" / f"generaltest2022.{direction}.{side}", text)
        documents = "".join(f"document {number // 4}\n" for number in range(len(drawn)))
        write(root / "wmt22" / f"generaltest2022.{direction}.docid", documents)


def react(root: Path) -> None:
    """Questions for a tool with the whole gold reply, and questions for which there is none; each question once."""
    for part, count in (("positive", POSITIVE), ("negative", NEGATIVE)):
        rng = Random(f"plugin/react_{part}")
        rows: dict[str, dict[str, object]] = {}
        while len(rows) < count:
            if part == "positive":
                names, call = draw_positive(rng, test=True)
                question, row = call.question, {"response": call.opening() + call.rest()}
            else:
                names, question, _ = draw_negative(rng, test=True)
                row = {}
            rows.setdefault(question, {"prompt": prompt(names, question), **row})
        write(root / "plugin" / f"react_{part}.jsonl", lines(rows.values()))


def agent(root: Path) -> None:
    """The tools, then an instruction for every two wordings that are held out."""
    rows = []
    for tool in TOOLS:
        row = {"tool": tool.name, "description": tool.description, "parameters": tool.parameters}
        more = {"defaults": tool.defaults, "requires": tool.requires}
        rows.append(row | {key: value for key, value in more.items() if value} | {"returns": tool.returns})
    rng = Random("plugin/hfagent")
    for said in sayings(test=True):
        drawn = instruction(rng, said)
        row = {"instructions": [drawn.text], "tools": drawn.tools, "inputs": drawn.inputs()}
        rows.append(row | {"answers": drawn.answers()})
    write(root / "plugin" / "hfagent.jsonl", lines(rows))


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for make in (mmlu, ceval, cmmlu, gsm8k, humaneval, wmt22, react, agent):
        make(root)
    print(f"wrote {root}")


if __name__ == "__main__":
    main()
