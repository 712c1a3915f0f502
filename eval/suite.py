"""Every benchmark for one checkpoint in one process, the model loaded once a checkpoint; then the README's tables.

python eval/suite.py -c Qwen/Qwen-7B --chat-checkpoint Qwen/Qwen-7B-Chat    base and chat protocols
python eval/suite.py -c demo                                                the embedded demonstration

Takes every option the benchmarks share and hands it on; -d DIR holds one folder a benchmark (DIR/mmlu, DIR/gsm8k ...). What
was answered before is not asked again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import ceval
import cmmlu
import gsm8k
import humaneval
import long_ppl
import mmlu
import plugin_eval
import wmt22
from harness import arguments, demo, runner
from harness.schema import Engine

# (script, folder below -d, options of its own) in the order of the tables
BASE = (
    (mmlu, "mmlu", ()),
    (ceval, "ceval", ()),
    (cmmlu, "cmmlu", ()),
    (gsm8k, "gsm8k", ()),
    (humaneval, "humaneval", ()),
    (wmt22, "wmt22", ()),
    (long_ppl, "long_ppl", ("--grid", "readme")),
)
CHAT = (
    (mmlu, "mmlu", ("--chat",)),
    (ceval, "ceval", ("--chat",)),
    (gsm8k, "gsm8k", ("--chat",)),
    (gsm8k, "gsm8k", ("--chat", "--shots", "4")),
    (humaneval, "humaneval", ("--chat",)),
    (plugin_eval, "plugin", ()),
)


def plan(args: argparse.Namespace, shared: Sequence[str]) -> list[tuple[runner.Script, argparse.Namespace]]:
    """Each script with its arguments: base protocols on -c, chat protocols on --chat-checkpoint."""
    chat = args.chat_checkpoint or (demo.NAME if args.checkpoint_path == demo.NAME else None)
    jobs = [(job, args.checkpoint_path) for job in BASE] + [(job, chat) for job in CHAT if chat]
    planned = []
    for (script, folder, own), checkpoint in jobs:
        words = ["-c", checkpoint, *own]
        if args.data:
            words += ["-d", args.data if args.data == demo.NAME else str(Path(args.data) / folder)]
        options = script.parser().parse_args([*words, *shared])
        rows = script.rows(options) if script is long_ppl else [options]
        planned += [(script.SCRIPT, row) for row in rows]
    return planned


def main() -> None:
    parser = arguments.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("-c", "--checkpoint-path", default=arguments.DEFAULT_CHECKPOINT["base"], metavar="MODEL")
    parser.add_argument("--chat-checkpoint", metavar="MODEL", help="for the chat protocols (demo: the same)")
    parser.add_argument(
        "-d", "--data", metavar="DIR", help="one folder a benchmark below it, or demo; without it the hub"
    )
    args, shared = parser.parse_known_args()
    runner.exit_with(parser.prog, lambda: run(plan(args, shared)))


def run(jobs: Sequence[tuple[runner.Script, argparse.Namespace]]) -> int:
    """Runs the jobs in order; the model stays loaded while the checkpoint is the same. Returns the exit status."""
    for script, options in jobs:  # what is wrong with the data is said before hours of work
        script.build(options)
    engine: Engine | None = None
    loaded = None
    for script, options in jobs:
        if options.checkpoint_path != loaded:
            engine, loaded = runner.open_engine(options), options.checkpoint_path
        assert engine is not None
        engine.extend(arguments.model_spec(options))  # the long-context rows differ in this alone
        runner.run(options, script.build, script.finish, engine)
    return 0


if __name__ == "__main__":
    main()
