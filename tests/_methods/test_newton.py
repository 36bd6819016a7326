"""Newton's method under a trace, where nothing else is run: the answers of the host, with a gap of their own."""

import functools

import jax
import numpy as np
import pytest
from helpers.svm_references import Machine, noisy, relative_gap

import jaxhinge as jh

X, Y = noisy()
WEIGHT = np.random.default_rng(1).uniform(0.5, 2.0, size=len(Y))
MANY_X, MANY_Y = noisy(2000)
TARGETS = X @ np.arange(X.shape[1]) + Y

PROBLEMS = {
    "no bias": lambda l2, **options: jh.solve(X, Y, l2=l2, fit_intercept=False, **options),
    "squared hinge": lambda l2, **options: jh.solve(X, Y, l2=l2, loss="squared_hinge", **options),
    "tube": lambda l2, **options: jh.solve_regression(X, TARGETS, l2=l2, sample_weight=WEIGHT, **options),
    "more features than rows": lambda l2, **options: jh.solve(X[:4], Y[:4], l2=l2, **options),
    "few of many rows": lambda l2, **options: jh.solve(MANY_X, MANY_Y, l2=l2, **options),
    "classes": lambda l2, **options: jh.solve_multiclass(X, (Y > 0) + 0, l2=l2, loss="one_vs_rest", **options),
}


def test_lanes_end_at_the_solution():
    strengths = np.array([1e-3, 0.1, 10.0], np.float32)
    solve = functools.partial(jh.solve, X.astype(np.float32), Y, sample_weight=WEIGHT, tol=1e-6, method="newton")
    found = jax.jit(jax.vmap(lambda l2: solve(l2=l2)))(strengths)
    assert (found.status == jh.Status.CONVERGED).all()
    for lane, l2 in enumerate(strengths):
        one = jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane], np.float64), found)
        assert relative_gap(Machine(X.astype(np.float32), Y, l2, weight=WEIGHT), one) <= 1e-6


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_same_problem_has_the_same_solution(name):
    traced = jax.jit(functools.partial(PROBLEMS[name], method="newton"))(0.05)
    on_host = PROBLEMS[name](0.05, tol=1e-8, as_numpy=True)
    assert int(traced.status) == jh.Status.CONVERGED
    assert 0 <= traced.primal_value - on_host.dual_value <= 1.001e-4 * on_host.primal_value + 1e-7
    assert int(traced.steps) > 0
