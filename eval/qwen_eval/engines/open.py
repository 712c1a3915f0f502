"""The engine that a command line names."""

from __future__ import annotations

import argparse

from qwen_eval import options
from qwen_eval.schema import Engine, InputError


def open_engine(args: argparse.Namespace) -> Engine:
    """The engine that the arguments name; weights are loaded when they are first needed. Raises CheckpointError, and
    InputError for a server that does not answer."""
    if args.engine == "api":
        return _open_api(args)
    if args.base_url:
        raise InputError("--base-url names a server; add --engine api, or leave it out")
    spec = options.model_spec(args)
    if args.engine == "vllm":
        from qwen_eval.engines.vllm import VLLMEngine

        return VLLMEngine(spec, args.tensor_parallel_size, args.seed)
    if args.tensor_parallel_size > 1:
        raise InputError(
            "--tensor-parallel-size is vLLM's; add --engine vllm, or start several processes with torchrun"
        )
    # imports torch: seconds that --help and bad data need not wait for
    from qwen_eval.engines.local.engine import HFEngine

    return HFEngine(spec, args.batch_size, seed=args.seed)


def _open_api(args: argparse.Namespace) -> Engine:
    """The engine that asks a server. Without -c only the server knows the model."""
    if args.adapter:
        raise InputError("--adapter is the server's own setting; start the server with it, or use --engine hf")
    if not args.base_url:
        raise InputError("--engine api needs the server's address: --base-url http://HOST:PORT/v1")
    from qwen_eval.engines.api.engine import APIEngine
    from qwen_eval.engines.api.server import Server

    spec = options.model_spec(args) if args.checkpoint_path else None
    if spec is None and getattr(args, "template", None):
        raise InputError(
            "--template needs the tokenizer of the model that the server runs; name its checkpoint with -c"
        )
    server = Server(args.base_url, args.api_key_env, args.request_timeout, args.concurrency)
    return APIEngine(spec, server, args.served_model, args.concurrency, args.seed)
