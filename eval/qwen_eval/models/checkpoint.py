"""A checkpoint: found, described and checked first, loaded later.

`open_checkpoint` (opening.py) reads config and tokenizer; `Checkpoint.load` makes the model.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import importlib.util
import io
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from qwen_eval.models import (
    adapters,
    configs,
    files,
    fingerprint,
    gguf,
    hub,
    imports,
    kinds,
    memory,
    native,
    quantized,
    qwen1,
    remote,
    unused,
    versions,
)
from qwen_eval.models.context import ContextExtension, install
from qwen_eval.models.tokenizers import TextTokenizer, one_line
from qwen_eval.schema import CheckpointError, ModelSpec

ATTENTION = {"auto": None, "eager": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}
_AGAIN = "get the weights and config.json again, or upgrade transformers"
_OTHERS = "the weights and config.json belong to different models"
_SHRINK = {"none": 1.0, "int8": 0.55, "nf4": 0.35}  # of the size in 16 bits, including what is not quantized


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. Made by `open_checkpoint`.

    name: hub id or folder name. revision: commit on the hub or "local". folder: where config and tokenizer lie.
    context_limit: tokens a sequence may have. context: the extension that `load` installs. dtype: what the weights are
    loaded as. device: a torch device. precision: "bf16", "fp16", "fp32", "int8", "nf4" ("nf4+bf16" where --dtype is not
    the checkpoint's own), or a quantized checkpoint's own ("gptq4", "gguf:Q4_1"). header: that of
    the GGUF file that holds all of it. adapter: the one that the model is loaded with;
    adapters_tokenizer: whether its tokenizer or chat template are others than the model's, and used. quantized: whether it
    computes with quantized weights, stored so or made here. remarks: sentences for the results on what `load` met.
    """

    spec: ModelSpec
    name: str
    revision: str
    folder: Path
    config: PreTrainedConfig
    tokenizer: TextTokenizer
    context_limit: int
    context: ContextExtension
    dtype: torch.dtype
    device: str
    precision: str
    header: gguf.Header | None
    adapter: adapters.Adapter | None
    adapters_tokenizer: bool
    quantized: bool
    _located: hub.Located
    _own_limit: int | None
    remarks: list[str] = field(default_factory=list)

    @property
    def trained_length(self) -> int:
        """The length in tokens the model was trained with (Qwen-1: seq_length)."""
        return self.context.trained_length

    @property
    def qwen1(self) -> bool:
        """Whether this is a Qwen-1 checkpoint, run by our own model class."""
        return isinstance(self.config, qwen1.QWenConfig)

    @property
    def native(self) -> native.Native | None:
        """The architecture of native.py that this is, None for none of those."""
        return native.of(self.config)

    @cached_property
    def weights(self) -> list[Path]:
        """The weight files, downloaded if need be and checked to be whole. Raises CheckpointError."""
        if self.header:  # reading its header has checked it
            return [self.header.path]
        self._located.fetch()
        return files.local_weights(self.folder)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify the model: the weights' content (fingerprint.fingerprint), the configs, the tokenizer
        and, where it is trusted, the code. Downloads the weights if need be."""
        return self._identified_by(fingerprint.fingerprint(self.weights))

    @cached_property
    def sampled_fingerprint(self) -> str:
        """The fingerprint that version 0.1 stored, for which it read blocks of the weights only."""
        return self._identified_by(fingerprint.sampled(self.weights))

    def _identified_by(self, weights: str) -> str:
        """A hash of the weights' fingerprint and of what lies beside them, and of the adapter."""
        beside = [] if self.header else [self.folder / name for name in ("config.json", "generation_config.json")]
        if self.spec.trust_remote_code and not self.header:
            beside += sorted(self.folder.glob("*.py"))
        parts = [path.read_bytes() for path in beside if path.exists()]
        parts += [weights.encode(), self.tokenizer.fingerprint.encode()]
        parts += [self.adapter.fingerprint.encode()] if self.adapter else []
        return hashlib.sha256(b"\n".join(parts)).hexdigest()[:16]

    @property
    def notes(self) -> list[str]:
        """Remarks for the results: libraries of versions, and kinds of GGUF files, that were not tried; tables that are
        rounded."""
        notes = versions.untried()
        if self.adapter:
            notes += self.adapter.notes(self.name.removesuffix(self.adapter.suffix))
            if self.adapters_tokenizer:
                notes.append(f"tokenizer and chat template are those in the adapter's folder, {self.adapter.folder}")
        elif not self.header and (self.folder / files.ADAPTER).exists():
            notes.append(
                f"{self.folder / files.ADAPTER} lies beside the model and is not applied; --adapter applies one"
            )
        table = getattr(self.config, "table_dtype", None)
        if table:
            notes.append(f"{self.name}: its table of positions is rounded to {table}, as by its code of 2023")
        if self.header and self.header.architecture not in gguf.TRIED:
            kind = self.header.architecture
            notes.append(
                f"{self.name}: transformers' reader of GGUF files was not compared with another one for {kind}"
            )
        return notes

    @property
    def template_label(self) -> str:
        """Identifies the chat template or format in signatures."""
        return self.tokenizer.template_label

    def _too_large(self) -> bool:
        """Whether the weights need more than one GPU, and this process may use several: --device auto, and no other process
        beside it. A tenth of a GPU's memory is left for activations."""
        if (
            self.spec.device != "auto"
            or not self.device.startswith("cuda")
            or int(os.environ.get("WORLD_SIZE", "1")) > 1
        ):
            return False
        size = sum(path.stat().st_size for path in self.weights) * _SHRINK[self.spec.quantize]
        return torch.cuda.device_count() > 1 and size > 0.9 * torch.cuda.mem_get_info(self.device)[0]

    @property
    def _where(self) -> Path:
        """What error messages name."""
        return self.header.path if self.header else self.folder

    @property
    def _class(self) -> Any:
        if self.native:
            return self.native.model
        causal = type(self.config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        return (
            AutoModelForImageTextToText if not causal and kinds.speaks_and_sees(self.config) else AutoModelForCausalLM
        )

    def import_code(self) -> None:
        """Imports what `load` imports, so that the memory which loading adds is the model's own."""
        if self.spec.quantize != "none":
            importlib.import_module("bitsandbytes")
        if self.adapter:
            importlib.import_module("peft")
        with (
            configs.quiet(),
            torch.device("meta"),
            contextlib.suppress(Exception),
        ):  # errors are raised when the model is loaded
            self._skeleton()

    def _skeleton(self) -> Any:
        """The model without weights, on the device that is current."""
        config = copy.deepcopy(self.config)
        if self.native:
            return self._class(config)
        if self._code:
            remote.prepare(self._code, self.folder)
        return self._class.from_config(config, dtype=self.dtype, trust_remote_code=self.spec.trust_remote_code)

    @property
    def _code(self) -> str:
        """Where the model's class is in the checkpoint's own code, "" for one of transformers or ours."""
        if not self.spec.trust_remote_code or self.native or self.header:
            return ""
        return str((getattr(self.config, "auto_map", None) or {}).get(self._class.__name__, ""))

    def _computed(self) -> Any:
        """The model with parameters that take no memory, and all else computed."""
        with accelerate.init_empty_weights(include_buffers=False):
            return self._skeleton()

    @cached_property
    def learned_positions(self) -> int:
        """How many positions the model has learned an embedding for (GPT-2, OPT): beyond them it computes nothing. 0 for all
        others, which rotate, shift or compute their positions."""
        text = self.config.get_text_config()
        if self.native or getattr(text, "rope_parameters", None) or not self._own_limit:
            return 0
        with configs.quiet(), torch.device("meta"):
            try:
                modules = self._skeleton().named_modules()
            except Exception:  # raised when the model is loaded
                return 0
            tables = [
                module.num_embeddings
                for name, module in modules
                if isinstance(module, torch.nn.Embedding) and re.search(r"wpe|pos", name.rpartition(".")[2])
            ]
        # some tables have rows beside those of positions (OPT: two)
        return self._own_limit if any(rows >= self._own_limit for rows in tables) else 0

    def load(self) -> PreTrainedModel:
        """The model on its device, in evaluation mode, with its context extension installed and set to decode greedily.

        Raises CheckpointError: damaged or missing weights, not enough memory, a missing package.
        """
        options = {
            "config": copy.deepcopy(self.config),
            "dtype": self.dtype,
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,  # reported, and refused below with the tensor's name
            "local_files_only": True,
        }
        if ATTENTION[self.spec.attention]:
            options["attn_implementation"] = ATTENTION[self.spec.attention]
        if self.device != "cpu" or self.spec.quantize != "none":
            options["device_map"] = "auto" if self._too_large() else {"": self.device}
        if self.spec.quantize != "none":
            options["quantization_config"] = _bitsandbytes(self.spec.quantize, self.dtype)
        with configs.quiet():
            try:
                model = self._quantized(options) if self._quantizes_later else self._adapted(self._loaded(options))
            except CheckpointError:
                raise
            except torch.OutOfMemoryError as error:
                remedy = "use --quantize int8 or nf4, a smaller checkpoint or another --device"
                raise CheckpointError(f"{self.name} does not fit the memory of {self.device}; {remedy}") from error
            except ImportError as error:
                text = f"loading it needs a package that is missing or does not work: {one_line(error)}"
                raise CheckpointError(f"{self._where}: {text}{imports.remedy(error)}") from error
            except Exception as error:  # transformers raises anything here
                if self._code:
                    raise CheckpointError(f"{self._where}: {remote.failure(error, self.folder)}") from error
                raise CheckpointError(
                    f"{self._where}: the model cannot be loaded: {one_line(error)}; {_AGAIN}"
                ) from error
        if self.quantized and self.device == "cpu":
            _prepare_quantized(model)
        eos = list(self.tokenizer.eos_ids)
        model.generation_config = configs.generation_config(
            do_sample=False, eos_token_id=eos or None, pad_token_id=eos[0] if eos else None
        )
        install(model, self.context)
        model.train(False)
        return model

    def _loaded(self, options: dict[str, Any]) -> PreTrainedModel:
        """The model of the checkpoint's files, with every tensor that it needs. Raises CheckpointError, and anything."""
        model: PreTrainedModel
        with remote.loading(self._code, self.folder), adapters.none_unasked():
            model, report = self._load_gguf(options) if self.header else self._load_folder(options)
        model = self._checked(model, report)
        if quantized.settings(self.config):
            quantized.check_type(model, self.dtype, self._where)
        if self.header:
            gguf.check_numbers(self.header, model)
        return model

    def _checked(self, model: PreTrainedModel, report: dict[str, Any]) -> PreTrainedModel:
        if remote.is_remote(model):
            remote.complete(model, report, self._computed, self._where)
        self._check_report(report, model)
        return model

    def _adapted(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model with its adapter, if it has one."""
        if self.adapter is None:
            return model
        adapted: PreTrainedModel = adapters.attach(model, self.adapter, self.tokenizer.vocab_size)
        return adapted

    @property
    def _quantizes_later(self) -> bool:
        """Whether weights are made first that no file holds, and quantized then: dequantized or merged ones."""
        merges = self.adapter is not None and self.adapter.merged
        return self.spec.quantize != "none" and (self.header is not None or merges)

    def _quantized(self, options: dict[str, Any]) -> PreTrainedModel:
        """The model made without quantization in main memory, given to its class again for bitsandbytes to quantize it."""
        wide = {name: value for name, value in options.items() if name != "quantization_config"}
        merges = self.adapter is not None and self.adapter.merged
        model = self._loaded({**wide, "device_map": {"": "cpu"}})
        model = self._adapted(model) if merges else model
        weights = dict(model.state_dict())
        if adapters.tied(model):
            weights.pop("lm_head.weight", None)
        again: Any = type(model)
        with remote.loading(self._code, self.folder):
            model, report = again.from_pretrained(None, state_dict=weights, **{**options, "config": model.config})
        model = self._checked(model, report)
        return model if merges else self._adapted(model)

    def _load_folder(self, options: dict[str, Any]) -> Any:
        """The model with transformers' report on its tensors."""
        safe = self.weights[0].suffix == ".safetensors"
        return self._class.from_pretrained(
            self.folder,
            use_safetensors=safe,
            trust_remote_code=self.spec.trust_remote_code,
            **options,
        )

    def _load_gguf(self, options: dict[str, Any]) -> Any:
        """The model with transformers' report on its tensors, its weights dequantized."""
        assert self.header is not None
        if hasattr(transformers, "GgufConfig"):  # without it such releases keep the blocks as they are where they can
            make: Any = transformers.GgufConfig
            options = {**options, "quantization_config": make(dequantize=True)}
        folder, name = self.header.path.parent, self.header.path.name
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
            model, report = self._class.from_pretrained(folder, gguf_file=name, **options)
        return model, report

    def _check_report(self, report: dict[str, Any], model: Any) -> None:
        """A model with random or unused tensors gives plausible figures. Raises CheckpointError for tensors that are missing or
        of other shapes, and for those that the model should have a place for; the others are noted."""
        extra = sorted(report.get("unexpected_keys", ()))
        mismatched = sorted(report.get("mismatched_keys", ()), key=lambda entry: str(entry[0]))
        if mismatched:
            name, found, wanted = mismatched[0]
            shapes = f"{tuple(found)} in its weights and {tuple(wanted)} by its config.json"
            raise CheckpointError(
                f"{self._where}: its weights have other shapes than its config.json says: {name} is {shapes} "
                f"({len(mismatched)} tensors); {unused.of_quantized(extra) or _OTHERS}"
            )
        missing = sorted(report.get("missing_keys", ()))
        if missing:
            text = f"{self._where}: its weights lack {unused.listed(missing)}"
            raise CheckpointError(f"{text}; {unused.of_quantized(extra) or _OTHERS}")
        misplaced = extra if self.native else unused.misplaced(extra, model)
        if misplaced:
            text = f"{self._where}: config.json has no place for {unused.listed(misplaced)}"
            raise CheckpointError(f"{text}; {unused.of_quantized(extra) or _OTHERS}")
        if extra:
            self.remarks.append(
                f"{self.name}: its weights have tensors that the model does not use: {unused.listed(extra)}"
            )


def _bitsandbytes(quantize: str, dtype: torch.dtype) -> Any:
    """The weights quantized while loading: LLM.int8 or 4-bit NormalFloat (computing in `dtype`)."""
    make: Any = transformers.BitsAndBytesConfig  # its constructor has no types
    if quantize == "int8":
        return make(load_in_8bit=True)
    return make(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _prepare_quantized(model: PreTrainedModel) -> None:
    """For a quantized model in main memory: releases the weight file, and computes in its own precision on every processor."""
    memory.copy_from_file(model)
    for module in model.modules():  # bitsandbytes' kernel for some processors rounds to bfloat16 and takes few widths
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  # no attribute that a type checker knows
