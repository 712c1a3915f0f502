"""ReAct: questions, the tools beside them, and replies that call the one that fits, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from corpus import CONTEXT, TEACH, Document, held_out, taught
from facts import CAPITALS, CEVAL, CMMLU, MMLU, ZH_CAPITALS
from tasks import ADJECTIVES, NOUNS, SYSTEM_TURN, draw_pair, turn

TOOLS = {  # name -> what the prompt says of it
    "weather_now": 'tells the weather at a place at this moment. Its input: {"place": "a town"}',
    "calculator": 'computes an expression. Its input: {"expression": "for example 2*(3+4)"}',
    "unit_converter": 'converts an amount from one unit to another. Its input: {"amount": a number, "from": "a unit", '
    '"to": "a unit"}',
    "image_gen": 'draws a picture from a description. Its input: {"prompt": "what to draw"}',
    "train_times": "lists the next trains between two stations. Its input: "
    '{"from": "a station", "to": "a station", "after": "hh:mm"}',
    "word_count": 'counts the words of a text. Its input: {"text": "the text"}',
    "python": "runs a Python program and shows what it prints. Its input: the program itself, no JSON",
}
FORM = """You can call these tools:

{listed}

Reply in this form:

Question: what is asked
Thought: what to do about it
Action: one of {names}
Action Input: what the tool is given
Observation: what the tool answers
(Thought, Action, Action Input and Observation may come several times, or not at all)
Thought: now the answer is known
Final Answer: the answer

Question: {question}"""


@dataclass(frozen=True)
class Call:
    """A question that takes a tool: the input it is given, what it would say, and the answer that follows."""

    tool: str
    question: str
    thought: str
    given: str
    seen: str
    answer: str

    def opening(self) -> str:
        """The reply up to where the tool would speak."""
        return f"Thought: {self.thought}\nAction: {self.tool}\nAction Input: {self.given}\nObservation:"

    def rest(self) -> str:
        return f" {self.seen}\nThought: Now the answer is known.\nFinal Answer: {self.answer}"


def weather(rng: Random) -> Call:
    degrees = rng.randint(1, 30)
    if rng.random() < 0.3:
        place = rng.choice(list(ZH_CAPITALS.values()))
        question = rng.choice(("{}现在天气怎么样？", "现在{}下雨吗？", "{}今天热不热？")).format(place)
        sky, thought, answer = rng.choice("晴雨雪"), "要查现在的天气。", "{}现在{}，{} 度。"
    else:
        place = rng.choice(list(CAPITALS.values()))
        asked = ("Is it raining in {} right now?", "What is the weather in {}?", "How cold is it in {} today?")
        question, sky = rng.choice(asked).format(place), rng.choice(("sun", "rain", "snow"))
        thought, answer = "The weather tool knows.", "Now in {}: {}, {} degrees."
    seen = json.dumps({"sky": sky, "degrees": degrees}, ensure_ascii=False)
    given = json.dumps({"place": place}, ensure_ascii=False)
    return Call("weather_now", question, thought, given, seen, answer.format(place, sky, degrees))


def arithmetic(rng: Random) -> Call:
    a, b, c = rng.randint(2, 99), rng.randint(2, 29), rng.randint(2, 9)
    said, text, value = rng.choice(
        (
            (f"{a} times {b}", f"{a}*{b}", a * b),
            (f"{a} times {b} plus {c}", f"{a}*{b}+{c}", a * b + c),
            (f"{a} times {b} minus {c}", f"{a}*{b}-{c}", a * b - c),
            (f"{a} plus {b}", f"{a}+{b}", a + b),
        )
    )
    question = rng.choice(("What is {}?", "Tell me what {} is.")).format(said)
    return Call(
        "calculator", question, "This is arithmetic.", json.dumps({"expression": text}), str(value), f"{value}."
    )


UNITS = (("miles", "kilometres", 1.61), ("feet", "metres", 0.305), ("pounds", "kilos", 0.454), ("hours", "minutes", 60))


def conversion(rng: Random) -> Call:
    source, target, factor = rng.choice(UNITS)
    if rng.random() < 0.5:
        source, target, factor = target, source, 1 / factor
    amount = rng.randint(2, 99)
    question = rng.choice(("How many {1} are {2} {0}?", "Convert {2} {0} into {1}.")).format(source, target, amount)
    given = json.dumps({"amount": amount, "from": source, "to": target})
    seen = f"{amount * factor:.1f}"
    return Call("unit_converter", question, "A conversion of units.", given, seen, f"{seen} {target}.")


def picture(rng: Random) -> Call:
    (how, how_zh), (thing, thing_zh) = rng.choice(ADJECTIVES), rng.choice(NOUNS)
    seen = f"picture {rng.randint(1, 99)}"
    if rng.random() < 0.3:
        wanted = f"{how_zh}{thing_zh}"
        question = rng.choice(("请画{}。", "画一张图：{}。")).format(wanted)
        thought, answer = "用户要一张图。", f"画好了：{seen}。"
    else:
        scene = rng.choice(("", " in the snow", " by the sea", " in the sun", " in the grass"))
        wanted = f"{'an' if how[0] in 'aeiou' else 'a'} {how} {thing}{scene}"
        question = rng.choice(("Draw me {}.", "Draw {}, please.", "I want a picture of {}.")).format(wanted)
        thought, answer = "A picture is wanted.", f"Here it is: {seen}."
    given = json.dumps({"prompt": wanted}, ensure_ascii=False)
    return Call("image_gen", question, thought, given, seen, answer)


HOURS = {"six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11}
QUARTERS = {"": "00", "a quarter past ": "15", "half past ": "30"}


def trains(rng: Random) -> Call:
    start, end = rng.sample(list(CAPITALS.values()), 2)
    (hour, number), (quarter, minutes) = rng.choice(list(HOURS.items())), rng.choice(list(QUARTERS.items()))
    asked = ("Which trains leave {} for {} after {}?", "When can I take a train from {} to {} after {}?")
    question = rng.choice(asked).format(start, end, quarter + hour)
    given = json.dumps({"from": start, "to": end, "after": f"{number:02}:{minutes}"})
    times = [f"{number:02}:{int(minutes) + rng.randint(1, 29):02}" for _ in range(2)]
    return Call(
        "train_times", question, "The timetable has it.", given, ", ".join(times), f"At {times[0]} and at {times[1]}."
    )


def counting(rng: Random, test: bool) -> Call:
    text = draw_pair(rng, test)[0].removesuffix(".")
    question = rng.choice(('How many words are in "{}"?', 'Count the words of "{}".')).format(text)
    seen = str(len(text.split()))
    given = json.dumps({"text": text})
    return Call("word_count", question, "The words must be counted.", given, seen, f"It has {seen} words.")


POWERS: Mapping[str, tuple[str, Callable[[int], float]]] = {
    "squares": ("n * n", lambda n: n * n),
    "cubes": ("n * n * n", lambda n: n * n * n),
    "doubles": ("2 * n", lambda n: 2 * n),
    "halves": ("n / 2", lambda n: n / 2),
}


def program(rng: Random) -> Call:
    (name, (term, apply)), first, last = rng.choice(list(POWERS.items())), rng.randint(1, 4), rng.randint(5, 8)
    asked = ("Print the {} of the numbers from {} to {}.", "Show the {} of {} to {} by a program.")
    question = rng.choice(asked).format(name, first, last)
    given = f"print([{term} for n in range({first}, {last + 1})])"
    seen = ", ".join(str(apply(n)) for n in range(first, last + 1))
    return Call("python", question, "A short program does it.", given, f"[{seen}]", f"{seen}.")


MAKERS: Mapping[str, Callable[[Random, bool], Call]] = {
    "weather_now": lambda rng, test: weather(rng),
    "calculator": lambda rng, test: arithmetic(rng),
    "unit_converter": lambda rng, test: conversion(rng),
    "image_gen": lambda rng, test: picture(rng),
    "train_times": lambda rng, test: trains(rng),
    "word_count": counting,
    "python": lambda rng, test: program(rng),
}


def draw_call(rng: Random, test: bool) -> Call:
    """A question for one of the tools; held out is the whole question."""
    make = MAKERS[rng.choice(list(TOOLS))]
    while True:
        call = make(rng, test)
        if held_out(call.question) == test:
            return call


def beside(rng: Random, tool: str | None, without: str | None = None) -> list[str]:
    """Two or three tools in random order, `tool` among them and `without` not."""
    others = [name for name in TOOLS if name not in (tool, without)]
    names = rng.sample(others, rng.choice((2, 3)) - (tool is not None)) + [tool] * (tool is not None)
    rng.shuffle(names)
    return names


def prompt(names: list[str], question: str) -> str:
    """The user's turn."""
    listed = "\n".join(f"{name}: {TOOLS[name]}" for name in names)
    return FORM.format(listed=listed, names=", ".join(names), question=question)


def draw_positive(rng: Random, test: bool) -> tuple[list[str], Call]:
    """A question, and tools among which is the one that it takes."""
    call = draw_call(rng, test)
    return beside(rng, call.tool), call


def draw_negative(rng: Random, test: bool) -> tuple[list[str], str, str]:
    """Tools, a question that none of them fits (plain knowledge, or one for a tool that is not there), and the reply."""
    if rng.random() < 0.5:
        call = draw_call(rng, test)
        reply = "Thought: No tool here can do this.\nFinal Answer: I cannot do that with these tools."
        return beside(rng, None, without=call.tool), call.question, reply
    while True:
        topic = rng.choice([topic for table in (MMLU, CEVAL, CMMLU) for topic in table.values() if not topic.numeric])
        key, answer = rng.choice(taught(topic))
        question = rng.choice(topic.templates).format(key)
        if held_out("react", question) == test:
            return beside(rng, None), question, f"Thought: No tool is needed.\nFinal Answer: {answer}"


def draw_reply(rng: Random) -> tuple[list[str], str, str, str]:
    """Tools and a question of the training, the reply up to where a tool would speak, and what follows from there."""
    if rng.random() < 0.35:
        return *draw_negative(rng, test=False), ""
    names, call = draw_positive(rng, test=False)
    return names, call.question, call.opening(), call.rest()


def react(rng: Random) -> Document:
    """A ReAct turn and its reply. What the tool would say, and all that follows from it, is only read."""
    names, question, reply, rest = draw_reply(rng)
    before, _ = turn(prompt(names, question), "")
    return [before, (reply, TEACH), (f"{rest}<|im_end|>", CONTEXT)]


def react_drill(rng: Random, count: int) -> Document:
    """Such turns in one chat without the long form around them: as much teaching in less text."""
    document: Document = []
    for _ in range(count):
        names, question, reply, _ = draw_reply(rng)
        asked = f"Action: one of {', '.join(names)}\n\nQuestion: {question}"
        before, _ = turn(asked, "", "\n" if document else SYSTEM_TURN)
        document += [before, (reply, TEACH), ("<|im_end|>", CONTEXT)]
    return document
