"""What the benchmarks of generated text have in common: conversations, the fields that name them, how replies ended."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence

from qwen_eval import options
from qwen_eval.schema import Generate, Generated, Message, Metric, Scored
from qwen_eval.stats import metrics

LONG_SHARE = 0.01  # of texts cut by their length, above which a reader must be told


def chat(
    args: argparse.Namespace,
    turn: str,
    key: str,
    samples: int = 1,
    temperature: float = 0.0,
    stop: tuple[str, ...] = (),
) -> Generate:
    """One user turn as a request, with the run's system text, reply length and thinking mode."""
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
    )


def digest(text: str) -> str:
    """A short name for a text, for signatures: the first 8 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def signature(args: argparse.Namespace) -> dict[str, str]:
    """The signature's fields for generated text: reply length and, in chat, the system text and the thinking mode."""
    fields = {"max": str(args.max_new_tokens)}
    if options.mode(args) == "chat":
        system = args.system_prompt
        fields["system"] = "own" if system is None else digest(system)
        fields["thinking"] = args.thinking
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
    cut = sum(item.score.stats["cut"] for item in scored)
    texts = int(sum(item.score.stats["texts"] for item in scored))
    return metrics.share_of("cut_by_length", "all", cut, texts)


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
