"""Columns whose scales span six powers of ten, heavy tails, rows repeated: the certificate is not lost."""

import numpy as np
import pytest

import jaxhinge as jh
from jaxhinge import Status

TOL = 1e-6


def ill_scaled(seed):
    """10 to 15 columns, half of the entries 0, rows repeated up to a hundred times, and a C from 0.01 to 1000."""
    rng = np.random.default_rng(seed)
    d, m = rng.integers(10, 16), rng.integers(150, 600)
    scales = 10.0 ** np.concatenate([[-2, 4], rng.uniform(-2, 4, d - 2)])
    # Odd seeds have the tails of Cauchy's distribution.
    sizes = np.abs(rng.standard_cauchy((m, d))) if seed % 2 else np.exp(1.5 * rng.standard_normal((m, d)))
    sizes *= rng.random((m, d)) < 0.5
    scores = np.log1p(sizes) @ rng.normal(size=d) + rng.normal(size=m)
    y = np.where(scores > np.quantile(scores, 1 - rng.uniform(0.05, 0.4)), 1.0, -1.0)
    repeats = np.minimum(1 + rng.pareto(1.0, m).astype(int), 100)
    return np.repeat(sizes * scales, repeats, axis=0), np.repeat(y, repeats), 10 ** rng.uniform(-2, 3)


def gap_of(x, y, l2, solution, *, free_bias):
    """The gap of a solution in extended precision, its dual clipped and balanced, and the objective."""
    wide = np.longdouble
    x, y, l2, c = x.astype(wide), y.astype(wide), wide(l2), wide(1) / len(y)
    w, b, dual = (np.asarray(leaf).astype(wide) for leaf in (*solution.params, solution.dual))
    dual = np.clip(dual, 0, c)
    if free_bias:
        push, pull = dual[y > 0].sum(), dual[y < 0].sum()
        dual *= np.where(y > 0, min(push, pull) / push, min(push, pull) / pull)
    primal = c * np.maximum(0, 1 - y * (x @ w + b)).sum() + l2 / 2 * w @ w
    forces = (dual * y) @ x
    return float(primal - (dual.sum() - forces @ forces / (2 * l2))), float(primal)


# In these problems steps of the interior point stay short for long, while the dual bound says nothing yet.
SHORT_STEPS = [(121, True), (107, False), (559, False), (737, False)]


@pytest.mark.parametrize(("seed", "fit_intercept"), [*((seed, True) for seed in range(12)), *SHORT_STEPS])
def test_ill_scaled_rows_are_certified(seed, fit_intercept):
    x, y, C = ill_scaled(seed)
    l2 = 1 / (C * len(y))
    solution = jh.solve(x, y, l2=l2, fit_intercept=fit_intercept, tol=TOL, as_numpy=True)
    gap, primal = gap_of(x, y, l2, solution, free_bias=fit_intercept)
    assert solution.status == Status.CONVERGED
    assert gap <= solution.gap <= TOL * primal
