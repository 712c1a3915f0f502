"""Writes a Qwen-1 checkpoint as a copy in Qwen2's format, which transformers and vLLM run without any code of ours.

    python tools/export_qwen2.py -c Qwen/Qwen-7B -o DIR --max-seq-len 8192

Weights, tokenizer.json and chat template. The format has no dynamic NTK and no LogN; both are inactive up to the trained
length, so a copy for sequences up to there loses nothing, and a longer one is refused unless both are switched off. No code
that came with the checkpoint is run. Exit status 2 for bad input, with one line that names the remedy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT / "eval")]

from qwen_eval import options  # noqa: E402
from qwen_eval.data import demo  # noqa: E402
from qwen_eval.main import exit_with  # noqa: E402
from qwen_eval.schema import ModelSpec  # noqa: E402


def parser() -> options.Parser:
    """The command line: of the options of a benchmark's script those that a copy depends on."""
    made = options.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = made.add_argument
    add("-c", "--checkpoint-path", required=True, metavar="MODEL", help="a folder, a hub id, or demo")
    add(
        "-o", "--output-dir", type=Path, required=True, metavar="DIR", help="where the copy goes: a new or empty folder"
    )
    add("--revision", help="branch, tag or commit of a hub id")
    add("--hub", choices=("hf", "modelscope"), default="hf", help="where hub ids are looked up")
    add(
        "--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto", help="auto: the checkpoint's own"
    )
    add("--max-seq-len", type=options.whole_number, metavar="N", help="of the copy (default: the model's own)")
    add("--dynamic-ntk", choices=("auto", "on", "off"), default="auto", help="off: the copy may be longer without it")
    add("--logn", choices=("auto", "on", "off"), default="auto", help="off: the copy may be longer without it")
    return made


def export(args: argparse.Namespace) -> int:
    """Writes the copy and says what it is. Returns the exit status, 0. Raises InputError for bad input."""
    from qwen_eval.models.export import export_qwen2  # imports torch

    spec = ModelSpec(
        path=str(demo.checkpoint()) if args.checkpoint_path == demo.NAME else args.checkpoint_path,
        revision=args.revision,
        hub=args.hub,
        dtype=args.dtype,
        device="cpu",  # nothing is computed
        max_seq_len=args.max_seq_len,
        dynamic_ntk=args.dynamic_ntk,
        logn=args.logn,
    )
    print(export_qwen2(spec, args.output_dir))
    return 0


if __name__ == "__main__":
    made = parser()
    parsed = made.parse_args()
    exit_with(made.prog, lambda: export(parsed))
