"""Imports that failed: which package to install."""

from __future__ import annotations

import importlib.util


def remedy(error: Exception) -> str:
    """What to run after an import that failed, "; run: pip install NAME"; empty where the error says it itself, or where the
    package is there and broken, and for other errors."""
    name = (getattr(error, "name", None) or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if "pip install" in str(error) or not name or importlib.util.find_spec(name) is not None:
        return ""
    return f"; run: pip install {name}"
