"""lm-evaluation-harness on the real model and real questions: `make peer`. The model is brought by `make real`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lm_eval_peer
import real
from known import work
from qwen_eval.compare import explain, waterfall
from qwen_eval.compare.readers import detect
from qwen_eval.engines.local.engine import HFEngine
from qwen_eval.runs import find
from qwen_eval.schema import Choose, Generate, ModelSpec
from qwen_eval.tasks.load import official
from shared import REPOSITORY, shared

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(3600)]
SUBJECTS = ("anatomy", "high_school_world_history", "moral_scenarios", "professional_law")
LIMIT = 15
CONTEXT = 8192


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> Path:
    """The model's file, and as a folder for transformers."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed; run make peer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        return REPOSITORY / real.convert(real.fetch())


@pytest.fixture(scope="module")
def engine(model: Path) -> HFEngine:
    return HFEngine(ModelSpec(str(REPOSITORY / real.MODEL), device="cpu"))


@pytest.fixture(scope="module")
def theirs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm-eval")
    return lm_eval_peer.run(folder / "peer", 5, CONTEXT, model, shared("data/mmlu"), SUBJECTS, LIMIT)


def ignore(index: int, response: Any) -> None:
    """What the engine calls for every response."""


def test_the_file_and_the_folder_made_from_it_give_equal_answers(model: Path, engine: HFEngine, theirs: Path) -> None:
    samples = detect.read(theirs)
    assert samples is not None
    asked = [Choose("", (), item.prompt, item.continuations) for item in samples.items[::5]]
    folder = HFEngine(ModelSpec(str(model), device="cpu"))
    assert folder.describe().precision == "fp32" and engine.describe().precision == "gguf:Q4_1"
    assert [one.logprobs for one in engine.choose(asked, ignore)] == [
        one.logprobs for one in folder.choose(asked, ignore)
    ]
    written = [Generate(item.prompt, 24) for item in samples.items[::12]]
    assert [one.texts for one in engine.generate(written, ignore)] == [
        one.texts for one in folder.generate(written, ignore)
    ]


def test_mmlu_letters_and_log_probabilities_are_theirs(engine: HFEngine, theirs: Path) -> None:
    """Their own prompts through our engine."""
    samples = detect.read(theirs)
    assert samples is not None and len(samples.items) == LIMIT * len(SUBJECTS)
    asked = [Choose("", (), item.prompt, item.continuations) for item in samples.items]
    worst = 0.0
    for item, chosen in zip(samples.items, engine.choose(asked, ignore), strict=True):
        worst = max(worst, *(abs(x - y) for x, y in zip(item.logprobs, chosen.logprobs, strict=True)))
        best = max(range(4), key=lambda index: item.logprobs[index])
        assert chosen.logprobs[best] >= max(chosen.logprobs) - 1e-4, item.index
    print(f"{len(asked)} questions, log-probabilities at most {worst:.2g} apart")
    assert worst < 1e-4


def test_the_waterfall_against_their_file_sums_to_the_gap(
    model: Path, engine: HFEngine, theirs: Path, tmp_path: Path
) -> None:
    words = ["-c", str(REPOSITORY / real.MODEL), "-d", str(shared("data/mmlu")), "-o", str(tmp_path), "--quiet"]
    words += ["--subjects", ",".join(SUBJECTS), "--limit", str(LIMIT), "--device", "cpu"]
    work("mmlu", *words)
    (path,) = (tmp_path / "samples").glob("*.jsonl")
    run, samples = find.open_run(path), detect.read(theirs)
    assert samples is not None
    joined = explain.join(run, samples)
    assert len(joined.matched) == len(run.rows) == LIMIT * len(SUBJECTS)
    kind = official()["mmlu"]
    benchmark = kind(kind.parser().parse_args(words))
    first, last = joined.outer_stages()
    inner, remarks = explain.inner_stages(joined, benchmark, engine, first[-1])
    chain = [*first, *inner, *last]
    gap = chain[-1].value - chain[0].value
    steps = waterfall.steps(chain)
    print(
        f"gap {float(gap):+.3f}: "
        + ", ".join(f"{step.name} {float(step.change):+.3f}" for step in steps if step.change)
    )
    print("\n".join(remarks))
    assert sum(step.change for step in steps) == pytest.approx(gap, abs=1e-9)


def test_gsm8k_texts_are_theirs(model: Path, engine: HFEngine) -> None:
    """Our eight-shot prompts, greedy, with the protocol's ends, through their HFLM."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    kind = official()["gsm8k"]
    words = ["-c", str(REPOSITORY / real.MODEL), "-d", str(shared("data/gsm8k")), "--limit", "8"]
    asked: list[Generate] = [sample.request for sample in kind(kind.parser().parse_args(words)).asked]  # type: ignore[misc]
    ours = [reply.texts[0] for reply in engine.generate(asked, ignore)]
    peer = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=4, max_length=CONTEXT)
    instances = [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(
                str(request.text()),
                {"until": list(request.stop), "max_gen_toks": request.max_tokens, "do_sample": False},
            ),
            idx=number,
        )
        for number, request in enumerate(asked)
    ]
    texts = peer.generate_until(instances, disable_tqdm=True)
    same = sum(one == other for one, other in zip(ours, texts, strict=True))
    print(f"{same} of {len(ours)} texts are the same")
    assert same == len(ours)
