"""Batches that are solved for the rows near the kink: certified for all rows, and the same as single solves."""

import numpy as np
import pytest

import jaxhinge as jh
from jaxhinge import Status
from jaxhinge._methods.certificate import Program
from jaxhinge._methods.working_sets import working_set
from jaxhinge._rows.dense import DenseRows

# Too few rows for each feature for Newton's method, too many numbers for all rows at once.
N, D, K = 1200, 40, 3
TOL = 1e-5


def classes(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    return x, np.argmax(x[:, :K] + rng.normal(size=(N, K)), axis=1)


def objective(w, b, x, y, l2, weight):
    return weight @ np.maximum(0, 1 - y * (x @ w + b)) / weight.sum() + l2 / 2 * w @ w


# From one strength to the next the rows near the kink change a little, or nearly all of them.
@pytest.mark.parametrize("strengths", [np.logspace(-1, -4, 4), np.array([10.0, 1e-5])])
@pytest.mark.parametrize("fit_intercept", [True, "regularized", False])
def test_a_grid_reaches_the_optimum_of_every_problem(strengths, fit_intercept):
    x, labels = classes(0)
    weight = np.random.default_rng(1).uniform(0.5, 2, N)
    options = {"sample_weight": weight, "fit_intercept": fit_intercept, "tol": TOL, "as_numpy": True}
    folds = [(np.flatnonzero(np.arange(N) % 2 != i), np.flatnonzero(np.arange(N) % 2 == i)) for i in range(2)]
    grid = jh.sweep(x, labels, l2=strengths, folds=folds, **options)
    assert (grid.status == Status.CONVERGED).all()
    for row, l2 in enumerate(strengths):
        for fold, (train, _) in enumerate(folds):
            reached = optimum = 0.0
            for k in range(K):
                y = np.where(labels[train] == k, 1.0, -1.0)
                one = {**options, "sample_weight": weight[train], "tol": 1e-9}
                optimum += jh.solve(x[train], y, l2=l2, **one).dual_value
                w, b = grid.params.w[row, fold][:, k], grid.params.b[row, fold][k]
                penalty = l2 / 2 * b**2 if fit_intercept == "regularized" else 0.0
                reached += objective(w, b, x[train], y, l2, weight[train]) + penalty
            assert optimum <= reached * (1 + 1e-8)
            assert reached - optimum <= grid.gap[row, fold] + 1e-8 * optimum
            assert grid.gap[row, fold] <= TOL * reached


@pytest.mark.parametrize("bias", [True, False])
def test_reduced_problems_are_below_and_their_duals_are_duals_of_all_rows(bias):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    n, p, count = len(x), x.shape[1] + bias, 4
    sign = rng.choice([-1.0, 0.0, 1.0], (count, n), p=[0.4, 0.1, 0.5])
    program = Program(
        rows=DenseRows.of(x, None, bias),
        sign=sign,
        r=np.abs(sign),
        c=rng.uniform(0.1, 1, (count, n)),
        penalty=np.concatenate([np.full((count, 3), 0.3), np.zeros((count, int(bias)))], axis=1),
        q=np.zeros((count, p)),
        squared=False,
        free_bias=bias,
    )
    working = working_set(program, rng.normal(size=(count, p)), 20)
    alpha = working.program.c * rng.uniform(0, 1, working.program.c.shape)
    every = working.outward(alpha)
    assert ((every >= 0) & (every <= program.c)).all()
    whole = np.column_stack([x, np.ones(n)]) if bias else x
    for i in range(count):
        force = (sign[i] * every[i]) @ whole
        np.testing.assert_allclose(working.program.adjoint(alpha)[i], force, atol=1e-12)
        np.testing.assert_allclose(working.program.r[i] @ alpha[i], program.r[i] @ every[i], atol=1e-12)
        for _ in range(5):
            z = rng.normal(size=(count, p))
            loss = program.c[i] @ np.maximum(0, program.r[i] - sign[i] * (whole @ z[i]))
            below = working.program.c[i] @ np.maximum(0, working.program.r[i] - working.program.scores(z)[i])
            assert below <= loss + 1e-12
