"""How many examples a property is tried on: few in `make test`, ten thousand in `make test-faults`."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings


def examples(fast: int = 100) -> Callable:
    """Decorates a property: `fast` examples, or as many as HYPOTHESIS_EXAMPLES says; marked `properties`."""
    count = int(os.environ.get("HYPOTHESIS_EXAMPLES") or fast)
    slow_data = [HealthCheck.too_slow, HealthCheck.data_too_large]
    tried = settings(max_examples=count, deadline=None, suppress_health_check=slow_data)
    return lambda test: pytest.mark.properties(pytest.mark.timeout(3600)(tried(test)))
