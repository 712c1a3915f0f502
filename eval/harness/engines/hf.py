"""The engine that runs a transformers model in this process.

choose: rows that share a prefix are grouped (plan.py), the prefix is computed once and the rest is packed without padding
(cascade.py). Models whose attention the cascade cannot compute are run in plain padded batches of whole prompts; so is
everything when `share` is off, which is the cross-check.
"""

from __future__ import annotations

import gc
import inspect
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from harness.engines import cascade, plan
from harness.engines.cascade import Cascade, Unsupported
from harness.engines.plan import Encoded, Group, Row
from harness.models.checkpoint import Checkpoint, open_checkpoint
from harness.models.context import installed, logn_factor
from harness.schema import Choose, Chosen, EngineInfo, ModelSpec, OnResponse

# Own tokens of one packed forward pass when the batch size is automatic. On a CPU larger packs gain nothing and cost
# cache; on a GPU the matrices must be tall enough to keep it busy.
RowScores: TypeAlias = tuple[Row, np.ndarray]  # a row and its log-probabilities, float64 [positions, targets]

AUTO_TOKENS = {"cpu": 2048, "cuda": 16384, "mps": 4096}


class HFEngine:
    """Answers requests with a transformers model. Weights are loaded at the first question that needs them.

    batch_size: questions a forward pass, or None to take as many as fit a token budget found by itself (halved when memory
    runs out). share: compute shared prefixes once; off computes every prompt whole.
    Raises CheckpointError when the checkpoint cannot be opened.
    """

    def __init__(self, spec: ModelSpec, batch_size: int | None = None, share: bool = True) -> None:
        self.checkpoint: Checkpoint = open_checkpoint(spec)
        self.share = share
        self.notes: list[str] = []
        self.tokens_computed = 0
        self.tokens_in_prompts = 0
        self._model: Any = None
        self._max_rows = batch_size or sys.maxsize
        self._max_tokens = (
            sys.maxsize if batch_size else AUTO_TOKENS.get(torch.device(self.checkpoint.device).type, 4096)
        )

    # ------------------------------------------------------------------ what it is
    def describe(self) -> EngineInfo:
        import transformers

        checkpoint = self.checkpoint
        return EngineInfo(
            model=checkpoint.name,
            revision=checkpoint.revision,
            fingerprint=checkpoint.fingerprint,
            context_limit=checkpoint.context_limit,
            precision=checkpoint.precision,
            context=checkpoint.context.label,
            engine="hf",
            device=_device_name(checkpoint.device),
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
        )

    def usage(self) -> Mapping[str, float]:
        """tokens computed, tokens in the prompts, and peak memory in GB (GPU: the allocator's peak; CPU: the process's
        resident peak)."""
        device = torch.device(self.checkpoint.device)
        if device.type == "cuda":
            peak = sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {
            "tokens": self.tokens_computed,
            "prompt_tokens": self.tokens_in_prompts,
            "peak_memory_gb": peak / 1e9,
        }

    @property
    def model(self) -> Any:
        if self._model is None:
            self._model = self.checkpoint.load()
            cascade.register()
        return self._model

    # ------------------------------------------------------------------ multiple choice
    def choose(self, requests: Sequence[Choose], done: OnResponse) -> list[Chosen]:
        """Scores the options of every request. `done(index, chosen)` is called as each is ready, in no fixed order."""
        encoded = plan.encode_requests(requests, self.checkpoint.tokenizer, self.checkpoint.context_limit)
        rows = [row for item in encoded for row in item.rows]
        self.tokens_in_prompts += sum(len(row.ids) for row in rows)
        answers = _Answers(requests, encoded, done)
        with torch.inference_mode():
            for row, scores in self._score_rows(rows, [request.scoring == "context" for request in requests]):
                answers.add(row, scores)
        return answers.chosen()

    def _score_rows(self, rows: Sequence[Row], precise: Sequence[bool]) -> Iterator[RowScores]:
        """Yields every row with its log-probabilities. precise: by request, float32 or the model's own precision."""
        if not self.share:
            yield from self._score_plain(plan.longest_first(rows), precise)
            return
        groups = deque(plan.group_rows(rows, lambda row: self.checkpoint.context.alpha(len(row.ids))))
        try:
            with self._cascade():
                while groups:
                    yield from self._score_group(groups[0], precise)
                    groups.popleft()
        except Unsupported as reason:
            self.share = False
            self.notes.append(f"shared prefixes are computed once a prompt for this model: {reason}")
            yield from self._score_plain([row for group in groups for row in group.rows], precise)

    def _score_group(self, group: Group, precise: Sequence[bool]) -> Iterator[RowScores]:
        """Computes the group's prefix, then its rows in packs."""
        shared: dict[int, tuple[Tensor, Tensor]] = {}
        if group.prefix:
            state = Cascade([group.prefix], prefix=shared, capture=True)
            self._forward_packed([group.rows[0].ids[: group.prefix]], 0, group.key, state, keep=[group.prefix - 1])

        def run(pack: Sequence[Row]) -> list[RowScores]:
            own = [row.ids[group.prefix :] for row in pack]
            keep: list[int] = []
            end = 0
            for row, ids in zip(pack, own, strict=True):
                end += len(ids)
                keep += range(end - len(row.targets), end)
            state = Cascade([len(ids) for ids in own], prefix=shared)
            logits = self._forward_packed(own, group.prefix, group.key, state, keep)
            return list(read_rows(pack, logits, precise))

        yield from self._in_packs(group.rows, group.prefix, run)

    def _forward_packed(
        self, own: Sequence[np.ndarray], start: int, alpha: float, state: Cascade, keep: Sequence[int]
    ) -> Tensor:
        """One forward pass over questions packed in one row, each at positions from `start`. Returns the logits at the
        places `keep` of the row, [len(keep), vocabulary]. Raises Unsupported when a layer did not come by the cascade."""
        model, device, context = self.model, self.model.device, self.checkpoint.context
        positions = torch.from_numpy(np.concatenate([np.arange(start, start + len(ids)) for ids in own])).to(device)
        ids = torch.from_numpy(np.concatenate(own).astype(np.int64)).to(device)
        if context.logn:
            factor = logn_factor(positions, context.trained_length, model.dtype)
            state.scale_query = lambda query: query * factor.to(query.device)[None, None, :, None]
        extension = installed(model)
        with extension.alpha(alpha) if extension else nullcontext():
            logits = self._logits(
                torch.tensor(keep, device=device),
                input_ids=ids[None],
                position_ids=positions[None],
                use_cache=False,
                cascade=state,
            )
        if state.calls != model.config.get_text_config().num_hidden_layers:
            raise Unsupported("not every layer is plain attention")
        self.tokens_computed += len(ids)
        return logits[0]

    def _logits(self, keep: Tensor, **inputs: Any) -> Tensor:
        """The model's logits at the sequence positions `keep` only: [batch, len(keep), vocabulary]."""
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            return self.model(**inputs, logits_to_keep=keep).logits
        return self.model(**inputs).logits[:, keep]

    def _score_plain(self, rows: Sequence[Row], precise: Sequence[bool]) -> Iterator[RowScores]:
        """Whole prompts in right-padded batches through the model's own attention."""

        def run(pack: Sequence[Row]) -> list[RowScores]:
            longest = max(len(row.ids) for row in pack)
            ids = np.zeros((len(pack), longest), dtype=np.int64)
            mask = np.zeros((len(pack), longest), dtype=np.int64)
            for index, row in enumerate(pack):
                ids[index, : len(row.ids)] = row.ids
                mask[index, : len(row.ids)] = 1
            where = [range(len(row.ids) - len(row.targets), len(row.ids)) for row in pack]
            keep = sorted({position for positions in where for position in positions})
            device = self.model.device
            logits = self._logits(
                torch.tensor(keep, device=device),
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(mask).to(device),
                position_ids=torch.from_numpy((mask.cumsum(-1) - 1).clip(min=0)).to(device),
                use_cache=False,
            )
            self.tokens_computed += int(mask.sum())
            batch = [index for index, positions in enumerate(where) for _ in positions]
            place = [keep.index(position) for positions in where for position in positions]
            return list(read_rows(pack, logits[batch, place], precise))

        yield from self._in_packs(rows, 0, run)

    # ------------------------------------------------------------------ batches and memory
    def _in_packs(
        self, rows: Sequence[Row], prefix: int, run: Callable[[Sequence[Row]], list[RowScores]]
    ) -> Iterator[RowScores]:
        """Runs the rows in packs of the current size; a pack that does not fit in memory is halved and run again."""
        start = 0
        while start < len(rows):
            pack = plan.take_pack(rows, start, prefix, self._max_rows, self._max_tokens)
            try:
                scores = run(pack)
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not _out_of_memory(error) or len(pack) == 1:
                    raise
                self._max_rows = len(pack) // 2
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start += len(pack)
            yield from scores

    @contextmanager
    def _cascade(self) -> Iterator[None]:
        """The model with the cascade as its attention. Raises Unsupported for a model that takes no other attention."""
        model = self.model
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(model.forward).parameters.values()):
            raise Unsupported("its code passes no arguments on to its attention")
        before = model.config._attn_implementation
        try:
            model.set_attn_implementation(cascade.NAME)
        except (ValueError, AttributeError) as error:
            raise Unsupported("its attention cannot be replaced") from error
        try:
            yield
        finally:
            model.set_attn_implementation(before)


class _Answers:
    """Collects the rows' scores until a request is complete."""

    def __init__(self, requests: Sequence[Choose], encoded: Sequence[Encoded], done: OnResponse) -> None:
        self._encoded = encoded
        self._done = done
        self._scores = [np.full(len(request.options), np.nan) for request in requests]
        self._missing = [len(request.options) for request in requests]
        self._chosen: list[Chosen | None] = [None] * len(requests)

    def add(self, row: Row, scores: np.ndarray) -> None:
        """scores: [positions, targets]: summed over positions, one value an option the row answers."""
        index = row.request
        self._scores[index][list(row.options)] = scores.sum(0)
        self._missing[index] -= len(row.options)
        if not self._missing[index]:
            item = self._encoded[index]
            logprobs = tuple(float(value) for value in self._scores[index])
            chosen = Chosen(logprobs, item.shots_used, item.prompt_tokens, item.truncated)
            self._chosen[index] = chosen
            self._done(index, chosen)

    def chosen(self) -> list[Chosen]:
        return [item for item in self._chosen if item is not None]


def read_rows(pack: Sequence[Row], logits: Tensor, precise: Sequence[bool]) -> Iterator[RowScores]:
    """Log-probabilities of each row's targets. logits: [all scored positions of the pack, vocabulary], rows in order.

    precise rows compare float32 log-softmax; the others take the softmax in the model's own precision, as the 2023 code
    did (PROTOCOLS, MMLU: in bf16 this makes ties).
    """
    places = [place for place, row in enumerate(pack) for _ in row.targets]
    wanted = [targets for row in pack for targets in row.targets]
    index = torch.tensor([targets + targets[:1] * (max(map(len, wanted)) - len(targets)) for targets in wanted])
    index = index.to(logits.device)
    fine = torch.tensor([precise[pack[place].request] for place in places], device=logits.device)[:, None]
    exact = logits.float().log_softmax(-1).gather(1, index).double()
    if not all(precise[row.request] for row in pack):
        exact = torch.where(fine, exact, logits.softmax(-1).gather(1, index).double().log())
    values = exact.cpu().numpy()
    start = 0
    for row in pack:
        stop = start + len(row.targets)
        yield row, values[start:stop, : len(row.targets[0])]
        start = stop


def _out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    return f"{device} ({torch.get_num_threads()} threads)" if device == "cpu" else device
