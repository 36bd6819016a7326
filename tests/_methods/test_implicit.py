"""Derivatives through `solve`, in every nesting, against differences of solutions polished in plain NumPy.

The derivative of a minimiser exists where no row changes sides. The problem below was chosen so, and
`polished` insists on it: rows on the margin have duals well inside their box, all others are well off the margin.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.svm_references import Machine, noisy, primal_value

import jaxhinge as jh

N = 24
X, Y = noisy(N, seed=3)
WEIGHT = np.random.default_rng(11).uniform(0.5, 1.5, N)
L2, DIRECTION = 0.05, np.array([1.0, -2.0, 0.5, 0.3])
INPUTS = (L2, WEIGHT, X)


def sides(machine):
    """Which rows are on the margin and which inside it, with room to spare."""
    loss = "squared_hinge" if machine.squared else "hinge"
    found = jh.solve(
        machine.x, machine.y, l2=machine.l2, sample_weight=machine.weight, fit_intercept=machine.intercept,
        loss=loss, tol=1e-10, as_numpy=True,
    )  # fmt: skip
    x, y, share = machine.rows()
    violation = 1 - y * (x @ found.params.w + found.params.b)
    on = np.zeros(len(y), bool) if machine.squared else np.abs(violation) < 1e-5
    fraction = found.dual / share
    assert ((fraction[on] > 1e-3) & (fraction[on] < 1 - 1e-3)).all(), "a row is about to leave the margin"
    assert (np.abs(violation[~on]) > 1e-3).all(), "a row is about to reach the margin"
    assert machine.squared or machine.intercept is not True or on.any(), "no row holds the bias"
    return on, ~on & (violation > 0), found.params


def polished(machine, on, inside):
    """The minimiser, exact: with the sides known the optimality conditions are one linear system in (z, alpha)."""
    x, y, share = machine.rows()
    if machine.intercept is not False:
        x = np.column_stack([x, np.ones(len(x))])
    penalty = np.full(x.shape[1], machine.l2)
    if machine.intercept is True:
        penalty[-1] = 0
    rows, border = y[inside, None] * x[inside], y[on, None] * x[on]
    curvature, push = np.diag(penalty), share[inside] @ rows
    if machine.squared:
        curvature, push = curvature + 2 * rows.T @ (share[inside, None] * rows), 2 * push
    zeros = np.zeros((len(border), len(border)))
    system = np.block([[curvature, -border.T], [border, zeros]])
    z = np.linalg.solve(system, np.concatenate([push, np.ones(len(border))]))[: x.shape[1]]
    return (z, 0.0) if machine.intercept is False else (z[:-1], z[-1])


def machine_of(l2, weight, x, intercept=True, squared=False):
    return Machine(x, Y, l2, weight, intercept, squared)


def target(params):
    """One number that every parameter moves."""
    return params[0] @ DIRECTION.astype(params[0].dtype) + 2 * params[1]


def differences(function, inputs=INPUTS, step=1e-6):
    """The gradient of a NumPy function of `(l2, weight, x)` by central differences; its error is about step squared."""
    gradients = []
    for which, value in enumerate(inputs):
        gradient = np.zeros_like(np.asarray(value, np.float64))
        for index in np.ndindex(gradient.shape):
            moved = []
            for sign in (1, -1):
                changed = np.array(value, np.float64)
                changed[index] += sign * step
                moved.append(function(*inputs[:which], changed, *inputs[which + 1 :]))
            gradient[index] = (moved[0] - moved[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def expected_gradients(intercept=True, squared=False, l2=L2):
    on, inside, params = sides(machine_of(*INPUTS, intercept, squared)._replace(l2=l2))
    machine = machine_of(l2, WEIGHT, X, intercept, squared)
    np.testing.assert_allclose(polished(machine, on, inside)[0], params[0], rtol=0, atol=2e-5)
    return differences(
        lambda *inputs: target(polished(machine_of(*inputs, intercept, squared), on, inside)), (l2, WEIGHT, X)
    )


def assert_gradients(found, expected, accuracy):
    for mine, theirs in zip(found, expected, strict=True):
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=accuracy * np.abs(theirs).max())


def solution(l2, weight, x, **options):
    return jh.solve(x, Y, l2=l2, sample_weight=weight, **options)


def scalar(l2, weight, x):
    return target(solution(l2, weight, x).params)


def in_float32(*values):
    return tuple(np.asarray(value, np.float32) for value in values)


GRAD = (0, 1, 2)
LANES = (0, None, None)
L2S = (0.05, 0.2)


SINGLE = {
    "jit(grad)": jax.jit(jax.grad(scalar, GRAD)),
    "grad(jit)": jax.grad(jax.jit(scalar), GRAD),
}
of_every_lane = jax.jit(jax.vmap(jax.grad(scalar, GRAD), LANES))


@pytest.fixture(scope="module")
def expected():
    return [expected_gradients(l2=l2) for l2 in L2S]


# float32 results of magnitudes that differ by a factor of 100: five digits of the largest.
SINGLE_PRECISION = 2e-5


@pytest.mark.parametrize("nesting", SINGLE)
def test_gradient_of_the_parameters(nesting, expected):
    # Neither flag finds anything on the way.
    with jax.debug_nans(True), jax.debug_infs(True):
        found = SINGLE[nesting](*in_float32(*INPUTS))
    assert_gradients(found, expected[0], SINGLE_PRECISION)
    assert {leaf.dtype for leaf in found} == {jnp.float32.dtype}


def test_gradient_of_every_lane(expected):
    found = of_every_lane(*in_float32(L2S, WEIGHT, X))
    for lane in range(2):
        assert_gradients([leaf[lane] for leaf in found], expected[lane], SINGLE_PRECISION)


def test_gradient_of_a_sum_over_lanes(expected):
    total = jax.jit(lambda *inputs: jnp.sum(jax.vmap(scalar, LANES)(*inputs)))
    found = jax.grad(total, GRAD)(*in_float32(L2S, WEIGHT, X))
    both = [[lane[i] for lane in expected] for i in range(3)]
    assert_gradients(found, [np.array(both[0]), sum(both[1]), sum(both[2])], SINGLE_PRECISION)


def bent(params):
    """Not linear in the parameters, so that its second derivative has both parts."""
    return jnp.sin(target(params)) if isinstance(params[0], jax.Array) else np.sin(target(params))


def expected_bend(intercept=True, squared=False, along=None):
    """How the gradient of `bent` moves along a direction, by differences of exact solutions twice over."""
    on, inside, _ = sides(machine_of(*INPUTS, intercept, squared))

    def slope(*inputs, step=1e-4):
        ends = (
            bent(polished(machine_of(*(v + sign * step * t for v, t in zip(inputs, along, strict=True)), intercept,
                                     squared), on, inside))
            for sign in (1, -1)
        )  # fmt: skip
        return (next(ends) - next(ends)) / (2 * step)

    return differences(slope, step=1e-4)


ALONG = (0.3 * L2, 0.3 * np.cos(np.arange(N)), 0.3 * np.sin(np.arange(X.size)).reshape(X.shape))


@pytest.mark.parametrize(("intercept", "squared"), [("regularized", False), (True, True), (False, False)])
def test_first_and_second_derivatives_of_the_variants(intercept, squared, x64):
    # The function bends at the solution that it is given, which is exact here.
    options = {"fit_intercept": intercept, "loss": "squared_hinge" if squared else "hinge", "tol": 1e-12}

    def both(*inputs):
        params = solution(*inputs, **options).params
        return jnp.stack([target(params), bent(params)])

    # One program for both orders.
    jacobian, bend = jax.jit(lambda *given: jax.jvp(jax.jacrev(both, GRAD), given, tuple(map(jnp.asarray, ALONG))))(
        *map(jnp.asarray, INPUTS)
    )
    found, moved = [leaf[0] for leaf in jacobian], [leaf[1] for leaf in bend]
    assert {leaf.dtype for leaf in (*found, *moved)} == {jnp.float64.dtype}
    assert_gradients(found, expected_gradients(intercept, squared), 1e-7)
    assert_gradients(moved, expected_bend(intercept, squared, ALONG), 1e-5)


def bent_and_value(log_l2):
    inputs = in_float32(*INPUTS[1:])
    found = solution(jnp.exp(log_l2), *inputs, tol=1e-9)
    return jnp.stack([bent(found.params), found.primal_value])


def test_hessian_in_the_logarithm_of_l2():
    on, inside, _ = sides(machine_of(*INPUTS))

    def exact(log_l2):
        machine = machine_of(np.exp(log_l2), *INPUTS[1:])
        params = polished(machine, on, inside)
        return np.array([bent(params), primal_value(machine, params)])

    step, middle = 1e-3, np.log(L2)
    expected = (exact(middle + step) - 2 * exact(middle) + exact(middle - step)) / step**2
    found = jax.jit(jax.hessian(bent_and_value))(jnp.asarray(middle, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_values_by_the_envelope_theorem_and_forward_mode_agree_with_reverse(expected):
    inputs = in_float32(*INPUTS)

    def everything(*inputs):
        found = solution(*inputs)
        return found, target(found.params)

    tangents = in_float32(0.3 * L2, WEIGHT[::-1] - 1, np.roll(X, 1, axis=0))
    (found, _), (moved, target_moved) = jax.jit(lambda *t: jax.jvp(everything, inputs, t))(*tangents)
    directional = sum(np.sum(gradient * tangent) for gradient, tangent in zip(expected[0], tangents, strict=True))
    assert target_moved == pytest.approx(directional, rel=1e-4)
    on, inside, _ = sides(machine_of(*INPUTS))
    optimal = differences(lambda *inputs: primal_value(machine_of(*inputs), polished(machine_of(*inputs), on, inside)))
    directional = sum(np.sum(gradient * tangent) for gradient, tangent in zip(optimal, tangents, strict=True))
    assert moved.primal_value == pytest.approx(directional, rel=1e-4)
    assert moved.dual_value == moved.primal_value
    for leaf in (moved.dual, moved.gap):
        assert (np.asarray(leaf) == 0).all()
    assert found.steps.dtype == jnp.int32
    assert moved.steps.dtype == moved.status.dtype == jax.dtypes.float0


def test_second_lane_refused_leaves_the_gradient_of_the_first(expected):
    found = of_every_lane(*in_float32((L2, -1.0), WEIGHT, X))
    assert_gradients([leaf[0] for leaf in found], expected[0], SINGLE_PRECISION)
