"""Checkpoint -> model and tokenizer: the native Qwen-1 model, any causal model of transformers, context extension."""
