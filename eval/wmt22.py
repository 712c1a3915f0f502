"""WMT22 general translation, English to Chinese (2,037 segments) and Chinese to English (1,875).

python eval/wmt22.py -c Qwen/Qwen-7B                   both directions, 5-shot; sacrebleu fetches the test set
python eval/wmt22.py -c Qwen/Qwen-7B -d DIR            DIR holds generaltest2022.en-zh.src.en, ...ref.A.zh and so on;
                                                       ...en-zh.docid, the document of every line, if there is one
python eval/wmt22.py --hypotheses FILE --direction en-zh    scores another system's translations, no model
python eval/wmt22.py -c demo                           the embedded demonstration, in seconds

Qwen never published its shots, prompt or signature; ours are in the signature, and the published row is not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen_eval import options
from qwen_eval.data.files import content_hash, text_lines
from qwen_eval.data.official import official
from qwen_eval.data.translation import Segment, Wmt22, translation_shots, wmt22
from qwen_eval.main import main
from qwen_eval.schema import DataError, Generate, Generated, InputError, Metric, Sample, Score, Scored
from qwen_eval.stats import intervals, scores
from qwen_eval.tasks import generation
from qwen_eval.tasks.benchmark import Benchmark
from qwen_eval.tasks.facts import Column, Table, View

LANGUAGES = {"en": "English", "zh": "Chinese"}
TOKENIZE = {"zh": "zh", "en": "13a"}  # sacrebleu's tokenizer by target language
DIRECTIONS = ("en-zh", "zh-en")
SHOTS = Path(__file__).with_name("wmt22_shots.jsonl")
REFERENCES = {"A": ("A",), "B": ("B",), "both": ("A", "B")}
UNKNOWN = "WMT22: shots, prompt and BLEU signature of the published figures are not known."
UNKNOWN_ZH = "WMT22：已发布数字所用的示例、提示与 BLEU 签名未公布。"


class Translation(Benchmark):
    name, version, title, order = "wmt22", 1, "WMT22", 6
    shots = {"base": 5}
    writes = ("base",)
    recipes = ("default", "qwen2023")
    released = True
    headline = ("bleu", "all")
    sums = official("wmt22")
    suite = {"base": ((),)}
    views = tuple(View("bleu", group=direction, kind="bleu", decides=False) for direction in DIRECTIONS)
    columns = {
        "main": (
            Column("WMT22 (en-zh)", ("bleu", "en-zh"), ("bleu en-zh", ""), "5-shot", "5", known=False, zh="WMT22（英译中）",
                   note=UNKNOWN, note_zh=UNKNOWN_ZH),
        ),
        "wmt22": tuple(
            Column(head, ("bleu", group), (f"bleu {head}", ""), "5-shot", "5", known=False, zh=zh, note=UNKNOWN,
                   note_zh=UNKNOWN_ZH)
            for head, group, zh in (("en-zh", "en-zh", "英译中"), ("zh-en", "zh-en", "中译英"), ("average", "all", "平均"))
        ),
    }  # fmt: skip
    tables = (Table("wmt22", "WMT22, both directions", order=7, chinese={"WMT22, both directions": "WMT22 双向"}),)
    data: Sequence[Wmt22]

    def read(self) -> list[Wmt22]:
        return [wmt22(self.source, direction, REFERENCES[self.args.ref]) for direction in self.directions()]

    def directions(self) -> Sequence[str]:
        return DIRECTIONS if self.args.direction == "both" else (self.args.direction,)

    def data_origin(self) -> str:
        return ", ".join(dict.fromkeys(part.origin for part in self.data))

    def parts(self) -> dict[str, Sequence[str]]:
        """The sources and each set of references, by name."""
        return {name: lines for part in self.data for name, lines in sides(part).items()}

    def samples(self) -> list[Sample]:
        """One sample a segment."""
        made = []
        for part in self.data:
            first, second = (LANGUAGES[code] for code in part.direction.split("-"))
            header = f"Translate the following sentences from {first} into {second}.\n\n"
            examples = shots(self.args.shots_file, part.direction, self.shot_count)
            documents = part.documents or [None] * len(part.segments)
            for segment, document in zip(part.segments, documents, strict=True):
                name = f"{part.direction}/{segment.index}"
                request = Generate(
                    pair(part.direction, segment.source),
                    self.args.max_new_tokens,
                    header=header,
                    shots=examples,
                    stop=("\n",),
                    key=f"wmt22/{name}",
                )
                sample = Sample(name, request, list(segment.references), part.direction, cluster=document)
                made.append(sample)
        return made

    def score(self, sample: Sample, reply: Generated) -> Score:
        """The translation is the reply's first line."""
        translation = reply.texts[0].split("\n", 1)[0].strip()
        return Score({"empty": float(not translation), **generation.endings(reply)}, translation)

    def unanswered(self, sample: Sample, empty: Score) -> Score:
        """An empty translation."""
        return Score(super().unanswered(sample, empty).stats, empty.answer)

    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """BLEU and chrF2 by direction and their means ("all"), the shares of empty and of cut translations."""
        empty = intervals.of_items("empty", "all", scored, "empty")
        table, _ = self._figures(scored)
        return [*table, empty, generation.cut_share(scored)]

    def remarks(self, scored: Sequence[Scored]) -> list[str]:
        """sacrebleu's signatures, what the intervals take as independent, and how the replies ended."""
        _, signatures = self._figures(scored)
        lines = [f"{name}: {text}" for name, text in signatures.items()]
        unknown = list(dict.fromkeys(item.sample.group for item in scored if item.sample.cluster is None))
        if unknown:
            lines.append(
                f"the documents of {' and '.join(unknown)} are not known: the intervals take segments as independent, and are "
                f"too narrow where quality differs between documents; put their names, one a line, into "
                f"{' and '.join(f'generaltest2022.{group}.docid' for group in unknown)} beside the other files"
            )
        return lines + generation.remarks(scored)

    def _figures(self, scored: Sequence[Scored]) -> tuple[list[Metric], dict[str, str]]:
        """The figures of these responses, computed once: each corpus without each of its parts."""
        if self._computed is None or self._computed[0] is not scored:
            self._computed = scored, figures(scored)
        return self._computed[1]

    _computed: tuple[Sequence[Scored], tuple[list[Metric], dict[str, str]]] | None = None

    def fields(self) -> dict[str, str]:
        directions = self.directions()
        rows = [row for row in translation_shots(self.args.shots_file) if row.direction in directions]
        segments: list[Segment] = [segment for part in self.data for segment in part.segments]
        return {
            **generation.signature(self.args),
            "shots-file": content_hash(rows),
            "ref": self.args.ref,
            "bleu": "+".join(TOKENIZE[direction[-2:]] for direction in directions),
            "data": content_hash(segments),
        }

    def given_texts(self) -> tuple[list[Path], list[Sequence[str]]] | None:
        """With --hypotheses, the translations of a file in a model's place: of every direction those of the segments that are
        asked, the first ones. Raises InputError for another number of files, DataError for one of lines."""
        paths = self.args.hypotheses
        if not paths:
            return None
        if len(paths) != len(self.data):
            raise InputError(
                "--hypotheses takes the files of en-zh and of zh-en, in this order; or name one with --direction"
            )
        found: list[Sequence[str]] = []
        for path, part in zip(paths, self.data, strict=True):
            lines, whole = text_lines(path), len(part.segments)
            asked = sum(sample.group == part.direction for sample in self.asked)
            if len(lines) not in (whole, asked):
                some = f", or for the first {asked}" if asked < whole else ""
                raise DataError(
                    f"{path}: {len(lines)} texts for {whole} items of {part.direction}; give one for each{some}"
                )
            found += [(line,) for line in lines[:asked]]
        return paths, found

    @classmethod
    def add_options(cls, parser: options.Parser) -> None:
        add = parser.add_argument
        add("--direction", choices=(*DIRECTIONS, "both"), default="both")
        add("--ref", choices=tuple(REFERENCES), default="A", help="reference translation (default A)")
        add("--shots-file", type=Path, default=SHOTS, metavar="FILE", help="JSONL: direction, source, target")
        add("--hypotheses", type=Path, nargs="+", metavar="FILE", help="one translation a line, no model")


def pair(direction: str, source: str, target: str = "") -> str:
    """`English: ...` and `Chinese: ...`, one line a side; without a target, up to where the model continues."""
    first, second = (LANGUAGES[code] for code in direction.split("-"))
    return f"{first}: {source}\n{second}:" + (f" {target}\n\n" if target else "")


def shots(path: Path, direction: str, count: int) -> tuple[str, ...]:
    """The first `count` examples of a direction. Raises InputError for fewer, DataError for a malformed file."""
    rows = [row for row in translation_shots(path) if row.direction == direction]
    if len(rows) < count:
        raise InputError(f"{path} has {len(rows)} examples for {direction}; ask for at most {len(rows)} with --shots")
    return tuple(pair(direction, row.source, row.target) for row in rows[:count])


def sides(part: Wmt22) -> dict[str, list[str]]:
    """The sources and each set of references, by name."""
    references = zip(*(segment.references for segment in part.segments), strict=True)
    texts = dict(zip(part.refs, map(list, references), strict=True))
    named = {f"{part.direction} reference {ref}": lines for ref, lines in texts.items()}
    return {f"{part.direction} source": [segment.source for segment in part.segments], **named}


def figures(scored: Sequence[Scored]) -> tuple[list[Metric], dict[str, str]]:
    """BLEU and chrF2 by direction, their means where there are two, and sacrebleu's signatures by "metric direction"."""
    table: dict[str, list[Metric]] = {"bleu": [], "chrf2": []}
    signatures: dict[str, str] = {}
    for direction in dict.fromkeys(item.sample.group for item in scored):
        items = [item for item in scored if item.sample.group == direction]
        translations = [item.score.answer for item in items]
        references = list(zip(*(item.sample.target for item in items), strict=True))
        tokenize = TOKENIZE[direction.split("-")[1]]
        documents = [item.sample.cluster for item in items]
        for name, (metric, signature) in {
            "bleu": scores.bleu(direction, translations, references, tokenize, documents),
            "chrf2": scores.chrf(direction, translations, references, documents),
        }.items():
            table[name].append(metric)
            signatures[f"{name} {direction}"] = signature
    listed = [metric for parts in table.values() for metric in parts]
    return listed + [intervals.mean_of("all", parts) for parts in table.values() if len(parts) > 1], signatures


if __name__ == "__main__":
    main(Translation)
