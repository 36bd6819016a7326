"""Sparse rows under a trace: the answers of dense rows, certified, from the stored numbers alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.sparse_rows import bcoo
from jax.experimental.sparse import BCOO

import jaxhinge as jh
from jaxhinge import Status
from jaxhinge._rows.stored import StoredRows

N, D = 40, 12
RNG = np.random.default_rng(7)
X = np.where(RNG.random((N, D)) < 0.3, RNG.normal(size=(N, D)) + 0.5, 0).astype(np.float32)
X[3], X[:, 5] = 0, 0
REAL = (X @ RNG.normal(size=D) + 0.3 * RNG.standard_t(3, N)).astype(np.float32)
Y = np.where(np.median(REAL) < REAL, 1.0, -1.0).astype(np.float32)
WEIGHT = RNG.integers(0, 3, N).astype(np.float32)
LABELS = np.arange(N) % 3
PADDED = bcoo(X, padding=5)


def certified(found, dense):
    """The dense solution, tighter than what is judged, says what the optimum is."""
    assert (found.status == Status.CONVERGED).all()
    rounding = 3e-7 * np.abs(dense.primal_value)
    assert (found.primal_value >= dense.dual_value - rounding).all()
    assert (found.primal_value - found.gap <= dense.primal_value + rounding).all()
    assert ((found.gap >= 0) & (found.gap <= 1e-4 * np.abs(found.primal_value))).all()


@pytest.fixture(scope="module")
def solve():
    """One program, for all numbers of one shape."""
    return jax.jit(lambda data, y, l2, weight: jh.solve(with_numbers(data), y, l2=l2, sample_weight=weight))


def with_numbers(data):
    return BCOO((data, PADDED.indices), shape=X.shape)


@pytest.mark.parametrize("l2", [1.0, 0.05, 0.003])
def test_a_traced_solution_is_that_of_dense_rows(solve, l2):
    found = solve(PADDED.data, Y, l2, WEIGHT)
    certified(found, jh.solve(X, Y, l2=l2, sample_weight=WEIGHT, tol=1e-8, as_numpy=True))
    # The objective and the gap again, from the definitions, for the parameters that came back.
    share = WEIGHT / WEIGHT.sum(dtype=np.float64)
    w, b, alpha = (np.asarray(leaf, np.float64) for leaf in (*found.params, found.dual))
    primal = share @ np.maximum(0, 1 - Y * (X @ w + b)) + l2 / 2 * w @ w
    assert found.primal_value == pytest.approx(primal, rel=1e-6)
    assert (alpha <= share * (1 + 1e-6)).all()
    assert (alpha[WEIGHT == 0] == 0).all()
    dual = alpha.sum() - np.sum(((alpha * Y) @ X) ** 2) / (2 * l2)
    assert primal - dual <= found.gap + 1e-6 * primal


def test_bad_values_become_a_status(solve):
    # A number outside of the shape is padding, whatever it is.
    fine = solve(PADDED.data.at[-1].set(jnp.nan), Y, 0.05, WEIGHT)
    assert fine.status == Status.CONVERGED
    for data, y, l2, weight in (
        (PADDED.data.at[0].set(jnp.nan), Y, 0.05, WEIGHT),
        (PADDED.data, np.ones_like(Y), 0.05, WEIGHT),
        (PADDED.data, Y, -1.0, WEIGHT),
        (PADDED.data, Y, 0.05, -WEIGHT),
    ):
        found = solve(data, y, l2, weight)
        assert found.status == Status.REFUSED
        assert np.isnan(found.gap)
        assert np.isnan(found.params.w).all()


def test_an_index_below_0_is_a_mistake():
    stored = StoredRows.of(BCOO((jnp.ones(3), jnp.array([[0, 0], [-1, 0], [4, 0]])), shape=(2, 2)), jnp.float32)
    np.testing.assert_array_equal(stored.data, [1, np.nan, 0])


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_the_operator_is_that_of_dense_rows(centred, ones, pairs):
    centre = np.linspace(-1, 1, D).astype(np.float32)
    stored = StoredRows.of(PADDED, jnp.float32)
    shape = {"centre": jnp.asarray(centre) if centred else None, "ones": ones, "pairs": pairs}
    rows = StoredRows(stored.data, stored.rows, stored.columns, stored.shape, **shape)
    dense = X - centre if centred else X
    dense = np.concatenate([dense, np.ones((N, 1), np.float32)], axis=1) if ones else dense
    dense = np.repeat(dense, 2, axis=0) if pairs else dense
    z, push = RNG.normal(size=(3, dense.shape[1])), RNG.random((3, len(dense)))
    z, push = z.astype(np.float32), push.astype(np.float32)

    @jax.jit
    def all_of(rows, z, push):
        sizes = rows.magnitudes(jnp.abs(z[0]), push[0])
        return rows.products(z), rows.products(z[0]), rows.adjoint(push), rows.squares(push[0]), *sizes

    products, one, sums, squares, of_products, of_sums = all_of(rows, z, push)
    np.testing.assert_allclose(products, z @ dense.T, atol=2e-5)
    np.testing.assert_allclose(one, products[0], atol=1e-6)
    np.testing.assert_allclose(sums, push @ dense, atol=2e-4)
    np.testing.assert_allclose(squares, push[0] @ dense**2, atol=2e-4)
    # Where a centre is taken away, as much may be lost as is taken.
    largest = np.abs(X) + np.abs(centre) * centred
    largest = np.concatenate([largest, np.ones((N, 1))], axis=1) if ones else largest
    largest = np.repeat(largest, 2, axis=0) if pairs else largest
    np.testing.assert_allclose(of_products, largest @ np.abs(z[0]), rtol=1e-5)
    np.testing.assert_allclose(of_sums, push[0] @ largest, rtol=1e-5)


TARGETS = np.where(Y > 0, 1.0, -1.0)
CALLS = {
    "squared": lambda x, o: jh.solve(x, TARGETS, l2=0.05, loss="squared_hinge", **o),
    "no bias": lambda x, o: jh.solve(x, TARGETS, l2=0.05, fit_intercept=False, **o),
    "regularized": lambda x, o: jh.solve(x, TARGETS, l2=0.05, fit_intercept="regularized", **o),
    "ascent": lambda x, o: jh.solve(x, TARGETS, l2=0.5, **({**o, "method": "ascent", "max_steps": 5000})),
    "regression": lambda x, o: jh.solve_regression(x, REAL, l2=0.05, sample_weight=WEIGHT, **o),
    "squared tube": lambda x, o: jh.solve_regression(x, REAL, l2=0.05, squared=True, **o),
    "quantile": lambda x, o: jh.solve_quantile(x, REAL, l2=0.05, quantile=0.3, **o),
    "one class": lambda x, o: jh.solve_one_class(x, nu=0.3, **o),
    "one against the rest": lambda x, o: jh.solve_multiclass(x, LABELS, l2=0.2, loss="one_vs_rest", **o),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_loss(name):
    found = jax.jit(lambda data: CALLS[name](with_numbers(data), {}))(PADDED.data)
    certified(found, CALLS[name](X, {"tol": 1e-8, "as_numpy": True}))


def test_batches_of_strengths_and_of_rows():
    strengths = np.array([1.0, 0.1, 0.01], np.float32)
    scales = jnp.array([1.0, 2.0])

    def one(l2, scale):
        return jh.solve(with_numbers(scale * PADDED.data), Y, l2=l2)

    found = jax.vmap(jax.jit(jax.vmap(one, in_axes=(0, None))), in_axes=(None, 0))(strengths, scales)
    assert found.params.w.shape == (2, 3, D)
    for row, scale in enumerate(np.asarray(scales)):
        for column, l2 in enumerate(strengths):
            exact = jh.solve(scale * X, Y, l2=l2, tol=1e-8, as_numpy=True)
            certified(jax.tree.map(lambda leaf: leaf[row, column], found), exact)  # noqa: B023


def test_a_traced_gap_is_that_of_dense_rows():
    exact = jh.solve(X, Y, l2=0.05, tol=1e-8, as_numpy=True)
    params = jh.LinearParams(exact.params.w.astype(np.float32), np.float32(exact.params.b))
    gap = jax.jit(lambda data, w: jh.duality_gap((w, params.b), with_numbers(data), Y, l2=0.05))
    assert 0 <= gap(PADDED.data, params.w) <= 1e-5
    worse = jh.loss((0 * params.w, params.b), X, Y, l2=0.05) - exact.primal_value
    assert gap(PADDED.data, 0 * params.w) == pytest.approx(float(worse), rel=1e-4)


REFUSED = {
    "interior point": (
        lambda x: jh.solve(x, Y, l2=1.0, method="interior_point"),
        'method="interior_point" takes dense',
    ),
    "Crammer-Singer": (lambda x: jh.solve_multiclass(x, LABELS, l2=1.0), 'loss="crammer_singer" takes dense rows only'),
    "ranking": (lambda x: jh.solve_ranking(x, np.array([[0, 1]]), l2=1.0), "solve_ranking takes dense rows only"),
    "derivative": (lambda x: jax.grad(lambda l2: jh.solve(x, Y, l2=l2).primal_value)(1.0), "has no derivative"),
    "targets": (lambda x: jh.solve(x, Y[:2], l2=1.0), "y has shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_by_name(name):
    call, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=message):
        jax.eval_shape(lambda data: call(with_numbers(data)), PADDED.data)
