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
from collections.abc import Mapping, Sequence

from qwen_eval import options
from qwen_eval.data.files import content_hash
from qwen_eval.data.long_texts import Documents, documents
from qwen_eval.main import main
from qwen_eval.schema import InputError, Measure, Measured, Metric, Sample, Score, Scored
from qwen_eval.stats import scores
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.facts import Column, Table, View

LENGTHS = (1024, 2048, 4096, 8192, 16384)
DEMO_LENGTHS = (128, 256, 512, 1024, 2048)
SWITCHES = ("dynamic_ntk", "logn", "local_attn")
README = ("none", "dynamic_ntk", "dynamic_ntk+logn", "dynamic_ntk+logn+local_attn")
NOTE = "Perplexity by length in tokens. The documents behind the published rows are not public: compare only shapes."
NOTE_ZH = "各长度（token 数）下的困惑度。已发布各行所用的文档未公开：可比较走势，不可比较数值。"


class LongPpl(Benchmark):
    name, version, title, order = "long_ppl", 1, "Long context", 8
    recipes = ("default", "qwen2023")
    released = True
    suite = {"base": (("--grid", "readme"),)}
    views = (View("perplexity", kind="perplexity", decides=False),)
    tables = (Table("long_ppl", "Long context", by="context", notes=(NOTE,), order=5, readme=True,
                    chinese={"Long context": "长上下文", NOTE: NOTE_ZH}),)  # fmt: skip
    data: Documents

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.headline = ("perplexity", str(max(self.lengths())))  # type: ignore[misc]  # this run's, not the class's

    def read(self) -> Documents:
        return documents(self.source)

    def parts(self) -> dict[str, Sequence[str]]:
        return {}

    def lengths(self) -> Sequence[int]:
        """The lengths of the chunks, in tokens."""
        chosen: Sequence[int] | None = self.args.lengths
        return chosen or (DEMO_LENGTHS if self.on_demo_data else LENGTHS)

    def check_options(self) -> None:
        if self.args.stride and self.args.stride >= min(self.lengths()):
            raise InputError(
                f"--stride {self.args.stride} has to be shorter than the shortest of --lengths, {min(self.lengths())}"
            )

    def samples(self) -> list[Sample]:
        args, texts = self.args, self.data.texts
        same = max(self.lengths()) if args.documents == "same" else 0
        return [
            Sample(str(n), Measure(texts, n, same, args.stride, args.max_tokens, args.max_memory), None, str(n))
            for n in self.lengths()
        ]

    def score(self, sample: Sample, reply: Measured) -> Score:
        """Sums over the documents; the division comes at the end."""
        sums = {name: float(sum(getattr(reply, name))) for name in ("nll", "tokens", "bytes", "chunks")}
        return Score({**sums, "documents": float(len(reply.nll)), "dropped": float(reply.dropped)}, None)

    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """Perplexity and bits per byte at every length, and how much text each rests on."""
        figures: list[Metric] = []
        for item in scored:
            cell, stats = item.response, item.score.stats
            assert isinstance(cell, Measured)
            figures += scores.perplexity(item.sample.group, cell.nll, cell.tokens, cell.bytes)
            for name in ("documents", "tokens", "chunks"):
                value = stats[name]
                figures.append(Metric(name, item.sample.group, value, value, value, int(stats["documents"])))
        return figures

    def remarks(self, scored: Sequence[Scored]) -> list[str]:
        """Documents that were too short."""
        dropped = {
            item.sample.group: int(item.score.stats["dropped"]) for item in scored if item.score.stats["dropped"]
        }
        return [f"{count} documents are too short for length {length}" for length, count in dropped.items()]

    def fields(self) -> dict[str, str]:
        return {
            "documents": self.args.documents,
            "lengths": ",".join(map(str, self.lengths())),
            "stride": str(self.args.stride or "none"),
            "max": str(self.args.max_tokens or "all"),
            "data": content_hash([text] for text in self.data.texts),
        }

    @classmethod
    def variants(cls, args: argparse.Namespace) -> list[argparse.Namespace]:
        """Every row of the grid; one row without --grid."""
        if not args.grid:
            return [args]
        made = []
        for row in args.grid:
            on = {name: "on" if name in row.split("+") else "off" for name in SWITCHES}
            window = ("auto" if args.window == "off" else args.window) if on["local_attn"] == "on" else "off"
            changes = {"dynamic_ntk": on["dynamic_ntk"], "logn": on["logn"], "window": window}
            made.append(argparse.Namespace(**{**vars(args), **changes}))
        return made

    @classmethod
    def columns_for(
        cls, rows: Sequence[Mapping[str, str]], published: Sequence[Mapping[str, str]]
    ) -> Mapping[str, tuple[Column, ...]]:
        """A column for every length that anybody measured."""
        measured = {int(row["group"]) for row in rows if row["metric"] == "perplexity"}
        measured |= {int(row["group"]) for row in published if row["table"] == "long_ppl"}
        columns = []
        for length in sorted(measured):
            key = ("perplexity", str(length))
            columns.append(Column(str(length), key, key, shots="0", digits=2, lower=True, known=False))
        return {"long_ppl": tuple(columns)}

    @classmethod
    def add_options(cls, parser: options.Parser) -> None:
        add = parser.add_argument
        add("--lengths", type=lengths, metavar="L,L,...", help=f"tokens (default {','.join(map(str, LENGTHS))})")
        add("--grid", type=grid, metavar="ROWS",
            help="readme, or rows such as none,dynamic_ntk,dynamic_ntk+logn+local_attn")  # fmt: skip
        add("--documents", choices=("same", "all"), default="same",
            help="same: only documents as long as the longest length, so that every length scores the same text; "
            "all: every document, a short rest dropped")  # fmt: skip
        add("--stride", type=options.whole_number, metavar="S", help="sliding windows: score only their last S tokens")
        add("--max-tokens", type=options.count, default=0, metavar="N",
            help="stop a cell after N scored tokens (0: all)")  # fmt: skip
        add("--max-memory", type=options.gibibytes, default=0.0, metavar="GIB",
            help="memory that reading a chunk may take beyond the weights (default: what is free)")  # fmt: skip


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


if __name__ == "__main__":
    main(LongPpl)
