"""The command line that all scripts share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from qwen_eval.data import demo
from qwen_eval.data.files import Source
from qwen_eval.schema import DataError, InputError, ModelSpec

DEFAULT_CHECKPOINT = {"base": "Qwen/Qwen-7B", "chat": "Qwen/Qwen-7B-Chat"}


# how the user called the program, where that is not the script's own name: "qwen-eval mmlu"
program: str | None = None


class Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line. shots: the default number of shots by mode."""

    shots: Mapping[str, int] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"prog": program, **settings})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if self.shots and found.shots is None:
            found.shots = self.shots[mode(found)]
        return found, unknown


def whole_number(text: str) -> int:
    """A positive whole number, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def count(text: str) -> int:
    """A non-negative whole number, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative whole number")
    return int(text)


def temperature(text: str) -> float:
    """A sampling temperature from 0, for argparse."""
    return _number(text, 0.0)


def seconds(text: str) -> float:
    """A time in seconds above 0, for argparse."""
    return _number(text, 1e-3)


def gibibytes(text: str) -> float:
    """An amount of memory in GiB above 0, for argparse."""
    return _number(text, 1e-3)


def points(text: str) -> float:
    """A number of points from 0, for argparse."""
    return _number(text, 0.0)


def _number(text: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g}")
    return value


def auto_or_number(text: str) -> int | None:
    """ "auto" (None) or a positive whole number, for argparse."""
    return None if text == "auto" else whole_number(text)


def marks(text: str) -> tuple[str, str]:
    """An opening and a closing mark, for argparse."""
    opening, _, closing = (part.strip() for part in text.partition(","))
    if not opening or not closing or "," in closing or opening == closing:
        raise argparse.ArgumentTypeError(f"{text!r} is not an opening and a closing mark with a comma between them")
    return opening, closing


def names(text: str) -> list[str]:
    """A comma-separated list, for argparse."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parser(
    description: str,
    shots: Mapping[str, int],
    writes: Sequence[str] = (),
    tokens: int = 512,
    subjects: bool = False,
    recipes: Sequence[str] = ("default", "qwen2023"),
) -> Parser:
    """The shared options.

    shots: the protocol's number of shots by mode ("base", "chat"); empty for the suite, which then lacks the options that make
    sense for a single benchmark. writes: the modes whose answers are generated text, of at most `tokens` new tokens. subjects:
    whether the benchmark has subjects to choose from. Options of a single engine are always accepted, and listed by --help
    where --engine names that engine.
    """
    engine = _engine_named(sys.argv)

    def only(name: str, text: str) -> str:
        """The help of an option of the engine `name`."""
        return text if engine == name else argparse.SUPPRESS

    top = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = top.add_argument_group("what is measured").add_argument
    add(
        "-c",
        "--checkpoint-path",
        metavar="MODEL",
        help="a folder, a GGUF file, a hub id, or demo for the embedded checkpoint (default: Qwen/Qwen-7B, with --chat "
        "Qwen/Qwen-7B-Chat)",
    )
    add("--revision", help="branch, tag or commit of a hub id")
    add(
        "--adapter",
        metavar="ADAPTER",
        help="a PEFT adapter of that model (LoRA and others): a folder or a hub id, with a revision as ID@REVISION",
    )
    add(
        "--adapter-mode",
        choices=("merge", "apply"),
        default=None,
        help="add the adapter to the weights (default), or compute it beside them in its own precision",
    )
    add("-d", "--data", metavar="DIR", help="folder with the official files, or demo (default: download from the hub)")
    add(
        "--recipe",
        choices=tuple(recipes),
        default="default",
        help="the corrected protocol, or item for item what the 2023 scripts computed",
    )
    top.shots = shots
    if "chat" in shots:
        alone = "base" not in shots  # a benchmark of conversations alone needs no flag
        add(
            "--chat",
            action="store_true",
            default=alone,
            help="the chat protocol, through the checkpoint's chat template",
        )
        add(
            "--template",
            metavar="NAME|FILE",
            help="how conversations are written, where the checkpoint has no template or another one is wanted: a format by "
            "its name (baichuan, chatglm2, chatml, internlm, llama2, vicuna), or a file with a template in Jinja",
        )
    if shots:
        own = ", ".join(f"{number} in {name} mode" for name, number in shots.items())
        add("--shots", type=count, metavar="N", help=f"examples in the prompt (default: {own})")
    if subjects:
        add("--subjects", type=names, metavar="A,B", help="only these subjects")
    add(
        "--limit",
        type=whole_number,
        metavar="N",
        help="the first N items of every subject or set (the rows are marked partial)",
    )

    if writes:
        add = top.add_argument_group("how text is generated").add_argument
        add(
            "--max-new-tokens",
            type=whole_number,
            default=tokens if shots else None,
            metavar="N",
            help=f"length of a reply in tokens (default: {tokens if shots else 'as the benchmark says'})",
        )
    if "chat" in writes:
        add("--system-prompt", metavar="TEXT", help="system prompt (default: that of the checkpoint's template)")
        add(
            "--thinking",
            choices=("auto", "on", "off"),
            default="auto",
            help="reasoning models: auto leaves it to the template",
        )
        add(
            "--reasoning-marks",
            type=marks,
            default=(),
            metavar="OPEN,CLOSE",
            help="what a reply's reasoning stands between, where the model's marks are not known (<think> and others are)",
        )

    add = top.add_argument_group("how it is computed").add_argument
    add(
        "--batch-size",
        type=auto_or_number,
        default=None,
        metavar="auto|N",
        help="items per forward pass; auto (default) takes what fits and halves it when memory runs out",
    )
    add(
        "--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto", help="auto: the checkpoint's own"
    )
    add("--quantize", choices=("none", "int8", "nf4"), default="none", help="weights in 8 or 4 bits, by bitsandbytes")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add(
        "--attn",
        choices=("auto", "eager", "sdpa", "flash"),
        default="auto",
        help="the model's attention implementation where prefixes are not shared",
    )
    add("--max-seq-len", type=whole_number, metavar="N", help="context limit in tokens (default: the model's own)")
    add(
        "--too-long",
        choices=("error", "wrong"),
        default="error",
        help="items that do not fit the context even without shots: refuse the run, or leave them unanswered and count them as "
        "wrong",
    )
    add("--dynamic-ntk", choices=("auto", "on", "off"), default="auto", help="auto: as the checkpoint's config says")
    add("--logn", choices=("auto", "on", "off"), default="auto", help="auto: as the checkpoint's config says")
    add(
        "--window",
        default="off",
        metavar="off|auto|W|W,W,...",
        help="window attention: keys per query, by layer",
    )
    add(
        "--train-length",
        type=whole_number,
        metavar="N",
        help="trained length in tokens (default: the config's)",
    )
    add("--trust-remote-code", action="store_true", help="execute the Python code in the checkpoint's repository")
    add("--hub", choices=("hf", "modelscope"), default="hf", help="where hub ids are looked up")
    add(
        "--engine",
        choices=("hf", "vllm", "api"),
        default="hf",
        help="hf: transformers in this process; vllm: vLLM in this process; api: an OpenAI-compatible server "
        "(--engine vllm --help and --engine api --help list their own options)",
    )
    add(
        "--no-self-check",
        action="store_true",
        help="skip the comparison with transformers' own forward on a few items (the row says so)",
    )
    add("--seed", type=count, default=1234, help="seed of the random streams (default 1234)")
    add(
        "--tensor-parallel-size",
        type=whole_number,
        default=1,
        metavar="N",
        help=only("vllm", "GPUs that the model is split over"),
    )

    about = "-c names the checkpoint that it serves, for the tokenizer; without -c only text can be generated"
    group = top.add_argument_group("a server", about) if engine == "api" else top
    add = group.add_argument
    add("--base-url", metavar="URL", help=only("api", "such as http://127.0.0.1:8000/v1"))
    add("--served-model", metavar="NAME",
        help=only("api", "the model's name on the server (default: the only one that it lists)"))  # fmt: skip
    add("--concurrency", type=whole_number, default=8, metavar="N",
        help=only("api", "concurrent requests (default 8)"))  # fmt: skip
    add("--request-timeout", type=seconds, default=600.0, metavar="S",
        help=only("api", "timeout of a request in seconds (default 600)"))  # fmt: skip
    add("--api-key-env", default="OPENAI_API_KEY", metavar="NAME",
        help=only("api", "environment variable with the API key, if one is needed (default OPENAI_API_KEY)"))  # fmt: skip

    gate = "a gate against a stored run: exit status 3 when this one is worse"
    add = top.add_argument_group(gate).add_argument
    add("--gate", metavar="RUN", help="the baseline: a run of -o, a sample file or a folder of them")
    add("--max-loss", type=points, metavar="D", help="the loss that is allowed, in points (perplexity: in percent)")
    add("--sequential", action="store_true",
        help="ask in a random order fixed by the baseline, and stop when the verdict is sure")  # fmt: skip
    add("--gate-seed", type=count, metavar="N", help="another order than the baseline's own (exploratory)")
    add("--junit", metavar="FILE", help="write the verdicts as JUnit XML")
    add("--gate-summary", metavar="FILE", help="append the verdicts to a file in Markdown ($GITHUB_STEP_SUMMARY)")

    add = top.add_argument_group("what is written").add_argument
    add(
        "-o",
        "--output-dir",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of the CSV and of samples/ (default: results)",
    )
    add("--overwrite", action="store_true", help="discard stored answers and ask again")
    if shots:
        add("--rescore", metavar="RUN", help="no model: score the stored replies of RUN under this command's recipe")
        add("--export", type=Path, metavar="DIR", help=argparse.SUPPRESS)  # kept beside tools/export_qwen2.py
        add("--dump-prompts", action="store_true", help="no model: print every prompt as one line of JSON and exit")
    add("--no-prompts", action="store_true", help="store the prompts' hashes instead of their texts")
    add("--quiet", action="store_true", help="no progress on stderr")
    return top


def mode(args: argparse.Namespace) -> str:
    """ "chat" or "base"."""
    return "chat" if getattr(args, "chat", False) else "base"


def demo_folder(benchmark: str) -> Path:
    """The demonstration's data for one of the eight benchmarks."""
    return demo.FOLDER / "data" / benchmark


def source(args: argparse.Namespace, demonstration: Path | None) -> Source:
    """Where this run's data comes from. demonstration: the benchmark's small data, which `-c demo` uses unless -d names other
    data. Raises DataError where it is requested and does not exist."""
    if args.data == demo.NAME or (args.data is None and args.checkpoint_path == demo.NAME and demonstration):
        if demonstration is None:
            raise DataError("this benchmark has no demonstration data; name its own with -d DIR")
        if not demonstration.is_dir():
            raise DataError(f"{demonstration} is missing; restore it: git checkout -- {demonstration}")
        return Source(demonstration, args.hub)
    return Source(Path(args.data) if args.data else None, args.hub)


def model_spec(args: argparse.Namespace) -> ModelSpec:
    """The model that the options describe. Raises CheckpointError when the demonstration's files were changed, InputError for
    an option that is of no use alone."""
    path = args.checkpoint_path or DEFAULT_CHECKPOINT[mode(args)]
    if args.adapter_mode and not args.adapter:
        raise InputError("--adapter-mode says how an adapter is used; name one with --adapter")
    return ModelSpec(
        path=str(demo.checkpoint()) if path == demo.NAME else path,
        revision=args.revision,
        hub=args.hub,
        dtype=args.dtype,
        quantize=args.quantize,
        device=args.device,
        attention=args.attn,
        trust_remote_code=args.trust_remote_code,
        max_seq_len=args.max_seq_len,
        dynamic_ntk=args.dynamic_ntk,
        logn=args.logn,
        window=args.window,
        train_length=args.train_length,
        template=_template(args),
        tables_of_2023=args.recipe == "qwen2023",
        adapter=args.adapter,
        adapter_mode=args.adapter_mode or "merge",
    )


def _template(args: argparse.Namespace) -> str | None:
    """What --template names, None for the checkpoint's own. Raises InputError where nothing is a conversation."""
    named: str | None = getattr(args, "template", None)
    if named is not None and mode(args) != "chat":
        raise InputError(
            "--template says how conversations are written, and this run has none; add --chat, or leave it out"
        )
    return named


def command() -> str:
    """The command line as it was typed, for the manifest."""
    return " ".join([program, *sys.argv[1:]] if program else ["python", *sys.argv])


def _engine_named(words: Sequence[str]) -> str:
    """The engine that a command line names, "" for none."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--engine":
            return value if equals else "".join(words[index + 1 : index + 2])
    return ""
