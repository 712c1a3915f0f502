"""What a benchmark is: one class in one file, which says everything about it.

    class Gsm8k(Text):
        name, version, title = "gsm8k", 1, "GSM8K"
        ...

    if __name__ == "__main__":
        main(Gsm8k)

`samples` says what is asked, `score` what counts as right, `metrics` how it is averaged, `remarks` what the table must say.
choice.py, generation.py and code.py hold what benchmarks of a kind share. Where the file lies does not matter: the eight in
eval/ and one of your own are run, stored, compared and shown alike.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import json
import sys
import textwrap
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from qwen_eval import options
from qwen_eval.data.files import Source, content_hash
from qwen_eval.data.official import changed
from qwen_eval.data.tables import Dataset
from qwen_eval.data.texts import common_prefix
from qwen_eval.schema import Choose, Generate, InputError, Measure, Metric, Sample, Score, Scored, Unanswered
from qwen_eval.stats import intervals
from qwen_eval.tasks.facts import NAME, OWN_TABLES, USUAL, Column, Facts, Table, View

TokenTexts: TypeAlias = Callable[[Sequence[str]], list[list[str]]]

PACKAGE = Path(__file__).resolve().parents[1]
# the eight: beside the package in a checkout, inside it where it is installed
SCRIPTS = PACKAGE / "benchmarks" if (PACKAGE / "benchmarks").is_dir() else PACKAGE.parent


# what decides the score of a response
SCORING = ("score", "score_all", "unanswered", "metrics", "completion", "program", "item", "target")


class Benchmark:
    """A benchmark. The class holds its facts; an object holds what one run asks under the options of a command line.

    Facts (class attributes):
    name, version: of the signature; a change that changes figures needs a new version. versions: that of a (recipe, mode),
    where it is another. title, title_zh: as tables show it.
    order: where it stands among the benchmarks. shots: the modes it has ("base", "chat") and the number of examples in the
    prompt of each. writes: the modes whose answers are generated text, of at most max_new_tokens tokens. recipes: "default",
    and "qwen2023" where the code of 2023 is followed. headline: the (metric, group) shown first. average: of groups, "micro"
    or "macro". has_subjects: whether --subjects chooses some of its groups. folder: the data folder below the suite's -d DIR,
    the name where it is "". dataset: the tables of its rows, on the hub or in a folder. demo_data: small data of its own, which
    `-c demo` asks. sums: the number of rows and their hash (`content_hash`) by part of the official data, as far as known.
    columns: what stands in which table. tables: tables of its own. views: what two runs are compared by. hub: the dataset and
    the task's id that a model's page on the hub shows. suite: the options of the runs that the suite makes in each mode.
    precisions: whether the suite asks it in other precisions, too. released: whether its signature was published before
    signatures of other benchmarks said more, as those of the eight were; their fields stay as they were.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    versions: ClassVar[Mapping[tuple[str, str], int]] = {}
    title: ClassVar[str] = ""
    title_zh: ClassVar[str] = ""
    order: ClassVar[int] = 1000
    shots: ClassVar[Mapping[str, int]] = {"base": 0}
    writes: ClassVar[tuple[str, ...]] = ()
    max_new_tokens: ClassVar[int] = 512
    recipes: ClassVar[tuple[str, ...]] = ("default",)
    headline: ClassVar[tuple[str, str]] = ("acc", "all")
    average: ClassVar[str] = "micro"
    has_subjects: ClassVar[bool] = False
    folder: ClassVar[str] = ""
    dataset: ClassVar[Dataset | None] = None
    demo_data: ClassVar[Path | None] = None
    sums: ClassVar[Mapping[str, Sequence[Any]]] = {}
    columns: ClassVar[Mapping[str, tuple[Column, ...]]] = {}
    tables: ClassVar[tuple[Table, ...]] = ()
    views: ClassVar[tuple[View, ...]] = (View("acc", "correct"),)
    hub: ClassVar[tuple[str, str] | None] = None
    suite: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {}
    precisions: ClassVar[bool] = False
    released: ClassVar[bool] = False

    def __init__(self, args: argparse.Namespace) -> None:
        """Reads the data and makes every prompt. args: as `parser` gives them. Raises InputError for bad data and options."""
        self.args = args
        self.mode = options.mode(args)
        self.recipe: str = args.recipe
        self.shot_count: int = args.shots
        self.source = self.data_source(args)
        folder, demonstration = self.source.directory, self.demo_folder()
        self.on_demo_data = (
            folder is not None and demonstration is not None and folder.resolve() == demonstration.resolve()
        )
        self.check_options()
        with own_code(type(self)):
            self.data: Any = self.read()
            every = list(self.samples())
        # the demonstration's rows are no edit of the official ones
        self.origin = "demo" if self.on_demo_data else self.data_origin()
        self.changed: Sequence[str] = () if self.on_demo_data or not self.sums else changed(self.sums, self.parts())
        if not every:
            raise InputError(f"{self.name} has no items; look at the data that -d names")
        twice = [name for name, count in Counter(sample.id for sample in every).items() if count > 1]
        if twice:
            raise InputError(f"{self.name}: the id {twice[0]!r} is there twice; give every item an id of its own")
        self.asked: tuple[Sample, ...] = tuple(_first(every, args.limit))
        self.partial = bool(getattr(args, "subjects", None)) or len(self.asked) < len(every)
        # by id the items that do not fit the context of the model that is asked; whoever opens the model finds them
        self.too_long: Mapping[str, Unanswered] = {}

    # ------------------------------------------------------------------------------------- what a benchmark says
    def read(self) -> Any:
        """The data, kept as `self.data`: here the rows of `dataset` by split. Raises DataError."""
        if self.dataset is None:
            raise InputError(f"{self.name} names no data: give its class a `dataset`, or a `read` of its own")
        return self.dataset.read(self.source)

    def samples(self) -> Iterable[Sample]:
        """What is asked: an id, a request, the gold answer and the group of every item."""
        raise NotImplementedError

    def score(self, sample: Sample, reply: Any) -> Score:
        """The score of a response to a sample: statistics to be summed, and the extracted answer."""
        raise NotImplementedError

    def score_all(
        self, samples: Sequence[Sample], replies: Sequence[Any], token_texts: TokenTexts, done: Callable[[], None]
    ) -> list[Score]:
        """The scores of all responses. Overridden where they are judged together at the end: programs in a sandbox, texts
        compared in the model's own tokens (`token_texts` cuts them). done: to be called whenever one more is scored."""
        scores = []
        for sample, reply in zip(samples, replies, strict=True):
            scores.append(self.score(sample, reply))
            done()
        return scores

    def unanswered(self, sample: Sample, empty: Score) -> Score:
        """The score of an item that was not asked, since it does not fit the context: wrong by every figure that runs are
        compared by, and without an answer. empty: the score of an empty reply."""
        stats = dict(empty.stats)
        for view in self.views or USUAL:
            if view.stat in stats and view.group in ("", sample.group):
                most = stats[view.per] if view.per else 1.0
                stats[view.stat] = most if view.lower_is_better else 0.0
        return Score({**stats, "unanswered": 1.0}, None)

    def metrics(self, scored: Sequence[Scored]) -> list[Metric]:
        """The figures, each with its interval: here the share of items that are "correct"."""
        return [intervals.of_items("acc", "all", scored, "correct")]

    def remarks(self, scored: Sequence[Scored]) -> list[str]:
        """Sentences that the table must carry."""
        return []

    def fields(self) -> dict[str, str]:
        """What defines the figure beyond name, version, recipe, mode and shots, by field of the signature. "data" is the
        hash of everything that is asked or shown."""
        return {"data": content_hash(row for rows in self.parts().values() for row in rows)}

    def data_origin(self) -> str:
        """Where the data came from: "files", or a hub dataset and its commit."""
        return str(self.data.origin)

    def parts(self) -> Mapping[str, Sequence[Any]]:
        """The rows of the data by part, whose numbers and hashes are held against `sums`: here by split."""
        return dict(self.data.rows)

    def finish(self, run_id: str, scored: Sequence[Scored]) -> list[str]:
        """Called when all is stored: writes further files (a submission file), and says where."""
        return []

    def check_options(self) -> None:
        """Raises InputError for options that do not go together."""

    @classmethod
    def add_options(cls, parser: options.Parser) -> None:
        """Adds command-line options of its own."""

    def given_texts(self) -> tuple[list[Path], list[Sequence[str]]] | None:
        """Texts that stand in a model's place, one sequence an item (translations of another system), and their files; None
        where a model is asked."""
        return None

    @classmethod
    def variants(cls, args: argparse.Namespace) -> list[argparse.Namespace]:
        """The runs that one command line asks for; the model is loaded once for all of them."""
        return [args]

    @classmethod
    def columns_for(
        cls, rows: Sequence[Mapping[str, str]], published: Sequence[Mapping[str, str]]
    ) -> Mapping[str, tuple[Column, ...]]:
        """Its columns by table. rows, published: the results, for a table whose columns depend on what was measured."""
        return cls.columns

    # ------------------------------------------------------------------------------------ what follows from it
    @classmethod
    def parser(cls) -> options.Parser:
        """Its command line."""
        made = options.parser(
            sys.modules[cls.__module__].__doc__ or cls.__doc__ or cls.title,
            cls.shots,
            writes=cls.writes,
            tokens=cls.max_new_tokens,
            subjects=cls.has_subjects,
            recipes=cls.recipes,
        )
        cls.add_options(made)
        return made

    @classmethod
    def check_facts(cls) -> None:
        """Raises InputError for a class that could not be run or stored."""
        where = f"{inspect.getfile(cls)}: class {cls.__name__}"
        if not NAME.fullmatch(cls.name):
            raise InputError(
                f"{where}: the name {cls.name!r} has to be small letters, digits and _, at most 40 of them"
            )
        if not cls.shots or not set(cls.shots) <= {"base", "chat"}:
            raise InputError(f"{where}: shots is {dict(cls.shots)!r}; it names the modes base and chat that there are")
        if not set(cls.writes) <= set(cls.shots):
            raise InputError(f"{where}: writes is {tuple(cls.writes)!r}; it names modes that shots has")
        if type(cls.version) is not int:
            raise InputError(f"{where}: the version {cls.version!r} has to be a whole number")
        if cls.is_own() and set(cls.columns) - set(OWN_TABLES.values()):
            raise InputError(f"{where}: columns are for the tables {', '.join(OWN_TABLES.values())}")

    @classmethod
    def is_own(cls) -> bool:
        """Whether it is none of the eight: its signature then says more. A copy of one of them is one's own."""
        return not cls.released or Path(inspect.getfile(cls)).resolve().parent != SCRIPTS

    @classmethod
    def facts(cls) -> Facts:
        """What others need to know of it."""
        own = cls.is_own()
        columns = cls.columns
        if own and not columns:
            columns = {
                OWN_TABLES[mode]: (Column(cls.title or cls.name, cls.headline, zh=cls.title_zh),) for mode in cls.shots
            }
        return Facts(
            name=cls.name,
            title=cls.title or cls.name,
            title_zh=cls.title_zh,
            order=cls.order,
            headline=cls.headline,
            writes=tuple(cls.writes),
            columns=columns,
            tables=cls.tables,
            views=tuple(cls.views),
            hub=cls.hub,
            average=cls.average,
            own=own,
        )

    @classmethod
    def demo_folder(cls) -> Path | None:
        """Its small data that `-c demo` asks; None where there is none."""
        return cls.demo_data or (None if cls.is_own() else options.demo_folder(cls.folder or cls.name))

    @classmethod
    def data_source(cls, args: argparse.Namespace) -> Source:
        """Where its rows come from under these options."""
        return options.source(args, cls.demo_folder())

    @property
    def together(self) -> bool:
        """Whether responses are scored together at the end, and not each as it comes."""
        return type(self).score_all is not Benchmark.score_all

    @cached_property
    def signature(self) -> dict[str, str]:
        """The fields of the signature between the shots and the number of items, in order."""
        found = self.fields()
        if self.is_own():
            found = {**self._own_fields(), **found}
            if not self.sums and not self.on_demo_data and "data" in found:
                found["data"] = f"unverified-{found['data']}"
        if self.on_demo_data:
            found["data"] = f"demo-{found['data']}"
        if self.args.rescore:
            found["replies"] = self.args.rescore
        return {name: _one_field(value) for name, value in found.items()}

    def frame(self) -> str:
        """The prompt without what differs from item to item: here what all prompts begin and end with."""
        texts = [_text_of(sample.request) for sample in self.asked]
        first = common_prefix(texts)
        last = common_prefix([text[len(first) :][::-1] for text in texts])[::-1]
        return f"{first}\0{last}"

    def _own_fields(self) -> dict[str, str]:
        """For benchmarks of one's own: how options are scored and a hash of scoring code of their own, where texts stop, and a
        hash of the prompt's frame."""
        found: dict[str, str] = {}
        requests = [sample.request for sample in self.asked]
        scoring = {request.scoring for request in requests if isinstance(request, Choose)}
        code = code_hash(type(self))
        if scoring or code:
            found["scoring"] = "+".join([*sorted(scoring), *([code] if code else [])])
        stops = {request.stop for request in requests if isinstance(request, Generate)}
        if stops and stops != {()}:
            found["stop"] = json.dumps(sorted(stops) if len(stops) > 1 else [*stops.pop()], ensure_ascii=True)
        return {**found, "frame": content_hash([self.frame()])}


@contextlib.contextmanager
def own_code(kind: type[Benchmark]) -> Iterator[None]:
    """Turns a failure of the code of a benchmark of one's own into one line that names the place in it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not kind.is_own():
            raise
        frames = traceback.extract_tb(error.__traceback__)
        outside = [frame for frame in frames if not Path(frame.filename).is_relative_to(PACKAGE)]
        if isinstance(error, KeyError) and not outside:
            raise InputError(
                f"{kind.name}: its score has no statistic {error} (generation.endings(reply) gives texts, cut and truncated); "
                "add it to the statistics"
            ) from error
        last = (outside or frames)[-1]
        what = "not written yet" if isinstance(error, NotImplementedError) else str(error)
        raise InputError(
            f"{kind.name}: {last.filename}:{last.lineno}: {type(error).__name__} in {frames[-1].name}: {what}; correct the "
            "benchmark's code"
        ) from error


def code_hash(kind: type[Benchmark]) -> str:
    """A hash of the code by which a benchmark of one's own scores: the scoring methods that are not this package's, and the
    functions beside the class. Comments, docstrings and layout do not count. "" where all of it is this package's."""
    found: list[str] = []
    for name in SCORING:
        method = inspect.getattr_static(kind, name, None)
        method = getattr(method, "__func__", method)
        file = inspect.getsourcefile(method) if inspect.isfunction(method) else None
        if file and not Path(file).resolve().is_relative_to(PACKAGE):
            found.append(f"{name} {_bare(inspect.getsource(method))}")
    if not found:
        return ""
    module = sys.modules[kind.__module__]
    beside = [
        value for value in vars(module).values() if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    return content_hash([*found, *(_bare(inspect.getsource(function)) for function in beside)])


def _bare(source: str) -> str:
    """Code without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _first(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """The first `limit` samples of every group; all for None."""
    taken: dict[str, int] = defaultdict(int)
    found = []
    for sample in samples:
        taken[sample.group] += 1
        if limit is None or taken[sample.group] <= limit:
            found.append(sample)
    return found


def _one_field(value: str) -> str:
    """A value that cannot be taken for another field of the signature, or for another line."""
    return value.replace("|", "\\u007c").replace("\n", "\\n").replace("\r", "\\r")


def _text_of(request: Choose | Generate | Measure) -> str:
    """A prompt as text; of a measurement nothing, since the documents are the data."""
    if isinstance(request, Choose):
        return request.prompt()
    if isinstance(request, Measure):
        return ""
    text = request.text()
    return text if isinstance(text, str) else "".join(f"{turn['role']}\0{turn['content']}\0" for turn in text)
