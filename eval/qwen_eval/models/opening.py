"""How a checkpoint is opened: found, tried within limits, and described by its config and tokenizer, so that every mistake that
can be found without the weights is found before they are downloaded or read (in about a second)."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import PreTrainedConfig

from qwen_eval import __version__
from qwen_eval.models import (
    adapters,
    chat_formats,
    configs,
    files,
    fingerprint,
    gguf,
    hub,
    limited,
    native,
    quantized,
    user_cache,
)
from qwen_eval.models.checkpoint import ATTENTION, Checkpoint
from qwen_eval.models.context import ContextExtension
from qwen_eval.models.tokenizers import TEMPLATE_SECONDS, HubTokenizer, QwenTokenizer, TextTokenizer
from qwen_eval.models.tried import try_template, try_texts
from qwen_eval.models.window import parse_windows
from qwen_eval.schema import CheckpointError, ModelSpec

_QUANTIZE = ("none", "int8", "nf4")
_TRIED = "tried"  # among what is remembered
OPENING_SECONDS, TRYING_SECONDS = 60, 10  # of CPU time: large vocabularies are read slowly, all else takes a second

_log_bitsandbytes = logging.getLogger("bitsandbytes")


def open_checkpoint(spec: ModelSpec, runs: bool = True) -> Checkpoint:
    """Find a checkpoint and read all but its weights. runs: whether its weights are run here by transformers, which then has to
    read their format. Raises CheckpointError, one line that names file and remedy."""
    _validate(spec)
    _log_bitsandbytes.setLevel(logging.ERROR)  # it warns at every layer that it computes in float16
    located = hub.locate(spec)
    _try(spec, located, runs)
    return _open(spec, located, runs)


def _try(spec: ModelSpec, located: hub.Located, runs: bool) -> None:
    """Tries within limits what the files of a checkpoint ask for, unless that was done before with the same files and
    libraries. Raises CheckpointError where that is too much."""
    opened: list[Checkpoint] = []
    known = _tried_as(spec, located)
    if known and user_cache.recall(_TRIED, known):
        return

    def skeleton() -> None:
        with configs.quiet(), torch.device("meta"):
            opened[0]._skeleton()

    stages = [
        (
            "what config.json and the tokenizer's files ask for",
            OPENING_SECONDS,
            lambda: opened.append(_open(spec, located, runs)),
        ),
        ("its tokenizer", TRYING_SECONDS, lambda: try_texts(opened[0].tokenizer)),
        ("its chat template", int(TEMPLATE_SECONDS), lambda: try_template(opened[0].tokenizer)),
        ("a model of the size that config.json gives", TRYING_SECONDS, skeleton),
    ]
    passed = limited.attempt(located.gguf or located.folder, stages)
    importlib.invalidate_caches()  # the child copied the code of a trusted checkpoint to where this process has looked before
    if passed and known:
        user_cache.remember(_TRIED, known, content=True)


def _tried_as(spec: ModelSpec, located: hub.Located) -> str:
    """What a try is remembered under, "" where it is not: with files that others bring in, too."""
    if spec.trust_remote_code or spec.adapter or spec.template:
        return ""
    texts = [*located.folder.iterdir(), *located.folder.glob("additional_chat_templates/*")]
    state = fingerprint.state([located.gguf] if located.gguf else [path for path in texts if path.is_file()])
    parts = [state, __version__, transformers.__version__, tokenizers.__version__, repr(spec)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32] if state else ""


def _open(spec: ModelSpec, located: hub.Located, runs: bool) -> Checkpoint:
    folder = located.folder
    header = gguf.read_header(located.gguf) if located.gguf else None
    with configs.quiet():
        config = configs.read_gguf_config(header) if header else configs.read_config(folder, spec.trust_remote_code)
        eos = configs.gguf_eos_ids(header) if header else configs.eos_ids(folder, config)
        adapter = adapters.open_adapter(spec)
        tokenizer = _open_tokenizer(spec, folder, config, eos, header)
        brought = adapter is not None and adapter.has_tokenizer
        if adapter is not None and brought:
            own, tokenizer = tokenizer, _open_tokenizer(spec, adapter.folder, config, eos, None)
            if adapters.alike(own, tokenizer):
                tokenizer, brought = own, False
    text = config.get_text_config()
    if isinstance(tokenizer, QwenTokenizer) and tokenizer.endoftext > text.vocab_size:
        raise CheckpointError(
            f"{tokenizer.path} has {tokenizer.endoftext} tokens and config.json a vocabulary of {text.vocab_size}; "
            "they belong to different checkpoints"
        )
    if native.of(config) and not isinstance(tokenizer, QwenTokenizer) and tokenizer.vocab_size > text.vocab_size:
        raise CheckpointError(
            f"{tokenizer.path} has {tokenizer.vocab_size} tokens and config.json a vocabulary of {text.vocab_size}; they "
            "belong to different checkpoints"
        )
    if located.revision == "local" and not header:
        files.weight_names(folder, {path.name for path in folder.iterdir()})
    own_limit = configs.own_limit(text, tokenizer)
    limit = spec.max_seq_len or own_limit
    trained = spec.train_length or configs.trained_length(text) or own_limit
    if limit is None or trained is None:
        raise CheckpointError(f"{located.gguf or folder / 'config.json'} gives no context length; pass --max-seq-len")
    reach = getattr(config, "reach", 0)
    if reach and limit > reach:
        raise CheckpointError(
            f"--max-seq-len {limit}: beyond {reach} tokens {located.name} stretches its rotation (config.json: rotary), which "
            f"is not supported; set no more than {reach}"
        )
    dtype = configs.DTYPES[spec.dtype] if spec.dtype != "auto" else configs.own_dtype(config)
    if spec.tables_of_2023 and getattr(config, "rounds_tables", False) and dtype in (torch.float16, torch.bfloat16):
        config.table_dtype = str(dtype).removeprefix("torch.")
    device = _device(spec.device)
    _check_flash(spec, device, dtype)
    stored = None if header else quantized.settings(config)
    dequantized = stored is not None and runs and quantized.check(stored, spec, device, folder / "config.json")
    return Checkpoint(
        spec=spec,
        name=located.name + (adapter.suffix if adapter else ""),
        revision=located.revision,
        folder=folder,
        config=config,
        tokenizer=tokenizer,
        context_limit=limit,
        context=context_extension(spec, config, trained),
        dtype=dtype,
        device=device,
        precision=configs.precision(spec, config, dtype, header, dequantized),
        quantized=spec.quantize != "none" or (stored is not None and not dequantized),
        header=header,
        adapter=adapter,
        adapters_tokenizer=brought,
        _located=located,
        _own_limit=own_limit,
    )


def _open_tokenizer(
    spec: ModelSpec, folder: Path, config: PreTrainedConfig, eos: Sequence[int], header: gguf.Header | None
) -> TextTokenizer:
    """The tokenizer of a folder, or of the GGUF file with this header, that writes conversations as --template says. eos: the
    end-of-text tokens of the configs."""
    chosen = chat_formats.find(spec.template) if spec.template else None
    found = native.of(config)
    tokenizer = found.tokenizer(folder, eos) if found else HubTokenizer(folder, eos, spec.trust_remote_code, header)
    if chosen is not None:
        tokenizer.use(chosen)
        tokenizer.template_path = Path(spec.template or "") if isinstance(chosen, str) else None
    return tokenizer


def _validate(spec: ModelSpec) -> None:
    """Raises CheckpointError for settings that are wrong whatever the checkpoint."""
    choices = {
        "dtype": (spec.dtype, ["auto", *configs.DTYPES]),
        "attn": (spec.attention, list(ATTENTION)),
        "quantize": (spec.quantize, list(_QUANTIZE)),
    }
    for option, (value, allowed) in choices.items():
        if value not in allowed:
            raise CheckpointError(f"--{option} {value} is unknown; use one of {', '.join(allowed)}")
    if spec.max_seq_len is not None and spec.max_seq_len < 1:
        raise CheckpointError(f"--max-seq-len {spec.max_seq_len} is no length; give a number of tokens")
    if spec.quantize != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise CheckpointError(f"--quantize {spec.quantize} needs bitsandbytes; run: pip install -e '.[quant]'")
    if spec.attention == "flash" and importlib.util.find_spec("flash_attn") is None:
        raise CheckpointError("--attn flash needs flash-attn; run: pip install -e '.[flash]', or use --attn sdpa")


def _check_flash(spec: ModelSpec, device: str, dtype: torch.dtype) -> None:
    """flash-attn has kernels for CUDA only, and for numbers of 16 bits. Raises CheckpointError elsewhere."""
    if spec.attention != "flash":
        return
    if not device.startswith("cuda"):
        raise CheckpointError(f"--attn flash needs a CUDA GPU, and this run is on {device}; use --attn sdpa")
    if dtype not in (torch.float16, torch.bfloat16):
        label = str(dtype).removeprefix("torch.")
        raise CheckpointError(f"--attn flash does not compute in {label}; add --dtype bfloat16, or use --attn sdpa")


def context_extension(spec: ModelSpec, config: PreTrainedConfig, trained: int) -> ContextExtension:
    """What the spec and the config ask for. Raises CheckpointError for window sizes that do not fit the model."""

    def on(choice: str, key: str) -> bool:
        return bool(getattr(config, key, False)) if choice == "auto" else choice == "on"

    windows: tuple[int, ...] = ()
    if spec.window != "off":
        try:
            windows = parse_windows(spec.window, config.get_text_config().num_hidden_layers, trained)
        except ValueError as error:
            raise CheckpointError(f"--window {error}") from None
    found = ContextExtension(on(spec.dynamic_ntk, "use_dynamic_ntk"), on(spec.logn, "use_logn_attn"), trained, windows)
    for name, why in getattr(config, "lacks", {}).items():
        if getattr(found, name):
            option = "--" + name.replace("_", "-")
            raise CheckpointError(
                f"{option} cannot be applied to this {config.model_type} model: {why}; use {option} off"
            )
    return found


def _device(name: str) -> str:
    """A torch device: "auto" takes CUDA (torchrun's own card), then Metal, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CheckpointError(f"--device {name} is no torch device; use cpu, cuda, cuda:1 or mps") from None
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise CheckpointError(f"--device {name} is not there; use --device cpu, or install torch for your GPU")
    return str(device)
