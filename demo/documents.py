"""Long documents for the perplexity script: worked problems and sentence pairs that the training text never contains.

python demo/documents.py [folder]
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from tasks import draw_pair, draw_problem

COUNT = 8
PROBLEMS = 100  # in a document: some 5,000 of the demonstration's tokens


def document(number: int) -> str:
    """Problems in the form of the few-shot prompt and, after every fifth, a sentence with its translation."""
    rng = Random(f"long_ppl/{number}")
    parts = []
    for index in range(PROBLEMS):
        problem = draw_problem(rng, test=True)
        parts.append(f"Question: {problem.question}\nLet's think step by step\n{problem.plain()}\n\n")
        if index % 5 == 4:
            english, chinese = draw_pair(rng, test=True)
            parts.append(f"English: {english}\nChinese: {chinese}\n\n")
    return "".join(parts)


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    folder = root / "long_ppl"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        (folder / f"{number}.txt").write_bytes(document(number).encode())
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
