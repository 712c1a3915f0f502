"""Text of the prompts that several benchmarks share."""

from __future__ import annotations

