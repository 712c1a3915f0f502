"""The engine that runs a transformers model in this process."""
