"""Perplexity of long texts at many lengths, with dynamic NTK, LogN and window attention on any rotary model.

python eval/long_ppl.py -c Qwen/Qwen-7B -d DIR            DIR holds .txt files, or is a .jsonl file with {"text": ...}
python eval/long_ppl.py -c Qwen/Qwen-7B --grid readme     the four rows of the published table
python eval/long_ppl.py -c Qwen/Qwen-7B --grid none,dynamic_ntk+local_attn --lengths 2048,8192
python eval/long_ppl.py -c demo                           the embedded demonstration

Without --grid one row is measured, as --dynamic-ntk, --logn and --window say. The published table's documents were not
published, so its row is not comparable in figures, only in shape.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from qwen_eval import data, main, options, schema
from qwen_eval.runs import run as runner
from qwen_eval.stats import metrics

LENGTHS = (1024, 2048, 4096, 8192, 16384)
DEMO_LENGTHS = (128, 256, 512, 1024, 2048)
SWITCHES = ("dynamic_ntk", "logn", "local_attn")
README = ("none", "dynamic_ntk", "dynamic_ntk+logn", "dynamic_ntk+logn+local_attn")


def lengths(text: str) -> tuple[int, ...]:
    """Comma-separated lengths in tokens, at least 2 each, for argparse."""
    values = tuple(options.whole_number(part.strip()) for part in text.split(","))
    if min(values) < 2:
        raise argparse.ArgumentTypeError("a chunk needs two tokens: the first is context only")
    return tuple(sorted(set(values)))


def grid(text: str) -> tuple[str, ...]:
    """`readme`, or comma-separated rows such as none,dynamic_ntk+logn, for argparse."""
    rows = README if text == "readme" else tuple(part.strip() for part in text.split(","))
    for row in rows:
        if row != "none" and not set(row.split("+")) <= set(SWITCHES):
            raise argparse.ArgumentTypeError(f"{row!r} is not none or a sum of {', '.join(SWITCHES)}")
    return rows


def score(sample: schema.Sample, measured: schema.Measured) -> schema.Score:
    """Sums over the documents; the division comes at the end."""
    sums = {name: float(sum(getattr(measured, name))) for name in ("nll", "tokens", "bytes", "chunks")}
    return schema.Score({**sums, "documents": float(len(measured.nll)), "dropped": float(measured.dropped)}, None)


def measure(scored: Sequence[schema.Scored]) -> list[schema.Metric]:
    """Perplexity and bits per byte at every length, and how much text each rests on."""
    figures: list[schema.Metric] = []
    for item in scored:
        cell = item.response
        assert isinstance(cell, schema.Measured)
        figures += metrics.perplexity(item.sample.group, cell.nll, cell.tokens, cell.bytes)
        for name in ("documents", "tokens", "chunks"):
            value = item.score.stats[name]
            figures.append(
                schema.Metric(name, item.sample.group, value, value, value, int(item.score.stats["documents"]))
            )
    return figures


def remarks(scored: Sequence[schema.Scored]) -> list[str]:
    """Documents that were too short, and lengths without an interval."""
    dropped = {item.sample.group: int(item.score.stats["dropped"]) for item in scored if item.score.stats["dropped"]}
    found = [f"{count} documents are too short for length {length}" for length, count in dropped.items()]
    alone = [item.sample.group for item in scored if item.score.stats["documents"] == 1]
    if alone:
        found.append(f"a single document gives no interval (length {', '.join(alone)})")
    return found


def build(args: argparse.Namespace) -> schema.Benchmark:
    found = data.documents(options.source(args, "long_ppl"))
    cells = args.lengths or (DEMO_LENGTHS if options.on_demo_data(args, "long_ppl") else LENGTHS)
    if args.stride and args.stride >= min(cells):
        raise schema.InputError(
            f"--stride {args.stride} has to be shorter than the shortest of --lengths, {min(cells)}"
        )
    same = max(cells) if args.documents == "same" else 0
    samples = []
    for length in cells:
        request = schema.Measure(found.texts, length, same, args.stride, args.max_tokens, args.max_memory)
        samples.append(schema.Sample(str(length), request, None, str(length)))
    return schema.Benchmark(
        name="long_ppl",
        version=1,
        recipe=args.recipe,
        mode="base",
        shots=0,
        samples=samples,
        score=score,
        metrics=measure,
        signature={
            "documents": args.documents,
            "lengths": ",".join(map(str, cells)),
            "stride": str(args.stride or "none"),
            "max": str(args.max_tokens or "all"),
            "data": data.content_hash([text] for text in found.texts),
        },
        headline=("perplexity", str(max(cells))),
        remarks=remarks,
        origin=found.origin,
    )


def rows(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments of every row of the grid; one row without --grid."""
    if not args.grid:
        return [args]
    made = []
    for row in args.grid:
        on = {name: "on" if name in row.split("+") else "off" for name in SWITCHES}
        window = ("auto" if args.window == "off" else args.window) if on["local_attn"] == "on" else "off"
        changes = {"dynamic_ntk": on["dynamic_ntk"], "logn": on["logn"], "window": window}
        made.append(argparse.Namespace(**{**vars(args), **changes}))
    return made


def run(args: argparse.Namespace) -> int:
    """Every row of the grid with the model loaded once. Returns the exit status."""
    build(args)  # what is wrong with the data is said before the model is looked for
    engine = None if args.rescore or args.dump_prompts else runner.open_engine(rows(args)[0])
    for row in rows(args):
        if engine is not None:
            engine.extend(options.model_spec(row))
        runner.run(row, build, engine=engine)
    return 0


def parser() -> options.Parser:
    """The command line."""
    made = options.parser(__doc__, {"base": 0})
    add = made.add_argument
    add("--lengths", type=lengths, metavar="L,L,...", help=f"tokens (default {','.join(map(str, LENGTHS))})")
    add(
        "--grid", type=grid, metavar="ROWS", help="readme, or rows such as none,dynamic_ntk,dynamic_ntk+logn+local_attn"
    )
    add("--documents", choices=("same", "all"), default="same",
        help="same: only documents as long as the longest length, so that every length scores the same text; "
        "all: every document, a short rest dropped")  # fmt: skip
    add("--stride", type=options.whole_number, metavar="S", help="sliding windows: score only their last S tokens")
    add("--max-tokens", type=options.count, default=0, metavar="N", help="stop a cell after N scored tokens (0: all)")
    add("--max-memory", type=options.gibibytes, default=0.0, metavar="GIB",
        help="memory that reading a chunk may take beyond the weights (default: what is free)")  # fmt: skip
    return made


SCRIPT = main.Script(parser, build)

if __name__ == "__main__":
    made = parser()
    parsed = made.parse_args()
    main.exit_with(made.prog, lambda: run(parsed))
