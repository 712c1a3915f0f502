"""Which figures stand in which table: the five tables of the Qwen-7B README, and those of RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column: its head, the benchmark and (metric, group) of ours, the same of published.csv, and its setting there.

    shots, where: what a row of ours must have to be in this protocol (number of shots; a part of the signature). table: in
    published.csv, where it is not the benchmark's name. lower: less is better. known: whether enough was published to ask the
    same; else ours are marked as not comparable. field: the CSV column that holds the figure (memory stands beside a value).
    ranked: whether one figure is better than another.
    """

    head: str
    benchmark: str
    ours: tuple[str, str]
    published: tuple[str, str]
    setting: str = "5-shot"
    shots: str = "5"
    where: str = ""
    table: str = ""
    digits: int = 1
    lower: bool = False
    known: bool = True
    field: Literal["value", "peak_memory_gb", "weights_gb"] = "value"
    ranked: bool = True


@dataclass(frozen=True)
class Table:
    """A table: its name in the markers, its title, a line a model, and a column a figure; rows of one mode.

    by: what beside the model makes another line, where published.csv gives it as the setting: "context" (extension) or
    "precision"; "model" where nothing does.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    mode: str = "base"
    by: Literal["model", "context", "precision"] = "model"
    notes: tuple[str, ...] = field(default=())


WMT22 = "WMT22: shots, prompt and BLEU signature of the published figures are not known."
LONG_PPL = (
    "Perplexity by length in tokens. The documents behind the published rows are not public: compare only shapes."
)
HFAGENT = (
    "Signatures with `hfagent-own` answer our own instructions in place of the 27 published ones; the agent's prompt is "
    "ours unless `--agent-prompt` gave another."
)
MEMORY = (
    "Memory is the peak of the run: of the process on a CPU, of the device's allocator on a GPU. Weights are all stored "
    "tensors, with the state of quantized ones. Differences are in points, paired by item, with their 95% intervals."
)
GREEDY = "|samples:1|temp:0"


def _five_shot(benchmark: str, heads: Mapping[str, tuple[str, str]]) -> tuple[Column, ...]:
    """Columns of the 5-shot protocol: head -> (metric, group), where the group "all" has no name in published.csv."""
    return tuple(
        Column(head, benchmark, (metric, group), (metric, "" if group == "all" else group))
        for head, (metric, group) in heads.items()
    )


def _accuracy(*groups: str) -> dict[str, tuple[str, str]]:
    return {group: ("acc", group) for group in groups}


AVERAGE = {"Average": ("acc", "all")}
MAIN = Table(
    "main",
    "Benchmarks",
    (
        *_five_shot("mmlu", {"MMLU": ("acc", "all")}),
        *_five_shot("ceval", {"C-Eval": ("acc", "all")}),
        *_five_shot("cmmlu", {"CMMLU": ("acc", "all")}),
        Column("GSM8K", "gsm8k", ("acc", "all"), ("acc", ""), "8-shot", "8"),
        Column("HumanEval", "humaneval", ("pass@1", "all"), ("pass@1", ""), "0-shot", "0", GREEDY),
        Column("WMT22 (en-zh)", "wmt22", ("bleu", "en-zh"), ("bleu en-zh", ""), known=False),
    ),
    notes=(WMT22,),
)
PRECISION = Table(
    "precision",
    "Precision",
    (
        Column("MMLU", "mmlu", ("acc", "all"), ("mmlu acc", ""), table="quantization"),
        Column("Difference to BF16", "mmlu", ("acc_minus_bf16", "all"), ("", ""), known=False, ranked=False),
        Column("Weights (GB)", "mmlu", ("acc", "all"), ("", ""), digits=3, lower=True, known=False, field="weights_gb"),
        Column("Memory (GB)", "mmlu", ("acc", "all"), ("memory GB", ""), table="quantization", lower=True, known=False,
               field="peak_memory_gb"),
    ),
    by="precision",
    notes=(MEMORY,),
)  # fmt: skip
PLUGIN = Table(
    "plugin",
    "Tool use: ReAct plugins",
    (
        Column("Tool selection (acc., ↑)", "plugin", ("tool_selection", "react"), ("tool selection acc", ""), "", "0"),
        Column("Tool input (Rouge-L, ↑)", "plugin", ("tool_input", "react"), ("tool input rouge-l", ""), "", "0", digits=2),
        Column("False positives (↓)", "plugin", ("false_positive", "react"), ("false positive rate", ""), "", "0", lower=True),
    ),
    mode="chat",
)  # fmt: skip
AGENT = Table(
    "hfagent",
    "Tool use: HF agent",
    tuple(
        Column(head, "plugin", (metric, "hfagent"), (metric.replace("_", " "), ""), "", "0", table="hfagent", digits=2)
        for head, metric in (
            ("Tool selection (↑)", "tool_selection"),
            ("Tool used (↑)", "tool_used"),
            ("Code (↑)", "code"),
        )
    ),
    mode="chat",
    notes=(HFAGENT,),
)
CHAT = Table(
    "chat",
    "Chat",
    (
        Column("MMLU (0-shot)", "mmlu", ("acc", "all"), ("acc", ""), "0-shot chat", "0"),
        Column("C-Eval val (0-shot)", "ceval", ("acc", "all"), ("acc", ""), "0-shot chat, val", "0"),
        Column("GSM8K (0-shot)", "gsm8k", ("acc", "all"), ("acc", ""), "0-shot chat", "0"),
        Column("GSM8K (4-shot)", "gsm8k", ("acc", "all"), ("acc", ""), "4-shot chat", "4"),
        Column("HumanEval", "humaneval", ("pass@1", "all"), ("pass@1", ""), "0-shot chat", "0", GREEDY),
    ),
    mode="chat",
)
DIRECTIONS = Table(
    "wmt22",
    "WMT22, both directions",
    tuple(
        Column(head, "wmt22", ("bleu", group), (f"bleu {head}", ""), known=False)
        for head, group in (("en-zh", "en-zh"), ("zh-en", "zh-en"), ("average", "all"))
    ),
    notes=(WMT22,),
)
SUBJECTS = (
    Table("mmlu", "MMLU by category", _five_shot("mmlu", {
        **AVERAGE, **_accuracy("STEM", "Social Sciences", "Humanities", "Others"), "Macro": ("acc_macro", "all"),
    })),
    Table("ceval", "C-Eval by category", _five_shot("ceval", {
        **AVERAGE, **_accuracy("STEM", "Social Science", "Humanities", "Other", "Hard"), "Micro": ("acc_micro", "all"),
    })),
    Table("cmmlu", "CMMLU by category", _five_shot("cmmlu", {
        **AVERAGE,
        **_accuracy("STEM", "Humanities", "Social Science", "Other", "China specific"),
        "Micro": ("acc_micro", "all"),
    })),
)  # fmt: skip


def long_ppl(rows: Sequence[Mapping[str, str]], published: Sequence[Mapping[str, str]]) -> Table:
    """The long-context table: a column for every length that anybody measured."""
    lengths = {int(row["group"]) for row in rows if row["metric"] == "perplexity"}
    lengths |= {int(row["group"]) for row in published if row["table"] == "long_ppl"}
    columns = [
        Column(str(length), "long_ppl", ("perplexity", str(length)), ("perplexity", str(length)), "", "0",
               digits=2, lower=True, known=False)
        for length in sorted(lengths)
    ]  # fmt: skip
    return Table("long_ppl", "Long context", tuple(columns), by="context", notes=(LONG_PPL,))


def tables(rows: Sequence[Mapping[str, str]], published: Sequence[Mapping[str, str]]) -> dict[str, Table]:
    """Every table by name. rows: ours of long_ppl."""
    found = (MAIN, PRECISION, PLUGIN, AGENT, long_ppl(rows, published), CHAT, DIRECTIONS, *SUBJECTS)
    return {table.name: table for table in found}
