"""Another harness's samples compared with ours: joined, and the gap decomposed item by item.

The sample file is written here in lm-evaluation-harness's format, its log-probabilities computed by a plain forward pass of
every prompt and option; the slow test runs lm-evaluation-harness itself.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

import gsm8k
import lm_eval_peer
import mmlu
import tiny
from known import benchmark_of, work
from qwen_eval.compare import explain, waterfall
from qwen_eval.compare.readers import detect
from qwen_eval.data import demo
from qwen_eval.engines import plan
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.models.tokenizers import HubTokenizer
from qwen_eval.runs import find
from qwen_eval.schema import Choose, InputError, ModelSpec
from test_compare import Compare, call  # noqa: F401  # a fixture

SUBJECTS = ("formal_logic", "miscellaneous", "nutrition")
CUT = 14  # their model's maximum length in tokens: shorter than a question


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> find.Run:
    output = tmp_path_factory.mktemp("ours")
    words = ["-c", "demo", "-o", str(output), "--quiet", "--limit", "12", "--subjects", ",".join(SUBJECTS)]
    work("mmlu", *words)
    (path,) = (output / "samples").glob("*.jsonl")
    return find.open_run(path)


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine(ModelSpec(str(demo.checkpoint()), device="cpu"))


@torch.inference_mode()
def logprobs(engine: HFEngine, prompt: str, options: Sequence[str], cut: int | None) -> list[float]:
    """As lm-evaluation-harness computes them: the tokens of prompt + option, all but the last of the last cut + 1 of them
    fed, the option's own summed. One forward pass per option, nothing shared."""
    tokenizer, model = engine.checkpoint.tokenizer, engine.checkpoint.load()
    start = len(tokenizer.encode(prompt))
    values = []
    for option in options:
        whole = tokenizer.encode(prompt + option)
        own = whole[start:]
        fed = whole[:-1] if cut is None else whole[-(cut + 1) :][:-1]
        table = model(torch.tensor([fed])).logits[0, -len(own) :].float().log_softmax(-1)
        values.append(float(table.gather(1, torch.tensor(own)[:, None]).sum()))
    return values


def write_samples(folder: Path, engine: HFEngine, shots: int = 2, rows: int = 12, **changes: Any) -> Path:
    """Sample files of the demonstration's questions under lm-evaluation-harness's MMLU prompt, and a results file."""
    folder.mkdir(exist_ok=True)
    date = "2026-01-01T00-00-00.000001"
    for subject in SUBJECTS:
        dev, test = (lm_eval_peer.documents(subject, split) for split in ("dev", "test"))

        def text(doc: dict) -> str:
            lines = [f"{letter}. {choice}\n" for letter, choice in zip("ABCD", doc["choices"], strict=True)]
            return f"{doc['question'].strip()}\n{''.join(lines)}Answer:"

        head = lm_eval_peer.DESCRIPTION.format(subject.replace("_", " "))
        head += "".join(f"{text(doc)} {'ABCD'[doc['answer']]}\n\n" for doc in dev[:shots])
        lines = []
        for index, doc in enumerate(test[:rows]):
            prompt = head + text(doc)
            values = logprobs(engine, prompt, mmlu.OPTIONS, CUT)
            lines.append({
                "doc_id": index, "doc": doc, "target": str(doc["answer"]),
                "arguments": {f"gen_args_{i}": {"arg_0": prompt, "arg_1": o} for i, o in enumerate(mmlu.OPTIONS)},
                "resps": [[[str(value), "False"]] for value in values],
                "filtered_resps": [[str(value), "False"] for value in values],
                "filter": "none", "metrics": ["acc"], "doc_hash": "", "prompt_hash": "", "target_hash": "",
                "acc": float(max(range(4), key=values.__getitem__) == doc["answer"]), **changes,
            })  # fmt: skip
        file = folder / f"samples_mmlu_{subject}_{date}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = {"max_length": CUT, "config": {"model": "hf", "model_args": {"pretrained": "somewhere"}}}
    (folder / f"results_{date}.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, engine: HFEngine) -> Path:
    return write_samples(tmp_path_factory.mktemp("theirs"), engine)


def chain_of(joined: explain.JoinedSamples, engine: HFEngine | None) -> tuple[list[waterfall.Stage], list[str]]:
    words = ["-c", "demo", "--limit", "12", "--subjects", ",".join(SUBJECTS)]
    benchmark = benchmark_of("mmlu", *words)
    first, last = joined.outer_stages()
    inner, remarks = explain.inner_stages(joined, benchmark, engine, first[-1])
    return [*first, *inner, *last], remarks


def test_the_steps_add_up_and_each_is_what_it_says(ours: find.Run, theirs: Path, engine: HFEngine) -> None:
    """Every run of the chain against plain forward passes of the prompts it stands for."""
    samples = detect.read(theirs)
    assert samples is not None and samples.max_length == CUT and samples.metric == "acc" and len(samples.items) == 36
    joined = explain.join(ours, samples)
    assert len(joined.matched) == 36 and not joined.unmatched
    chain, remarks = chain_of(joined, engine)
    steps = waterfall.steps(chain)
    assert [step.name for step in steps] == [
        "items only we have", "truncation", "shots", "prompt text", "BOS", "option tokens", "arithmetic", "extraction",
        "averaging",
    ]  # fmt: skip
    gap = 100 * (
        sum(Fraction(item.score) for item in samples.items) / 36
        - sum(Fraction(row["stats"]["correct"]) for row in ours.rows.values()) / 36
    )
    assert sum(step.change for step in steps) == gap != 0

    def right(prompt: str, name: str, cut: int | None) -> float:
        values = logprobs(engine, prompt, mmlu.OPTIONS, cut)
        return float("ABCD"[max(range(4), key=values.__getitem__)] == ours.rows[name]["target"])

    scores = {stage.name: stage.scores for stage in chain}
    for name, item in joined.matched.items():
        whole = ours.rows[name]["prompt"]
        header, *shots = whole.split("Question: ")
        fewer = "Question: ".join([header, *shots[:2], shots[-1]])
        expected = {
            "ours": right(whole, name, None),
            "truncation": right(whole, name, CUT),
            "shots": right(fewer, name, CUT),
            "prompt text": right(item.prompt, name, CUT),
            "option tokens": right(item.prompt, name, CUT),
            "arithmetic": item.score,
        }
        assert {stage: scores[stage][name] for stage in expected} == expected
    assert any("on 36 items" in line for line in remarks)
    recomputed = float(next(line for line in remarks if "within" in line).split("within ")[1].split()[0])
    assert recomputed <= 1e-4
    changes = waterfall.changes_by_item(chain, list(joined.matched))
    differ = {name for name, item in joined.matched.items() if item.score != ours.rows[name]["stats"]["correct"]}
    assert set(changes) == differ and all(changes.values())


def test_without_a_model_the_inner_steps_are_one(ours: find.Run, theirs: Path) -> None:
    samples = detect.read(theirs)
    assert samples is not None
    chain, _ = chain_of(explain.join(ours, samples), None)
    steps = {step.name: step.change for step in waterfall.steps(chain)}
    assert list(steps) == ["items only we have", "prompt, tokens and arithmetic", "extraction", "averaging"]
    assert sum(steps.values()) == steps["prompt, tokens and arithmetic"] == chain[-1].value - chain[0].value


def test_items_metric_and_average_have_their_steps(ours: find.Run, tmp_path: Path, engine: HFEngine) -> None:
    """Fewer rows, one of them unknown to us, another metric than the best option, and a macro average."""
    folder = write_samples(tmp_path / "b", engine, rows=9, acc_norm=0.0, metrics=["acc", "acc_norm"])
    file = next(folder.glob("samples_mmlu_nutrition*"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["doc"]["question"] = "Which question is in no other file?"
    rows = rows[:5]
    rows.reverse()  # still found by their text
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = detect.read(folder, "acc_norm")
    assert samples is not None
    joined = explain.join(ours, samples)
    assert len(joined.matched) == 22 and [item.index for item in joined.unmatched] == ["0"]
    assert joined.matched["nutrition/3"].index == "3"
    joined = explain.JoinedSamples(
        ours, dataclasses.replace(samples, average="macro"), joined.matched, joined.unmatched
    )
    chain, _ = chain_of(joined, None)
    steps = {step.name: step for step in waterfall.steps(chain)}
    assert chain[-1].value == 0 and sum(step.change for step in steps.values()) == -chain[0].value
    best = sum(Fraction(float(item.answer == ours.rows[name]["target"])) for name, item in joined.matched.items())
    assert steps["extraction"].change == -100 * best / 22  # acc_norm was 0 throughout
    assert list(steps)[-2:] == ["averaging", "items only they have"]


def test_the_command_shows_the_waterfall(
    ours: find.Run,
    theirs: Path,
    call: Compare,  # noqa: F811
) -> None:
    status, out = call(ours.path, theirs, "--explain", "-c", "demo", "--subjects", ",".join(SUBJECTS), "--limit", "12")
    assert status == 0 and "the sum of the steps" in out and "36 items joined" in out
    assert f"the last {CUT} tokens are kept" in out and "prompt: 36 of 36 items" in out and "tokens of " in out
    status, out = call(ours.path, theirs, "--exact")
    assert status == 2 and "gates" in out
    status, out = call(ours.path, theirs, "--explain", "-d", "demo")
    assert status == 2 and "not the questions" in out  # all subjects are not those of the run
    status, out = call(ours.path, theirs, "--metric", "nothing")
    assert status == 2 and "no metric 'nothing'" in out


def test_split_options_are_counted_as_lm_eval_counts_them(tmp_path: Path) -> None:
    """A tokenizer with BOS whose tokens span the boundary of prompt and option: rows against the formula."""
    tokenizer = HubTokenizer(tiny.write_llama(tmp_path / "llama"))
    prompt, options = "The answer", ("s are", " is", " is A.")
    for bos in (True, False):
        asked = Choose("", (), prompt, options, "keep_last", limit=4, scoring="split", bos=bos)
        (encoded,) = plan.encode_requests([asked], tokenizer, 512)
        for row, option in zip(encoded.rows, options, strict=True):
            whole, alone = (tokenizer.encode(text)[0 if bos else 1 :] for text in (prompt + option, prompt))
            assert [target for (target,) in row.targets] == whole[len(alone) :]
            assert row.ids.tolist() == whole[:-1][-max(4, len(whole) - len(alone)) :]


GENERATED = {"until": [*gsm8k.Gsm8k.stop, "</s>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 256}


def test_the_gap_of_replies_is_decomposed_too(tmp_path: Path, call: Compare) -> None:  # noqa: F811
    """GSM8K with our own prompts and replies, of which their strict filter reads only every second one: the whole gap
    is extraction, and the model reproduces every reply."""
    words = ["-c", "demo", "-o", str(tmp_path), "--quiet", "--limit", "10"]
    work("gsm8k", *words)
    (path,) = (tmp_path / "samples").glob("*.jsonl")
    lines = []
    for index, row in enumerate(find.open_run(path).rows.values()):
        read = row["answer"] if index % 2 else "[invalid]"
        for name, value in (("strict-match", index % 2 * row["stats"]["correct"]), ("flexible-extract", 1.0)):
            lines.append({
                "doc_id": int(row["id"]), "doc": {"question": row["prompt"].split("Question: ")[-1].split("\n")[0]},
                "target": row["target"], "arguments": {"gen_args_0": {"arg_0": row["prompt"], "arg_1": GENERATED}},
                "resps": [[row["response"]["texts"][0]]], "filtered_resps": [read], "filter": name,
                "metrics": ["exact_match"], "exact_match": value,
            })  # fmt: skip
    file = tmp_path / "samples_gsm8k_2026-01-01T00-00-00.000001.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out = call(path, file, "--explain", "-c", "demo")
    assert status == 0 and "10 items joined" in out and "of the filters strict-match, flexible-extract the first" in out
    changes = {line.split("  ")[0].strip(): line.split("  ")[1:] for line in out.splitlines()}
    assert "their replies, generated again from their prompts: 10 of 10 are the same" in out
    moved = [name for name, rest in changes.items() if any(part.strip().startswith(("+", "-")) for part in rest)
             and not any(part.strip() == "+0.000" for part in rest)]  # fmt: skip
    assert moved == ["extraction"]


def test_opencompass_and_inspect_are_read(ours: find.Run, engine: HFEngine, tmp_path: Path) -> None:
    """The same questions in the format of each of the two."""
    benchmark = benchmark_of("mmlu", "-c", "demo", "--limit", "12", "--subjects", ",".join(SUBJECTS))
    subject = SUBJECTS[0]
    docs = lm_eval_peer.documents(subject, "test")[:12]
    mine = [ours.rows[f"{subject}/{index}"] for index in range(12)]
    labels = {
        str(index): {
            "origin_prompt": row["prompt"], "prediction": row["answer"], "gold": row["target"],
            **{f"label: {letter}": {"testing input": "", "prompt": "", "PPL": -value}
               for letter, value in zip("ABCD", row["response"]["logprobs"], strict=True)},
        }
        for index, row in enumerate(mine)
    }  # fmt: skip
    likely = tmp_path / f"lukaemon_mmlu_{subject}.json"
    likely.write_text(json.dumps(labels))
    log = {
        "version": 2, "status": "success", "eval": {"task": f"inspect_evals/mmlu_{subject}", "model": "m"},
        "samples": [
            {"id": index, "epoch": epoch, "input": doc["question"], "choices": doc["choices"], "target": row["target"],
             "messages": [{"role": "user", "content": "Answer: " + doc["question"]}],
             "output": {"completion": f"ANSWER: {row['answer']}"},
             "scores": {"choice": {"value": "C" if row["stats"]["correct"] else "I", "answer": row["answer"]}}}
            for epoch in (1, 2)
            for index, (doc, row) in enumerate(zip(docs, mine, strict=True))
        ],
    }  # fmt: skip
    inspected = tmp_path / "log.json"
    inspected.write_text(json.dumps(log))
    for path, harness, average in (
        (likely, "OpenCompass", "macro"), (inspected, "Inspect", "micro")
    ):  # fmt: skip
        samples = detect.read(path)
        assert samples is not None and (samples.harness, samples.average) == (harness, average)
        joined = explain.join(ours, samples)
        assert len(joined.matched) == 12
        # PPL is a mean over the whole text: sums over the options' tokens say nothing of it
        assert samples.per_token == (path == likely)
        _, remarks = explain.inner_stages(joined, benchmark, engine, joined.outer_stages()[0][-1])
        assert not any("recomputed" in line for line in remarks)
        for name, item in joined.matched.items():
            row = ours.rows[name]
            assert (item.score, item.answer, item.target) == (row["stats"]["correct"], row["answer"], row["target"])


def test_answer_lines_within_a_question_are_no_examples() -> None:
    shot, asked = "Q: One?\nAnswer: B\n\n", "Who is right?\nA: I am.\nB: You are.\nA: No."
    context, question, count = waterfall.split_prompt(f"{shot}{shot}{asked}\nAnswer:", "", asked)
    assert (context, question, count) == (shot + shot, f"{asked}\nAnswer:", 2)
    assert waterfall.split_prompt(f"{asked}\nAnswer:", "", asked)[2] == 0


def test_opencompass_replies_are_scored_by_its_rule_or_not_at_all(tmp_path: Path) -> None:
    """GSM8K's gold is the whole solution; numbers as OpenCompass 0.5 takes them. Letters are refused, not guessed."""
    cases = [
        ("So 7.", 0.0),
        ("It is 1,234.", 0.0),
        ("1234.0 dollars\nQuestion: 5", 1.0),
        ("-1234", 0.0),
        ("none", 0.0),
        ("1234", 1.0),
    ]
    rows = {
        str(i): {"origin_prompt": "q", "prediction": text, "gold": "6 + 1 = 7\n#### 1,234"}
        for i, (text, _) in enumerate(cases)
    }
    file = tmp_path / "gsm8k.json"
    file.write_text(json.dumps(rows))
    samples = detect.read(file)
    assert samples is not None and [item.score for item in samples.items] == [score for _, score in cases]
    file.write_text(json.dumps({"0": {"origin_prompt": "q", "prediction": "I say B.", "gold": "B"}}))
    with pytest.raises(InputError, match="not known"):
        detect.read(file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("samples_x.jsonl", '{"doc_id": 0, "resps": []}\n', "begins like a sample file and is none"),
        ("log.json", '{"eval": {}, "samples": [1]}', "begins like a sample file and is none"),
        ("log.eval", "PK", "inspect log convert"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        detect.read(tmp_path / name)


@pytest.mark.slow
def test_the_waterfall_explains_lm_evals_own_run(tmp_path: Path, call: Compare) -> None:  # noqa: F811
    """lm-evaluation-harness itself on the demonstration, three shots and a model limited to 14 tokens."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed; pip install -e '.[bench]'")
    folder = lm_eval_peer.run(tmp_path / "peer", shots=3, max_length=CUT)
    words = ["-c", "demo", "-o", str(tmp_path / "ours"), "--quiet"]
    work("mmlu", *words)
    (path,) = (tmp_path / "ours" / "samples").glob("*.jsonl")
    run, samples = find.open_run(path), detect.read(folder)
    assert samples is not None and samples.max_length == CUT
    joined = explain.join(run, samples)
    assert len(joined.matched) == len(run.rows) == len(samples.items)
    engine = HFEngine(ModelSpec(str(demo.checkpoint()), device="cpu"))
    benchmark = benchmark_of("mmlu", *words)
    first, last = joined.outer_stages()
    inner, remarks = explain.inner_stages(joined, benchmark, engine, first[-1])
    chain = [*first, *inner, *last]
    gap = chain[-1].value - chain[0].value
    assert gap < 0 and sum(step.change for step in waterfall.steps(chain)) == gap
    recomputed = float(next(line for line in remarks if "within" in line).split("within ")[1].split()[0])
    assert recomputed <= 1e-4
    changes = waterfall.changes_by_item(chain, list(joined.matched))
    assert changes and all(changes.values())
    assert {step.name for step in waterfall.steps(chain) if step.lost or step.won} <= {
        "truncation",
        "shots",
        "prompt text",
    }
    status, out = call(path, folder, "--explain", "-c", "demo")
    assert status == 0 and "the sum of the steps" in out
