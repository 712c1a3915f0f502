"""The two families of intervals, each for an effective number of items: n items whose mean varies more or less than that of n
independent ones count as that many independent ones with the variance that it has (Korn and Graubard 1998).

All arguments are numbers or numpy arrays that broadcast; values are fractions. What differs between figures is the variance:
strata.py, clusters.py, one_run.py, two_runs.py.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Bounds: TypeAlias = tuple[Any, Any]

TINY = 1e-12  # a variance or a spread below this is rounding


def wilson(p: Any, n: Any, z: Any) -> Bounds:
    """The score interval of a share p of n items (Wilson 1927). z: the quantile, normal or Student's."""
    import numpy as np

    p = np.asarray(p, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 + z * z / n
        centre = (p + z * z / (2 * n)) / scale
        half = z * np.sqrt(np.maximum(p * (1 - p) / n + z * z / (4 * n * n), 0)) / scale
    # at 0 and 1 one bound is the share itself; rounding must not move it to the wrong side
    low = np.where(p <= 0, np.minimum(centre, 0.0), np.maximum(centre - half, 0.0))
    high = np.where(p >= 1, np.maximum(centre, 1.0), np.minimum(centre + half, 1.0))
    return low, high


def bonett_price(spread: Any, difference: Any, n: Any, z: Any) -> Bounds:
    """The interval of a paired difference of n pairs (Bonett and Price 2012): the normal one after a lost and a won pair are
    added.

    difference: the mean difference. spread: the mean of its absolute values; of 0/1 items the share of discordant pairs.
    """
    import numpy as np

    centre = n * difference / (n + 2)
    half = z * np.sqrt(np.maximum((n * spread + 2) / (n + 2) - centre * centre, 0) / (n + 2))
    return np.maximum(centre - half, -1.0), np.minimum(centre + half, 1.0)


def effective(spread: Any, variance: Any, otherwise: Any) -> Any:
    """The number of independent items whose mean has this variance: spread / variance. otherwise: the number where either is
    no more than rounding."""
    import numpy as np

    known = (np.asarray(spread) > TINY) & (np.asarray(variance) > TINY * TINY)
    return np.where(known, spread / np.where(known, variance, 1.0), otherwise)
