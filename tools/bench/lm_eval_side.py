"""lm-evaluation-harness on the bench's own prompts, through its model classes."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

from qwen_eval.schema import Generate, InputError, Sample


def require() -> None:
    """Raises InputError where lm-evaluation-harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError("lm-evaluation-harness is not installed; run: pip install -c constraints.txt -e '.[bench]'")


def hf(model: Any, tokenizer: Any, batch_size: int) -> Any:
    """Its HF backend around a model that is loaded already."""
    require()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def choose(language_model: Any, samples: Sequence[Sample]) -> list[list[float]]:
    """Every question's options as log-likelihood requests in its own API, which shares a context's logits among options of
    one token. Returns a log-probability an option."""
    from lm_eval.api.instance import Instance

    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=(sample.request.prompt(), option), idx=number)
        for sample in samples
        for number, option in enumerate(sample.request.options)
    ]
    scores = iter(language_model.loglikelihood(requests, disable_tqdm=True))
    return [[next(scores)[0] for _ in sample.request.options] for sample in samples]


def generate(language_model: Any, requests: Sequence[Generate]) -> list[str]:
    """Every prompt as a generate_until request, greedy, ended by its length."""
    from lm_eval.api.instance import Instance

    made = [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(request.text(), {"until": [], "max_gen_toks": request.max_tokens, "do_sample": False}),
            idx=0,
        )
        for request in requests
    ]
    return language_model.generate_until(made, disable_tqdm=True)
