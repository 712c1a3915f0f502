"""What benchmarks of generated text share: prompts with examples, conversations, how replies ended.

A benchmark says how a row reads (`prompt`, and `answer` for an example) and how a reply is scored (`score`).
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from qwen_eval import options
from qwen_eval.data.passages import passages
from qwen_eval.data.texts import common_prefix
from qwen_eval.schema import (
    DataError,
    Generate,
    Generated,
    InputError,
    Message,
    Metric,
    Request,
    Sample,
    Score,
    Scored,
)
from qwen_eval.stats import intervals
from qwen_eval.tasks.benchmark import Benchmark

LONG_SHARE = 0.01  # of texts cut by their length, above which a reader must be told


class Text(Benchmark):
    """A benchmark whose replies are generated text, with a scorer of its own.

    stop: strings that end a continued text. split_shown, split_asked: of `dataset`, the split that the examples are taken
    from ("" for none) and the one that is asked.
    """

    shots: ClassVar[Mapping[str, int]] = {"base": 0, "chat": 0}
    writes: ClassVar[tuple[str, ...]] = ("base", "chat")
    stop: ClassVar[tuple[str, ...]] = ()
    split_shown: ClassVar[str] = "train"
    split_asked: ClassVar[str] = "test"

    @classmethod
    def check_facts(cls) -> None:
        super().check_facts()
        if set(cls.writes) != set(cls.shots):
            raise InputError(
                f"{cls.name}: all its answers are generated text; writes has to name {', '.join(cls.shots)}"
            )

    # ------------------------------------------------------------------------------------- what a benchmark says
    def prompt(self, row: Any) -> str:
        """A row up to where the model continues."""
        raise NotImplementedError

    def answer(self, row: Any) -> str:
        """What follows the prompt in an example."""
        raise NotImplementedError

    def target(self, row: Any) -> Any:
        """The gold answer."""
        raise NotImplementedError

    def group(self, row: Any) -> str:
        """The group (subject, set) that the row is in, "" where there are none."""
        return ""

    def cluster(self, row: Any) -> str | None:
        """What the row shares with others of its group (a passage): a name, "" for nothing; None finds rows whose prompts begin
        with the same 200 bytes, beyond what all begin with."""
        return None

    def identifier(self, row: Any, index: int) -> str:
        """The row's id; here its number from 0."""
        return str(index)

    def shot(self, row: Any) -> str:
        """An example."""
        return f"{self.prompt(row)}{self.answer(row)}\n\n"

    def turn(self, row: Any) -> str:
        """The user's turn of the chat protocol; here the examples and the prompt."""
        return "".join([*map(self.shot, self.examples()), self.prompt(row)])

    def examples(self) -> Sequence[Any]:
        """The rows that the prompt shows. Raises InputError for more than there are."""
        if not self.shot_count:
            return ()
        rows: Sequence[Any] = self.data.rows.get(self.split_shown, ())
        if len(rows) < self.shot_count:
            raise InputError(
                f"--shots {self.shot_count} is more than the {len(rows)} examples of {self.name}; ask for fewer"
            )
        return rows[: self.shot_count]

    def rows(self) -> Sequence[Any]:
        """The rows that are asked."""
        found: Sequence[Any] = self.data.rows[self.split_asked]
        return found

    def overflow(self) -> Literal["drop_shots", "none"]:
        """What happens to a prompt that does not fit the context."""
        return "drop_shots"

    def sampling(self) -> dict[str, Any]:
        """How many texts are written for an item, and how: fields of Generate."""
        return {}

    # -------------------------------------------------------------------------------------------- what is asked
    def samples(self) -> list[Sample]:
        """One sample a row. Raises DataError for a row of which the benchmark can make none."""
        made: list[Sample] = []
        examples: tuple[str, ...] | None = None
        for index, row in enumerate(self.rows()):
            try:
                if examples is None:
                    examples = tuple(map(self.shot, self.examples())) if self.mode == "base" else ()
                name = self.identifier(row, index)
                request = self.request(row, examples, f"{self.name}/{name}")
                made.append(Sample(name, request, self.target(row), self.group(row), cluster=self.cluster(row)))
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                where = f"{getattr(self.data, 'origin', 'files')}, row {index} from 0"
                raise DataError(f"{where}: no item of {self.name} ({type(error).__name__}: {error})") from error
        return in_passages(made)

    def request(self, row: Any, examples: tuple[str, ...], key: str) -> Generate:
        """What is asked for a row. key: names the random stream of its texts."""
        if self.mode == "chat":
            return chat(self.args, self.turn(row), key, **self.sampling())
        return Generate(
            self.prompt(row),
            self.args.max_new_tokens,
            shots=examples,
            overflow=self.overflow(),
            stop=self.stop,
            key=key,
            **self.sampling(),
        )

    def frame(self) -> str:
        if type(self).request is not Text.request or "samples" in vars(type(self)):  # another prompt than the rows' own
            return super().frame()
        row = _Named()
        try:
            return self.turn(row) if self.mode == "chat" else f"{self.shot(row)}\0{self.prompt(row)}"
        except Exception:  # a prompt that is made from what only real rows have
            return super().frame()

    # -------------------------------------------------------------------------------------- how it is averaged
    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """Accuracy, and the shares of replies without an answer and of replies cut by their length."""
        table = [intervals.of_items("acc", "all", scored, "correct")]
        if all("invalid" in item.score.stats for item in scored):
            table.append(intervals.of_items("invalid", "all", scored, "invalid"))
        return [*table, cut_share(scored)]

    def remarks(self, scored: Sequence[Scored]) -> list[str]:
        """How the replies ended."""
        return remarks(scored)

    def fields(self) -> dict[str, str]:
        return {**signature(self.args), **super().fields()}


def in_passages(made: Sequence[Sample]) -> list[Sample]:
    """The samples, those whose cluster is not known with the passage that their prompts begin with."""
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(made):
        if sample.cluster is None:
            groups.setdefault(sample.group, []).append(index)
    found = list(made)
    for members in groups.values():
        texts = [_last_turn(made[index].request) for index in members]
        start = common_prefix(texts) if len(texts) > 1 else ""
        for index, name in zip(members, passages(texts, start), strict=True):
            found[index] = replace(made[index], cluster=name)
    return found


def _last_turn(request: Request) -> str:
    """What a request asks behind its header and shots; of messages the last."""
    assert isinstance(request, Generate)
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1]["content"]


class _Named(dict[str, Any]):
    """Stands for a row in the frame of a prompt: every cell is its own name."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def right_or_wrong(reply: Generated, answer: Any, target: Any) -> Score:
    """The score of a reply whose answer is compared with the gold one. answer: None where the reply holds none."""
    stats = {"correct": float(answer == target), "invalid": float(answer is None), **endings(reply)}
    return Score(stats, answer)


def chat(
    args: argparse.Namespace,
    turn: str,
    key: str,
    samples: int = 1,
    temperature: float = 0.0,
    stop: tuple[str, ...] = (),
) -> Generate:
    """One user turn as a request, with the run's system text, reply length, thinking mode and reasoning marks."""
    messages: tuple[Message, ...] = ({"role": "user", "content": turn},)
    if args.system_prompt is not None:
        messages = ({"role": "system", "content": args.system_prompt}, *messages)
    variables = {} if args.thinking == "auto" else {"enable_thinking": args.thinking == "on"}
    return Generate(
        messages,
        args.max_new_tokens,
        stop=stop,
        samples=samples,
        temperature=temperature,
        key=key,
        chat_options=variables,
        reasoning_marks=args.reasoning_marks,
    )


def digest(text: str) -> str:
    """A short name for a text, for signatures: the first 8 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def signature(args: argparse.Namespace) -> dict[str, str]:
    """The signature's fields for generated text: reply length and, in chat, the system text, the thinking mode and reasoning
    marks that were given."""
    fields = {"max": str(args.max_new_tokens)}
    if options.mode(args) == "chat":
        system = args.system_prompt
        fields["system"] = "own" if system is None else digest(system)
        fields["thinking"] = args.thinking
        if args.reasoning_marks:
            fields["marks"] = digest(",".join(args.reasoning_marks))
    return fields


def endings(answer: Generated) -> dict[str, float]:
    """Statistics of how an item's texts ended: how many, and how many were cut by their length or lost prompt."""
    return {
        "texts": float(len(answer.texts)),
        "cut": float(sum(reason == "length" for reason in answer.end_reasons)),
        "truncated": float(answer.truncated),
    }


def cut_share(scored: Sequence[Scored]) -> Metric:
    """The share of texts that were cut by their length, in percent."""
    return intervals.share_of_texts("cut_by_length", "all", scored, "cut")


def remarks(scored: Sequence[Scored]) -> list[str]:
    """Warns of replies cut by their length (above 1%) and of prompts that did not fit."""
    lines = []
    cut, texts = (sum(item.score.stats[name] for item in scored) for name in ("cut", "texts"))
    if cut > LONG_SHARE * texts:
        lines.append(
            f"warning: {cut:.0f} of {texts:.0f} replies were cut by their length; a larger --max-new-tokens may change "
            "the score"
        )
    truncated = sum(item.score.stats["truncated"] for item in scored)
    if truncated:
        lines.append(f"{truncated:.0f} of {len(scored)} prompts lost their beginning to the context limit")
    return lines
