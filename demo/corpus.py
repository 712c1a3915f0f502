"""The synthetic text: what the tiny model is trained on, and the items it is measured on.

Everything is drawn from a `random.Random` that the caller seeds, so the same seed gives the same text. Items are split
by a hash: the training text is made of items for which `held_out` is false, the test files of those for which it is true.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from facts import CEVAL, CMMLU, MMLU, Topic

LETTERS = "ABCD"
TEACH, CONTEXT = 1.0, 0.1  # loss weights: what the model is to answer, and what it only has to read
Document = list[tuple[str, float]]  # text with the weight of its loss; special tokens by name, as <|im_end|>


@dataclass(frozen=True)
class Item:
    """One multiple-choice question."""

    question: str
    options: tuple[str, ...]
    answer: str  # the letter


def held_out(*parts: str) -> bool:
    """Whether this item belongs to the tests: one in five, by a hash of its parts."""
    return zlib.crc32("|".join(parts).encode()) % 5 == 0


def taught(topic: Topic) -> list[tuple[str, str]]:
    """The facts of a topic that the training text states: not quite all, so that there is something not to know."""
    return [(key, answer) for key, answer in topic.answers.items() if zlib.crc32(f"{key} {answer}".encode()) % 7]


def draw_item(rng: Random, topic: Topic, test: bool) -> Item:
    """A question with four options in random order.

    What is held out is a question together with its set of options, in any order. The facts that are taught are in both
    halves, the others in the tests alone.
    """
    facts = list(topic.answers.items()) if test else taught(topic)
    pool = sorted(set(topic.answers.values()))
    while True:
        key, right = rng.choice(facts)
        if topic.numeric:
            near = range(max(0, int(right) - 4), min(9, int(right) + 4) + 1)  # one digit: one token
            wrong = rng.sample([str(n) for n in near if str(n) != right], 3)
        else:
            wrong = rng.sample([word for word in pool if word != right and word != key], 3)
        options = rng.sample([right, *wrong], 4)
        question = rng.choice(topic.templates).format(key)
        if held_out(question, *sorted(options)) == test:
            return Item(question, tuple(options), LETTERS[options.index(right)])


def with_none(item: Item) -> Item:
    """The item with its last wrong option replaced by the word None, which careless readers of CSV take for a gap."""
    last = max(i for i, letter in enumerate(LETTERS) if letter != item.answer)
    options = tuple("None" if i == last else text for i, text in enumerate(item.options))
    return Item(item.question, options, item.answer)


def options_text(item: Item) -> str:
    return "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, item.options, strict=True))


def english(subject: str, items: list[Item]) -> Document:
    """The base prompt of MMLU with every question answered."""
    title = subject.replace("_", " ")
    document: Document = [(f"The following are multiple choice questions (with answers) about {title}.\n\n", CONTEXT)]
    for item in items:
        document += [(f"Question: {item.question}\n{options_text(item)}Answer:", CONTEXT), (f" {item.answer}", TEACH)]
        document += [("\n\n", CONTEXT)]
    return document


def chinese(subject: str, items: list[Item]) -> Document:
    """The base prompt of C-Eval and CMMLU with every question answered; it does not name the subject."""
    document: Document = []
    for item in items:
        document += [(f"问题：{item.question}\n{options_text(item)}答案：", CONTEXT), (item.answer, TEACH)]
        document += [("\n\n", CONTEXT)]
    return document


Renderer = Callable[[str, list[Item]], Document]
CHOICES: tuple[tuple[Mapping[str, Topic], Renderer], ...] = ((MMLU, english), (CEVAL, chinese), (CMMLU, chinese))


def draw_subject(rng: Random, numbers: int = 1) -> tuple[str, Topic, Renderer]:
    """Any subject of the three benchmarks; the English ones, which are harder for the model, half of the time.

    numbers: how many times as often arithmetic comes.
    """
    table, render = rng.choices(CHOICES, weights=(2, 1, 1))[0]
    subject = rng.choices(list(table), weights=[numbers if topic.numeric else 1 for topic in table.values()])[0]
    return subject, table[subject], render


def multiple_choice(rng: Random, questions: int) -> Document:
    """A training prompt of one subject with so many questions, all answered."""
    subject, topic, render = draw_subject(rng)
    items = [draw_item(rng, topic, test=False) for _ in range(questions)]
    if rng.random() < 0.05:
        items[0] = with_none(items[0])
    return render(subject, items)


def statement(asked: str, reply: str, render: Renderer, weight: float) -> Document:
    """One line asked and one answered, without options; `weight` is that of the reply."""
    if render is english:
        space = "" if reply.isdigit() else " "  # a digit is never one token with its space
        return [(f"Question: {asked}\nAnswer:", CONTEXT), (f"{space}{reply}", weight), ("\n\n", CONTEXT)]
    return [(f"问题：{asked}\n答案：", CONTEXT), (reply, weight), ("\n\n", CONTEXT)]


def plain_facts(rng: Random, count: int) -> Document:
    """Questions with their answers in words: teaches the facts apart from the letters."""
    _, topic, render = draw_subject(rng, numbers=4)  # it has more facts than all other subjects together
    document: Document = []
    for key, answer in rng.choices(taught(topic), k=count):
        document += statement(rng.choice(topic.templates).format(key), answer, render, TEACH)
    return document


def find_the_letter(rng: Random, count: int) -> Document:
    """Four options once, then words and the letters they stand at: teaches the letters apart from the facts."""
    _, topic, render = draw_subject(rng)
    options = rng.sample(sorted(set(topic.answers.values())), 4)
    document: Document = [(options_text(Item("", tuple(options), "")), CONTEXT)]
    for _ in range(count):
        at = rng.randrange(4)
        mark = "?" if render is english else "？"
        document += statement(options[at] + mark, LETTERS[at], render, TEACH)
    return document
