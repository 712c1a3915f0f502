"""Quantiles and tail probabilities of the normal and of Student's distribution, without scipy."""

from __future__ import annotations

from functools import lru_cache
from math import erfc, exp, inf, lgamma, log, log1p, nan, pi, sqrt
from statistics import NormalDist
from typing import Any

NORMAL = NormalDist()
LARGE = 1e7  # degrees of freedom from which on Student's distribution is the normal one to seven digits


@lru_cache(maxsize=64)
def normal(level: float) -> float:
    """The two-sided quantile z of a confidence level in (0, 1): 1.960 at 0.95."""
    return NORMAL.inv_cdf((1 + level) / 2)


@lru_cache(maxsize=4096)
def student(level: float, df: float) -> float:
    """The two-sided quantile t of a confidence level in (0, 1) with df > 0 degrees of freedom, not necessarily whole ones.

    Newton's method on the logarithms of t and of its tail, which is nearly a straight line. Not-a-number for df <= 0.
    """
    if not df > 0:
        return nan
    t = normal(level)
    if df > LARGE:
        return t
    wanted = log(1 - level)
    for _ in range(100):
        tail = student_tail(t, df)
        log_density = lgamma((df + 1) / 2) - lgamma(df / 2) - log(df * pi) / 2 - (df + 1) / 2 * log1p(t * t / df)
        step = (log(tail) - wanted) / (2 * exp(log_density) * t / tail)
        t *= exp(max(-2.0, min(2.0, step)))
        if abs(step) < 1e-12:
            break
    return t


def students(level: float, df: Any) -> Any:
    """`student` of every element of an array of degrees of freedom."""
    import numpy as np

    return np.vectorize(lambda one: student(level, float(one)), otypes=[float])(df)


def student_tail(t: float, df: float) -> float:
    """The probability that Student's t with df degrees of freedom is at least |t| from 0: the two-sided p-value.

    The regularized incomplete beta function I_x(df / 2, 1 / 2) at x = df / (df + t * t). Not-a-number where t or df is.
    """
    if t != t or not df > 0:
        return nan
    if df > LARGE:
        return erfc(abs(t) / sqrt(2))
    if abs(t) == inf:
        return 0.0
    x = df / (df + t * t)
    # where the fraction of one side converges slowly, that of the other does not
    if x < (df / 2 + 1) / (df / 2 + 2.5):
        return _beta_part(df / 2, 0.5, x, t * t / (df + t * t))
    return 1 - _beta_part(0.5, df / 2, t * t / (df + t * t), x)


def _beta_part(a: float, b: float, x: float, rest: float) -> float:
    """I_x(a, b) by its continued fraction (DLMF 8.17.22), evaluated by Lentz's method. rest: 1 - x."""
    if x <= 0:
        return 0.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(rest)) / a if rest > 0 else 0.0
    fraction = c = 1.0
    d = 0.0
    for k in range(1, 20_000):
        m = k // 2
        if k % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front / fraction
