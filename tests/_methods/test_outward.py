"""Bounds stay bounds in the caller's float32: recomputed in float64 from what was returned, without a tolerance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.svm_references import Machine, dual_value, noisy, primal_value

import jaxhinge as jh

L2 = 0.01
# What float64 may lose of a sum of 48 terms: the reference is not exact either. Float32 loses 1e8 times as much.
ROUNDING = 48 * np.finfo(float).eps


def float32_rows(seed):
    x, y = noisy(seed=seed)
    return x.astype(np.float32), y


def check(machine, solution):
    primal, dual = primal_value(machine, solution.params), dual_value(machine, solution.dual)
    assert float(solution.gap) >= primal - dual - ROUNDING * primal
    assert float(solution.dual_value) <= dual + ROUNDING * primal


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("max_steps", [2, 100])
def test_the_gap_of_a_solve_is_no_less_than_that_of_its_params_and_dual(squared, max_steps):
    loss = "squared_hinge" if squared else "hinge"
    for seed in range(4):
        x, y = float32_rows(seed)
        machine = Machine(x, y, L2, squared=squared)
        check(machine, jh.solve(x, y, l2=L2, loss=loss, tol=1e-6, max_steps=max_steps))
        blocks = [(x[:20], y[:20]), (x[20:], y[20:])]
        check(machine, jh.solve(blocks, l2=L2, loss=loss, tol=1e-6, max_steps=max_steps))


def test_so_it_is_under_jit():
    solve = jax.jit(lambda x, y, max_steps: jh.solve(x, y, l2=jnp.float32(L2), tol=1e-6, max_steps=max_steps))
    for seed in range(4):
        x, y = float32_rows(seed)
        check(Machine(x, y, np.float32(L2)), solve(x, y, 2 + seed % 3))


def test_a_bound_for_given_parameters_is_no_less_than_their_objective_less_a_dual_value():
    for seed in range(8):
        x, y = float32_rows(seed)
        machine, rng = Machine(x, y, L2), np.random.default_rng(seed)
        dual = jh.solve(x, y, l2=L2, as_numpy=True).dual
        params = jh.LinearParams(rng.normal(size=x.shape[1]), rng.normal())
        below = primal_value(machine, params) - dual_value(machine, dual)
        assert float(jh.duality_gap(params, x, y, l2=L2, dual=dual)) >= below * (1 - ROUNDING)


def mean_loss(loss, params, x, labels):
    """The objective of several classes, from its definition."""
    w, b = (np.asarray(leaf, np.float64) for leaf in params)
    scores, rows = x.astype(np.float64) @ w + b, np.arange(len(x))
    if loss == "one_vs_rest":
        signs = np.where(labels[:, None] == np.arange(3), 1, -1)
        losses = np.maximum(0, 1 - signs * scores).sum(axis=1)
    else:
        violations = np.maximum(0, 1 + scores - scores[rows, labels][:, None])
        violations[rows, labels] = 0
        losses = violations.max(axis=1) if loss == "crammer_singer" else violations.sum(axis=1)
    return losses.mean() + L2 / 2 * (w * w).sum()


def test_a_bound_without_an_intercept_is_not_negative_and_no_less_than_the_excess():
    for seed in range(3):
        x, y = float32_rows(seed)
        machine = Machine(x, y, L2, intercept=False)
        tight = jh.solve(x, y, l2=L2, fit_intercept=False, tol=1e-13, as_numpy=True)
        for b in (0.0, 0.01, -0.3):
            params = jh.LinearParams(tight.params.w, b)
            for rows in ((x, y), ([(x, y)],)):
                gap = float(jh.duality_gap(params, *rows, l2=L2, dual=tight.dual, fit_intercept=False))
                # A bias that is given counts as it is, and the dual value is that of the model without one.
                assert gap >= max(primal_value(machine, params) - dual_value(machine, tight.dual), 0) * (1 - ROUNDING)
        assert float(jh.duality_gap(tight.params, x, y, l2=L2, dual=tight.dual, fit_intercept=False)) < 1e-12


@pytest.mark.parametrize("loss", ["crammer_singer", "weston_watkins", "one_vs_rest"])
@pytest.mark.parametrize("streamed", [False, True])
def test_no_parameters_are_better_than_the_gap_of_several_classes_says(loss, streamed):
    for seed in range(2):
        x, _ = float32_rows(seed)
        labels = np.argmax(x[:, :3] + np.random.default_rng(seed).normal(size=(len(x), 3)), axis=1)
        rows = ([(x, labels)],) if streamed else (x, labels)
        # After one step there is hardly a dual, and the gap is nearly the objective.
        found = jh.solve_multiclass(*rows, l2=L2, loss=loss, max_steps=1 + 3 * seed)
        tight = jh.solve_multiclass(x, labels, l2=L2, loss=loss, tol=1e-9, as_numpy=True)
        lowest = mean_loss(loss, tight.params, x, labels)
        assert mean_loss(loss, found.params, x, labels) - float(found.gap) <= lowest * (1 + ROUNDING)


def test_a_streamed_dual_in_float64_is_within_its_bounds():
    x, y = float32_rows(0)
    weight = np.random.default_rng(0).random(len(x))
    found = jh.solve([(x, y, weight)], l2=1e-4, tol=1e-3, as_numpy=True)
    assert (found.dual >= 0).all()
    assert (found.dual <= weight / weight.sum() * (1 + np.finfo(float).eps)).all()
