"""What multiple-choice benchmarks share: samples from rows, the option a model chose, accuracy by subject.

A benchmark says how a question reads (`question`), and where its rows come from. Options are chosen by the likelihood of
their labels (`select = "letters"`, as MMLU) or of their texts ("texts", as ARC), or in chat read from the reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from qwen_eval.data.catalogue import choose_subjects, subjects
from qwen_eval.data.choice import LETTERS, ChoiceSet
from qwen_eval.data.files import content_hash
from qwen_eval.data.passages import passages
from qwen_eval.schema import Choose, Chosen, DataError, Generated, InputError, Metric, Sample, Score, Scored
from qwen_eval.stats import intervals
from qwen_eval.tasks import generation
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.extract import letters
from qwen_eval.tasks.extract.letter_tokens import LETTERS as READABLE
from qwen_eval.tasks.facts import Column

# Two best options closer than this (natural-log probability) are a tie: float32 arithmetic in another order of
# summation can swap them.
TIE_MARGIN = 1e-5


class ChoiceRow(Protocol):
    """A question with its options, their labels, the label of the right one ("" where it is not known), and the id that
    its own file gives it."""

    @property
    def question(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def answer(self) -> str: ...
    @property
    def id(self) -> str: ...


@dataclass(frozen=True)
class Question:
    """A question of a benchmark of one's own. labels: "" for A, B, C ... subject: the group that it is in. id: the one
    that its own file gives it. cluster: names what it shares with other questions (a passage); "" finds those that begin with
    the same 200 bytes."""

    question: str
    options: tuple[str, ...]
    answer: str
    labels: tuple[str, ...] = ()
    subject: str = ""
    id: str = ""
    cluster: str = field(default="", metadata={"hashed": False})

    def __post_init__(self) -> None:
        if not self.labels:
            object.__setattr__(self, "labels", tuple(map(_letter, range(len(self.options)))))
        for name in ("options", "labels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.options) < 2 or len(set(self.labels)) != len(self.options):
            raise ValueError(f"{len(self.options)} options with the labels {', '.join(self.labels)}")
        if self.answer not in self.labels:
            raise ValueError(f"the answer {self.answer!r} is none of {', '.join(self.labels)}")
        if not all(isinstance(text, str) and text.strip() for text in (self.question, *self.options)):
            raise ValueError("an empty question or option")


class MultipleChoice(Benchmark):
    """A multiple-choice benchmark.

    select: whether the options' labels or their texts are scored behind the question. split_shown, split_asked: of
    `dataset`, the split that the examples are taken from and the one that is asked.
    """

    shots: ClassVar[Mapping[str, int]] = {"base": 5, "chat": 0}
    writes: ClassVar[tuple[str, ...]] = ("chat",)
    select: Literal["letters", "texts"] = "letters"
    split_shown: ClassVar[str] = "train"
    split_asked: ClassVar[str] = "test"

    data: Mapping[str, ChoiceSet[Any]]

    # ------------------------------------------------------------------------------------- what a benchmark says
    def item(self, row: Mapping[str, Any]) -> Question:
        """A row of the benchmark's own data as a question."""
        raise NotImplementedError

    def header(self, row: ChoiceRow) -> str:
        """What the prompt begins with, before the examples."""
        return ""

    def question(self, row: ChoiceRow) -> str:
        """A question up to where the model continues."""
        options = option_lines(row) if self.select == "letters" else ""
        return f"Question: {row.question}\n{options}Answer:"

    def shot(self, row: ChoiceRow) -> str:
        """A question with its answer, as an example in the prompt."""
        return f"{self.question(row)}{self.continuations(row)[row.labels.index(row.answer)]}\n\n"

    def continuations(self, row: ChoiceRow) -> tuple[str, ...]:
        """What follows the question for each option."""
        return tuple(f" {text}" for text in (row.labels if self.select == "letters" else row.options))

    def turn(self, row: ChoiceRow) -> str:
        """The user's turn of the chat protocol, its options named A, B, C ..."""
        return f"Choose the right option and answer with its letter.\n\n{row.question}\n{lettered_lines(row.options)}"

    def letter_2023(self, text: str, row: Any) -> str:
        """The letter that the code of 2023 read from a reply."""
        raise NotImplementedError

    def categories(self) -> Mapping[str, Sequence[str]]:
        """Groups of subjects that have figures of their own."""
        return {}

    def more_fields(self) -> dict[str, str]:
        """Fields of the signature beside those of every multiple-choice benchmark."""
        return {}

    # -------------------------------------------------------------------------------------------- what is asked
    def read(self) -> Mapping[str, ChoiceSet[Any]]:
        return self.sets_of(super().read())

    def sets_of(self, tables: Any) -> dict[str, ChoiceSet[Any]]:
        """The rows of tables as questions, by subject. A subject without examples of its own is shown everyone's."""
        found: dict[str, list[Question]] = {}
        for split in (self.split_shown, self.split_asked):
            found[split] = []
            for number, row in enumerate(tables.rows[split]):
                try:
                    found[split].append(self.item(row))
                except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                    where = f"{tables.origin} {split}, row {number} from 0"
                    raise DataError(f"{where}: no question of {self.name} ({type(error).__name__}: {error})") from error
        names = list(dict.fromkeys(question.subject for question in found[self.split_asked]))
        wanted = getattr(self.args, "subjects", None)
        for name in wanted or ():
            if name not in names:
                raise InputError(f"unknown {self.name} subject {name!r}: the subjects are {', '.join(names)}")
        sets = {}
        for name in wanted or names:
            own = tuple(question for question in found[self.split_shown] if question.subject == name)
            asked = tuple(question for question in found[self.split_asked] if question.subject == name)
            sets[name] = ChoiceSet(own or tuple(found[self.split_shown]), asked, tables.origin)
        return sets

    def subjects(self) -> list[str]:
        """The subjects that are asked, in the official order: those named on the command line, else all that the data has.
        Raises InputError for an unknown one."""
        names = self.args.subjects
        if names is None and self.on_demo_data and self.source.directory:
            names = sorted(path.stem.removesuffix("_dev") for path in (self.source.directory / "dev").glob("*.csv"))
        return choose_subjects(self.name, names)

    def check_options(self) -> None:
        if self.mode == "chat" and self.shot_count:
            raise InputError(
                "the chat protocol is 0-shot; leave --shots out, or leave --chat out for the few-shot protocol"
            )

    def samples(self) -> list[Sample]:
        """One sample a row that is asked; its id is "subject/row from 0", or the row alone where there are no subjects.

        Raises InputError where a subject has fewer examples than shots, or more options than a reply can name.
        """
        made = []
        self._rows: dict[str, ChoiceRow] = {}
        for subject, rows in self.data.items():
            examples = take_shots(rows.dev, self.shot_count, subject or self.name)
            about = passages([row.question for row in rows.test])
            for index, row in enumerate(rows.test):
                name = f"{subject}/{index}" if subject else str(index)
                self._rows[name] = row
                if self.mode == "chat":
                    if len(row.options) > len(READABLE):
                        raise InputError(
                            f"{self.name}: {name} has {len(row.options)} options; in chat a reply is read for at most "
                            f"{len(READABLE)} of them"
                        )
                    request: Any = generation.chat(self.args, self.turn(row), f"{self.name}/{name}")
                else:
                    request = self.request(row, examples)
                usual = tuple(map(_letter, range(len(row.options))))
                labels = () if row.labels == usual else row.labels
                cluster = getattr(row, "cluster", "") or about[index]
                made.append(Sample(name, request, row.answer, subject, row.id, labels, cluster))
        return made

    def request(self, row: Any, examples: Sequence[Any]) -> Choose:
        """The question behind its examples, of which whole ones are dropped where the prompt does not fit the context."""
        return Choose(
            self.header(row),
            tuple(map(self.shot, examples)),
            self.question(row),
            self.continuations(row),
            totals=self.select == "texts",
        )

    def frame(self) -> str:
        if type(self).request is not MultipleChoice.request or "samples" in vars(type(self)):
            return super().frame()  # another prompt than the rows' own
        row = Question("{question}", ("{first}", "{second}"), "A")
        try:
            asked = (
                self.turn(row)
                if self.mode == "chat"
                else "\0".join((self.header(row), self.shot(row), self.question(row)))
            )
        except Exception:  # a question that is made from what only real rows have
            return super().frame()
        return asked

    # --------------------------------------------------------------------------------------- what counts as right
    def score(self, sample: Sample, reply: Chosen | Generated) -> Score:
        row = self._rows[sample.id]
        if isinstance(reply, Generated):
            return self._score_reply(sample, reply, row)
        assert isinstance(sample.request, Choose)
        best, tie = best_option(reply.logprobs)
        if self.recipe == "qwen2023":
            # the doubly softmaxed probabilities, whose float32 rounding can make options equal
            best, equal = best_option(double_softmax(reply.logprobs), margin=0.0)
            tie = tie or equal
        stats = {
            "correct": float(row.labels[best] == sample.target),
            "tie": float(tie),
            "shots_dropped": float(reply.shots_used < len(sample.request.shots)),
            "truncated": float(reply.truncated),
        }
        if reply.totals:
            # by the characters of the option's text, as lm-evaluation-harness's acc_norm
            each = [total / len(text) for total, text in zip(reply.totals, row.options, strict=True)]
            stats["correct_norm"] = float(row.labels[best_option(each)[0]] == sample.target)
        return Score(stats, row.labels[best])

    def unanswered(self, sample: Sample, empty: Score) -> Score:
        score = super().unanswered(sample, empty)
        return Score(
            {name: value if name not in ("tie", "correct_norm") else 0.0 for name, value in score.stats.items()}, None
        )

    def _score_reply(self, sample: Sample, reply: Generated, row: ChoiceRow) -> Score:
        """Reads the letter of a reply: by the rules of 2023, which always find one, or by ours, which may find none."""
        text = reply.texts[0]
        old = self.recipe == "qwen2023"
        letter = self.letter_2023(text, row) if old else letters.letter(text, row.options, row.question)
        index = READABLE.find(letter) if letter else -1
        answer = row.labels[index] if 0 <= index < len(row.labels) else letter
        stats = {
            "correct": float(answer == sample.target),
            "invalid": float(answer is None),
            **generation.endings(reply),
        }
        return Score(stats, answer)

    # ----------------------------------------------------------------------------------------- how it is averaged
    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """Accuracy over all items, by category and by subject, and the shares of items of which a reader must know."""
        if list(self.data) == [""]:
            table = [intervals.of_items("acc", "all", scored, "correct")]
        else:
            table = intervals.accuracy_table(scored, self.categories(), self.average)
        if all("correct_norm" in item.score.stats for item in scored):
            table.append(intervals.of_items("acc_norm", "all", scored, "correct_norm"))
        if self.mode == "chat":
            return [*table, intervals.of_items("invalid", "all", scored, "invalid"), generation.cut_share(scored)]
        extras = {"ties": "tie", "shots_dropped": "shots_dropped", "truncated": "truncated"}
        return table + [intervals.of_items(name, "all", scored, stat) for name, stat in extras.items()]

    def remarks(self, scored: Sequence[Scored]) -> list[str]:
        """Ties, and prompts that did not fit; in chat how the replies ended."""
        if self.mode == "chat":
            return generation.remarks(scored)
        lines = []
        for stat, sentence in {
            "tie": f"have their two best options within {TIE_MARGIN:g} of each other (ties, the earliest was taken)",
            "shots_dropped": "lost shots to the context limit",
            "truncated": "lost the beginning of their prompt to the context limit",
        }.items():
            hit = round(sum(item.score.stats[stat] for item in scored))
            if hit:
                lines.append(f"{hit} of {len(scored)} items {sentence}")
        return lines

    def fields(self) -> dict[str, str]:
        chosen = {"select": "logprob" if self.select == "letters" else "text-logprob"}
        rows = [row for part in self.data.values() for row in (*part.dev, *part.test)]
        return {
            **(generation.signature(self.args) if self.mode == "chat" else chosen),
            **self.more_fields(),
            "avg": self.average,
            "data": content_hash(rows),
        }

    def data_origin(self) -> str:
        return ", ".join(dict.fromkeys(rows.origin for rows in self.data.values()))

    def parts(self) -> dict[str, Sequence[Any]]:
        asked = self.split_asked
        dev: dict[str, Sequence[Any]] = {f"dev/{subject}".rstrip("/"): rows.dev for subject, rows in self.data.items()}
        return dev | {f"{asked}/{subject}".rstrip("/"): rows.test for subject, rows in self.data.items()}


class ChineseExam(MultipleChoice):
    """C-Eval and CMMLU, which share their prompt: no header, the options in context with no space."""

    average: ClassVar[str] = "macro"

    def question(self, row: ChoiceRow) -> str:
        return f"问题：{row.question}\n{option_lines(row)}答案："

    def request(self, row: Any, examples: Sequence[Any]) -> Choose:
        """Both recipes leave a long prompt to the context limit's rule: "default" drops whole shots, "qwen2023" cuts
        nothing."""
        shots = tuple(f"{self.question(example)}{example.answer}\n\n" for example in examples)
        if self.recipe == "qwen2023":
            return Choose("", shots, self.question(row), LETTERS, "none", scoring="isolated")
        return Choose("", shots, self.question(row), LETTERS, "drop_shots", scoring="context")

    def categories(self) -> dict[str, list[str]]:
        return categories(self.name)


def categories(benchmark: str) -> dict[str, list[str]]:
    """Category -> subjects, categories in order of first appearance in the benchmark's list; C-Eval's Hard last."""
    table: dict[str, list[str]] = {}
    for name, info in subjects(benchmark).items():
        for category in info.categories:
            table.setdefault(category, []).append(name)
    hard = [name for name, info in subjects(benchmark).items() if info.hard]
    return {**table, "Hard": hard} if hard else table


def five_shot(heads: Mapping[str, tuple[str, str]], zh: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """Columns of the 5-shot protocol: head -> (metric, group), where the group "all" has no name in published.csv. zh: heads
    in Chinese."""
    return tuple(
        Column(
            head,
            (metric, group),
            (metric, "" if group == "all" else group),
            "5-shot",
            "5",
            zh=(zh or {}).get(head, ""),
        )
        for head, (metric, group) in heads.items()
    )


def option_lines(row: ChoiceRow) -> str:
    """`A. first\\nB. second\\n...`, one line an option, with the row's own labels."""
    return "".join(f"{label}. {option}\n" for label, option in zip(row.labels, row.options, strict=True))


def lettered_lines(options: Sequence[str]) -> str:
    """The same with the letters from A, whatever the labels are."""
    return "".join(f"{_letter(index)}. {option}\n" for index, option in enumerate(options))


def take_shots(rows: Sequence[Any], shots: int, what: str) -> Sequence[Any]:
    """The first `shots` rows. Raises InputError when there are fewer."""
    if len(rows) < shots:
        raise InputError(f"--shots {shots} is more than the {len(rows)} development rows of {what}; ask for fewer")
    return rows[:shots]


def best_option(scores: Sequence[float], margin: float = TIE_MARGIN) -> tuple[int, bool]:
    """The index of the highest score (the earliest of equals), and whether the two best are within the margin."""
    best = max(range(len(scores)), key=lambda index: (scores[index], -index))
    runner_up = max((score for index, score in enumerate(scores) if index != best), default=float("-inf"))
    # equal infinities (all options impossible) are a tie too, and their difference is not a number
    return best, scores[best] == runner_up or scores[best] - runner_up < margin


def double_softmax(logprobs: Sequence[float]) -> list[float]:
    """The probabilities the 2023 scripts recorded: a softmax, in float32, over the options' probabilities.

    logprobs: natural logs of the options' probabilities over the vocabulary. Source: docs/mmlu.md, `qwen2023`.
    """
    import numpy as np

    probabilities = np.exp(np.array(logprobs, dtype=np.float64)).astype(np.float32)
    powers = np.exp(probabilities - probabilities.max())
    return [float(value) for value in powers / powers.sum()]


def _letter(index: int) -> str:
    """A, B, ... Z, AA, AB ..."""
    letter = chr(ord("A") + index % 26)
    return letter if index < 26 else _letter(index // 26 - 1) + letter
