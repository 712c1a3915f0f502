"""Readers of other harnesses' sample files, one module per harness; `detect.read` picks the one that recognizes a file."""
