"""The records that travel between the parts of the harness, and the Engine protocol. Standard library only.

rows -> samples -> requests -> one engine call -> responses -> per-sample scores -> metrics -> CSV. Every record is
frozen: a step returns new values and never reaches back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias


class InputError(Exception):
    """Bad input or usage. The text is one line that names the thing (file, line) and the remedy; exit status 2."""


class DataError(InputError):
    """A benchmark file is missing or malformed."""


class DataMissing(DataError):
    """A benchmark's data is not there: no folder, no download. What is there and damaged is a plain DataError."""


class CheckpointError(InputError):
    """A checkpoint cannot be found, read or loaded."""


class DoesNotFit(InputError):
    """A request was sent to an engine whose context it does not fit."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"a prompt with its reply or options takes {tokens} tokens, and the context limit is {limit}; shorten it, or "
            "raise --max-seq-len where the model can take more"
        )


@dataclass(frozen=True)
class ModelSpec:
    """What to load and how. Everything here comes from the command line.

    path: a folder or a hub id. hub: "hf" or "modelscope". dtype: "auto" (the checkpoint's own) or a torch dtype name.
    quantize: "none", "int8" or "nf4". attention: "auto", "eager", "sdpa" or "flash". max_seq_len: the context limit in
    tokens, None for the model's own. dynamic_ntk, logn: "auto" (as the config says), "on" or "off". window: "off", "auto"
    (our default sizes), a number of keys, or one number per layer. device: "auto" or a torch device. train_length: the
    trained length in tokens, None for what the config says. template: the chat format or a file with a template in Jinja, None
    for the checkpoint's own. tables_of_2023: tables of positions rounded to the model's precision where the code of 2023 did.
    adapter: a folder or hub id (with a revision behind an @), None for none. adapter_mode: "merge" it into the weights, or
    "apply" it beside them.
    """

    path: str
    revision: str | None = None
    hub: Literal["hf", "modelscope"] = "hf"
    dtype: str = "auto"
    quantize: str = "none"
    device: str = "auto"
    attention: str = "auto"
    trust_remote_code: bool = False
    max_seq_len: int | None = None
    dynamic_ntk: Literal["auto", "on", "off"] = "auto"
    logn: Literal["auto", "on", "off"] = "auto"
    window: str = "off"
    train_length: int | None = None
    template: str | None = None
    tables_of_2023: bool = False
    adapter: str | None = None
    adapter_mode: Literal["merge", "apply"] = "merge"


# of a request's field that came after the first release: at its default it changes no run's id
LATER = {"later": True}


@dataclass(frozen=True)
class Choose:
    """A multiple-choice question: which of `options` continues header + shots + question best?

    overflow says what to do with a prompt longer than `limit` tokens (None: the model's context less the options):
    "drop_shots" drops whole shots, the first one first, and a prompt that is too long without any is an error; "keep_last"
    keeps the last `limit` tokens; "none" cuts nothing.
    scoring: "context" scores the tokens that encode(prompt + option) adds to the part all options share, in float32;
    "isolated" takes each option's own single token and the softmax in the model's precision, as the 2023 scripts did;
    "split" takes the tokens that encode(prompt + option) has beyond the number that encode(prompt) has, each option cut
    to `limit` by itself, as lm-evaluation-harness does. bos: whether the BOS that the tokenizer itself puts first stays.
    totals: whether the whole log-probability of every option is wanted, too.
    """

    header: str
    shots: tuple[str, ...]
    question: str
    options: tuple[str, ...]
    overflow: Literal["drop_shots", "keep_last", "none"] = "drop_shots"
    limit: int | None = None
    scoring: Literal["context", "isolated", "split"] = "context"
    bos: bool = True
    totals: bool = field(default=False, metadata=LATER)

    def prompt(self, first_shot: int = 0) -> str:
        """The prompt text without its first `first_shot` shots."""
        return self.header + "".join(self.shots[first_shot:]) + self.question


@dataclass(frozen=True)
class Chosen:
    """The answer to Choose: one log-probability (natural log) an option, in the order of the options; how many shots
    the prompt kept; the prompt's length in tokens; whether the prompt lost tokens beyond whole shots.

    totals: where they were asked for, the log-probability of each whole option: of the tokens that encode(prompt + option)
    has beyond the number that encode(prompt) has, as lm-evaluation-harness counts them (which first moves spaces at the
    prompt's end to the option). logprobs leave out first tokens that all options share, and include a token that joins the
    prompt's end with the option's beginning, which totals do not. system_fingerprints: what a server says computed it.
    """

    logprobs: tuple[float, ...]
    shots_used: int
    prompt_tokens: int
    truncated: bool = False
    totals: tuple[float, ...] = ()
    system_fingerprints: tuple[str, ...] = ()


Message: TypeAlias = Mapping[str, str]  # {"role": "user", "content": "..."}


@dataclass(frozen=True)
class Generate:
    """Text to be continued (a string) or a conversation to be answered (messages in the chat format).

    prompt: what follows header and shots. overflow says what to do where prompt and max_tokens do not fit the context:
    "drop_shots" drops whole shots, the first one first, and what is too long without any is an error; "keep_last" keeps the
    last tokens; "none" cuts nothing. stop: strings that end the text and are cut off. samples texts
    are made, each with its own random stream, named by the run's seed, `key` and the sample's number; temperature 0 is
    greedy. chat_options: variables of the chat template (enable_thinking). reasoning_marks: an opening and a closing mark
    beside the known ones, between which a conversation's reply has its reasoning.
    """

    prompt: str | tuple[Message, ...]
    max_tokens: int
    header: str = ""
    shots: tuple[str, ...] = ()
    overflow: Literal["drop_shots", "keep_last", "none"] = "drop_shots"
    stop: tuple[str, ...] = ()
    samples: int = 1
    temperature: float = 0.0
    key: str = ""
    chat_options: Mapping[str, Any] = field(default_factory=dict)
    reasoning_marks: tuple[str, str] | tuple[()] = field(default=(), metadata=LATER)

    def text(self, first_shot: int = 0) -> str | tuple[Message, ...]:
        """The prompt without its first `first_shot` shots; messages have none."""
        if isinstance(self.prompt, str):
            return self.header + "".join(self.shots[first_shot:]) + self.prompt
        return self.prompt


@dataclass(frozen=True)
class Generated:
    """The replies to Generate, one a sample; the reasoning that a reasoning model put before each ("" otherwise); the
    reason each ended: "stop", "eos" or "length"; lengths in tokens; how many shots the prompt kept, and whether it lost
    more than whole shots; what a server says computed each (system_fingerprint), empty where it says nothing."""

    texts: tuple[str, ...]
    reasoning: tuple[str, ...]
    end_reasons: tuple[str, ...]
    prompt_tokens: int = 0
    new_tokens: tuple[int, ...] = ()
    shots_used: int = 0
    truncated: bool = False
    system_fingerprints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measure:
    """One cell of a perplexity table: these documents, in chunks of `length` tokens whose first token is context only.

    same_as: 0, or take only documents of at least so many tokens, cropped to a multiple of it (so that every length up to it
    scores the same text). stride: None for chunks side by side; else windows every `stride` tokens, of which the last
    `stride` are scored. max_tokens: chunks are taken in order until so many tokens are scored; 0 for all. max_memory: GiB
    that reading a chunk may take beyond the weights, about; 0 for what is free.
    """

    documents: tuple[str, ...]
    length: int
    same_as: int = 0
    stride: int | None = None
    max_tokens: int = 0
    max_memory: float = 0.0


@dataclass(frozen=True)
class Measured:
    """The answer to Measure, by document that had a chunk: summed negative log-likelihood (natural log), scored tokens,
    their bytes, chunks; and how many documents were too short."""

    nll: tuple[float, ...]
    tokens: tuple[int, ...]
    bytes: tuple[int, ...]
    chunks: tuple[int, ...]
    dropped: int


@dataclass(frozen=True)
class Unanswered:
    """In the place of a response: the item was not asked, since it does not fit. tokens: what it takes without any shot, with
    its reply or its longest option. limit: what it may take."""

    tokens: int
    limit: int


Request: TypeAlias = Choose | Generate | Measure
Response: TypeAlias = Chosen | Generated | Measured | Unanswered


@dataclass(frozen=True)
class Sample:
    """One item: id ("anatomy/0": set and row from 0), what is asked, the gold answer, the group (subject) it is in, and
    the id that its own file gives it, which a submission file needs. labels: what the options are called, where that is not
    A, B, C ... cluster: what it shares with other items of its group (a passage, a document, a problem), "" where it is by
    itself; None where items do come in clusters and its own is not known. It is no part of the run's identity."""

    id: str
    request: Request
    target: Any
    group: str = ""
    file_id: str = ""
    labels: tuple[str, ...] = ()
    cluster: str | None = ""


@dataclass(frozen=True)
class Score:
    """The score of a response: summable statistics (counts, 0/1 flags) and the answer that was read from it."""

    stats: Mapping[str, float]
    answer: Any


@dataclass(frozen=True)
class Scored:
    """A sample with its response and score, as it is stored."""

    sample: Sample
    response: Response
    score: Score


@dataclass(frozen=True)
class Metric:
    """One figure: metric name, group ("all", "STEM", "anatomy"), value, 95% interval and number of items."""

    metric: str
    group: str
    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class EngineInfo:
    """What defines an engine's answers (model, revision, fingerprint, context limit in tokens, precision, context
    extension with its window sizes and trained length, hash of the chat template), and where it runs (engine, device,
    library versions). weights: of a GGUF file how many tensors there are of each type. sampled: the fingerprint as version 0.1
    stored it. day: the date (2026-12-01) on which the chat template is rendered, "" where its text does not move with the
    clock. served: of a model behind a server what is known of it, and known_by what of it would show that it was exchanged:
    "content", "replies", "entry", or "name": nothing. trust: what the trust test gave up ("unshared",
    "no-flash-cpu"), "untested" where it was declined, "" where the engine passed as it is. adapter: the name and hash of the
    adapter that the model has, with ":apply" where it is not merged, "" for none."""

    model: str
    revision: str
    fingerprint: str
    context_limit: int
    precision: str
    context: str
    engine: str
    device: str
    chat_template: str = ""
    window: str = ""
    trained_length: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    sampled: str = ""
    day: str = ""
    served: Mapping[str, str] = field(default_factory=dict)
    known_by: str = ""
    trust: str = ""
    adapter: str = ""


@dataclass(frozen=True)
class Trusted:
    """What an engine's test of itself came to. marks: for EngineInfo.trust. notes: sentences for the table. result: for the
    manifest, with the largest difference found."""

    marks: str
    notes: tuple[str, ...]
    result: Mapping[str, Any]


OnResponse: TypeAlias = Callable[[int, Any], None]


class Engine(Protocol):
    """Answers requests. Lists in, same order out; `done(index, response)` is called as each becomes ready.

    notes: sentences about how it went. usage(): "tokens" computed, "prompt_tokens" asked, "peak_memory_gb"; where they are
    known, "weights_gb" stored and "resident_gb", what loading the model added.
    too_long(): by index those of the requests that do not fit the context even without shots, unless their protocol cuts them;
    found without the weights, as far as tokenizer and context limit are known here.
    token_texts(): each text cut into the model's tokens, each token's bytes decoded by themselves (part of a character
    becomes U+FFFD); InputError where the tokenizer is not known here.
    moves(): whether the prompts of some of these requests have another text at another time, because the chat template reads
    a clock. set_day(): conversations are rendered as on this date (2026-12-01) from now on; None: as on the day they are asked.
    exchanged(): how the model now differs from the one described, "" where it does not; asked of served models only.
    prompt_text(): a conversation as the model reads it; None where that is not known here. All three are of use only where
    there are conversations.
    """

    notes: list[str]

    def describe(self) -> EngineInfo: ...

    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]: ...

    def generate(self, requests: Sequence[Generate], done: OnResponse) -> list[Generated]: ...

    def measure(self, requests: Sequence[Measure], done: OnResponse) -> list[Measured]: ...

    def too_long(self, requests: Sequence[Request]) -> Mapping[int, Unanswered]: ...

    def extend(self, spec: ModelSpec) -> None:
        """Another context extension on the same weights. Raises InputError where there is none."""
        ...

    def usage(self) -> Mapping[str, float]: ...

    def token_texts(self, texts: Sequence[str]) -> list[list[str]]: ...

    def moves(self, requests: Sequence[Request]) -> bool: ...

    def set_day(self, day: str | None) -> None: ...

    def prompt_text(self, request: Generate) -> str | None: ...

    def exchanged(self) -> str: ...
