"""The page of results in headless Chromium: filters, search, side by side, keyboard, languages, and nothing but text."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import Browser
from qwen_eval.report.page import build, stored_runs
from qwen_eval.report.page.samples import UNIT, prompt_text, shared_heads, status
from qwen_eval.runs import files, manifest
from qwen_eval.tasks import load
from shared import REPOSITORY

QUESTIONS = 14_042  # as many as MMLU has
GROUPS = 57
HOSTILE = "</script><script>window.escaped = 1</script><img src=x onerror='window.escaped = 2'> & \"quoted\""
INFO = {
    "model": "made/up", "revision": "r", "fingerprint": "f", "context_limit": 2048, "precision": "fp32", "context": "none",
    "engine": "hf", "device": "cpu",
}  # fmt: skip


def question(number: int) -> str:
    text = HOSTILE if number == 7 else f"How far is lamp {number} from the harbour? 灯塔{number}号有多远？"
    return f"Question: {text}\nA. {number} m\nB. {number + 1} m\nC. {number + 2} m\nD. {number + 3} m\nAnswer:"


def row(number: int, flip: bool) -> dict[str, Any]:
    """Every third answer is wrong; with `flip` every 100th of the right ones is lost and every 102nd item won."""
    group = f"subject_{number % GROUPS:02d}"
    right = number % 3 != 0
    if flip and number % 100 == 1:
        right = False
    if flip and number % 102 == 0:
        right = True
    target = "ABCD"[number % 4]
    answer = target if right else "ABCD"[(number + 1) % 4]
    shots = "".join(f"Question: shot {shot} of {group}\nAnswer: A\n\n" for shot in range(5))
    return {
        "id": f"{group}/{number // GROUPS}",
        "group": group,
        "prompt": f"Questions about {group}.\n\n{shots}{question(number)}",
        "response": {
            "kind": "chosen",
            "logprobs": [-0.1 if letter == answer else -3.0 for letter in "ABCD"],
            "shots_used": 5,
            "prompt_tokens": 100,
            "truncated": False,
        },
        "answer": answer,
        "target": target,
        "stats": {"correct": float(right), "tie": 0.0},
    }


def chat_rows() -> list[dict[str, Any]]:
    """Replies of a chat model: right, wrong, and without an answer, with reasoning and with markup."""
    replies = [("#### 4", "4", 1.0, 0.0), ("#### 5", "5", 0.0, 0.0), (f"I do not know. {HOSTILE}", None, 0.0, 1.0)]
    return [
        {
            "id": str(number),
            "group": "",
            "prompt": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"What is {number} + {number}?\n"},
            ],
            "response": {
                "kind": "generated", "texts": [text], "reasoning": ["Let me think."], "end_reasons": ["eos"],
                "prompt_tokens": 9, "new_tokens": [4], "shots_used": 0, "truncated": False,
            },
            "answer": answer,
            "target": "#### 4",
            "stats": {"correct": right, "invalid": invalid},
        }
        for number, (text, answer, right, invalid) in enumerate(replies)
    ]  # fmt: skip


def write_run(results: Path, name: str, benchmark: str, rows: list[dict[str, Any]], model: str) -> None:
    files.write_json_lines(results / "samples" / f"{name}.jsonl", rows)
    manifest.write_manifest(
        results,
        name,
        {
            "timestamp": "2026-01-01T00:00:00Z",
            "seconds": "1.0",
            "git_commit": "abc",
            "notes": [],
            "signature": f"{benchmark}|v1|default|base|shots:5|data:1",
            "model": {**INFO, "model": model},
        },
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two runs with 14,042 samples each and one of chat replies, made by the command."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(REPOSITORY / "results", folder / "results", ignore=shutil.ignore_patterns("samples", "runs"))
    write_run(folder / "results", "first", "mmlu", [row(number, False) for number in range(QUESTIONS)], "made/first")
    write_run(folder / "results", "second", "mmlu", [row(number, True) for number in range(QUESTIONS)], "made/second")
    write_run(folder / "results", "talk", "gsm8k", chat_rows(), "made/talker")
    words = ["--html", "page.html", "--run", "first", "--run", "second", "--run", "talk"]
    command = [sys.executable, str(REPOSITORY / "eval" / "report.py"), *words]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Browser]:
    opened = Browser()
    opened.media(dark=False)
    yield opened
    opened.close()


@pytest.fixture
def tab(browser: Browser, page: Path) -> Browser:
    """The page, freshly opened."""
    browser.events.clear()
    browser.open(page)
    return browser


def choose(tab: Browser, box: str, value: str) -> None:
    tab.run(
        f"(box => {{ box.value = {json.dumps(value)}; box.dispatchEvent(new Event('change')) }})"
        f"(document.getElementById('{box}'))"
    )


def count(tab: Browser) -> str:
    return tab.run("document.getElementById('count').textContent")


def listed(tab: Browser) -> list[str]:
    return tab.run("[...document.querySelectorAll('#rows .id')].map(node => node.textContent)")


def expected(flip: bool = False) -> list[dict[str, Any]]:
    return [row(number, flip) for number in range(QUESTIONS)]


def test_filters_and_search_find_the_items_they_should(tab: Browser) -> None:
    rows = expected()
    assert count(tab).startswith("14,042 of 14,042 items")
    choose(tab, "status", "wrong")
    wrong = [item for item in rows if not item["stats"]["correct"]]
    assert count(tab).startswith(f"{len(wrong):,} of 14,042 items · 0 right, {len(wrong):,} wrong")
    choose(tab, "group", "subject_03")
    here = [item for item in wrong if item["group"] == "subject_03"]
    assert count(tab).startswith(f"{len(here)} of ")
    assert listed(tab)[:3] == [item["id"] for item in here[:3]]
    choose(tab, "group", "")
    choose(tab, "status", "")
    tab.run("document.getElementById('search').focus()")
    tab.write("灯塔1404")
    found = [item for item in rows if "灯塔1404" in item["prompt"]]
    assert count(tab).startswith(f"{len(found)} of ") and set(listed(tab)) == {item["id"] for item in found}
    assert tab.run("[...document.querySelectorAll('#detail mark')].map(node => node.textContent)") == ["灯塔1404"]
    tab.write("nowhere")
    assert count(tab) == "No item matches these filters." and listed(tab) == []


def test_two_runs_side_by_side_show_the_flipped_items_first(tab: Browser) -> None:
    choose(tab, "other", "second")
    before, after = expected(), expected(flip=True)
    pairs = [(a["stats"]["correct"], b["stats"]["correct"], a["id"]) for a, b in zip(before, after, strict=True)]
    lost, won = [name for a, b, name in pairs if a > b], [name for a, b, name in pairs if a < b]
    assert count(tab).endswith(f"{len(lost)} no longer right; {len(won)} newly right")
    assert set(listed(tab)) < set(lost)  # more of them than the window shows
    choose(tab, "status", "flipped")
    assert count(tab).startswith(f"{len(lost) + len(won)} of ")
    verdicts = tab.run("[...document.querySelectorAll('#detail .verdict')].map(node => node.textContent)")
    assert verdicts == ["✓ right", "✗ wrong"]
    assert tab.run("document.querySelectorAll('#detail .prompt').length") == 1  # the same prompt is shown once
    names = tab.run("[...document.querySelectorAll('#detail .answer h3')].map(node => node.firstChild.textContent)")
    assert names == ["made/first", "made/second"]


def test_an_item_in_full(tab: Browser) -> None:
    """The shared part folded, the rest as it was asked, probabilities of the options; a reply with its reasoning."""
    first = expected()[0]
    folded, rest = tab.run(
        "(node => [node.querySelector('details').textContent, node.querySelector(':scope > pre').textContent])"
        "(document.querySelector('#detail .prompt'))"
    )
    said, head = folded.split("items", 1)
    assert head + rest == first["prompt"] and rest == question(0)
    assert f"{len(head)} characters, {len(range(0, QUESTIONS, GROUPS))} " in said
    assert not tab.run("document.querySelector('#detail details').open")
    shares = tab.run(
        "[...document.querySelectorAll('#detail .options .number')].map(node => parseFloat(node.textContent))"
    )
    assert shares == pytest.approx([4.7, 85.8, 4.7, 4.7], abs=0.05)  # exp(-3), exp(-0.1) over their sum, by hand
    choose(tab, "benchmark", "gsm8k")
    assert count(tab) == "3 of 3 items · 1 right, 1 wrong, 1 invalid"
    choose(tab, "status", "invalid")
    text = tab.run("document.getElementById('detail').innerText")
    assert "user" in text and "I do not know." in text and "nothing" in text
    assert "Let me think." in tab.run("document.getElementById('detail').textContent")


def test_a_script_in_a_sample_is_text_and_nothing_leaves_the_page(tab: Browser, page: Path) -> None:
    tab.run("document.getElementById('search').focus()")
    tab.write("onerror")
    assert HOSTILE in tab.run("document.querySelector('#detail .prompt > pre').textContent")
    choose(tab, "benchmark", "gsm8k")
    assert HOSTILE in tab.run("document.getElementById('detail').textContent")
    for name in ("runs", "tables", "figures"):
        tab.run(f"document.getElementById('tab-{name}').click()")
    assert tab.run("document.querySelectorAll('#figures img').length") >= 2
    assert tab.run(
        "[...document.querySelectorAll('#figures img')].every(image => image.complete && image.naturalWidth)"
    )
    assert tab.run("window.escaped") is None
    assert tab.run("document.querySelectorAll('#detail script, #detail img').length") == 0
    asked = [
        event["params"]["request"]["url"] for event in tab.events if event.get("method") == "Network.requestWillBeSent"
    ]
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}
    trouble = [event for event in tab.events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert trouble == []
    # what an attacker's script could try is refused
    assert tab.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    refused = [event["params"]["entry"]["text"] for event in tab.events if event.get("method") == "Log.entryAdded"]
    assert any("Content Security Policy" in text for text in refused)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page.read_text(encoding="utf-8"))


def test_only_the_rows_in_sight_exist_and_all_can_be_reached(tab: Browser) -> None:
    assert tab.run("document.querySelectorAll('.row').length") < 60
    tab.run("document.getElementById('list').focus()")
    for key in ("ArrowDown", "PageDown", "End"):
        tab.press(key)
        picked = tab.run(
            "(row => [row.getAttribute('aria-posinset'), row.getAttribute('aria-setsize'), row.id])"
            "(document.querySelector('.row[aria-selected=true]'))"
        )
        name = tab.run("document.querySelector('.row[aria-selected=true] .id').textContent")
        assert picked[1] == str(QUESTIONS)
        assert tab.run("document.getElementById('list').getAttribute('aria-activedescendant')") == picked[2]
        assert tab.run("document.querySelector('#detail h2').firstChild.textContent") == name
    assert picked[0] == str(QUESTIONS)
    tab.run("document.getElementById('list').scrollTop = 400000")
    tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    visible = tab.run("document.querySelector('.row:nth-child(12)').getAttribute('aria-posinset')")
    assert abs(int(visible) - 400000 / 56) < 20


def test_the_keyboard_alone_and_the_names_a_screen_reader_says(tab: Browser) -> None:
    tab.press("/", "/")
    assert tab.run("document.activeElement.id") == "search"
    tab.run("document.getElementById('tab-samples').focus()")
    tab.press("ArrowRight")
    hidden = "['runs', 'samples'].map(name => document.getElementById(name).hidden)"
    assert tab.run(f"[document.activeElement.id, ...{hidden}]") == ["tab-runs", False, True]
    tree = tab.send("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node["name"]["value"])
        for node in tree
        if not node.get("ignored") and "role" in node and "name" in node
    }
    assert {("tab", "Runs"), ("combobox", "Language"), ("columnheader", "Signature"), ("rowheader", "second")} <= named
    controls = ("button", "combobox", "listbox", "option", "searchbox", "tab", "tabpanel", "image", "meter")
    assert [role for role, name in named if role in controls and not name.strip()] == []


def test_chinese_dark_and_narrow(tab: Browser, tmp_path: Path) -> None:
    choose(tab, "language", "zh")
    assert count(tab).startswith("14,042 条中的 14,042 条")
    tab.run("document.getElementById('tab-tables').click()")
    heads = tab.run(
        "[...document.querySelectorAll('#tables th')].filter(node => node.offsetParent).map(node => node.textContent)"
    )
    assert "模型" in heads and "Model" not in heads
    light = tab.run("getComputedStyle(document.body).backgroundColor")
    tab.media(dark=True, width=400)
    try:
        assert tab.run("getComputedStyle(document.body).backgroundColor") != light
        tab.run("document.getElementById('tab-samples').click()")
        assert tab.run("document.documentElement.scrollWidth") <= 400
        tab.screenshot(tmp_path / "narrow.png")
        assert (tmp_path / "narrow.png").stat().st_size > 5000
    finally:
        tab.media(dark=False)


# ------------------------------------------------------------------------------------------- without a browser
def test_what_is_embedded_is_what_was_stored(page: Path) -> None:
    """The page's data, unpacked here: every prompt reassembled, every text once, the same bytes when made again."""
    text = page.read_text(encoding="utf-8")
    (packed,) = re.findall(r'<script type="text/plain" id="data">([^<]*)</script>', text)
    found = json.loads(gzip.decompress(base64.b64decode(packed)))
    runs, pool = found["runs"], found["pool"]
    assert [run["run"] for run in runs] == ["first", "second", "talk"] and len(set(pool)) == len(pool)
    for run, rows in zip(runs, (expected(), expected(flip=True)), strict=False):
        items = run["items"]
        stored = {item["id"]: item for item in rows}
        assert len(items["id"]) == QUESTIONS
        for index, name in enumerate(items["id"]):
            item = stored[name]
            assert pool[items["head"][index]] + pool[items["rest"][index]] == item["prompt"]
            assert (items["answer"][index], pool[items["target"][index]]) == (item["answer"], item["target"])
            assert items["status"][index] == ("r" if item["stats"]["correct"] else "w")
    again = page.with_name("again.html")
    words = ["--html", str(again), "--run", "first", "--run", "second", "--run", "talk"]
    command = [sys.executable, str(REPOSITORY / "eval" / "report.py"), *words]
    subprocess.run(command, cwd=page.parent, check=True, capture_output=True)
    assert again.read_bytes() == page.read_bytes()


def test_what_json_cannot_say_and_what_looks_like_a_template(tmp_path: Path) -> None:
    """An option that is ruled out has no finite log-probability; a model may have any name."""
    ruled_out = row(1, False)
    ruled_out["response"] = {**ruled_out["response"], "logprobs": [-0.5, float("-inf"), float("-inf"), -1.5]}
    write_run(tmp_path, "odd", "mmlu", [ruled_out], "{{script}}")
    text = build(stored_runs(tmp_path, {"mmlu": load.official()["mmlu"].facts()}), [], [])
    (packed,) = re.findall(r'id="data">([^<]*)<', text)
    (run,) = json.loads(gzip.decompress(base64.b64decode(packed)), parse_constant=pytest.fail)["runs"]
    assert run["items"]["reply"] == [{"p": [-0.5, None, None, -1.5]}] and run["model"] == "{{script}}"
    assert text.count('"use strict"') == 1


def test_where_only_the_hash_of_a_prompt_is_stored_the_list_shows_the_reply(tmp_path: Path) -> None:
    rows = [{**row, "prompt": {"sha256": f"{number:064x}"}} for number, row in enumerate(chat_rows())]
    write_run(tmp_path, "hashed", "gsm8k", rows, "made/up")
    runs = stored_runs(tmp_path, {"gsm8k": load.official()["gsm8k"].facts()})
    (tmp_path / "page.html").write_text(build(runs, [], []), encoding="utf-8")
    tab = Browser()
    try:
        tab.open(tmp_path / "page.html")
        assert tab.run("[...document.querySelectorAll('.snippet')].slice(0, 2).map((one) => one.textContent)") == [
            "#### 4",
            "#### 5",
        ]
        text = tab.run("document.querySelector('.prompt').textContent")
        assert text == f"PromptSHA-256{0:064x}"
    finally:
        tab.close()


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "results", tmp_path / "results", ignore=shutil.ignore_patterns("samples", "runs"))
    command = [sys.executable, str(REPOSITORY / "eval" / "report.py"), "--html", "page.html", "--run", "nosuch"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "run nosuch cannot be read" in done.stderr and done.stderr.count("\n") == 1


def test_heads_are_what_a_group_shares_up_to_a_line() -> None:
    chat = [prompt_text([{"role": "user", "content": text}]) for text in ("Add 2.", "Add 3.")]
    assert shared_heads(["a", "a", "b"], ["one\ntwo x", "one\ntwo y", "one\nalone"]) == ["one\n", "one\n", ""]
    assert shared_heads(["", ""], chat) == [f"\x1euser{UNIT}"] * 2
    assert shared_heads(["", ""], ["same", "same"]) == ["", ""]


@pytest.mark.parametrize(
    ("name", "group", "stats", "letter"),
    [
        ("mmlu", "anatomy", {"correct": 1.0}, "r"), ("mmlu", "anatomy", {"correct": 0.0}, "w"),
        ("gsm8k", "", {"correct": 0.0, "invalid": 1.0}, "i"),
        ("humaneval", "", {"passed": 2.0, "texts": 2.0}, "r"), ("humaneval", "", {"passed": 1.0, "texts": 2.0}, "w"),
        ("plugin", "react_positive", {"calls": 1.0, "selected": 1.0, "input": 0.0}, "r"),
        ("plugin", "react_positive", {"calls": 1.0, "selected": 0.0}, "w"),
        ("plugin", "react_negative", {"calls": 1.0}, "w"), ("plugin", "react_negative", {"calls": 0.0}, "r"),
        ("plugin", "hfagent", {"code": 0.75, "selection": 1.0, "used": 1.0}, "w"),
        ("plugin", "hfagent", {"code": 1.0, "selection": 0.5}, "r"), ("plugin", "hfagent", {"unsplit": 1.0}, "i"),
        ("wmt22", "en-zh", {"sentences": 1.0}, "u"), ("long_ppl", "128", {"documents": 2.0}, "u"),
    ],
)  # fmt: skip
def test_what_counts_as_right(name: str, group: str, stats: dict[str, float], letter: str) -> None:
    assert status({"group": group, "stats": stats}, load.official()[name].facts().views) == letter


@pytest.mark.parametrize(
    ("stats", "letter"),
    [
        ({"correct": 1.0}, "r"), ({"correct": 0.0, "invalid": 1.0}, "i"), ({"passed": 2.0, "texts": 2.0}, "r"),
        ({"passed": 1.0, "texts": 2.0}, "w"), ({"score": 0.5}, "w"), ({"sentences": 1.0}, "u"),
    ],
)  # fmt: skip
def test_what_counts_as_right_where_nothing_is_known_of_the_benchmark(stats: dict[str, float], letter: str) -> None:
    assert status({"group": "", "stats": stats}) == letter
