"""Replies that list, judge or deny the options: the answers were decided by hand before the extractor was run on them.

Each kind has neighbours on both sides: replies that look alike and are read differently.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from known import benchmark_of
from qwen_eval.schema import Generated
from qwen_eval.tasks.extract.letters import letter

METALS = ["copper", "iron", "zinc", "tin"]
CHINESE_METALS = ["铜", "铁", "锌", "锡"]
CAPITALS = ["Paris", "Rome", "Oslo", "Bern"]
TRUTHS = ["True", "False", "Valid", "Invalid"]
PROCESSES = ["osmosis", "diffusion", "active transport", "endocytosis"]
SUITS = [
    "He may sue, because the contract is valid.",
    "He may not sue, because the contract is not valid.",
    "He may sue, unless it is wrong.",
    "He may not sue.",
]
SIDES = ["left atrium", "right atrium", "left ventricle", "right ventricle"]
STATEMENTS = ["Zero is even.", "Two is prime.", "One is prime.", "Four is even."]

LISTS = [
    # on one line
    ("A. copper B. iron C. zinc D. tin", METALS, None),
    ("A. copper B. iron C. zinc D. tin\n\nI am not sure.", METALS, None),
    ("A) copper, B) iron, C) zinc, D) tin", METALS, None),
    ("(A) copper (B) iron (C) zinc (D) tin", METALS, None),
    ("[A] copper [B] iron [C] zinc [D] tin", METALS, None),
    ("A: copper; B: iron; C: zinc; D: tin", METALS, None),
    ("A - copper, B - iron, C - zinc, D - tin", METALS, None),
    ("A copper B iron C zinc D tin", METALS, None),
    ("**A.** copper **B.** iron **C.** zinc **D.** tin", METALS, None),
    ("a) copper b) iron c) zinc d) tin", METALS, None),
    ("Option A: copper, Option B: iron, Option C: zinc, Option D: tin", METALS, None),
    ("Please choose one of the following: A. copper B. iron C. zinc D. tin", METALS, None),
    ("A．铜 B．铁 C．锌 D．锡", CHINESE_METALS, None),
    ("A、铜；B、铁；C、锌；D、锡", CHINESE_METALS, None),
    ("（A）铜（B）铁（C）锌（D）锡", CHINESE_METALS, None),
    ("A）铜 B）铁 C）锌 D）锡", CHINESE_METALS, None),
    ("Ａ．铜　Ｂ．铁　Ｃ．锌　Ｄ．锡", CHINESE_METALS, None),
    ("Ⓐ 铜 Ⓑ 铁 Ⓒ 锌 Ⓓ 锡", CHINESE_METALS, None),
    ("A.铜B.铁C.锌D.锡", CHINESE_METALS, None),
    ("选项A：铜，选项B：铁，选项C：锌，选项D：锡", CHINESE_METALS, None),
    ('{"A": "copper", "B": "iron", "C": "zinc", "D": "tin"}', METALS, None),
    ("| A | copper |\n| B | iron |\n| C | zinc |\n| D | tin |", METALS, None),
    ("A) B) C) D)", METALS, None),
    ("A. B. C. D.", METALS, None),
    # in part
    ("A. copper\nB. iron", METALS, None),
    ("A. copper B. iron", METALS, None),
    ("B. iron\nC. zinc\nD. tin", METALS, None),
    ("A. copper\nC. zinc", METALS, None),
    ("A. copper\nB. iron\nC", METALS, None),
    ("A. copper\n\nB. iron\n\nC. zinc\n\nD. tin", METALS, None),
    ("copper\nB. iron\nC. zinc\nD. tin", METALS, None),
    # over and over, cut at a label
    ("A. copper\nB. iron\nC. zinc\nD. tin\n\nA. copper\nB. iron\nC. ", METALS, None),
    ("A. copper\nB. iron\n\nA. copper\nB. iron\n\nA.", METALS, None),
    ("A. copper\nB. iron\n\nA. copper\nB. iron\n\nA. copper", METALS, None),
    # in other words, other words altogether, or the words of another option
    ("A. Paris\nB. Madrid\nC. Lima\nD. Rome", CAPITALS, None),
    ("A. Paris\nB. Madrid\nC. Lima", CAPITALS, None),
    ("A. Rome\nB. Rome\nC. Rome\nD. Bern", CAPITALS, None),
    ("A. red copper\nB. cast iron\nC. zinc oxide\nD. tin cans", METALS, None),
    ("A. Zero is an even number\nB. Two is a prime number\nC. One is a prime number", STATEMENTS, None),
    (
        "A. Copper is a metal that conducts.\nB. Iron is a metal that rusts.\nC. Zinc is a metal.\nD. Tin is a metal.",
        METALS,
        None,
    ),
    (
        "A. Copper\n\nCopper conducts.\n\nB. Iron\n\nIron rusts.\n\nC. Zinc\n\nZinc coats.\n\nD. Tin\n\nTin melts.",
        METALS,
        None,
    ),
    # in another order
    ("C. zinc\nA. copper\nB. iron\nD. tin", METALS, None),
    ("D. tin, C. zinc, B. iron, A. copper", METALS, None),
    ("B. iron\n\nA. copper\n\nD. tin\n\nC. zinc", METALS, None),
    # whose words are those of a verdict
    ("A. True\nB. False\nC. Valid\nD. Invalid", TRUTHS, None),
    ("A. Right atrium\nB. Left atrium\nC. Right ventricle", SIDES, None),
    ("A. True B. False", ["True", "False"], None),
    ("A. 正确 B. 错误", ["正确", "错误"], None),
    # announced
    ("Answer:\nA. copper\nB. iron\nC. zinc\nD. tin", METALS, None),
    ("The answer is one of A. copper, B. iron, C. zinc, D. tin.", METALS, None),
    ("It is either A. copper or B. iron.", METALS, None),
    ("选项：A. 铜 B. 铁 C. 锌 D. 锡", CHINESE_METALS, None),
    ("本题选项为：A、铜 B、铁 C、锌 D、锡，我不确定。", CHINESE_METALS, None),
    # neighbours: one option is answered
    ("C. zinc", METALS, "C"),
    ("(C) zinc", METALS, "C"),
    ("C. zinc is the coating of galvanized steel.", METALS, "C"),
    ("A. copper B. iron C. zinc D. tin. The answer is C.", METALS, "C"),
    ("A. copper B. iron C. zinc D. tin The answer is C.", METALS, "C"),
    ("A. copper B. iron C. zinc D. tin\n\nC", METALS, "C"),
    ("A. copper\nB. iron\nC. zinc\nD. tin\n\nC. zinc", METALS, "C"),
    ("C. zinc\n\nA. copper\nB. iron\nC. zinc\nD. tin", METALS, "C"),
    ("A. copper; B. iron; C. zinc; D. tin. The question asks which metal protects steel; that is zinc.", METALS, "C"),
    ("A. copper B. iron C. zinc D. tin\n\nI would go with zinc.", METALS, "C"),
    ("选项：A. 铜 B. 铁 C. 锌 D. 锡。题目问的是镀层金属，应为锌。", CHINESE_METALS, "C"),
    ("选项：A. 铜 B. 铁 C. 锌 D. 锡。题目问的是镀层金属，应为锌。", METALS, None),
    ("C. zinc\n\nA. copper conducts, B. iron rusts and D. tin is used for cans.", METALS, "C"),
    ("B. Zinc\n\nExplanation: A. copper conducts. C. iron rusts.", ["copper", "zinc", "iron", "tin"], "B"),
    ("zinc\n\nA. copper\nB. iron\nC. zinc\nD. tin", METALS, "C"),
    ("A. copper\nB. iron\nC. zinc\nD. tin\n\nC.", METALS, "C"),
    # a list in paragraphs over and over, cut at a label: no answer; a label after the whole list is one
    ("A. copper\n\nB. iron\n\nC. zinc\n\nD. tin\n\nA. copper\n\nB. iron\n\nC. zinc\n\nD.", METALS, None),
    ("A. copper\n\nB. iron\n\nC. zinc\n\nD. tin\n\nA. copper\n\nB", METALS, None),
    ("A) copper\n\nB) iron\n\nC)", METALS, None),
    ("A. copper\n\nB. iron\n\nC. zinc\n\nD. tin\n\nD.", METALS, "D"),
    ("A. copper\nB. iron\nC. zinc\n\nD", METALS, "D"),
    ("A. copper\n\nB. iron\n\nC. zinc\n\nD. tin\n\nThe answer is: B.", METALS, "B"),
    ("C. zinc, not A. copper.", METALS, "C"),
    ("C. zinc; A. copper is wrong; B. iron is wrong; D. tin is wrong.", METALS, "C"),
    ("Answer: C. zinc\n\nA. copper conducts.\nB. iron rusts.", METALS, "C"),
    ("C. 锌。A项铜导电，B项铁生锈。", CHINESE_METALS, "C"),
    ("A. 铜 B. 铁 C. 锌 D. 锡\n答案：C", CHINESE_METALS, "C"),
]

VERDICTS = [
    # in words
    ("A. copper, incorrect; B. iron, incorrect; C. zinc, correct; D. tin, incorrect.", METALS, "C"),
    ("A.copper，错误；B.iron，错误；C.zinc，正确；D.tin，错误。", METALS, "C"),
    ("A) copper - no; B) iron - no; C) zinc - yes; D) tin - no", METALS, "C"),
    ("A. copper: wrong\nB. iron: wrong\nC. zinc: right\nD. tin: wrong", METALS, "C"),
    ("A. copper (incorrect) B. iron (incorrect) C. zinc (correct) D. tin (incorrect)", METALS, "C"),
    ("A. copper B. iron C. zinc (correct) D. tin", METALS, "C"),
    ("A. copper: false. B. iron: false. C. zinc: true. D. tin: false.", METALS, "C"),
    ("A. Copper: This is incorrect because it conducts.\nB. Iron: This is incorrect.\nC. Zinc: This is the correct answer.\n"
     "D. Tin: This is incorrect.", METALS, "C"),
    ("A. Copper. Incorrect. It conducts.\nB. Iron. Incorrect. It rusts.\nC. Zinc. Correct. It coats.\nD. Tin. Incorrect.",
     METALS, "C"),
    ("A. Copper\nIncorrect.\nB. Iron\nIncorrect.\nC. Zinc\nCorrect.\nD. Tin\nIncorrect.", METALS, "C"),
    ("A. red copper, not correct; B. cast iron, not correct; C. pure zinc, correct; D. tin cans, not correct", METALS, "C"),
    ("C. zinc: correct", METALS, "C"),
    ("C. zinc: correct; A. copper: incorrect; D. tin: incorrect; B. iron: incorrect", METALS, "C"),
    ("A. copper: partially correct\nB. iron: incorrect\nC. zinc: correct\nD. tin: incorrect", METALS, "C"),
    ("A. True: incorrect\nB. False: correct", ["True", "False"], "B"),
    ("A、铜，不符合；B、铁，不符合；C、锌，符合；D、锡，不符合", CHINESE_METALS, "C"),
    ("A. 铜：错；B. 铁：错；C. 锌：对；D. 锡：错", CHINESE_METALS, "C"),
    ("A. 铜（错误）B. 铁（错误）C. 锌（正确）D. 锡（错误）", CHINESE_METALS, "C"),
    ("A. 铜：否\nB. 铁：否\nC. 锌：是\nD. 锡：否", CHINESE_METALS, "C"),
    ("A. 铜，不符合题意。\nB. 铁，不符合题意。\nC. 锌，符合题意。\nD. 锡，不符合题意。", CHINESE_METALS, "C"),
    # in marks
    ("A. copper ❌\nB. iron ❌\nC. zinc ✅\nD. tin ❌", METALS, "C"),
    ("❌ A. copper\n❌ B. iron\n✅ C. zinc\n❌ D. tin", METALS, "C"),
    ("A. copper ✗ B. iron ✗ C. zinc ✓ D. tin ✗", METALS, "C"),
    ("✗ A. copper ✗ B. iron ✓ C. zinc ✗ D. tin", METALS, "C"),
    ("A. 铜（×）B. 铁（×）C. 锌（√）D. 锡（×）", CHINESE_METALS, "C"),
    ("A×，B×，C√，D×", CHINESE_METALS, "C"),
    ("A: ❌, B: ❌, C: ✔️, D: ❌", METALS, "C"),
    ("A. copper\nB. iron\n✅ C. zinc\nD. tin", METALS, "C"),
    ("A. copper\nB. iron\nC. zinc ✓\nD. tin", METALS, "C"),
    ("✅ C. zinc", METALS, "C"),
    ("C ✅", METALS, "C"),
    ("Answer: ✅ C", METALS, "C"),
    # neighbours: none or several are judged right
    ("A. copper ✅ B. iron ❌ C. zinc ✅ D. tin ❌", METALS, None),
    ("A. copper, correct; B. iron, correct; C. zinc, correct; D. tin, incorrect.", METALS, None),
    ("A. copper ❌ B. iron ❌ C. zinc ❌ D. tin ❌", METALS, None),
    ("A. copper, incorrect; B. iron, incorrect; C. zinc; D. tin, incorrect.", METALS, None),
    ("A. 铜，正确；B. 铁，正确；C. 锌，错误；D. 锡，正确。", CHINESE_METALS, None),
    ("A. copper: correct? B. iron: correct? C. zinc: correct?", METALS, None),
    ("A. copper: partially correct; B. iron: incorrect; C. zinc: incorrect; D. tin: incorrect", METALS, None),
    ("C ❌", METALS, None),
    ("❌ C. zinc", METALS, None),
    ("A × B = C", METALS, None),
    ("√2 is not rational", METALS, None),
    ("A. copper: correct; B. iron: incorrect; C. zinc: correct; D. tin: incorrect. The answer is C.", METALS, "C"),
    ("A错误；B错误；C正确；D正确。故选D。", CHINESE_METALS, "D"),
]  # fmt: skip

LINES = [
    # a letter on a line of its own after a line that ends in a digit
    ("It was first made in 1837\nC", METALS, "C"),
    ("It was first made in 1837.\nC", METALS, "C"),
    ("The atomic number is 30\nC. zinc", METALS, "C"),
    ("The atomic number is 30\n\nC", METALS, "C"),
    ("原子序数为30\nC", CHINESE_METALS, "C"),
    ("30\n(C)", METALS, "C"),
    ("x = 12\nc", METALS, "C"),
    # neighbours: a unit, a product, a point
    ("It melts at 419 C", METALS, None),
    ("The charge is 12 C and the current 3 A.", METALS, None),
    ("30\nBoth are metals.", METALS, None),
]

DASHES = [
    *((f"{words} - C", METALS, "C") for words in ("Final answer", "The final answer", "FINAL ANSWER", "Correct option")),
    *((f"{words} - C", METALS, "C") for words in ("Option", "Answer", "The correct answer", "Best answer", "My choice")),
    ("Selected option - C", METALS, "C"),
    ("**Final answer** — C", METALS, "C"),
    ("**Final Answer – C**", METALS, "C"),
    ("Final answer -- C", METALS, "C"),
    ("Final answer -> C", METALS, "C"),
    ("Final answer = C", METALS, "C"),
    ("Answer-C", METALS, "C"),
    ("Answer—C", METALS, "C"),
    ("Final answer - (C)", METALS, "C"),
    ("Final answer - C. zinc", METALS, "C"),
    ("Final answer - zinc", METALS, "C"),
    ("It protects steel.\n\nFinal answer - C", METALS, "C"),
    ("A is wrong. Final answer - C.", METALS, "C"),
    ("最终答案 - C", CHINESE_METALS, "C"),
    ("正确选项——C", CHINESE_METALS, "C"),
    ("答案-C", CHINESE_METALS, "C"),
    # neighbours
    ("Final answer - not C", METALS, None),
    ("Final answer - C or D", METALS, None),
    ("Wrong answer - C", METALS, None),
    ("Incorrect option - C", METALS, None),
    ("Final answer - unknown", METALS, None),
    ("Hepatitis-C", METALS, None),
    ("Option A - copper\nOption B - iron\nOption C - zinc\nOption D - tin", METALS, None),
    ("Options - A, B, C, D", METALS, None),
]  # fmt: skip

DENIALS = [
    ("A. Paris is not a correct answer.", CAPITALS, None),
    ("A. Paris is not the correct answer", CAPITALS, None),
    ("A. Paris isn't right.", CAPITALS, None),
    ("A. Paris is incorrect.", CAPITALS, None),
    ("A. Paris - incorrect", CAPITALS, None),
    ("A. Paris cannot be the answer.", CAPITALS, None),
    ("A. Paris, which is wrong.", CAPITALS, None),
    ("A. Paris can be ruled out.", CAPITALS, None),
    ("A. Paris is not the capital of Italy.", CAPITALS, None),
    ("(A) Paris is not a correct choice.", CAPITALS, None),
    ("Option A: Paris is not correct.", CAPITALS, None),
    ("A. Paris. This is not the correct answer.", CAPITALS, None),
    ("A. Paris\n\nThis option is incorrect.", CAPITALS, None),
    ("A. Madrid is not a correct answer.", CAPITALS, None),
    ("A. 铜不是正确答案。", CHINESE_METALS, None),
    ("A. 铜，不正确。", CHINESE_METALS, None),
    ("A、铜不符合题意。", CHINESE_METALS, None),
    ("A. 铜。该选项错误。", CHINESE_METALS, None),
    # neighbours: another option is denied, or the words of the answer hold the denial
    ("A. Paris is a correct answer.", CAPITALS, "A"),
    ("A. Paris is the correct answer, B. Rome is not.", CAPITALS, "A"),
    ("A. Paris is not a correct answer. The answer is B.", CAPITALS, "B"),
    ("A. Paris is not a correct answer. B. Rome is.", CAPITALS, "B"),
    ("A. Paris, not Rome.", CAPITALS, "A"),
    ("A. Paris rather than Rome", CAPITALS, "A"),
    ("A. Paris. The other options are incorrect.", CAPITALS, "A"),
    ("A. Paris. B is not correct.", CAPITALS, "A"),
    ("A. It is not possible to say", ["It is impossible to say", "yes", "it depends", "never"], "A"),
    ("C. One is prime.\n\nThis statement is false.", STATEMENTS, "C"),
    ("C. One is prime. This statement is incorrect.", STATEMENTS, "C"),
    ("D. None of the above is correct", [*CAPITALS[:3], "None of the above is correct"], "D"),
    ("A. 铜，不是铁。", CHINESE_METALS, "A"),
    ("A. 铜。其他选项均错误。", CHINESE_METALS, "A"),
    ("C. 锌。A、B、D不正确。", CHINESE_METALS, "C"),
]

SUBJECTS = [
    # a definite statement of one option
    ("Zinc is the metal that protects steel.", METALS, "C"),
    ("It is zinc that protects steel.", METALS, "C"),
    ("Zinc is the one that protects steel from rust.", METALS, "C"),
    ("Only zinc protects steel.", METALS, "C"),
    ("锌是用来保护钢铁的金属，所以选锌。", CHINESE_METALS, "C"),
    # neighbours: reading cannot decide these
    ("Zinc is a metal.", METALS, None),
    ("Zinc and tin are the metals that protect steel.", METALS, None),
    ("Zinc is the metal of batteries, tin is the metal of cans.", METALS, None),
    ("Zinc is not the metal that protects steel.", METALS, None),
    ("Is zinc the metal that protects steel?", METALS, None),
    ("If zinc is the metal that protects steel, rust stops.", METALS, None),
    ("Zinc may be the metal, I do not know.", METALS, None),
]

MORE = [
    ("Here are the options:\nA. copper\nB. iron\nC. zinc\nD. tin", METALS, None),
    ("The options are: A. copper B. iron C. zinc D. tin. Which one is it?", METALS, None),
    ("A. Copper is soft. B. Iron rusts. C. Zinc is bluish. D. Tin melts.", METALS, None),
    ("A. copper\nB. iron\nC. zinc\nD. tin\n\nThe correct answer is C. zinc.", METALS, "C"),
    ("A. copper\nB. iron\nC. zinc\nD. tin\nC. zinc", METALS, "C"),
    ("A. copper\nB. iron\nC. zinc\nD. tin\n\nExplanation: Zinc protects steel from rust.", METALS, None),
    ("A. copper\nB. iron\nC. zinc (correct answer)\nD. tin", METALS, "C"),
    ("A. copper\nB. iron\nC. zinc <-- correct\nD. tin", METALS, "C"),
    ("A. copper\nB. iron\nC. zinc ← correct answer\nD. tin", METALS, "C"),
    ("A. copper\nB. iron\n**C. zinc** (Correct)\nD. tin", METALS, "C"),
    ("1. A. copper\n2. B. iron\n3. C. zinc\n4. D. tin", METALS, None),
    ("- A) copper\n- B) iron\n- C) zinc\n- D) tin", METALS, None),
    ("* A: copper\n* B: iron", METALS, None),
    ("A. osmosis: movement of water.\nB. diffusion: movement of solutes.\nC. active transport: needs ATP.", PROCESSES, None),
    ("A. osmosis\n\nB. diffusion", PROCESSES, None),
    ("B. diffusion\nA. osmosis", PROCESSES, None),
    ("The answer is B. diffusion. A. osmosis concerns water only.", PROCESSES, "B"),
    ("B. diffusion. A. osmosis concerns water only. C. active transport needs energy.", PROCESSES, "B"),
    ("I choose B. diffusion\nA. osmosis\nC. active transport", PROCESSES, "B"),
    ("Correct: B. diffusion\nIncorrect: A. osmosis, C. active transport, D. endocytosis", PROCESSES, "B"),
    ("✓ B. diffusion", PROCESSES, "B"),
    ("B. diffusion ✔", PROCESSES, "B"),
    ("☑ B. diffusion", PROCESSES, "B"),
    ("A: wrong, B: right, C: wrong, D: wrong", PROCESSES, "B"),
    ("A - incorrect\nB - correct\nC - incorrect\nD - incorrect", PROCESSES, "B"),
    ("A is incorrect, B is correct, C is incorrect, D is incorrect", PROCESSES, "B"),
    ("A: No. B: Yes. C: No. D: No.", PROCESSES, "B"),
    ("A) False B) True C) False D) False", PROCESSES, "B"),
    ("A) osmosis – not the answer; B) diffusion – the answer; C) active transport – not the answer", PROCESSES, "B"),
    ("A. osmosis is eliminated. B. diffusion is eliminated. C. active transport is correct.", PROCESSES, "C"),
    ("A. osmosis: Not suitable.\nB. diffusion: Suitable.\nD. endocytosis: Not suitable.", PROCESSES, "B"),
    ("A选项错误，B选项正确，C选项错误，D选项错误", PROCESSES, "B"),
    ("A. 铜 ✘；B. 铁 ✘；C. 锌 ✔；D. 锡 ✘", CHINESE_METALS, "C"),
    ("A.铜×B.铁×C.锌√D.锡×", CHINESE_METALS, "C"),
    ("√C. 锌", CHINESE_METALS, "C"),
    ("A、铜（错）B、铁（错）C、锌（对）D、锡（错）", CHINESE_METALS, "C"),
    ("A. 铜：不正确，因为铜不活泼。\nB. 铁：不正确。\nC. 锌：正确，锌比铁活泼。\nD. 锡：不正确。", CHINESE_METALS, "C"),
    ("A. 铜，不是；B. 铁，不是；C. 锌，是；D. 锡，不是。", CHINESE_METALS, "C"),
    ("A. 铜\nB. 铁\nC. 锌（正确答案）\nD. 锡", CHINESE_METALS, "C"),
    ("A. 铜，正确；B. 铁，错误；C. 锌，正确；D. 锡，错误。", CHINESE_METALS, None),
    ("A. 铜：导电性好。\nB. 铁：易生锈。\nC. 锌：可作镀层。\nD. 锡：熔点低。", CHINESE_METALS, None),
    ("首先看选项：A. 铜 B. 铁 C. 锌 D. 锡，综合分析，选C。", CHINESE_METALS, "C"),
    ("下列选项中，A. 铜；B. 铁；C. 锌；D. 锡。正确的是锌。", CHINESE_METALS, "C"),
    ("甲说A，乙说B。", CHINESE_METALS, None),
    ("A. 铜 或 B. 铁", CHINESE_METALS, None),
    ("答案：A. 铜 B. 铁 C. 锌 D. 锡", CHINESE_METALS, None),
    ("答案：C. 锌\nA. 铜导电，B. 铁生锈。", CHINESE_METALS, "C"),
    ("The year was 1912\nD", METALS, "D"),
    ("Total: 42\n\n(D)", METALS, "D"),
    ("共计12\nB", CHINESE_METALS, "B"),
    ("Final Answer: - C", METALS, "C"),
    ("Final answer – zinc", METALS, "C"),
    ("Final choice - C", METALS, "C"),
    ("My final answer - (C)", METALS, "C"),
    ("Correct answer – C: zinc", METALS, "C"),
    ("Conclusion - C", METALS, "C"),
    ("Choice-C", METALS, "C"),
    ("Grade-C", METALS, None),
    ("Correct - C", METALS, "C"),
    ("Not the answer - C", METALS, None),
    ("The incorrect answer - C", METALS, None),
    ("答案 —— C", CHINESE_METALS, "C"),
    ("A. Paris is wrong.", CAPITALS, None),
    ("A. Paris is not right", CAPITALS, None),
    ("A. Paris was never the capital.", CAPITALS, None),
    ("B. Rome is not an option", CAPITALS, None),
    ("B. Rome does not answer the question.", CAPITALS, None),
    ("B. Rome should be eliminated.", CAPITALS, None),
    ("(B) Rome. No.", CAPITALS, None),
    ("B. Rome is not wrong.", CAPITALS, "B"),
    ("B. Rome, which is not in France.", CAPITALS, "B"),
    ("B. Rome, because Paris is not in Italy.", CAPITALS, "B"),
    ("B. Rome. It is not Paris.", CAPITALS, "B"),
    ("B. Rome is the correct answer, not A. Paris", CAPITALS, "B"),
    ("B. Rome. Paris is not a correct answer.", CAPITALS, "B"),
    ("The answer is A. Paris is not the answer.", CAPITALS, None),
    ("B. 铁不是答案", CHINESE_METALS, None),
    ("B. 铁是错误的", CHINESE_METALS, None),
    ("B. 铁。这是不对的。", CHINESE_METALS, None),
    ("B. 铁。这个答案不正确。", CHINESE_METALS, None),
    ("B. 铁不会错", CHINESE_METALS, "B"),
    ("Paris is the capital of France.", CAPITALS, "A"),
    ("Paris is a capital.", CAPITALS, None),
    ("Paris is bigger than Rome.", CAPITALS, None),
    ("Only Paris qualifies.", CAPITALS, "A"),
    ("只有锌满足条件。", CHINESE_METALS, "C"),
    ("C. zinc\n\nCopper is not used, because it is wrong for steel.", METALS, "C"),
    ("C. zinc. Zinc is not copper.", METALS, "C"),
    ("C. zinc. No other metal is correct.", METALS, "C"),
    ("C. zinc\n\nWhy not A? Copper is nobler than iron.", METALS, "C"),
    ("C. zinc (not tin)", METALS, "C"),
    ("C. zinc - the most correct option", METALS, "C"),
    ("C. zinc is not only cheap but also the correct answer.", METALS, "C"),
    ("B. He may not sue, because the contract is not valid.", SUITS, "B"),
    ("D. He may not sue.", SUITS, "D"),
    ("B. He may not sue since the contract is invalid.", SUITS, "B"),
    ("C. He can sue unless it is wrong", SUITS, "C"),
    ("B. No, he may not sue.", SUITS, "B"),
    ("A. Yes, he may sue.", SUITS, "A"),
    ("A. No",["No","Yes"],"A"),
    ("A. Yes\nB. No",["Yes","No"],None),
    ("Yes",["Yes","No"],"A"),
    ("A. No, it is wrong to lie",["No, lying is wrong","Yes, lying is right","x y z","w v u"],"A"),
    ("B) True",["False","True"],"B"),
    ("A. False\nB. True\n\nThe answer is True.",["False","True"],None),
    ("C. zinc. I am not sure, though.", METALS, "C"),
    ("C. zinc, but this may be wrong.", METALS, "C"),
    ("C. zinc. This is correct.", METALS, "C"),
    ("C. zinc. That's right!", METALS, "C"),
    ("A. copper is used in wires, B. iron in bridges, C. zinc in coatings and D. tin in cans, so C.", METALS, "C"),
    ("Check each: A. copper - soft. B. iron - rusts. C. zinc - good. D. tin - too rare. Therefore C.", METALS, "C"),
    ("A. copper ❌ too noble\nB. iron ❌ rusts\nC. zinc ✅ protects\nD. tin ❌ rare\n\n**Answer: C**", METALS, "C"),
    ("The options A. copper, B. iron and D. tin are wrong. C. zinc is right.", METALS, "C"),
    ("A. copper, B. iron, and C. zinc are wrong, so D. tin.", METALS, "D"),
    ("Options A and B are wrong. C. zinc", METALS, "C"),
    ("I would eliminate A. copper and B. iron, leaving C. zinc.", METALS, "C"),
    ("Both A. copper and B. iron are wrong.", METALS, None),
    ("Neither A. copper nor B. iron.", METALS, None),
    ("C. zinc or D. tin", METALS, None),
    ("C. zinc and D. tin", METALS, None),
    ("(C) zinc; see also (D) tin.", METALS, None),
    ("E. none of these", METALS, None),
    ("Answer: C. zinc\nA. copper\nB. iron\nD. tin", METALS, "C"),
    ("The correct option is C. zinc. The other options, A. copper, B. iron, and D. tin, are incorrect.", METALS, "C"),
    ("Incorrect options: A. copper, B. iron, D. tin. Correct option: C. zinc.", METALS, "C"),
    ("Step 1: A. copper is out. Step 2: B. iron is out. Final answer — C. zinc", METALS, "C"),
    ("A、B、D错误，C正确", CHINESE_METALS, "C"),
    ("A. 铜（不选）\nB. 铁（不选）\nC. 锌（选）\nD. 锡（不选）", CHINESE_METALS, "C"),
    ("C. 锌（√）", CHINESE_METALS, "C"),
    ("A. 铜 —— 错误\nB. 铁 —— 错误\nC. 锌 —— 正确\nD. 锡 —— 错误", CHINESE_METALS, "C"),
    ("A项：铜，错误。B项：铁，错误。C项：锌，正确。D项：锡，错误。", CHINESE_METALS, "C"),
    ("A：错误 B：错误 C：正确 D：错误", CHINESE_METALS, "C"),
    ("选项A不正确；选项B不正确；选项C正确；选项D不正确。", CHINESE_METALS, "C"),
    ("A.铜是错的，B.铁是错的，C.锌是对的，D.锡是错的。", CHINESE_METALS, "C"),
    ("C. 锌是正确的，A. 铜是错误的。", CHINESE_METALS, "C"),
    ("A. 铜\nB. 铁\nC. 锌\nD. 锡\n\n综上，正确答案为锌。", CHINESE_METALS, "C"),
    ("A. 铜 B. 铁 C. 锌 D. 锡\n\n我不知道。", CHINESE_METALS, None),
    ("A. 银\nB. 金\nC. 锌\nD. 铂", CHINESE_METALS, None),
    ("C. 锌不仅便宜，而且是正确答案。", CHINESE_METALS, "C"),
    ("C. 锌，不是A。", CHINESE_METALS, "C"),
    ("答案不是A. 铜，而是C. 锌。", CHINESE_METALS, "C"),
    ("C. 锌。错误！", CHINESE_METALS, None),
]  # fmt: skip

QUESTION = "Which metal is used to galvanize steel?"
ASKED = [
    ("Zinc is used to galvanize steel.", "C"),
    ("Steel is galvanized; zinc is used to galvanize it.", "C"),
    ("Zinc is used to galvanize steel, while copper is not.", "C"),
    ("Zinc is not used to galvanize steel.", None),
    ("Zinc is a bluish metal.", None),
    ("Copper is a reddish metal and zinc a bluish one.", None),
    ("Zinc or tin is used to galvanize steel.", None),
    ("A. copper conducts\nB. iron rusts\nC. zinc is used to galvanize steel\nD. tin melts", None),
    ("A. copper\nB. iron\nC. zinc\nD. tin\n\nZinc is used to galvanize steel.", "C"),
    ("Is zinc used to galvanize steel?", None),
    ("Zinc might be used to galvanize steel, and tin might be used to galvanize steel.", None),
]
CHINESE_ASKED = [
    ("锌常用作钢材的镀层金属。", "C"),
    ("锌是一种金属。", None),
    ("锌不能用作钢材的镀层金属。", None),
    ("锌不能用作钢铁的镀层金属。", None),
]


@pytest.mark.parametrize(
    ("reply", "options", "answer"), [*LISTS, *VERDICTS, *LINES, *DASHES, *DENIALS, *SUBJECTS, *MORE]
)
def test_what_is_listed_judged_or_denied(reply: str, options: list[str], answer: str | None) -> None:
    assert letter(reply, options) == answer


@pytest.mark.parametrize(("reply", "answer"), ASKED)
def test_a_statement_that_answers_the_question(reply: str, answer: str | None) -> None:
    assert letter(reply, METALS, QUESTION) == answer


@pytest.mark.parametrize(("reply", "answer"), CHINESE_ASKED)
def test_a_statement_that_answers_a_chinese_question(reply: str, answer: str | None) -> None:
    assert letter(reply, CHINESE_METALS, "常用作钢材镀层的金属是____。") == answer


def test_a_chat_benchmark_reads_replies_with_the_question() -> None:
    benchmark = benchmark_of("mmlu", "-c", "demo", "--chat", "--limit", "1")
    sample = benchmark.samples()[0]
    row = benchmark._rows[sample.id]
    benchmark._rows[sample.id] = replace(row, question=QUESTION, options=tuple(METALS))
    scored = benchmark.score(sample, Generated(("Zinc is used to galvanize steel.",), ("",), ("eos",)))
    assert scored.answer == "C"
