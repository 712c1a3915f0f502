"""Official files to rows: every cell verbatim, every defect a one-line error with file, line and remedy."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_eval.data import catalogue, choice
from qwen_eval.data.files import Source, content_hash
from qwen_eval.schema import DataError, InputError
from shared import shared

# Our own rows. The options are what readers that infer types corrupt: missing-value words, numbers, spaces, commas.
ROWS = [
    ["Which cell is left?", "None", "NA", "0.50", " 7 ", "A"],
    ['A "quoted" word, and a comma', "nan", "1,080", "007", "+1", "B"],
    ["Two\nlines", "null", "1e5", "TRUE", "-", "C"],
    ["Two\r\nlines", "N/A", "#N/A", "Na", "inf", "D"],
    ["  spaces kept  ", "é", "水", "x\u3000", "𝔸", "A"],
]


def write_csv(path: Path, rows: list[list[str]], bom: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_mmlu(folder: Path, subjects: tuple[str, ...] = ("anatomy",)) -> None:
    for subject in subjects:
        write_csv(folder / f"dev/{subject}_dev.csv", ROWS)
        write_csv(folder / f"test/{subject}_test.csv", ROWS[::-1])


def write_ceval(folder: Path, subjects: tuple[str, ...] = ("logic",), bom: bool = False) -> None:
    head = ["id", "question", "A", "B", "C", "D", "answer"]
    for subject in subjects:
        numbered = [[str(10 + i), *row] for i, row in enumerate(ROWS)]
        write_csv(
            folder / f"dev/{subject}_dev.csv", [[*head, "explanation"], *([*row, "why"] for row in numbered)], bom
        )
        write_csv(folder / f"val/{subject}_val.csv", [head, *numbered], bom)
        write_csv(folder / f"test/{subject}_test.csv", [head[:-1], *(row[:-1] for row in numbered)], bom)


def write_cmmlu(folder: Path, subjects: tuple[str, ...] = ("arts",), bom: bool = False) -> None:
    head = ["", "Question", "A", "B", "C", "D", "Answer"]
    for subject in subjects:
        for split in ("dev", "test"):
            write_csv(folder / split / f"{subject}.csv", [head, *([str(i), *row] for i, row in enumerate(ROWS))], bom)


WRITE = {"mmlu": write_mmlu, "ceval": write_ceval, "cmmlu": write_cmmlu}
LOAD = {"mmlu": choice.mmlu, "ceval": choice.ceval, "cmmlu": choice.cmmlu}
SUBJECT = {"mmlu": "anatomy", "ceval": "logic", "cmmlu": "arts"}


def cells(rows: tuple[choice.ChoiceRow, ...]) -> list[list[str]]:
    return [[row.question, *row.options, row.answer] for row in rows]


def all_rows(sets: dict[str, choice.ChoiceSet]) -> list[choice.ChoiceRow]:
    return [row for subject in sets.values() for row in (*subject.dev, *subject.test)]


@pytest.mark.parametrize("benchmark", WRITE)
def test_every_cell_stays_as_it_stands(benchmark: str, tmp_path: Path) -> None:
    WRITE[benchmark](tmp_path)
    subject = SUBJECT[benchmark]
    loaded = LOAD[benchmark](Source(tmp_path), [subject])[subject]
    assert cells(loaded.dev) == ROWS
    assert cells(loaded.test) == (ROWS[::-1] if benchmark == "mmlu" else ROWS)
    assert [row.index for row in loaded.test] == [0, 1, 2, 3, 4]
    assert [row.id for row in loaded.test] == [str(i + (10 if benchmark == "ceval" else 0)) for i in range(5)]
    assert {row.subject for row in loaded.dev} == {subject}
    assert loaded.origin == "files"


@pytest.mark.parametrize("benchmark", WRITE)
def test_a_byte_order_mark_changes_nothing(benchmark: str, tmp_path: Path) -> None:
    WRITE[benchmark](tmp_path / "plain")
    WRITE[benchmark](tmp_path / "marked")
    for path in (tmp_path / "marked").rglob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    plain, marked = (LOAD[benchmark](Source(tmp_path / name), [SUBJECT[benchmark]]) for name in ("plain", "marked"))
    assert plain == marked


def test_ceval_test_has_no_answers_or_the_ones_released_later(tmp_path: Path) -> None:
    write_ceval(tmp_path)
    loaded = choice.ceval(Source(tmp_path), ["logic"], "test")["logic"]
    assert [row.answer for row in loaded.test] == [""] * 5
    assert [row.answer for row in loaded.dev] == [row[-1] for row in ROWS]
    (tmp_path / "test/logic_test.csv").write_bytes((tmp_path / "val/logic_val.csv").read_bytes())
    loaded = choice.ceval(Source(tmp_path), ["logic"], "test")["logic"]
    assert [row.answer for row in loaded.test] == [row[-1] for row in ROWS]


def test_ceval_has_no_other_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="val or test"):
        choice.ceval(Source(tmp_path), ["logic"], "dev")


def test_subjects_come_in_the_official_order_each_once(tmp_path: Path) -> None:
    write_mmlu(tmp_path, ("anatomy", "virology", "abstract_algebra"))
    loaded = choice.mmlu(Source(tmp_path), ["virology", "anatomy", "virology", "abstract_algebra"])
    assert list(loaded) == ["abstract_algebra", "anatomy", "virology"]


def test_the_folder_above_will_do_when_it_is_clear_which(tmp_path: Path) -> None:
    write_mmlu(tmp_path / "data")
    write_cmmlu(tmp_path / "cmmlu")
    source = Source(tmp_path)
    assert choice.mmlu(source, ["anatomy"]) == choice.mmlu(Source(tmp_path / "data"), ["anatomy"])
    assert list(choice.cmmlu(source, ["arts"])) == ["arts"]
    write_mmlu(tmp_path / "copy")
    with pytest.raises(DataError, match=r"copy, .*data qualify; name one"):
        choice.mmlu(source, ["anatomy"])


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("benchmark", LOAD)
def test_missing_folder_and_file_say_what_to_get(benchmark: str, tmp_path: Path) -> None:
    subject = SUBJECT[benchmark]
    archive = {"mmlu": "data.tar", "ceval": "ceval-exam.zip", "cmmlu": "cmmlu_v1_0_1.zip"}[benchmark]
    with pytest.raises(DataError) as error:
        LOAD[benchmark](Source(tmp_path / "nowhere"), [subject])
    text = one_line(error)
    assert text.startswith(f"{tmp_path / 'nowhere'} is missing") and archive in text and "-d DIR" in text
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is not a folder"):
        LOAD[benchmark](Source(tmp_path / "file"), [subject])
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'dev'}") + ".* is missing"):
        LOAD[benchmark](Source(tmp_path), [subject])
    WRITE[benchmark](tmp_path)
    path = next((tmp_path / "dev").iterdir())
    path.unlink()
    with pytest.raises(DataError) as error:
        LOAD[benchmark](Source(tmp_path), [subject])
    text = one_line(error)
    assert text.startswith(f"{path} is missing") and archive in text and "dev/<subject>" in text


GOOD = b"Why?,1,2,3,4,A\n"
MMLU_DEFECTS = {
    "five columns": (GOOD + b"Why?,1,2,3,A\n", 2, "5 columns, expected 6"),
    "seven columns": (b"Why?,1,2,3,4,5,A\n", 1, "7 columns, expected 6"),
    "answer E": (GOOD + b"Why?,1,2,3,4,E\n", 2, "answer 'E'"),
    "answer a": (b"Why?,1,2,3,4,a\n", 1, "answer 'a'"),
    "answer with a space": (b"Why?,1,2,3,4,A \n", 1, "answer 'A '"),
    "no answer": (b"Why?,1,2,3,4,\n", 1, "answer ''"),
    "no question": (b" ,1,2,3,4,A\n", 1, "the question is empty"),
    "no option": (GOOD + b"Why?,1,,3,4,A\n", 2, "the option B is empty"),
    "not UTF-8": (GOOD + b"caf\xe9?,1,2,3,4,A\n", 2, "byte 0xe9 at offset 18 is not UTF-8"),
    "UTF-16": ("Why?,1,2,3,4,A\n".encode("utf-16"), 1, "NUL byte at offset 3"),
    "NUL": (GOOD + GOOD + b"Wh\0?,1,2,3,4,A\n", 3, "NUL byte at offset 32"),
    "open quote": (GOOD + b'"Why?,1,2,3,4,A\n' + GOOD, 2, "broken CSV row"),
    "text after a quote": (b'"Why"?,1,2,3,4,A\n', 1, "broken CSV row"),
    "a bad row after a long one": (b'"Why\n\n?",1,2,3,4,A\nWhy?,1,2\n', 4, "3 columns"),
    "a bad row that is long": (GOOD + b'"Why\n\n?",1,2\n', 2, "3 columns"),
    "a huge cell": (b'"' + b"x" * 200_000 + b'",1,2,3,4,A\n', 1, "broken CSV row"),
}


@pytest.mark.parametrize("defect", MMLU_DEFECTS)
def test_a_defect_is_a_one_line_error_with_file_and_line(defect: str, tmp_path: Path) -> None:
    content, line, what = MMLU_DEFECTS[defect]
    write_mmlu(tmp_path)
    path = tmp_path / "test/anatomy_test.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        choice.mmlu(Source(tmp_path), ["anatomy"])
    text = one_line(error)
    assert text.startswith(f"{path}:{line}: ") and what in text and "get the file again" in text


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b" \n"])
def test_an_empty_file_is_refused(content: bytes, tmp_path: Path) -> None:
    write_mmlu(tmp_path)
    path = tmp_path / "dev/anatomy_dev.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{path} is empty")):
        choice.mmlu(Source(tmp_path), ["anatomy"])


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    write_mmlu(tmp_path)
    (tmp_path / "test/anatomy_test.csv").write_bytes(b"\n" + GOOD + b"\r\n\n" + GOOD + b"\n")
    assert len(choice.mmlu(Source(tmp_path), ["anatomy"])["anatomy"].test) == 2


@pytest.mark.parametrize(
    ("benchmark", "file", "header"),
    [
        ("ceval", "val/logic_val.csv", b"id,question,A,B,C,D\n"),  # only test may be without answers
        ("ceval", "dev/logic_dev.csv", b"question,A,B,C,D,answer\n"),
        ("ceval", "val/logic_val.csv", b"id;question;A;B;C;D;answer\n"),
        ("cmmlu", "test/arts.csv", b"0,Question,A,B,C,D,Answer\n"),
        ("cmmlu", "test/arts.csv", b"0,Why?,1,2,3,4,A\n"),  # the header is gone: the first row must not be lost
        ("cmmlu", "dev/arts.csv", b"id,question,A,B,C,D,answer\n"),
    ],
)
def test_another_header_is_refused(benchmark: str, file: str, header: bytes, tmp_path: Path) -> None:
    WRITE[benchmark](tmp_path)
    (tmp_path / file).write_bytes(header + b"0,Why?,1,2,3,4,A\n")
    with pytest.raises(DataError) as error:
        LOAD[benchmark](Source(tmp_path), [SUBJECT[benchmark]])
    assert re.match(rf"{re.escape(str(tmp_path / file))}:1: header '.*', expected '.*'; get", one_line(error))


def test_a_header_without_rows_and_an_id_twice_are_refused(tmp_path: Path) -> None:
    write_ceval(tmp_path)
    path = tmp_path / "val/logic_val.csv"
    head = b"id,question,A,B,C,D,answer\n"
    path.write_bytes(head)
    with pytest.raises(DataError, match="has no rows of logic"):
        choice.ceval(Source(tmp_path), ["logic"])
    path.write_bytes(head + b"7,Why?,1,2,3,4,A\n7,How?,1,2,3,4,A\n")
    with pytest.raises(DataError, match=r"_val.csv:3: id '7' is repeated"):
        choice.ceval(Source(tmp_path), ["logic"])


def test_too_few_dev_rows_are_left_to_the_caller(tmp_path: Path) -> None:
    write_mmlu(tmp_path)
    (tmp_path / "dev/anatomy_dev.csv").write_bytes(GOOD * 2)
    assert len(choice.mmlu(Source(tmp_path), ["anatomy"])["anatomy"].dev) == 2


def test_the_subject_tables() -> None:
    tables = {name: catalogue.subjects(name) for name in ("mmlu", "ceval", "cmmlu")}
    assert {name: len(table) for name, table in tables.items()} == {"mmlu": 57, "ceval": 52, "cmmlu": 67}
    assert all(name == info.name for table in tables.values() for name, info in table.items())
    assert sum(info.hard for info in tables["ceval"].values()) == 8
    assert tables["ceval"]["advanced_mathematics"] == catalogue.SubjectInfo(
        "advanced_mathematics", ("STEM",), True, "高等数学"
    )
    assert tables["mmlu"]["us_foreign_policy"].title == "us foreign policy"
    assert tables["cmmlu"]["chinese_history"].categories == ("Humanities", "China specific")
    assert next(iter(tables["ceval"])) == "computer_network"
    assert list(tables["mmlu"]) == sorted(tables["mmlu"]) and list(tables["cmmlu"]) == sorted(tables["cmmlu"])


def test_the_subject_tables_equal_the_shared_reference() -> None:
    facts = json.loads(shared("reference/subjects.json").read_text(encoding="utf-8"))
    mmlu = {name: (category,) for category, names in facts["mmlu"].items() for name in names}
    assert {name: info.categories for name, info in catalogue.subjects("mmlu").items()} == mmlu
    ceval = {name: ((x["category"],), x["hard"], x["chinese"]) for name, x in facts["ceval"].items()}
    assert {name: (i.categories, i.hard, i.title) for name, i in catalogue.subjects("ceval").items()} == ceval
    assert list(catalogue.subjects("ceval")) == list(facts["ceval"])
    category = {tag: name for name, tags in facts["cmmlu"]["category_to_tags"].items() for tag in tags}
    cmmlu = {name: {category[tag] for tag in tags} for name, tags in facts["cmmlu"]["subject_to_tags"].items()}
    assert {name: set(info.categories) for name, info in catalogue.subjects("cmmlu").items()} == cmmlu


def test_choosing_subjects() -> None:
    assert len(catalogue.choose_subjects("cmmlu", None)) == 67
    assert catalogue.choose_subjects("ceval", ["law", "logic", "law"]) == ["logic", "law"]
    with pytest.raises(InputError, match="unknown mmlu subject 'anatomi': did you mean anatomy"):
        catalogue.choose_subjects("mmlu", ["virology", "anatomi"])
    with pytest.raises(InputError, match="the subjects are abstract_algebra, anatomy, "):
        catalogue.choose_subjects("mmlu", ["zzz"])
    with pytest.raises(InputError, match="no mmlu subject is named"):
        catalogue.choose_subjects("mmlu", [])


def test_the_content_hash_sees_every_cell_and_the_order(tmp_path: Path) -> None:
    write_mmlu(tmp_path)
    rows = all_rows(choice.mmlu(Source(tmp_path), ["anatomy"]))
    known = content_hash(rows)
    assert re.fullmatch("[0-9a-f]{8}", known)
    assert content_hash(iter(rows)) == known
    others = [
        [*rows[1:], rows[0]],
        rows[1:],
        [replace(rows[0], question=rows[0].question + " "), *rows[1:]],
        [replace(rows[0], options=("0.5", *rows[0].options[1:])), *rows[1:]],
        [replace(rows[0], answer="A" if rows[0].answer != "A" else "B"), *rows[1:]],
        [replace(rows[0], id="x"), *rows[1:]],
        [replace(rows[0], subject="virology"), *rows[1:]],
    ]
    assert known not in {content_hash(other) for other in others}
    # The canonical form is a promise: hashes are in published signatures.
    line = rb'{"answer":"A","id":"0","index":0,"options":["1","2","3","4"],"question":"\u00e9?","subject":"s"}' + b"\n"
    row = choice.ChoiceRow("s", 0, "é?", ("1", "2", "3", "4"), "A", "0")
    assert content_hash([row, row]) == hashlib.sha256(line + line).hexdigest()[:8]
    assert content_hash([{"b": 1, "a": "x"}]) == content_hash([{"a": "x", "b": 1}])


def test_importing_the_data_package_is_light() -> None:
    heavy = "{'torch', 'transformers', 'pandas', 'numpy', 'datasets', 'huggingface_hub', 'pyarrow', 'modelscope'}"
    code = f"import sys; from qwen_eval.data import choice, problems; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).resolve().parent.parent / "eval"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def plain(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file))


def test_every_real_mmlu_row() -> None:
    folder = shared("data/mmlu")
    loaded = choice.mmlu(Source(folder), catalogue.choose_subjects("mmlu", None))
    assert sum(len(part.test) for part in loaded.values()) == 14_042
    assert {len(part.dev) for part in loaded.values()} == {5}
    for subject, part in loaded.items():
        for split, rows in (("dev", part.dev), ("test", part.test)):
            assert cells(rows) == plain(folder / split / f"{subject}_{split}.csv"), (subject, split)


def test_every_real_cmmlu_row() -> None:
    folder = shared("data/cmmlu")
    loaded = choice.cmmlu(Source(folder), catalogue.choose_subjects("cmmlu", None))
    assert sum(len(part.test) for part in loaded.values()) == 11_582
    assert {len(part.dev) for part in loaded.values()} == {5}
    for subject, part in loaded.items():
        for split, rows in (("dev", part.dev), ("test", part.test)):
            found = [[row.id, *row_cells] for row, row_cells in zip(rows, cells(rows), strict=True)]
            assert found == plain(folder / split / f"{subject}.csv")[1:], (subject, split)


def test_the_cells_that_pandas_would_lose_are_text() -> None:
    pandas = pytest.importorskip("pandas")
    folder = shared("data/mmlu")
    loaded = choice.mmlu(Source(folder), catalogue.choose_subjects("mmlu", None))
    lost = []
    for subject, part in loaded.items():
        for split, rows in (("dev", part.dev), ("test", part.test)):
            frame = pandas.read_csv(folder / split / f"{subject}_{split}.csv", header=None)
            spots = itertools.product(range(len(rows)), range(6))
            lost += [(subject, cells(rows)[i][j]) for i, j in spots if pandas.isna(frame.iat[i, j])]
    assert len(lost) == 10
    assert {text for _, text in lost} == {"None"}
    assert Counter(subject for subject, _ in lost) == {
        "college_computer_science": 2,
        "college_mathematics": 3,
        "college_physics": 1,
        "electrical_engineering": 4,
    }


def test_real_rows_in_the_layout_of_ceval(tmp_path: Path) -> None:
    """C-Eval's own files cannot be shared; CMMLU's rows in its layout are the nearest thing."""
    real = {split: plain(shared(f"data/cmmlu/{split}/college_law.csv"))[1:] for split in ("dev", "test")}
    head = ["id", "question", "A", "B", "C", "D", "answer", "explanation"]
    write_csv(tmp_path / "dev/law_dev.csv", [head, *([*row, "因为"] for row in real["dev"])])
    write_csv(tmp_path / "val/law_val.csv", [head[:-1], *real["test"]], bom=True)
    write_csv(tmp_path / "test/law_test.csv", [head[:-2], *(row[:-1] for row in real["test"])])
    val = choice.ceval(Source(tmp_path), ["law"])["law"]
    test = choice.ceval(Source(tmp_path), ["law"], "test")["law"]
    assert cells(val.dev) == [row[1:] for row in real["dev"]]
    assert cells(val.test) == [row[1:] for row in real["test"]]
    assert cells(test.test) == [[*row[1:-1], ""] for row in real["test"]]
    assert [row.id for row in test.test] == [row[0] for row in real["test"]]
