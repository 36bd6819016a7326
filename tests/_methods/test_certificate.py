"""Every claim of `solve` against plain NumPy: the optimum, the optimality conditions, the gap, and hard problems."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.svm_references import (
    LARGE,
    D,
    Machine,
    N,
    dual_value,
    kkt_violation,
    noisy,
    plain_solve,
    primal_value,
    relative_gap,
)

import jaxhinge as jh
from jaxhinge import Status
from jaxhinge._methods.certificate import Program, certify, feasible
from jaxhinge._rows.columns import Columns

INTERCEPTS = (True, False, "regularized")
LOSSES = ("hinge", "squared_hinge")
VARIANTS = list(itertools.product(INTERCEPTS, LOSSES))


def solve(machine, **options):
    """Solved in float64 with the very options that the machine states."""
    return jh.solve(
        machine.x,
        machine.y,
        l2=machine.l2,
        sample_weight=machine.weight,
        fit_intercept=machine.intercept,
        loss="squared_hinge" if machine.squared else "hinge",
        **{"as_numpy": True, **options},
    )


def own_loss(machine, params):
    return jh.loss(
        params,
        machine.x,
        machine.y,
        l2=machine.l2,
        sample_weight=machine.weight,
        regularize_bias=machine.intercept == "regularized",
        loss_fn=jh.losses.squared_hinge_loss if machine.squared else jh.losses.hinge_loss,
    )


def assert_honest(machine, solution, *, rounding=1e-12):
    """Both values are those of the arrays returned, and the dual lies in its box."""
    primal, dual = primal_value(machine, solution.params), dual_value(machine, solution.dual)
    # Beside its own digits, a value has the rounding of margins and dual sums of size 1.
    error = rounding * primal + 1e-15
    np.testing.assert_allclose(solution.primal_value, primal, rtol=0, atol=error)
    np.testing.assert_allclose(solution.dual_value, dual, rtol=0, atol=error)
    np.testing.assert_allclose(solution.gap, primal - dual, rtol=0, atol=2 * error)
    assert solution.gap >= -error
    _, _, share = machine.rows()
    assert solution.dual.shape == share.shape
    assert (np.asarray(solution.dual) >= 0).all()
    if not machine.squared:
        assert (np.asarray(solution.dual) <= share * (1 + rounding)).all()


@pytest.mark.parametrize(("intercept", "loss"), VARIANTS)
def test_optimum_of_a_plain_solver_and_the_optimality_conditions(intercept, loss):
    x, y = noisy()
    weight = np.random.default_rng(1).uniform(0.2, 3.0, N)
    for l2, weights in [(0.3, None), (0.03, weight)]:
        machine = Machine(x, y, l2, weights, intercept, loss == "squared_hinge")
        solution = solve(machine, tol=1e-11)
        assert solution.status == Status.CONVERGED
        assert_honest(machine, solution)
        w, b = plain_solve(machine)
        # Values agree to the square of what the parameters do.
        assert solution.primal_value == pytest.approx(primal_value(machine, (w, b)), rel=1e-9)
        np.testing.assert_allclose(solution.params.w, w, rtol=0, atol=2e-5)
        assert kkt_violation(machine, solution.params, solution.dual) < 1e-4
        with jax.enable_x64(True):
            assert float(own_loss(machine, solution.params)) == pytest.approx(float(solution.primal_value), rel=1e-13)


def test_the_references_can_fail():
    x, y = noisy()
    machine = Machine(x, y, 0.1)
    right = solve(machine, tol=1e-9)
    wrong = right._replace(params=right.params._replace(w=right.params.w * 1.01))
    assert relative_gap(machine, right) < 1e-9 < 1e-5 < relative_gap(machine, wrong)
    assert kkt_violation(machine, *right[:2]) < 1e-3 < kkt_violation(machine, *wrong[:2])
    unbalanced = right._replace(dual=right.dual * np.where(y > 0, 0.9, 1.0))
    assert relative_gap(machine, unbalanced) > 1e-3 < kkt_violation(machine, *unbalanced[:2])


@pytest.mark.parametrize("squared", [False, True])
def test_regularised_bias_and_squares_match_liblinear(squared):
    svm = pytest.importorskip("sklearn.svm")
    x, y = noisy()
    weight = np.random.default_rng(2).uniform(0.5, 2.0, N)
    l2 = 0.05
    model = svm.LinearSVC(
        loss="squared_hinge" if squared else "hinge", dual=not squared, C=1 / (l2 * weight.sum()), tol=1e-11,
        max_iter=10_000_000, random_state=0,
    ).fit(x, y, weight)  # fmt: skip
    machine = Machine(x, y, l2, weight, "regularized", squared)
    theirs = primal_value(machine, (model.coef_[0], model.intercept_[0]))
    solution = solve(machine, tol=1e-11)
    assert solution.primal_value == pytest.approx(theirs, rel=1e-8)
    np.testing.assert_allclose(solution.params.w, model.coef_[0], rtol=0, atol=1e-4)
    assert solution.params.b == pytest.approx(model.intercept_[0], abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_weight_of_two_is_a_row_given_twice_and_of_zero_a_row_left_out(loss):
    x, y = noisy(40)
    counts = np.random.default_rng(3).integers(0, 3, 40)
    options = {"l2": 0.02, "loss": loss, "tol": 1e-11, "as_numpy": True}
    weighted = jh.solve(x, y, sample_weight=counts, **options)
    rows = np.repeat(np.arange(40), counts)
    repeated = jh.solve(x[rows], y[rows], **options)
    assert weighted.primal_value == pytest.approx(float(repeated.primal_value), rel=1e-10)
    np.testing.assert_allclose(weighted.params.w, repeated.params.w, rtol=0, atol=1e-5)
    assert (weighted.dual[counts == 0] == 0).all()
    np.testing.assert_allclose(
        weighted.params.w, jh.solve(x, y, sample_weight=1e-200 * counts, **options).params.w, rtol=0, atol=1e-5
    )
    # A row without weight may hold anything that is finite, whatever its size and target.
    x[counts == 0] = 1e6
    odd = jh.solve(x, y, sample_weight=counts, **options)
    assert odd.primal_value == pytest.approx(float(repeated.primal_value), rel=1e-10)


def hard_problems():
    """Name, x, y, values of l2."""
    rng = np.random.default_rng(4)
    x, y = noisy(LARGE, seed=4)
    w = np.array([1.0, -0.5, 1.0, 0.0])
    side = np.where(x @ w > 0.3, 1.0, -1.0)
    yield "separable", x + 0.3 * side[:, None] * w, side, (1e-12, 1e-8, 1e-4)
    yield "huge and tiny l2", x, y, (1e-12, 1e-6, 1e2, 1e6, 1e12)
    yield "columns of all sizes", x * [1e-4, 1e-1, 1e1, 1e4], y, (1e-6, 1e-4, 1e-2, 1.0)
    yield "all scaled up", x * 1e6, y, (1e-2, 1.0, 1e6, 1e10)
    yield "all scaled down", x * 1e-6, y, (1e-16, 1e-14, 1e-6)
    columns = np.column_stack([x[:, 0], x[:, 0], np.full(LARGE, 3.0), np.zeros(LARGE)])
    yield "duplicate, constant and zero columns", columns, y, (1e-8, 1e-4, 1e-1)
    half = LARGE // 2
    twice = np.concatenate([x[:half], x[:half]])
    yield "duplicate rows", twice, np.concatenate([y[:half], y[:half]]), (1e-6, 1e-2)
    yield "contradictory rows", twice, np.concatenate([y[:half], -y[:half]]), (1e-6, 1e-2)
    lonely = np.full(LARGE, -1.0)
    lonely[3] = 1.0
    yield "one positive row among hundreds", x, lonely, (1e-8, 1e-4, 1e-2)
    lonely = np.full(LARGE, -1.0)
    lonely[np.argmax(x @ w)] = 1.0
    yield "one positive row, to be separated", x, lonely, (1e-10, 1e-4, 1e-2)
    yield "features offset by 1e4", x + 1e4, y, (1e-4, 1e-2, 1.0)
    grid = np.round(1.5 * x)
    yield "integer grid", grid, np.where(grid @ [1, 1, -1, 0] + rng.normal(size=LARGE) > 0, 1.0, -1.0), (1e-6, 1e-2)
    corners = np.zeros((LARGE, D))
    corners[:, 0] = rng.integers(-1, 2, LARGE)
    yield "hundreds of rows on the margin", corners, np.where(corners[:, 0] > 0, 1.0, -1.0), (1e-8, 1e-4, 1e-2)
    yield "nothing to learn from", np.zeros((LARGE, D)), y, (1e-4, 1.0)
    yield "heavy tails", np.random.default_rng(5).standard_cauchy((LARGE, D)), y, (1e-4, 1e-1)


HARD = {name: (x, y, l2s) for name, x, y, l2s in hard_problems()}


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("name", HARD)
def test_hard_problems_are_certified_in_float64(name, intercept):
    x, y, l2s = HARD[name]
    for l2 in l2s:
        machine = Machine(x, y, l2, intercept=intercept)
        solution = solve(machine)
        # The rounding of sums of products of this size: offsets of 1e4 cost four digits, twice.
        assert_honest(machine, solution, rounding=1e-8)
        assert relative_gap(machine, solution) <= 1e-4, l2
        assert solution.status == Status.CONVERGED


@pytest.mark.parametrize("name", HARD)
def test_hard_problems_are_certified_for_float32(name):
    x, y, l2s = HARD[name]
    x = x.astype(np.float32)
    for l2 in l2s:
        machine = Machine(x, y, l2)
        solution = solve(machine, tol=1e-3, as_numpy=False)
        assert {leaf.dtype for leaf in jax.tree.leaves(solution[:5])} == {jnp.float32.dtype}
        # float32 numbers hold seven digits.
        assert_honest(machine, solution, rounding=3e-7)
        assert relative_gap(machine, solution) <= 1e-3, l2
        assert solution.status == Status.CONVERGED


def test_hundreds_of_rows_lie_exactly_on_the_margin():
    x, y, _ = HARD["hundreds of rows on the margin"]
    w, b = solve(Machine(x, y, 1e-4), tol=1e-10).params
    assert (np.abs(y * (x @ w + b) - 1) < 1e-6).sum() > 100


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_of_all_sizes_are_certified(loss):
    x, y = noisy(LARGE, seed=6)
    for heavy in (1e-12, 1e-6, 1e6, 1e12):
        weight = np.ones(LARGE)
        weight[:5] = heavy
        machine = Machine(x, y, 1e-2, weight, squared=loss == "squared_hinge")
        solution = solve(machine)
        assert_honest(machine, solution, rounding=1e-11)
        assert relative_gap(machine, solution) <= 1e-4
        assert solution.status == Status.CONVERGED


def test_few_steps_end_at_the_limit_with_an_honest_gap():
    machine = Machine(*noisy(), 1e-3)
    gaps = []
    for max_steps in (1, 2, 3):
        solution = solve(machine, max_steps=max_steps, tol=1e-9)
        assert (solution.status, solution.steps) == (Status.STEP_LIMIT, max_steps)
        assert_honest(machine, solution)
        gaps.append(float(solution.gap))
    assert np.isfinite(gaps).all()
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] > 1e-9


@pytest.mark.parametrize(("as_numpy", "reached"), [(True, 1e-9), (False, 1e-5)])
def test_a_tolerance_below_the_precision_stalls_at_the_best_reached(as_numpy, reached):
    x, y = noisy()
    x = x if as_numpy else x.astype(np.float32)
    stalled = 0
    for l2, tol in itertools.product((1e-4, 1e-3, 1e-2, 0.1), (0.0, 1e-30)):
        machine = Machine(x, y, l2)
        solution = solve(machine, tol=tol, as_numpy=as_numpy)
        # Now and then both values round to the same number: a gap of 0 is within any tolerance.
        assert solution.status == (Status.STALLED if solution.gap > 0 else Status.CONVERGED)
        stalled += int(solution.status == Status.STALLED)
        assert_honest(machine, solution, rounding=1e-12 if as_numpy else 3e-7)
        assert relative_gap(machine, solution) < reached
    # In float64 the last steps often leave no gap that a float64 could hold.
    assert stalled >= (0 if as_numpy else 2)


@jax.jit
def feasible_and_certified(program, alpha):
    made = feasible(program, alpha)
    return made, feasible(program, made), certify(program, jnp.zeros_like(program.q), alpha)


def test_any_dual_point_is_made_feasible():
    rng = np.random.default_rng(7)
    n = 11
    y, c = np.where(np.arange(n) < 4, 1.0, -1.0), rng.uniform(0.1, 1.0, n)
    rows = np.concatenate([rng.normal(size=(2, n)), np.ones((1, n))])
    for squared, q_bias, scale in itertools.product((False, True), (0.0, 0.3), (0.01, 1.0, 100.0)):
        q, penalty = np.array([0.0, 0.0, q_bias]), np.array([0.5, 0.5, 0.0])
        program = Program(Columns(rows), y, np.ones(n), c, penalty, q, squared=squared, free_bias=True)
        program = jax.tree.map(lambda leaf: leaf.astype(np.float32), program)
        raw = (scale * rng.normal(size=n)).astype(np.float32)
        alpha, again, found = feasible_and_certified(program, raw)
        alpha = np.asarray(alpha, np.float64)
        assert (alpha >= 0).all()
        if not squared:
            assert (alpha <= c * (1 + 1e-6)).all()
        # Sums of float32 numbers of this size.
        error = 1e-6 * max(1.0, alpha.sum())
        assert y @ alpha == pytest.approx(q_bias, abs=error)
        np.testing.assert_allclose(again, alpha, rtol=0, atol=error)
        assert np.isfinite(found.dual)
        assert found.primal >= found.dual
