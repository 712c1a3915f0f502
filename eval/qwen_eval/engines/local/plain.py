"""Generation by a model's own code, whose cache is checked.

Not every model's cache holds what its next token needs: some are ignored, some keep a state for one token, some models look at
the whole text again. So what a text was written by is compared with one forward pass over the whole text; where they differ,
every token is computed by a forward pass over the whole text so far, without a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from qwen_eval.engines.local.runtime import DEVICE_ERRORS, Runtime, out_of_memory
from qwen_eval.engines.local.sampling import Choice, Reply
from qwen_eval.models.configs import generation_config
from qwen_eval.models.context import installed
from qwen_eval.models.tokenizers import TextTokenizer

CHECKED = 3  # texts that are compared with a pass over the whole, and each that is much longer than those
LONGER = 1.25
ROUNDING = {torch.float32: 1e-2}  # in a log-probability of a likely token; a cache that is not used is off by units
COARSE = 1.0
LIKELY = 4  # tokens at each place that are compared, the most likely ones


class Plain:
    """transformers' own generate, with our choice of tokens."""

    def __init__(self, runtime: Runtime, choose: Choice) -> None:
        self._runtime, self._choose = runtime, choose
        self._cached = True  # whether the model's code keeps what it has computed
        self._checked: list[int] = []  # lengths of the texts that were compared

    def write(self, batch: Sequence[Reply]) -> Sequence[Reply]:
        """Writes texts whose prompts have one length, and returns them."""
        if not self._cached:
            self._recompute(batch)
            return batch
        try:
            rows, scores = self._generate(batch)
            why = "" if self._trusted(len(rows[0])) else self._differs(rows[:1], scores)
        except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, RuntimeError) and _from_device(error):
                raise
            why = f"its code fails with one, {type(error).__name__}"
        if why:
            self._cached = False
            self._runtime.notes.append(
                f"every token was computed with the whole text before it, without a cache: {why}"
            )
            self._recompute(batch)
        return batch

    def _trusted(self, length: int) -> bool:
        """Whether texts of this length need no comparison any more."""
        return len(self._checked) >= CHECKED and length <= LONGER * max(self._checked)

    def _begin(self, batch: Sequence[Reply]) -> tuple[Tensor, _Ours]:
        """The prompts [rows, length], and our choice of tokens for them."""
        for reply in batch:
            reply.restart()
        ids = torch.from_numpy(np.stack([reply.prompt for reply in batch]).astype(np.int64))
        return ids.to(self._runtime.model.device), _Ours(batch, self._runtime.checkpoint.tokenizer, self._choose)

    def _generate(self, batch: Sequence[Reply]) -> tuple[Tensor, Tensor]:
        """By the model's generate. The texts with their prompts [rows, length] and the logits of the first one's tokens
        [tokens, vocabulary]."""
        runtime = self._runtime
        ids, ours = self._begin(batch)
        runtime.rotation.forget()
        rows = runtime.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=generation_config(
                do_sample=False,
                max_new_tokens=max(reply.max_tokens for reply in batch),
                pad_token_id=0,
                eos_token_id=None,
                use_cache=True,
            ),
            logits_processor=LogitsProcessorList([ours]),
            stopping_criteria=StoppingCriteriaList([_Ended(batch)]),
        )
        runtime.tokens_computed += sum(len(reply.prompt) + len(reply.tokens) for reply in batch)
        return rows, torch.stack(ours.first)

    def _recompute(self, batch: Sequence[Reply]) -> None:
        """By a forward pass over the whole texts for every token."""
        runtime = self._runtime
        rows, ours = self._begin(batch)
        with self._extended(rows.shape[1]):
            while not all(reply.reason for reply in batch):
                runtime.rotation.forget()
                last = torch.tensor([rows.shape[1] - 1], device=rows.device)
                scores = runtime.logits(last, input_ids=rows, use_cache=False)[:, 0]
                runtime.tokens_computed += rows.numel()
                rows = torch.cat([rows, ours(rows, scores).argmax(-1, keepdim=True)], 1)

    def _extended(self, prompt: int) -> AbstractContextManager[None]:
        """Within it NTK's factor is that of a prompt of so many tokens: it is kept while a text grows."""
        extension = installed(self._runtime.model)
        return extension.alpha(self._runtime.checkpoint.context.alpha(prompt)) if extension else nullcontext()

    def _differs(self, row: Tensor, scores: Tensor) -> str:
        """Why a text's logits [tokens, vocabulary] are not those of one pass over all of it [1, length]; empty where they
        are."""
        runtime = self._runtime
        self._checked.append(row.shape[1])
        start = row.shape[1] - len(scores) - 1
        runtime.rotation.forget()
        with self._extended(start + 1):
            whole = runtime.model(input_ids=row[:, :-1], use_cache=False).logits[0, start:].float().log_softmax(-1)
        scores = scores.log_softmax(-1)
        likely = whole.topk(min(LIKELY, whole.shape[1]), -1).indices
        difference = float((scores - whole).gather(1, likely).abs().max())
        allowed = ROUNDING.get(runtime.model.dtype, COARSE)
        return "" if difference <= allowed else f"with one its log-probabilities are off by up to {difference:.2g}"


class _Ours(LogitsProcessor):
    """Forces our choice of the next token, and adds it to the replies. first: the logits of the first text's tokens."""

    def __init__(self, batch: Sequence[Reply], tokenizer: TextTokenizer, choose: Choice) -> None:
        self._batch, self._tokenizer, self._choose = batch, tokenizer, choose
        self.first: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.first.append(scores[0].float())
        forced = torch.full_like(scores, float("-inf"))
        for row, token in enumerate(self._choose(scores, self._batch)):
            forced[row, token] = 0.0
            if not self._batch[row].reason:
                self._batch[row].add(token, self._tokenizer)
        return forced


class _Ended(StoppingCriteria):
    """A row ends when its reply has."""

    def __init__(self, batch: Sequence[Reply]) -> None:
        self._batch = batch

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        return torch.tensor([bool(reply.reason) for reply in self._batch], device=input_ids.device)


def _from_device(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out or that an accelerator failed, not that the code cannot run."""
    return out_of_memory(error) or any(name in str(error) for name in DEVICE_ERRORS)
