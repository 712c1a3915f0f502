"""Engines answer requests: hf runs a transformers model in this process."""
