"""WMT22 general translation, English to Chinese (2,037 segments) and Chinese to English (1,875).

python eval/wmt22.py -c Qwen/Qwen-7B                   both directions, 5-shot; sacrebleu fetches the test set
python eval/wmt22.py -c Qwen/Qwen-7B -d DIR            DIR holds generaltest2022.en-zh.src.en, ...ref.A.zh and so on
python eval/wmt22.py --hypotheses FILE --direction en-zh    scores somebody's translations, no model
python eval/wmt22.py -c demo                           the embedded demonstration, in seconds

Qwen never published its shots, prompt or signature; ours are in the signature, and the published row is not comparable.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from qwen_eval import data, main, options, schema
from qwen_eval.stats import metrics
from qwen_eval.tasks import generation

LANGUAGES = {"en": "English", "zh": "Chinese"}
TOKENIZE = {"zh": "zh", "en": "13a"}  # sacrebleu's tokenizer by target language
DIRECTIONS = ("en-zh", "zh-en")
SHOTS = Path(__file__).with_name("wmt22_shots.jsonl")
REFERENCES = {"A": ("A",), "B": ("B",), "both": ("A", "B")}


def pair(direction: str, source: str, target: str = "") -> str:
    """`English: ...` and `Chinese: ...`, one line a side; without a target, up to where the model continues."""
    first, second = (LANGUAGES[code] for code in direction.split("-"))
    return f"{first}: {source}\n{second}:" + (f" {target}\n\n" if target else "")


def shots(path: Path, direction: str, count: int) -> tuple[str, ...]:
    """The first `count` examples of a direction. Raises InputError for fewer, DataError for a malformed file."""
    rows = [row for row in data.translation_shots(path) if row.direction == direction]
    if len(rows) < count:
        raise schema.InputError(
            f"{path} has {len(rows)} examples for {direction}; ask for at most {len(rows)} with --shots"
        )
    return tuple(pair(direction, row.source, row.target) for row in rows[:count])


def sides(part: data.Wmt22) -> dict[str, list[str]]:
    """The sources and each set of references, by name."""
    references = zip(*(segment.references for segment in part.segments), strict=True)
    texts = dict(zip(part.refs, map(list, references), strict=True))
    named = {f"{part.direction} reference {ref}": lines for ref, lines in texts.items()}
    return {f"{part.direction} source": [segment.source for segment in part.segments], **named}


def samples(args: argparse.Namespace, part: data.Wmt22) -> list[schema.Sample]:
    """One sample a segment."""
    first, second = (LANGUAGES[code] for code in part.direction.split("-"))
    header = f"Translate the following sentences from {first} into {second}.\n\n"
    examples = shots(args.shots_file, part.direction, args.shots)
    made = []
    for segment in part.segments:
        name = f"{part.direction}/{segment.index}"
        request = schema.Generate(
            pair(part.direction, segment.source),
            args.max_new_tokens,
            header=header,
            shots=examples,
            stop=("\n",),
            key=f"wmt22/{name}",
        )
        made.append(schema.Sample(name, request, list(segment.references), part.direction))
    return made


def score(sample: schema.Sample, reply: schema.Generated) -> schema.Score:
    """The translation is the reply's first line."""
    translation = reply.texts[0].split("\n", 1)[0].strip()
    return schema.Score({"empty": float(not translation), **generation.endings(reply)}, translation)


def figures(scored: Sequence[schema.Scored]) -> tuple[list[schema.Metric], dict[str, str]]:
    """BLEU and chrF2 by direction, their means where there are two, and sacrebleu's signatures by "metric direction"."""
    table: dict[str, list[schema.Metric]] = {"bleu": [], "chrf2": []}
    signatures: dict[str, str] = {}
    for direction in dict.fromkeys(item.sample.group for item in scored):
        items = [item for item in scored if item.sample.group == direction]
        translations = [item.score.answer for item in items]
        references = list(zip(*(item.sample.target for item in items), strict=True))
        tokenize = TOKENIZE[direction.split("-")[1]]
        for name, (metric, signature) in {
            "bleu": metrics.bleu(direction, translations, references, tokenize),
            "chrf2": metrics.chrf(direction, translations, references),
        }.items():
            table[name].append(metric)
            signatures[f"{name} {direction}"] = signature
    listed = [metric for parts in table.values() for metric in parts]
    return listed + [metrics.mean_of("all", parts) for parts in table.values() if len(parts) > 1], signatures


def measure(scored: Sequence[schema.Scored]) -> list[schema.Metric]:
    """BLEU and chrF2 by direction and their means ("all"), the shares of empty and of cut translations."""
    empty = metrics.share("empty", "all", [item.score.stats["empty"] for item in scored])
    return [*figures(scored)[0], empty, generation.cut_share(scored)]


def remarks(scored: Sequence[schema.Scored]) -> list[str]:
    """sacrebleu's signatures, and how the replies ended."""
    return [f"{name}: {text}" for name, text in figures(scored)[1].items()] + generation.remarks(scored)


def build(args: argparse.Namespace) -> schema.Benchmark:
    directions = DIRECTIONS if args.direction == "both" else (args.direction,)
    source = options.source(args, "wmt22")
    parts = [data.wmt22(source, direction, REFERENCES[args.ref]) for direction in directions]
    rows = [row for row in data.translation_shots(args.shots_file) if row.direction in directions]
    label = {
        "shots-file": data.content_hash(rows),
        "ref": args.ref,
        "bleu": "+".join(TOKENIZE[d[-2:]] for d in directions),
    }
    return schema.Benchmark(
        name="wmt22",
        version=1,
        recipe=args.recipe,
        mode="base",
        shots=args.shots,
        samples=[sample for part in parts for sample in samples(args, part)],
        score=score,
        metrics=measure,
        signature={
            **generation.signature(args),
            **label,
            "data": data.content_hash(s for p in parts for s in p.segments),
        },
        headline=("bleu", "all"),
        remarks=remarks,
        origin=", ".join(dict.fromkeys(part.origin for part in parts)),
        changed=data.changed("wmt22", {name: lines for part in parts for name, lines in sides(part).items()}),
    )


def stand_in(args: argparse.Namespace) -> schema.Engine | None:
    """With --hypotheses, the translations of a file in a model's place."""
    from qwen_eval.engines.replay import GivenTexts

    if not args.hypotheses:
        return None
    if args.direction == "both" and len(args.hypotheses) != 2:
        raise schema.InputError(
            "--hypotheses takes the files of en-zh and of zh-en, in this order; or name one with --direction"
        )
    return GivenTexts(args.hypotheses, [(line,) for path in args.hypotheses for line in data.text_lines(path)])


def parser() -> options.Parser:
    """The command line."""
    made = options.parser(__doc__, {"base": 5}, generates=("base",))
    add = made.add_argument
    add("--direction", choices=(*DIRECTIONS, "both"), default="both")
    add("--ref", choices=tuple(REFERENCES), default="A", help="reference translation (default A)")
    add("--shots-file", type=Path, default=SHOTS, metavar="FILE", help="JSONL: direction, source, target")
    add("--hypotheses", type=Path, nargs="+", metavar="FILE", help="one translation a line, no model")
    return made


SCRIPT = main.Script(parser, build, stand_in=stand_in)

if __name__ == "__main__":
    main.main(SCRIPT)
