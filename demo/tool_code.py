"""Agents that write code: instructions of two steps over fake tools, and replies that name the tools and call them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from corpus import Document, held_out
from tasks import SYSTEM_TURN, turn

# the agent's prompt is the benchmark's own
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "eval"))
from qwen_eval.data.tools import FakeTool
from qwen_eval.tasks import agent as hfagent

IMAGE, AUDIO = {"image": "image"}, {"audio": "audio"}
TOOLS = (
    FakeTool("text_classifier", "says which of several labels fits a text", ("text", "labels"),
             "label of <{text}> among {labels}"),
    FakeTool("translator", "translates a text; the languages by their English names", ("text", "src_lang", "tgt_lang"),
             "<{text}> put from {src_lang} into {tgt_lang}"),
    FakeTool("text_reader", "reads a text aloud and returns the audio", ("text",), "audio of <{text}>"),
    FakeTool("summarizer", "makes a long text short", ("text",), "gist of <{text}>"),
    FakeTool("transcriber", "writes down what is said in an audio", ("audio",), "words of <{audio}>", requires=AUDIO),
    FakeTool("image_generator", "draws an image from a description", ("prompt",), "image of <{prompt}>"),
    FakeTool("image_segmenter", "cuts out of an image what a label names", ("image", "label"),
             "part <{label}> of <{image}>", requires=IMAGE),
    FakeTool("image_captioner", "describes an image in a sentence", ("image",), "caption of <{image}>", requires=IMAGE),
    FakeTool("image_transformer", "changes an image as a description says", ("image", "prompt"),
             "image <{image}> changed: <{prompt}>", requires=IMAGE),
    FakeTool("text_qa", "answers a question about a text", ("text", "question"), "answer to <{question}> in <{text}>"),
    FakeTool("text_downloader", "fetches the text of a web page", ("url",), "text at <{url}>"),
    FakeTool("image_qa", "answers a question about an image", ("image", "question"),
             "answer to <{question}> on <{image}>", requires=IMAGE),
    FakeTool("video_generator", "makes a short video from a description", ("prompt", "seconds"), "video of <{prompt}>",
             {"seconds": 2}),
)  # fmt: skip
BY_NAME = {tool.name: tool for tool in TOOLS}


@dataclass(frozen=True)
class Step:
    """One call: how an instruction may say it, why the reply takes the tool, and the call's arguments in order.

    Wordings and arguments have {slots} (see SLOTS); an argument is a variable's name, {it} (the result of the step before)
    or a literal. result: the variable that keeps what the call returns.
    """

    tool: str
    wordings: tuple[str, ...]
    why: str
    arguments: tuple[str, ...]
    result: str = ""


SLOTS = {
    "text": ["letter", "note", "poem", "story", "review"],
    "image": ["image", "photo", "picture"],
    "audio": ["audio", "recording", "call"],
    "link": ["link", "address"],
    "question": ["question", "query"],
    "wish": ["wish", "style"],
    "language": ["Dutch", "German", "Polish", "Italian", "French", "Spanish"],
    "thing": ["cat", "dog", "cow", "bird", "fish"],
    "labels": ["good or bad", "old or new", "hot or cold"],
}
VARIABLES = ("text", "image", "audio", "link", "question", "wish")  # the other slots are filled with plain words
FROM_TEXT = (
    Step("translator", ("Put the {language} `{text}` into English", "Translate the `{text}` from {language} to English"),
         "to put it into English", ("{text}", '"{language}"', '"English"'), "english"),
    Step("summarizer", ("Make the `{text}` short", "Sum up the `{text}`"), "to make it short", ("{text}",), "gist"),
    Step("text_downloader", ("Get the page at `{link}`", "Fetch the text at `{link}`"), "to get the page", ("{link}",),
         "page"),
    Step("transcriber", ("Write down what is said in the `{audio}`", "Put the `{audio}` into words"), "to write it down",
         ("{audio}",), "words"),
    Step("image_captioner", ("Describe the `{image}`", "Write a caption for the `{image}`"), "to describe it",
         ("{image}",), "caption"),
    Step("image_qa", ("Answer the `{question}` from the `{image}`", "Look at the `{image}` to answer the `{question}`"),
         "to answer the question", ("{image}", "{question}"), "reply"),
    Step("text_qa", ("Answer the `{question}` from the `{text}`", "Read the `{text}` to answer the `{question}`"),
         "to answer the question", ("{text}", "{question}"), "reply"),
)  # fmt: skip
WITH_TEXT = (
    Step("text_reader", ("read it aloud", "let me hear it"), "to say it aloud", ("{it}",)),
    Step("summarizer", ("make it short", "sum it up"), "to make it short", ("{it}",)),
    Step("image_generator", ("draw the result", "make an image of it"), "to draw it", ("{it}",)),
    Step("video_generator", ("film it", "make a video of it"), "to film it", ("{it}",)),
    Step("text_classifier", ("say whether it is {labels}", "sort it into {labels}"), "to sort it", ("{it}", "{labels}")),
    Step("text_qa", ("answer the `{question}` from the result", "use the result to answer the `{question}`"),
         "to answer the question", ("{it}", "{question}")),
)  # fmt: skip
FROM_IMAGE = (
    Step("image_segmenter", ("Cut the {thing} out of the `{image}`", "Take only the {thing} from the `{image}`"),
         "to cut it out", ("{image}", '"{thing}"'), "part"),
    Step("image_transformer", ("Change the `{image}` as the `{wish}` says", "Make the `{image}` look like the `{wish}`"),
         "to change it", ("{image}", "{wish}"), "changed"),
)  # fmt: skip
WITH_IMAGE = (
    Step("image_captioner", ("describe it", "write a caption for it"), "to describe it", ("{it}",)),
    Step("image_qa", ("answer the `{question}` from the result", "use the result to answer the `{question}`"),
         "to answer the question", ("{it}", "{question}")),
)  # fmt: skip
Said = tuple[tuple[Step, Step], tuple[str, str]]  # two steps and the wording of each


def sayings(test: bool) -> list[Said]:
    """All that can be asked but for the slots, no tool and no question twice. Held out are the two wordings together."""
    pairs = [*product(FROM_TEXT, WITH_TEXT), *product(FROM_IMAGE, WITH_IMAGE)]
    return [
        ((one, two), wordings)
        for one, two in pairs
        if one.tool != two.tool and not {"{question}"} & set(one.arguments) & set(two.arguments)
        for wordings in product(one.wordings, two.wordings)
        if held_out(*wordings) == test
    ]


TAUGHT = sayings(test=False)


@dataclass(frozen=True)
class Instruction:
    """An instruction with its two steps, and what fills their slots."""

    text: str
    steps: tuple[Step, Step]
    slots: dict[str, str]

    @property
    def tools(self) -> list[str]:
        return [step.tool for step in self.steps]

    def inputs(self) -> dict[str, str]:
        """The variables that exist; what is in them begins with what it is, because some tools look."""
        used = "".join("".join(step.arguments) for step in self.steps)
        named = {slot: self.slots[slot] for slot in VARIABLES if f"{{{slot}}}" in used}
        return {name: f"{slot} 1" for slot, name in named.items()}

    def code(self) -> str:
        """Two lines: the first result in a variable, the second as the program's value."""
        first, second = self.steps
        return f"{first.result} = {self.call(first)}\n{self.call(second)}"

    def call(self, step: Step) -> str:
        values = self.slots | {"it": self.steps[0].result, "labels": repr(self.labels())}
        names = BY_NAME[step.tool].parameters
        given = (f"{name}={text.format(**values)}" for name, text in zip(names, step.arguments, strict=False))
        return f"{step.tool}({', '.join(given)})".replace("'", '"')

    def labels(self) -> list[str]:
        return self.slots["labels"].split(" or ")

    def answers(self) -> list[str]:
        """What the code comes to; a thing may be cut out by its name with the article, too."""
        value, thing = self.value(), self.slots["thing"]
        return list(dict.fromkeys((value, value.replace(f"<{thing}>", f"<the {thing}>"))))

    def value(self) -> str:
        inputs = self.inputs()
        result = ""
        for step in self.steps:
            values: dict[str, Any] = {"it": result, "labels": self.labels()}
            values |= {slot: inputs.get(name, name) for slot, name in self.slots.items() if slot != "labels"}
            parts = [text.strip('"').format(**values) for text in step.arguments]
            tool = BY_NAME[step.tool]
            result = tool.returns.format(**dict(zip(tool.parameters, parts, strict=False)))
        return result

    def reply(self) -> str:
        """What follows the prompt's last words."""
        why = ", then ".join(f"`{step.tool}` {step.why}" for step in self.steps)
        return f"tools: {why}.\n\nAnswer:\n```py\n{self.code()}\n```"


def instruction(rng: Random, said: Said) -> Instruction:
    """One sentence, its slots filled at random."""
    steps, (first, second) = said
    slots = {slot: rng.choice(words) for slot, words in SLOTS.items()}
    text = f"{first}{rng.choice((' and ', ', then '))}{second}."
    return Instruction(text.format(**slots), steps, slots)


def agent(rng: Random) -> Document:
    """The benchmark's prompt with an instruction, and the reply."""
    drawn = instruction(rng, rng.choice(TAUGHT))
    return turn(hfagent.prompt(hfagent.AGENT_PROMPT, TOOLS, drawn.text), drawn.reply())


def agent_drill(rng: Random, count: int) -> Document:
    """Instructions and replies as turns of one chat, without the long prompt before them: as much teaching in less text."""
    document: Document = []
    for _ in range(count):
        drawn = instruction(rng, rng.choice(TAUGHT))
        asked = f'Task: "{drawn.text}"\n\n{hfagent.BEGINNING}'
        document += turn(asked, drawn.reply(), "\n" if document else SYSTEM_TURN)
    return document
