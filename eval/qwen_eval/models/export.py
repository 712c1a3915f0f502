"""A Qwen-1 checkpoint as a copy in Qwen2's format, which transformers and vLLM run without any code of ours.

The tensors are the same under other names (qwen1.py); the tokenizer becomes a tokenizer.json of the same merges; the chat
format becomes a template. What Qwen2 does not have is dynamic NTK and LogN: both are inactive up to the trained length, so a
copy that ends there loses nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, normalizers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.convert_slow_tokenizer import TikTokenConverter

from qwen_eval.models import files
from qwen_eval.models.checkpoint import Checkpoint
from qwen_eval.models.configs import generation_config
from qwen_eval.models.cutting import QWEN_PATTERN
from qwen_eval.models.opening import open_checkpoint
from qwen_eval.models.tokenizers import QWEN_SYSTEM, QwenTokenizer
from qwen_eval.schema import CheckpointError, ModelSpec

# A conversation as QwenTokenizer.chat_ids writes it: always a system turn, our own text where none is given.
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + QWEN_SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def export_qwen2(spec: ModelSpec, folder: Path) -> str:
    """Writes the copy into `folder` (new or empty). Returns a sentence that says what it is, and the checkpoint's notes.

    Raises CheckpointError: not a Qwen-1 checkpoint, a folder in use, context extension that would be lost and matter.
    """
    checkpoint = open_checkpoint(spec)
    tokenizer = checkpoint.tokenizer
    if not checkpoint.qwen1 or not isinstance(tokenizer, QwenTokenizer):
        raise CheckpointError(
            f"{checkpoint.name} is no Qwen-1 checkpoint, and only those are exported; take it as it is"
        )
    if spec.quantize != "none" or spec.window != "off":
        raise CheckpointError("--quantize and --window cannot be exported; leave them out")
    _check_context(checkpoint)
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty; export into a new folder")
    copy = as_qwen2(checkpoint.load(), checkpoint.context_limit)
    copy.generation_config = _ends(checkpoint, tokenizer)
    try:
        copy.save_pretrained(folder)
        fast_tokenizer(tokenizer, checkpoint.context_limit).save_pretrained(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror or error}); choose another folder"
        ) from error
    summary = (
        f"{folder} is {checkpoint.name} as Qwen2, {checkpoint.precision}, for up to {checkpoint.context_limit} tokens"
    )
    return "\n".join([summary, *checkpoint.notes])


def as_qwen2(model: PreTrainedModel, limit: int) -> Qwen2ForCausalLM:
    """A Qwen-1 model as transformers' own Qwen2, on the same tensors, for sequences of up to `limit` tokens."""
    fields = model.config.to_dict()
    known = Qwen2Config().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    config = Qwen2Config(**{name: value for name, value in fields.items() if name in known})
    config.head_dim, config.max_position_embeddings, config.dtype = fields["head_dim"], limit, model.dtype
    with torch.device("meta"):
        copy = Qwen2ForCausalLM(config)
    copy.load_state_dict(model.state_dict(), assign=True)
    return copy


def _check_context(checkpoint: Checkpoint) -> None:
    context = checkpoint.context
    if context.label != "none" and checkpoint.context_limit > context.trained_length:
        raise CheckpointError(
            f"{checkpoint.name} uses {context.label} past {context.trained_length} tokens, which Qwen2's format does not "
            f"have; export it for sequences up to there with --max-seq-len {context.trained_length}, where nothing is "
            "lost, or without with --dynamic-ntk off --logn off"
        )


def _ends(checkpoint: Checkpoint, tokenizer: QwenTokenizer) -> GenerationConfig:
    """Greedy; chat checkpoints (chat_format chatml) end at the end of a turn, too."""
    path = checkpoint.folder / "generation_config.json"
    chat = path.exists() and files.read_json(path).get("chat_format") == "chatml"
    ends = [tokenizer.im_end, tokenizer.endoftext] if chat else tokenizer.endoftext
    return generation_config(eos_token_id=ends, pad_token_id=tokenizer.endoftext)


def fast_tokenizer(tokenizer: QwenTokenizer, limit: int) -> PreTrainedTokenizerFast:
    """The same ids for every text: NFC, the same split pattern, whole pieces looked up first, merges by rank."""
    names = [tokenizer.decode([index]) for index in range(tokenizer.endoftext, tokenizer.vocab_size)]
    converter: Any = TikTokenConverter  # its constructor and that of the tokenizer have no types
    make: Any = PreTrainedTokenizerFast
    backend = converter(str(tokenizer.path), pattern=QWEN_PATTERN).converted()
    backend.normalizer = normalizers.NFC()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    fast: PreTrainedTokenizerFast = make(
        tokenizer_object=backend, eos_token=names[0], pad_token=names[0], model_max_length=limit, chat_template=TEMPLATE
    )
    if fast.convert_tokens_to_ids(names[-1]) != tokenizer.vocab_size - 1:
        raise CheckpointError(f"{tokenizer.path} has gaps between its ranks; its tokenizer cannot be exported")
    return fast
