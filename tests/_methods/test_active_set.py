"""Newton's method on the dual, for the rows on the margin: its linear system, its balance, and the last digits."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import jaxhinge
from jaxhinge._methods.active_set import MarginRows, active_set_steps
from jaxhinge._methods.certificate import Program, certify, feasible
from jaxhinge._methods.newton import _moved_share, plain_rate, solve_by_newton
from jaxhinge._rows.sparse import SparseRows

L2 = 1e-3


def _program(free_bias: bool, n: int = 60, d: int = 90) -> Program:
    rng = np.random.default_rng(0)
    x = sparse.random_array((n, d), density=0.2, rng=rng, format="csr")
    penalty = np.append(np.full(d, L2), 0.0 if free_bias else L2)
    sign = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    c = rng.uniform(0.5, 1.5, n) / n
    rows = SparseRows.of(x, None, True)
    return Program(rows, sign, np.ones(n), c, penalty, np.zeros(d + 1), squared=False, free_bias=free_bias)


def _kernel(program: Program) -> np.ndarray:
    x = np.column_stack([program.rows.x.toarray(), np.ones(program.shape[1])]) * program.sign[:, None]
    scale = np.divide(1.0, program.penalty, out=np.zeros_like(program.penalty), where=program.penalty > 0)
    return x * scale @ x.T


@pytest.mark.parametrize("free_bias", [False, True])
def test_the_system_of_the_margin_is_that_of_the_kkt_conditions(free_bias, monkeypatch):
    monkeypatch.setattr("jaxhinge._methods.active_set._REDUCTION", 1e-12)
    monkeypatch.setattr("jaxhinge._methods.active_set._OUTSIDE", 2.0)
    program = _program(free_bias)
    chosen = np.arange(5, 35)
    kernel = _kernel(program)
    margin = MarginRows.of(program, chosen, np.diag(kernel))
    residual = np.random.default_rng(1).normal(size=len(chosen))
    change, db = margin.solved(residual, 0.3, np.zeros(len(chosen)))
    sign = program.sign[chosen]
    system = kernel[np.ix_(chosen, chosen)]
    if free_bias:
        bordered = np.block([[system, sign[:, None]], [sign[None], np.zeros((1, 1))]])
        expected = np.linalg.solve(bordered, np.append(residual, -0.3))
    else:
        expected = np.append(np.linalg.solve(system, residual), 0.0)
    np.testing.assert_allclose(np.append(change, db), expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_balanced_duals_are_those_of_the_nearest_point_in_the_box():
    program = _program(True)
    chosen = np.arange(40)
    margin = MarginRows.of(program, chosen, np.diag(_kernel(program)))
    alpha = np.random.default_rng(2).uniform(-0.02, 0.04, 40)
    found = margin.balanced(alpha, 0.05)
    sign, c, inverse = margin.sign, margin.c, margin.inverse
    assert (found >= 0).all()
    assert (found <= c).all()
    assert abs(0.05 + sign @ found) < 1e-12
    # The conditions of the projection in the norm of the diagonal: one multiplier for all that are inside of the box.
    multiplier = (found - alpha) / (inverse * sign)
    inside = (found > 0) & (found < c)
    np.testing.assert_allclose(multiplier[inside], multiplier[inside][0], rtol=1e-9)


def test_duals_that_cannot_be_balanced_go_as_far_as_they_can():
    program = _program(True)
    margin = MarginRows.of(program, np.arange(10), np.diag(_kernel(program)))
    found = margin.balanced(margin.c / 2, -5.0)
    np.testing.assert_allclose(found, np.where(margin.sign > 0, margin.c, 0), atol=1e-12)


@pytest.mark.parametrize("free_bias", [False, True])
def test_steps_end_with_the_conditions_of_optimality(free_bias):
    program = _program(free_bias)
    for share in (0.2, 0.5):  # any feasible dual will do for a start
        alpha = feasible(program, share * program.c)
        start = certify(program, np.zeros(program.shape[0]), alpha)
        found, steps = active_set_steps(program, start, float(plain_rate(program)), 1e-10, 200, None)
        x = np.column_stack([program.rows.x.toarray(), np.ones(program.shape[1])]) * program.sign[:, None]
        violations = 1 - x @ found.z
        assert steps > 0
        assert found.primal - found.dual <= 1e-10 * found.primal
        size = np.abs(violations).max()
        assert (violations[found.alpha <= 0] <= 1e-4 * size).all()
        assert (violations[found.alpha >= program.c] >= -1e-4 * size).all()


def _problems(rng):
    x = sparse.random_array((120, 300), density=0.1, rng=rng, format="csr")
    y = np.where(x @ rng.normal(size=300) + 0.1 * rng.normal(size=120) > 0, 1, -1)
    return x, y, x @ rng.normal(size=300) + 0.1 * rng.normal(size=120)


SOLVERS = {
    "hinge": lambda x, y, t, **o: jaxhinge.solve(x, y, l2=L2, **o),
    "no bias": lambda x, y, t, **o: jaxhinge.solve(x, y, l2=L2, fit_intercept=False, **o),
    "regularised bias": lambda x, y, t, **o: jaxhinge.solve(x, y, l2=L2, fit_intercept="regularized", **o),
    "tube": lambda x, y, t, **o: jaxhinge.solve_regression(x, t, l2=L2, epsilon=0.05, **o),
    "pinball": lambda x, y, t, **o: jaxhinge.solve_quantile(x, t, l2=L2, quantile=0.7, **o),
    "one class": lambda x, y, t, **o: jaxhinge.solve_one_class(x, nu=0.3, **o),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_sparse_rows_reach_the_optimum_of_the_dense_interior_point(name):
    x, y, targets = _problems(np.random.default_rng(3))
    # Newton's method alone: the interior point does not mend what it leaves.
    options = {"as_numpy": True} if name == "one class" else {"as_numpy": True, "method": "newton"}
    found = SOLVERS[name](x, y, targets, tol=1e-9, **options)
    exact = SOLVERS[name](x.toarray(), y, targets, tol=1e-11, as_numpy=True)
    assert found.status == jaxhinge.Status.CONVERGED
    scale = abs(float(exact.primal_value))
    assert abs(found.primal_value - exact.primal_value) <= 2e-9 * scale
    np.testing.assert_allclose(found.params.w, exact.params.w, atol=2 * np.sqrt(2e-9 * scale / L2))


def test_rows_that_repeat_leave_the_system_without_rank():
    x, y, _ = _problems(np.random.default_rng(4))
    stacked, labels = sparse.vstack([x] * 3).tocsr(), np.tile(y, 3)
    found = jaxhinge.solve(stacked, labels, l2=L2, tol=1e-9, method="newton", as_numpy=True)
    once = jaxhinge.solve(x.toarray(), y, l2=L2, tol=1e-11, as_numpy=True)
    assert found.status == jaxhinge.Status.CONVERGED
    assert abs(found.primal_value - once.primal_value) <= 2e-9 * once.primal_value


@pytest.mark.parametrize("free_bias", [False, True])
def test_a_solution_that_no_row_at_its_end_holds_moves_with_the_strength(free_bias):
    program = _program(free_bias)
    zeros = certify(program, np.zeros(program.shape[0]), np.zeros(program.shape[1]))
    exact = solve_by_newton(program, zeros, False, 1e-9, 500, None).best
    assert (exact.alpha < 0.9 * program.c).all()
    weaker = replace(program, penalty=program.penalty / 7)
    share = _moved_share(weaker, exact)
    # The rows are separable: the solution of the weaker penalty is the same one, and it is known before the first step.
    np.testing.assert_allclose(share, exact.alpha / program.c / 7, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(weaker.adjoint(weaker.c * share), weaker.penalty * exact.z, atol=1e-7)
    again = solve_by_newton(weaker, certify(weaker, exact.z, exact.alpha), True, 1e-3, 500, None)
    assert again.steps <= 2
    assert again.best.primal - again.best.dual <= 1e-3 * again.best.primal


def test_pushes_at_their_end_stay_there():
    program = _program(False)
    alpha = program.c * np.where(np.arange(program.shape[1]) < 20, 1.0, 0.5)
    # Stationary for half of the penalty.
    z = program.adjoint(alpha) / (program.penalty / 2)
    share = _moved_share(program, certify(program, z, alpha))
    np.testing.assert_allclose(share, 1.0)
    share = _moved_share(replace(program, penalty=program.penalty / 4), certify(program, z, alpha))
    np.testing.assert_allclose(share, np.where(np.arange(program.shape[1]) < 20, 1.0, 0.25))
