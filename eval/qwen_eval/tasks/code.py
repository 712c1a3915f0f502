"""What benchmarks of programs share: texts are completed to programs, which run with the benchmark's tests in the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from qwen_eval import options, sandbox
from qwen_eval.data.problems import completions
from qwen_eval.schema import Generated, InputError, Metric, Sample, Score, Scored
from qwen_eval.stats import intervals, scores
from qwen_eval.tasks import generation, judging
from qwen_eval.tasks.benchmark import TokenTexts
from qwen_eval.tasks.extract import code
from qwen_eval.tasks.facts import View

KS = (1, 10, 100)
KINDS = ("passed", "failed", "timeout", "infrastructure")


class Code(generation.Text):
    """A benchmark whose texts are programs, judged by running tests.

    A benchmark of one's own says what runs: `program`, and with `completion` what of a reply goes into it.
    """

    headline: ClassVar[tuple[str, str]] = ("pass@1", "all")
    views: ClassVar[tuple[View, ...]] = (View("pass@1", "passed", per="texts"),)

    # ------------------------------------------------------------------------------------- what a benchmark says
    def program(self, row: Any, text: str) -> sandbox.Program:
        """What is run for a row. text: what `completion` made of a reply."""
        raise NotImplementedError

    def completion(self, row: Any, text: str) -> str:
        """What of a text goes into the program: here the text, or the code that a chat reply holds."""
        return code.program(text) if self.mode == "chat" else text

    def target(self, row: Any) -> Any:
        return None

    def solution(self, row: Any) -> str:
        """The row's own solution as a reply that should pass; "" where there is none."""
        return ""

    # -------------------------------------------------------------------------------------------- what is asked
    def check_options(self) -> None:
        if self.args.samples > 1 and not self.args.temperature:
            raise InputError("--samples above 1 needs a --temperature above 0: greedy samples are all the same")
        sandbox.tier(self.args.allow_unsandboxed)  # refuses now, not after hours of generation

    def samples(self) -> list[Sample]:
        self._by_id = {self.identifier(row, index): row for index, row in enumerate(self.rows())}
        return super().samples()

    def sampling(self) -> dict[str, Any]:
        return {"samples": self.args.samples, "temperature": self.args.temperature}

    def fields(self) -> dict[str, str]:
        found = super().fields()
        data = found.pop("data")
        sampling = {"samples": str(self.args.samples), "temp": f"{self.args.temperature:g}"}
        if self.args.temperature:
            sampling["seed"] = str(self.args.seed)
        return {**found, **sampling, "cpu": f"{self.args.timeout:g}s", "data": data}

    # --------------------------------------------------------------------------------------- what counts as right
    def score_all(
        self, samples: Sequence[Sample], replies: Sequence[Generated], token_texts: TokenTexts, done: Callable[[], None]
    ) -> list[Score]:
        """Judges all completions together, as many at a time as there are CPUs."""
        rows = [self._by_id[sample.id] for sample in samples]
        unjudged = [0.0] * len(rows)

        def made(index: int, text: str) -> tuple[str, sandbox.Program]:
            """What of a text is judged, and the program; of one of which none can be made, those of an empty completion."""
            try:
                body = self.completion(rows[index], text)
                return body, self.program(rows[index], body)
            except InputError:
                raise
            except Exception as error:
                judging.tell(samples[index].id, error)
                unjudged[index] += 1.0
                return "", self.program(rows[index], "")

        pairs = [[made(index, text) for text in reply.texts] for index, reply in enumerate(replies)]
        bodies = [[body for body, _ in texts] for texts in pairs]
        programs = [program for texts in pairs for _, program in texts]
        left = [len(texts) for texts in bodies]
        owner = [index for index, texts in enumerate(bodies) for _ in texts]

        def ready(index: int, verdict: sandbox.Verdict) -> None:
            left[owner[index]] -= 1
            if not left[owner[index]]:
                done()

        with sandbox.Sandbox(cpu_seconds=self.args.timeout, allow_unsandboxed=self.args.allow_unsandboxed) as pool:
            verdicts = iter(pool.check(programs, ready))
        scores = [
            judged(texts, [next(verdicts) for _ in texts], reply) for texts, reply in zip(bodies, replies, strict=True)
        ]
        return [
            Score({**score.stats, judging.UNJUDGED: count}, score.answer) if count else score
            for score, count in zip(scores, unjudged, strict=True)
        ]

    def unanswered(self, sample: Sample, empty: Score) -> Score:
        """The answer is an empty completion for every sample that was wanted, as in a submission."""
        stats = {**super().unanswered(sample, empty).stats, **dict.fromkeys(KINDS, 0.0), "failed": empty.stats["texts"]}
        failed = {"verdict": "failed", "detail": "not asked: the prompt does not fit"}
        return Score(stats, [{**one, **failed} for one in empty.answer])

    # ----------------------------------------------------------------------------------------- how it is averaged
    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """pass@k for every k that the samples allow, and the shares of programs that ran out of time or were not judged."""
        totals = [int(item.score.stats["texts"]) for item in scored]
        passed = [int(item.score.stats["passed"]) for item in scored]
        figures = [scores.pass_at_k(k, totals, passed) for k in KS if k <= min(totals)]
        figures += [intervals.share_of_texts(kind, "all", scored, kind) for kind in ("timeout", "infrastructure")]
        return [*figures, generation.cut_share(scored)]

    def remarks(self, scored: Sequence[Scored]) -> list[str]:
        """The isolation the programs ran in, programs that were not judged, and how the replies ended."""
        tier = sandbox.tier(self.args.allow_unsandboxed)
        lines = [f"programs ran in {tier}, {self.args.timeout:g} s of CPU time each"]
        lost = sum(item.score.stats["infrastructure"] for item in scored)
        if lost:
            lines.append(
                f"warning: {lost:.0f} programs could not be judged: the sandbox failed (--rescore tries again), or the test "
                "cannot be judged by what may be trusted; the samples say which"
            )
        return lines + generation.remarks(scored)

    # -------------------------------------------------------------------------------------------- command line
    @classmethod
    def add_options(cls, parser: options.Parser) -> None:
        add = parser.add_argument
        add("--samples", type=options.whole_number, default=1, metavar="N", help="texts a problem (default 1)")
        add("--temperature", type=options.temperature, default=0.0, metavar="T", help="0 (greedy) by default")
        add("--timeout", type=options.seconds, default=3.0, metavar="S", help="CPU seconds a program (default 3)")
        add("--allow-unsandboxed", action="store_true", help="where nothing isolates, run with limits alone")
        add("--completions", type=Path, metavar="FILE", help="JSONL: task_id, completion; no model")
        add("--solutions", action="store_true", help="no model: judge the reference solutions of the data")

    def given_texts(self) -> tuple[list[Path], list[Sequence[str]]] | None:
        """In a model's place the completions of a file for the tasks that are asked, as many for each (--completions), or the
        reference solutions (--solutions). Raises InputError where the data has none."""
        if self.args.solutions:
            golds = {name: self.solution(row) for name, row in self._by_id.items()}
            lacking = [name for name, text in golds.items() if not text]
            if lacking:
                raise InputError(f"{self.name} has no reference solution of {lacking[0]}; leave --solutions out")
            return [Path("reference-solutions")], [(golds[sample.id],) for sample in self.asked]
        path = self.args.completions
        wanted = [sample.id for sample in self.asked]
        return ([path], [*completions(path, list(self._by_id), wanted)]) if path else None


def judged(bodies: Sequence[str], verdicts: Sequence[sandbox.Verdict], reply: Generated) -> Score:
    """Counts of verdicts by kind, and each completion with its verdict."""
    counts: Mapping[str, float] = {kind: float(sum(verdict.status == kind for verdict in verdicts)) for kind in KINDS}
    answer = [
        {"completion": body, "verdict": verdict.status, "detail": verdict.detail}
        for body, verdict in zip(bodies, verdicts, strict=True)
    ]
    return Score({**counts, **generation.endings(reply)}, answer)
