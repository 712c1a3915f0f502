"""A loaded model and how to run it: forward passes over packed rows, its attention, its memory, its counters."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from qwen_eval.engines.local import alibi, blocked, cascade, features, heap
from qwen_eval.engines.local.budget import number, token_bytes
from qwen_eval.engines.local.cascade import Attention, Cascade
from qwen_eval.engines.local.features import Features
from qwen_eval.engines.local.head import Head
from qwen_eval.engines.local.last_layer import last_layer, pruned
from qwen_eval.engines.local.rules import Unsupported
from qwen_eval.engines.local.slots import Step
from qwen_eval.models import memory
from qwen_eval.models.checkpoint import Checkpoint
from qwen_eval.models.configs import quiet
from qwen_eval.models.context import installed, logn_factor
from qwen_eval.models.memory import free_bytes
from qwen_eval.models.rotary import Rotation
from qwen_eval.schema import InputError

# Own tokens of one packed forward pass when the batch size is automatic. On a CPU larger packs gain nothing and cost
# cache; on a GPU the matrices must be tall enough to keep it busy.
AUTO_TOKENS = {"cpu": 2048, "cuda": 16384, "mps": 4096}

# Where configs give the number of positions that a model has
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")

LEAST_TOKENS = 256  # of an automatic pass, however little memory is left: below it the halving decides
SHARE_OF_FREE = 0.5  # of free memory that a pass may be planned to take: what it takes is estimated

Result = TypeVar("Result")


class Table(NamedTuple):
    """How positions are rotated. Prompts share only what is rotated alike. alpha: NTK's factor. length: of a rotation that
    follows the length, a sequence whose table it is; 0 for that of short ones."""

    alpha: float = 1.0
    length: int = 0


class Runtime:
    """The model of a checkpoint, loaded when it is first needed, and the counters of one engine.

    batch_size: items per forward pass, or None to fill a token budget. max_rows and max_tokens are the limits in force;
    they shrink when memory runs out. notes: sentences about the run.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int | None) -> None:
        self.checkpoint = checkpoint
        self.batch_size = batch_size
        self.max_rows = batch_size or sys.maxsize
        self.max_tokens = sys.maxsize if batch_size else AUTO_TOKENS.get(torch.device(checkpoint.device).type, 4096)
        self._automatic = batch_size is None
        self.tokens_computed = 0
        self.tokens_in_prompts = 0
        self.notes: list[str] = checkpoint.notes
        self.weights: dict[str, int] = {}  # stored bytes by type
        self.resident = 0  # bytes that loading the model added
        self.before_blocking: Callable[[Any], object] = lambda model: (
            None
        )  # called with the model as transformers made it
        self.no_pieces = ""  # why texts cannot be read in pieces, "" where they can
        self._model: Any = None
        self._head: Head | None = None
        self._features: Features | None = None
        self._rotation: Rotation | None = None
        self._prunable: bool | None = None  # not known yet
        self._pruned_layer: int | None = None  # the last layer's index while it is computed only where it is read

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def while_loading(self, work: Callable[[], Result]) -> Result:
        """work(), while the weights are loaded on an accelerator if they are not there yet. (On a CPU both need the same
        cores, and the memory of the model could not be told from that of the work.)"""
        if self.loaded or self.checkpoint.device == "cpu":
            return work()
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(lambda: self.model)
            result = work()
            loading.result()
        return result

    @property
    def model(self) -> Any:
        if self._model is None:
            self._model = self._load()
            cascade.register()
            config = self._model.config.get_text_config()
            self._afford(token_bytes(config, self._model.dtype.itemsize))
        return self._model

    def _load(self) -> Any:
        """Loads the model, reorders its matrices for this processor, and measures the memory that it takes."""
        self.checkpoint.import_code()
        blocked.works(self.checkpoint.dtype)  # before memory is measured: what oneDNN itself takes is not the model's
        on_cpu = torch.device(self.checkpoint.device).type == "cpu"
        if on_cpu:
            heap.return_freed_pages()
        before = memory.resident(self.checkpoint.device)
        model = self.checkpoint.load()
        self.notes.extend(note for note in self.checkpoint.remarks if note not in self.notes)
        self.weights = memory.stored_bytes(model)
        self.before_blocking(model)
        blocked.block(model)
        memory.touch(model)
        self.resident = memory.resident(self.checkpoint.device) - before
        if on_cpu:
            heap.keep_freed_pages()
        return model

    def _afford(self, bytes_a_token: float) -> None:
        """Lowers an automatic number of tokens to what fits in free memory at so many bytes per token."""
        if self._automatic:
            room = SHARE_OF_FREE * free_bytes(self._model.device)
            if room < self.max_tokens * bytes_a_token:
                self.max_tokens = max(LEAST_TOKENS, int(room / bytes_a_token))

    @property
    def features(self) -> Features:
        """What the engine puts in the place of the model's attention, or why it does not (found once). Where it does not, every
        prompt is computed by the model's own forward, in batches of equal length only."""
        if self._features is None:
            self._features = self._discovered()
        return self._features

    def _discovered(self) -> Features:
        limit = min([self.checkpoint.context_limit, *filter(None, map(self._config_number, _LENGTHS))])
        try:
            # a rotation that follows the length is looked at below its border, where it does not
            with self._replaced(), self.rotated(Table()):
                return features.discover(self.model, min(limit, self.rotation.border or limit))
        except Unsupported as reason:
            return Features({}, str(reason))

    def _config_number(self, name: str) -> int:
        return number(self.model.config.get_text_config(), name)

    @property
    def rotation(self) -> Rotation:
        """The model's rotations that follow the length."""
        if self._rotation is None:
            self._rotation = Rotation(self.model)
        return self._rotation

    def table(self, length: int) -> Table:
        """How a sequence of so many tokens is rotated when it is alone."""
        return Table(self.checkpoint.context.alpha(length), self.rotation.table(length))

    @contextmanager
    def rotated(self, table: Table | Sequence[Table]) -> Iterator[None]:
        """Within it forward passes rotate by this table, or each row by its own (that differ in NTK's factor only)."""
        tables = [table] if isinstance(table, Table) else list(table)
        extension = installed(self.model)
        alphas = [one.alpha for one in tables]
        with ExitStack() as stack:
            if extension:
                stack.enter_context(extension.alpha(alphas[0] if len(set(alphas)) == 1 else alphas))
            if self.rotation:
                stack.enter_context(self.rotation.as_if(max(1, tables[0].length)))
            yield

    def forward_packed(self, own: Sequence[np.ndarray], table: Table, state: Cascade, keep: Sequence[int]) -> Tensor:
        """One forward pass over sequences packed in one row, each at positions from its start (of `state`), all rotated by one
        table. Returns the logits at the indices `keep` (ascending) of the row, [len(keep), vocabulary]. Raises Unsupported."""
        if self._pruned_layer is not None:
            state.only = self._pruned_layer, np.array(keep)
        tokens = torch.from_numpy(np.concatenate(own)[None].astype(np.int64))
        kept = None if state.only is not None else torch.tensor(keep, device=self.model.device)
        with self._learning(state.tokens), self._passing(state.positions[None], table, state) as position_ids:
            logits = self._forward(tokens, position_ids, kept)
        self.tokens_computed += state.tokens
        return logits[0]

    def hidden_packed(self, own: np.ndarray, table: Table, state: Cascade) -> Tensor:
        """The hidden states [length, width] of one sequence. Raises Unsupported."""
        tokens = torch.from_numpy(own[None].astype(np.int64)).to(self.model.device)
        with self._passing(state.positions[None], table, state) as position_ids:
            return self.head.hidden(tokens, position_ids)[0]

    @contextmanager
    def _learning(self, tokens: int) -> Iterator[None]:
        """Lowers an automatic number of tokens when a pass over `tokens` took more memory than was estimated (CUDA, where
        the allocator tells, without waiting for the device)."""
        if self.model.device.type != "cuda":
            yield
            return
        held, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        yield
        if torch.cuda.max_memory_allocated() > peak:
            self._afford((torch.cuda.max_memory_allocated() - held) / tokens)

    def forward_step(self, tokens: Tensor, positions: Sequence[int], table: Table, state: Step) -> Tensor:
        """One token of each of several sequences [sequences], at its position. Returns the next tokens' logits, [sequences,
        vocabulary]. Raises Unsupported."""
        with self._passing(np.array(positions)[:, None], table, state) as position_ids:
            logits = self._forward(tokens[:, None], position_ids, torch.tensor([0], device=self.model.device))
        self.tokens_computed += len(tokens)
        return logits[:, 0]

    @contextmanager
    def _passing(self, positions: np.ndarray, table: Table, state: Cascade | Step) -> Iterator[Tensor]:
        """Within it a forward pass attends through `state`. positions: [rows, length]; given on the model's device. Raises
        Unsupported."""
        context = self.checkpoint.context
        position_ids = torch.from_numpy(positions.astype(np.int64)).to(self.model.device)
        scale_query: Callable[[Tensor], Tensor] | None = None
        if context.logn:
            factor = logn_factor(position_ids, context.trained_length, torch.float32)[:, None, :, None]
            # in the queries' dtype first, as the original does
            scale_query = lambda query: query * factor.to(device=query.device, dtype=query.dtype)  # noqa: E731
        spans = self.features.spans
        if context.windows:
            spans = {layer: span.within(context.windows[layer]) for layer, span in spans.items()}
        state.attention = Attention(self.features.masks, spans, scale_query)
        state.position_ids = position_ids
        with cascade.attending(state), self.rotated(table):
            yield position_ids

    def _forward(self, tokens: Tensor, position_ids: Tensor, keep: Tensor | None) -> Tensor:
        """The logits of a pass over tokens at positions, [rows, length] each; keep: as in `logits`."""
        given = {"position_ids": position_ids} if self._takes("position_ids") else {}
        return self.logits(keep, input_ids=tokens.to(self.model.device), **given, use_cache=False)

    def _takes(self, name: str) -> bool:
        """Whether the model's forward declares a keyword."""
        return name in inspect.signature(self.model.forward).parameters

    def logits(self, keep: Tensor | None, **inputs: Any) -> Tensor:
        """The model's logits at the sequence positions `keep` only, [batch, len(keep), vocabulary]; None for all."""
        if keep is None:
            return self._all_logits(**inputs)
        if self._takes("logits_to_keep"):
            return self._all_logits(**inputs, logits_to_keep=keep)
        return self._all_logits(**inputs)[:, keep]

    def _all_logits(self, **inputs: Any) -> Tensor:
        logits: Tensor = self.model(**inputs).logits
        return logits

    @property
    def head(self) -> Head:
        """The model in two halves. Raises InputError for a model that has none."""
        if self._head is None:
            self._head = Head(self.model, self.checkpoint.name)
        return self._head

    def forward_padded(self, sequences: Sequence[np.ndarray], keep: Sequence[int]) -> Tensor:
        """Whole prompts in one batch through the model's own attention: padded on the right, or of equal length, and of one
        table in either case. Returns the logits at the sequence positions `keep`, [batch, len(keep), vocabulary]."""
        longest = max(map(len, sequences))
        ids = np.zeros((len(sequences), longest), dtype=np.int64)
        mask = np.zeros((len(sequences), longest), dtype=np.int64)
        for index, tokens in enumerate(sequences):
            ids[index, : len(tokens)] = tokens
            mask[index, : len(tokens)] = 1
        device = self.model.device
        self.tokens_computed += int(mask.sum())
        inputs = {"input_ids": torch.from_numpy(ids).to(device)}
        positions = torch.from_numpy((mask.cumsum(-1) - 1).clip(min=0)).to(device)
        if not mask.all():
            inputs["attention_mask"] = torch.from_numpy(mask).to(device)
        # the extension reads NTK's factors from the positions; a model whose attention is its own counts them itself
        if self.features.replaced and self._takes("position_ids"):
            inputs["position_ids"] = positions
        with self.rotation.as_if(longest) if self.rotation else nullcontext():
            return self.logits(torch.tensor(keep, device=device), **inputs, use_cache=False)

    def halving(self, items: Sequence[Result], run: Callable[[Sequence[Result]], Any]) -> Any:
        """run(items), or None when memory ran out: max_rows is then half of what did not fit, and the caller takes a
        smaller batch. Raises InputError when a single item does not fit."""
        try:
            return run(items)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not out_of_memory(error):
                raise
            if len(items) == 1:
                raise InputError(
                    f"one item alone does not fit the memory of {self.checkpoint.device}; use --quantize, a smaller "
                    "--max-seq-len or another --device"
                ) from error
            self.max_rows = len(items) // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    @contextmanager
    def cascade_attention(self, prune: bool = True) -> Iterator[None]:
        """Within it the cascade is the model's attention. prune: the last layer is computed only where its output is read, if
        the model allows that. Raises Unsupported for a model whose attention cannot be replaced."""
        if not self.features.replaced:
            raise Unsupported(self.features.reason)
        with self._replaced(), self._pruning() if prune else nullcontext():
            yield

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        """Within it transformers calls the cascade in the place of the model's attention. Raises Unsupported."""
        model = self.model
        before = model.config._attn_implementation
        try:
            with quiet():
                model.set_attn_implementation(cascade.NAME)
        except (ValueError, AttributeError) as error:
            raise Unsupported("its attention cannot be replaced") from error
        try:
            with alibi.replaced(model):
                yield
        finally:
            with quiet():
                model.set_attn_implementation(before)

    @contextmanager
    def _pruning(self) -> Iterator[None]:
        """Within it the last layer is computed only where its output is read, if the model allows that (checked once on a
        short input)."""
        layer = last_layer(self.model)
        if layer is None or self._prunable is False:
            yield
            return
        index = self._config_number("num_hidden_layers") - 1
        if self._prunable is None:
            self._prunable = self._prunes(layer, index)
        with pruned(layer) if self._prunable else nullcontext():
            self._pruned_layer = index if self._prunable else None
            try:
                yield
            finally:
                self._pruned_layer = None

    def _prunes(self, layer: torch.nn.Module, index: int) -> bool:
        """Whether the pruned last layer gives the logits of the whole one (models may scale or gate its parts)."""
        ids, keep = [np.arange(1, 9)], [3, 7]
        counted = self.tokens_computed
        try:
            with torch.inference_mode():
                whole = self.forward_packed(ids, Table(), Cascade([8]), keep)
                self._pruned_layer = index
                with pruned(layer):
                    part = self.forward_packed(ids, Table(), Cascade([8]), keep)
        except (TypeError, AttributeError, RuntimeError):
            return False
        finally:
            self._pruned_layer, self.tokens_computed = None, counted
        return part.shape == whole.shape and torch.allclose(part.float(), whole.float(), atol=1e-3, rtol=1e-2)

    def usage(self) -> Mapping[str, float]:
        """tokens computed, tokens in the prompts; in GB the peak of memory (GPU: the allocator's; CPU: the process's), the
        stored weights, also by type, and what loading them added (0 before the model is loaded)."""
        return {
            "tokens": self.tokens_computed,
            "prompt_tokens": self.tokens_in_prompts,
            "peak_memory_gb": memory.peak(self.checkpoint.device) / 1e9,
            "weights_gb": sum(self.weights.values()) / 1e9,
            "resident_gb": self.resident / 1e9,
            **{f"weights_gb:{kind}": size / 1e9 for kind, size in self.weights.items()},
        }


DEVICE_ERRORS = ("CUDA error", "HIP error", "MPS backend")  # what torch's errors say when an accelerator fails


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed because memory ran out."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


@contextmanager
def device_failures(device: str) -> Iterator[None]:
    """Turns the failure of an accelerator (lost, reset, an illegal access) into one line of InputError."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if out_of_memory(error) or not any(name in text for name in DEVICE_ERRORS):
            raise
        raise InputError(
            f"{device} failed ({text.splitlines()[0][:200]}); the answers up to here are stored and the same command goes on "
            "from them, once the device works (nvidia-smi) or with another --device"
        ) from error


def device_name(device: str) -> str:
    """The accelerator's own name, or the CPU with the number of threads."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    return f"{device} ({torch.get_num_threads()} threads)" if device == "cpu" else device
