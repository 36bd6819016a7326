"""From nearly optimal to optimal up to rounding, and the one bias of the many."""

import numpy as np
import pytest
import threadpoolctl
from helpers.svm_references import Machine, dual_value, kkt_violation, noisy, plain_solve, primal_value

import jaxhinge
from jaxhinge._methods.problem import Status
from jaxhinge._solve.polish import Hinges, middle_bias, polish

# Rounding of a few hundred additions of numbers near 1.
ROUNDING = 1e-13


def hinges_of(machine):
    x, y, share = machine.rows()
    if machine.intercept == "regularized":
        x = np.column_stack([x, np.ones(len(x))])
    return Hinges(x, y, np.ones(len(x)), share, machine.l2, machine.squared, machine.intercept is True)


def solved(machine, **options):
    return jaxhinge.solve(
        machine.x,
        machine.y,
        l2=machine.l2,
        sample_weight=machine.weight,
        fit_intercept=machine.intercept,
        loss="squared_hinge" if machine.squared else "hinge",
        as_numpy=True,
        **options,
    )


def machines():
    x, y = noisy()
    weight = np.random.default_rng(1).integers(1, 4, len(x)).astype(float)
    for squared in (False, True):
        for intercept in (True, False):
            for l2 in (1.0, 1e-3):
                yield pytest.param(Machine(x, y, l2, weight, intercept, squared), id=f"{squared}-{intercept}-{l2}")
    # Rows of whole numbers, many of them twice: those on the margin are dependent.
    yield pytest.param(Machine(np.round(x), y, 1e-2), id="dependent")


@pytest.mark.parametrize("machine", list(machines()))
def test_a_rough_solution_becomes_exact(machine):
    rough = solved(machine)
    found, active_set_identified = polish(hinges_of(machine), rough, 1e-12)
    assert active_set_identified
    assert found.status == Status.CONVERGED
    assert found.primal_value == pytest.approx(primal_value(machine, found.params), rel=ROUNDING)
    assert found.dual_value == pytest.approx(dual_value(machine, found.dual), rel=ROUNDING)
    assert abs(found.gap) < ROUNDING
    assert found.primal_value <= rough.primal_value
    # Division by l2 in the stationarity of the weights.
    assert kkt_violation(machine, found.params, found.dual) < 1e-10


def test_it_is_the_minimiser_that_coordinate_descent_finds():
    x, y = noisy()
    machine = Machine(x, y, 0.05, intercept=False)
    w, _ = plain_solve(machine)
    found, _ = polish(hinges_of(machine), solved(machine), 1e-12)
    # Coordinate descent ends when no dual variable moves by more than 1e-15, of a linearly convergent sequence.
    np.testing.assert_allclose(found.params.w, w, rtol=1e-7)


@pytest.mark.parametrize("squared", [False, True])
def test_any_start_ends_no_higher_and_with_an_honest_gap(squared):
    x, y = noisy()
    machine = Machine(x, y, 1e-2, squared=squared)
    rng, solution = np.random.default_rng(0), solved(machine, tol=1e-10)
    for size in (1e-6, 1e-2, 10.0):
        params = jaxhinge.LinearParams(*(leaf + size * rng.normal(size=np.shape(leaf)) for leaf in solution.params))
        dual = solution.dual + size * rng.normal(size=len(x)) / len(x)
        start = solution._replace(params=params, dual=dual, dual_value=np.float64(-np.inf))
        found, active_set_identified = polish(hinges_of(machine), start, 1e-10)
        assert found.primal_value <= primal_value(machine, params) + ROUNDING
        assert found.primal_value == pytest.approx(primal_value(machine, found.params), rel=ROUNDING)
        # The gap is rounded outward.
        expected = found.primal_value - dual_value(machine, found.dual)
        assert found.gap == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
        assert (found.status == Status.CONVERGED) == (found.gap <= 1e-10 * found.primal_value)
        assert not active_set_identified or found.gap < ROUNDING


def test_too_much_work_leaves_the_solution_as_it_was(monkeypatch):
    monkeypatch.setattr("jaxhinge._solve.polish._MOST_WORK", 1)
    x, y = noisy()
    machine = Machine(x, y, 1e-2)
    rough = solved(machine)
    found, active_set_identified = polish(hinges_of(machine), rough, 1e-10)
    assert not active_set_identified
    assert found.status == Status.STALLED
    np.testing.assert_array_equal(found.params.w, rough.params.w)
    # Balanced once more.
    np.testing.assert_allclose(found.dual, rough.dual, rtol=ROUNDING)


def test_rows_without_weight_are_not_there():
    x, y = noisy()
    weight = np.ones(len(x))
    weight[::5] = 0
    machine = Machine(x, y, 1e-2, weight)
    found, active_set_identified = polish(hinges_of(machine), solved(machine), 1e-12)
    kept = weight > 0
    fewer = Machine(x[kept], y[kept], 1e-2)
    again, _ = polish(hinges_of(fewer), solved(fewer), 1e-12)
    assert active_set_identified
    np.testing.assert_allclose(found.params.w, again.params.w, rtol=ROUNDING)
    assert found.params.b == pytest.approx(again.params.b, rel=ROUNDING)
    assert (found.dual[~kept] == 0).all()
    np.testing.assert_allclose(found.dual[kept], again.dual, atol=ROUNDING)


@pytest.mark.parametrize("seed", range(20))
def test_the_middle_bias_is_the_middle_of_the_best(seed):
    rng = np.random.default_rng(seed)
    n = 12
    scores, required = np.round(rng.normal(size=n), 1), rng.choice([1.0, 0.5], n)
    sign, c = np.where(np.arange(n) % 2, 1.0, -1.0), rng.integers(1, 3, n).astype(float)

    def hinges(bias):
        return c @ np.maximum(0, required - sign * (scores + bias))

    corners = sign * required - scores
    values = np.array([hinges(corner) for corner in corners])
    best = corners[values < values.min() + ROUNDING]
    found = middle_bias(scores, sign, required, c)
    assert found == pytest.approx((best.min() + best.max()) / 2, abs=ROUNDING)
    assert middle_bias(scores, sign, required, c / c.sum()) == found


def test_blas_is_held_to_one_thread_while_it_decomposes(monkeypatch):
    # Its threads spin: beside two busy cores a decomposition of 200 x 300 took ten seconds.
    x, y = noisy()
    machine = Machine(x, y, 0.01)
    seen, plain = [], np.linalg.svd

    def watched(rows, **options):
        libraries = threadpoolctl.threadpool_info()
        seen.extend(one["num_threads"] for one in libraries if one["user_api"] == "blas")
        return plain(rows, **options)

    monkeypatch.setattr(np.linalg, "svd", watched)
    with threadpoolctl.threadpool_limits(2):
        polish(hinges_of(machine), solved(machine, tol=1e-4), 1e-8)
    assert seen
    assert set(seen) == {1}
