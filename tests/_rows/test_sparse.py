"""Sparse rows: the same answers as dense ones, from any format, with nothing made dense."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from helpers.sparse_rows import bcoo
from jax.experimental.sparse import BCOO

import jaxhinge as jh
from jaxhinge._base.sparse import csr_of
from jaxhinge._rows import sparse as module
from jaxhinge._rows.dense import DenseRows
from jaxhinge._rows.sparse import SparseRows


def sparse_rows(n=90, d=25, density=0.2, seed=0):
    """Rows of which one is empty, with an empty column and one that is dense."""
    rng = np.random.default_rng(seed)
    x = sp.random_array((n, d), density=density, rng=rng, data_sampler=rng.standard_normal).toarray()
    x[3], x[:, 5], x[:, 7] = 0, 0, 1.5
    # JAX holds the same numbers in float32.
    x = x.astype(np.float32).astype(np.float64)
    y = np.where(x @ rng.normal(size=d) + 0.3 * rng.normal(size=n) > 0.1, 1, -1)
    return x, y, rng.uniform(0.2, 3, n)


X, Y, WEIGHT = sparse_rows()
WIDE, WIDE_Y, _ = sparse_rows(30, 80)
LABELS = np.arange(90) % 3
TIGHT = {"as_numpy": True, "tol": 1e-8}

SOLVES = {
    "hinge": lambda x: jh.solve(x, Y, l2=0.01, sample_weight=WEIGHT, **TIGHT),
    "squared": lambda x: jh.solve(x, Y, l2=0.01, loss="squared_hinge", **TIGHT),
    "no bias": lambda x: jh.solve(x, Y, l2=0.01, fit_intercept=False, **TIGHT),
    "regularized": lambda x: jh.solve(x, Y, l2=0.01, fit_intercept="regularized", **TIGHT),
    "interior point": lambda x: jh.solve(x, Y, l2=0.01, method="interior_point", **TIGHT),
    "ascent": lambda x: jh.solve(x, Y, l2=0.1, method="ascent", **TIGHT),
    "regression": lambda x: jh.solve_regression(x, X[:, 1] - 2 * X[:, 2], l2=0.01, **TIGHT),
    "quantile": lambda x: jh.solve_quantile(x, X[:, 1] - 2 * X[:, 2], l2=0.01, quantile=0.3, **TIGHT),
    "one class": lambda x: jh.solve_one_class(x, nu=0.3, **TIGHT),
    "ranking": lambda x: jh.solve_ranking(x, np.array([[0, 1], [2, 3], [10, 4]]), l2=0.1, **TIGHT),
    "one against the rest": lambda x: jh.solve_multiclass(x, LABELS, l2=0.1, loss="one_vs_rest", **TIGHT),
    "Crammer-Singer": lambda x: jh.solve_multiclass(x, LABELS, l2=0.1, **TIGHT),
    "Weston-Watkins": lambda x: jh.solve_multiclass(x, LABELS, l2=0.1, loss="weston_watkins", **TIGHT),
    "path": lambda x: jh.path(x, Y, l2=[0.1, 0.01], **TIGHT),
    "wide": lambda x: jh.solve(WIDE_LIKE[type(x)], WIDE_Y, l2=0.01, **TIGHT),
}
WIDE_LIKE = {np.ndarray: WIDE, sp.csr_array: sp.csr_array(WIDE), BCOO: bcoo(WIDE)}


@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("kind", ["scipy", "BCOO"])
def test_every_solver_agrees_with_dense_rows(name, kind, compilations):
    sparse = sp.csr_array(X) if kind == "scipy" else bcoo(X)
    dense = SOLVES[name](X)
    with compilations() as names:
        found = SOLVES[name](sparse)
    assert names == []
    assert (found.status == jh.Status.CONVERGED).all()
    # Each primal value lies within its own gap of the one optimum.
    assert (found.primal_value - dense.dual_value >= 0).all()
    assert (found.primal_value - found.gap <= dense.primal_value).all()
    assert (found.gap >= 0).all()


def test_a_grid_and_a_gap_agree_with_dense_rows():
    sparse = sp.csc_matrix(X)
    grids = [jh.sweep(x, Y, l2=[0.3, 0.03], folds=3, sample_weight=WEIGHT, **TIGHT) for x in (sparse, X)]
    np.testing.assert_allclose(grids[0].params.w, grids[1].params.w, atol=2e-3)
    np.testing.assert_array_equal(grids[0].val_score, grids[1].val_score)
    assert (grids[0].status == jh.Status.CONVERGED).all()
    assert grids[0].best.gap >= 0
    found = jh.solve(X, Y, l2=0.1, **TIGHT)
    gaps = [float(jh.duality_gap(found.params, x, Y, l2=0.1, dual=found.dual)) for x in (sparse, X)]
    assert 0 <= gaps[0] <= 2e-8 * found.primal_value
    assert gaps[1] <= 2e-8 * found.primal_value


@pytest.mark.parametrize("block", [2**18, 40])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_the_operator_is_that_of_dense_rows(block, bias, centred, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    rng = np.random.default_rng(1)
    centre = rng.normal(size=25) if centred else None
    sparse, dense = SparseRows.of(csr_of("x", sp.coo_array(X)), centre, bias), DenseRows.of(X, centre, bias)
    assert (len(sparse._blocks) > 1) == (block < 2**18)
    z, push = rng.normal(size=(2, 25 + bias)), rng.uniform(size=(2, 90))
    for method, values in (("products", z), ("adjoint", push), ("gram", push)):
        for given in (values, values[0]):
            found, expected = (getattr(rows, method)(given) for rows in (sparse, dense))
            np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=method)
    np.testing.assert_allclose(sparse.squares(push[0]), np.diag(dense.gram(push[0])), atol=1e-11)
    np.testing.assert_allclose(dense.squares(push[0]), np.diag(dense.gram(push[0])), atol=1e-11)
    rows = X - centre if centred else X
    for operator in (sparse, dense):
        np.testing.assert_allclose(operator.kernel(last=True), rows @ rows.T + bias, atol=1e-12)
    few = np.where(push[0] > 0.8, push[0], 0)
    np.testing.assert_allclose(sparse.gram_of_few(few), dense.gram_of_few(few), atol=1e-12)
    for found, expected in zip(
        sparse.magnitudes(abs(z[0]), push[0]), dense.magnitudes(abs(z[0]), push[0]), strict=True
    ):
        assert (found >= expected - 1e-12).all()


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("container", [sp.csr_array, sp.csr_matrix])
def test_any_format_is_brought_to_one(form, container):
    x = container(X[:20]).asformat(form)
    before = x.toarray()
    found = csr_of("x", x)
    np.testing.assert_array_equal(found.toarray(), X[:20])
    assert found.has_canonical_format
    np.testing.assert_array_equal(x.toarray(), before)


def test_duplicates_are_summed_and_zeros_are_harmless():
    rows, columns = np.array([0, 0, 1, 1], np.int64), np.array([1, 1, 0, 2], np.int64)
    x = sp.coo_array((np.array([1.0, 2.0, 0.0, 5.0]), (rows, columns)), shape=(2, 3))
    found = csr_of("x", x)
    np.testing.assert_array_equal(found.toarray(), [[0, 3, 0], [0, 0, 5]])
    unsorted = sp.csr_array((np.array([1.0, 2.0, 4.0]), np.array([2, 2, 0]), np.array([0, 3, 3])), shape=(2, 3))
    np.testing.assert_array_equal(csr_of("x", unsorted).toarray(), [[4, 0, 3], [0, 0, 0]])
    assert unsorted.nnz == 3  # the caller's array is as it was
    padded = BCOO((jnp.array([1.0, 9.0]), jnp.array([[0, 1], [2, 3]])), shape=(2, 3))
    np.testing.assert_array_equal(csr_of("x", padded).toarray(), [[0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(("dtype", "kept"), [(np.float16, np.float32), (np.int8, np.float64), (bool, np.float64)])
def test_narrow_numbers_are_widened(dtype, kept):
    x = csr_of("x", sp.csr_array(np.eye(3)).astype(dtype) if dtype != np.float16 else _halves())
    assert x.dtype == kept


def _halves():
    x = sp.csr_array(np.eye(3))
    x.data = x.data.astype(np.float16)
    return x


def _broken(**parts):
    x = sp.csr_array(X)
    for name, value in parts.items():
        setattr(x, name, value)
    return x


NAN = sp.csr_array(np.where(np.arange(90)[:, None] == 4, np.nan, X))
REFUSED = {
    "NaN": (lambda: NAN, ValueError, r"NaN or infinity .* the first at \(4, 0\)"),
    "complex": (lambda: sp.csr_array(X * 1j), TypeError, "real numbers"),
    "object": (lambda: _broken(data=sp.csr_array(X).data.astype(object)), TypeError, "real numbers"),
    "index": (lambda: _broken(indices=sp.csr_array(X).indices + 20), ValueError, "no valid sparse csr"),
    "no columns": (lambda: sp.csr_array((90, 0)), ValueError, "empty"),
    "batch": (lambda: BCOO.fromdense(jnp.ones((90, 2, 2)), n_batch=1), ValueError, "n_batch=1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        jh.solve(make(), Y, l2=0.1)


@pytest.mark.parametrize("make", [bcoo, sp.csr_array])
def test_what_must_be_dense_is_refused_before_it_is_read(make, compilations):
    rows, labels = make(X), np.zeros(len(X), int)
    column = make(np.ones((len(X), 1)))
    gradient = lambda w, b, x, y: (w, b)  # noqa: E731
    calls = {
        "scores must be real": lambda: jh.losses.multiclass_hinge_loss(rows, labels),
        "y must be real": lambda: jh.solve(X, column, l2=0.1),
        "sample_weight must be real": lambda: jh.solve(X, Y, l2=0.1, sample_weight=column),
        "w must be real": lambda: jh.duality_gap((column, 0.0), X, Y, l2=0.1),
        "x must be real": lambda: jh.diagnose(gradient, (np.zeros(X.shape[1]), 0.0), rows, Y),
    }
    with compilations() as names:
        for message, call in calls.items():
            with pytest.raises(TypeError, match=message + r".*\.to(dense|array)\(\)"):
                call()
    assert names == []
