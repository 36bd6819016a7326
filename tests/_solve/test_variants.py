"""Regression, quantiles, ranking, one class, and the gap of any parameters, against plain NumPy and scikit-learn."""

import jax
import numpy as np
import pytest
from helpers.svm_references import D, Machine, N, noisy, primal_value

import jaxhinge as jh
from jaxhinge import Status

X, CLASSES = noisy()
RNG = np.random.default_rng(21)
TARGETS = X @ [1.0, -2.0, 0.5, 0.0] + 3.0 + RNG.standard_t(2, N)
WEIGHT = RNG.uniform(0.5, 2.0, N)
SHARE = WEIGHT / WEIGHT.sum()


def residual(params):
    return TARGETS - X @ params.w - params.b


def two_sided(params, dual, l2, epsilon, above, below, squared=False):
    """Primal and dual value of `sum_i share_i (above loss(r_i - epsilon) + below loss(-r_i - epsilon))`."""
    r, power = residual(params), 2 if squared else 1
    losses = above * np.maximum(r - epsilon, 0) ** power + below * np.maximum(-r - epsilon, 0) ** power
    primal = SHARE @ losses + l2 / 2 * params.w @ params.w
    up, down = np.maximum(dual[0::2], 0), np.maximum(dual[1::2], 0)
    if not squared:
        up, down = np.minimum(up, above * SHARE), np.minimum(down, below * SHARE)
    common = min(up.sum(), down.sum())
    up, down = up * common / up.sum(), down * common / down.sum()
    pull = (up - down) @ X
    value = (up - down) @ TARGETS - epsilon * (up + down).sum() - pull @ pull / (2 * l2)
    return primal, value - ((up**2 + down**2) / (4 * SHARE)).sum() if squared else value


@pytest.mark.parametrize("squared", [False, True])
def test_regression_is_certified(squared):
    for l2, epsilon in [(1e-6, 0.0), (1e-2, 0.3), (10.0, 1.0)]:
        found = jh.solve_regression(
            X, TARGETS, l2=l2, epsilon=epsilon, sample_weight=WEIGHT, squared=squared, as_numpy=True, tol=1e-6
        )
        primal, dual = two_sided(found.params, found.dual, l2, epsilon, 1, 1, squared)
        assert found.status == Status.CONVERGED
        np.testing.assert_allclose((found.primal_value, found.dual_value), (primal, dual), rtol=1e-10)
        assert primal - dual <= 1e-6 * primal


@pytest.mark.parametrize("squared", [False, True])
def test_regression_matches_liblinear(squared):
    svm = pytest.importorskip("sklearn.svm")
    l2, epsilon = 0.1, 0.2
    loss = "squared_epsilon_insensitive" if squared else "epsilon_insensitive"
    model = svm.LinearSVR(
        epsilon=epsilon, loss=loss, dual=not squared, C=1 / (l2 * WEIGHT.sum()), tol=1e-11, max_iter=1_000_000
    ).fit(X, TARGETS, WEIGHT)  # fmt: skip
    found = jh.solve_regression(
        X, TARGETS, l2=l2, epsilon=epsilon, sample_weight=WEIGHT, squared=squared, fit_intercept="regularized",
        tol=1e-10, as_numpy=True,
    )  # fmt: skip
    # Strong convexity turns a relative gap of 1e-10 into an error of the parameters of about its root.
    np.testing.assert_allclose(found.params.w, model.coef_, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.params.b, model.intercept_[0], rtol=0, atol=1e-4)


def test_quantiles_are_certified_and_cover_their_share():
    linear_model = pytest.importorskip("sklearn.linear_model")
    for quantile in (0.1, 0.5, 0.9):
        found = jh.solve_quantile(X, TARGETS, l2=1e-3, quantile=quantile, sample_weight=WEIGHT, as_numpy=True, tol=1e-7)
        primal, dual = two_sided(found.params, found.dual, 1e-3, 0.0, quantile, 1 - quantile)
        np.testing.assert_allclose((found.primal_value, found.dual_value), (primal, dual), rtol=1e-10)
        assert primal - dual <= 1e-7 * primal
        # The bias is free: at the optimum the weight below is at most the quantile, with the rows on it at least that.
        r = residual(found.params)
        assert SHARE[r < -1e-4].sum() <= quantile <= SHARE[r < 1e-4].sum()
        free = jh.solve_quantile(X, TARGETS, l2=1e-9, quantile=quantile, as_numpy=True, tol=1e-9)
        model = linear_model.QuantileRegressor(quantile=quantile, alpha=0.0, solver="highs").fit(X, TARGETS)
        np.testing.assert_allclose(free.params.w, model.coef_, rtol=0, atol=1e-3)


def test_ranking_is_the_machine_of_differences():
    pairs = np.array([(i, j) for i in range(8) for j in range(8, 16) if TARGETS[i] > TARGETS[j]])[:40]
    found = jh.solve_ranking(X, pairs, l2=0.05, as_numpy=True, tol=1e-8)
    x = X[pairs[:, 0]] - X[pairs[:, 1]]
    losses = np.maximum(0, 1 - x @ found.params.w)
    alpha = np.clip(found.dual, 0, 1 / len(x))
    primal = losses.mean() + 0.025 * found.params.w @ found.params.w
    assert primal - (alpha.sum() - (alpha @ x) @ (alpha @ x) / 0.1) <= 1e-8 * primal
    assert found.primal_value == pytest.approx(primal, rel=1e-12)
    assert found.params.b == 0


def test_one_class_matches_libsvm_and_keeps_its_promise():
    svm = pytest.importorskip("sklearn.svm")
    x = X + 2.0
    for nu in (0.1, 0.5):
        found = jh.solve_one_class(x, nu=nu, as_numpy=True, tol=1e-9)
        scores = x @ found.params.w + found.params.b
        assert (scores < -1e-4).mean() <= nu <= (scores < 1e-4).mean()
        assert found.dual.sum() == pytest.approx(1, abs=1e-12)
        assert (found.dual >= 0).all()
        assert (found.dual <= (1 + 1e-12) / (nu * N)).all()
        # Theirs is the same problem, everything times nu n.
        model = svm.OneClassSVM(kernel="linear", nu=nu, tol=1e-10).fit(x)
        np.testing.assert_allclose(found.params.w, model.coef_[0] / (nu * N), rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.params.b, model.intercept_[0] / (nu * N), rtol=0, atol=1e-4)


def test_the_gap_of_any_parameters_bounds_their_excess():
    l2 = 0.02
    machine = Machine(X, CLASSES, l2, WEIGHT)
    best = jh.solve(X, CLASSES, l2=l2, sample_weight=WEIGHT, tol=1e-10, as_numpy=True)
    traced = jax.jit(lambda params: jh.duality_gap(params, X, CLASSES, l2=l2, sample_weight=WEIGHT))
    for size in (0.0, 1e-3, 1.0, 100.0):
        params = jh.LinearParams(best.params.w + size, best.params.b - size)
        excess = primal_value(machine, params) - float(best.primal_value)
        gap = float(jh.duality_gap(params, X, CLASSES, l2=l2, sample_weight=WEIGHT))
        # In float32, and improved to 1e-7.
        accuracy = 1e-6 * max(1.0, float(excess))
        assert gap == pytest.approx(excess, abs=accuracy)
        assert float(traced(params)) == pytest.approx(gap, abs=2 * accuracy)
    # Beyond float32, which is the dtype of the answer, a bound is infinite.
    assert jh.duality_gap((np.full(D, 1e30), 0.0), 1e30 * X, CLASSES, l2=l2, sample_weight=WEIGHT) == np.inf
    given = jh.duality_gap(best.params, X, CLASSES, l2=l2, sample_weight=WEIGHT, dual=np.zeros(N))
    assert float(given) == pytest.approx(float(best.primal_value), rel=1e-6)


BAD = [
    (lambda: jh.solve_regression(X, TARGETS, l2=0.1, epsilon=-1.0), ValueError, "epsilon"),
    (lambda: jh.solve_regression(X, np.where(TARGETS > 0, np.nan, 0), l2=0.1), ValueError, "y"),
    (lambda: jh.solve_regression(X, TARGETS[:, None], l2=0.1), ValueError, "y"),
    (lambda: jh.solve_quantile(X, TARGETS, l2=0.1, quantile=1.0), ValueError, "quantile"),
    (lambda: jh.solve_ranking(X, np.array([[0, N]]), l2=0.1), ValueError, "pairs"),
    (lambda: jh.solve_ranking(X, np.array([[0.0, 1.0]]), l2=0.1), TypeError, "pairs"),
    (lambda: jh.solve_ranking(X, np.array([0, 1]), l2=0.1), ValueError, "pairs"),
    (lambda: jh.solve_one_class(X, nu=0.0), ValueError, "nu"),
    (lambda: jh.solve_one_class(X * np.nan), ValueError, "x has NaN"),
    (lambda: jh.duality_gap((np.zeros(D + 1), 0.0), X, CLASSES, l2=0.1), ValueError, "w has shape"),
    (lambda: jh.duality_gap((np.zeros(D), np.zeros(1)), X, CLASSES, l2=0.1), ValueError, "b has shape"),
    (lambda: jh.duality_gap(3.0, X, CLASSES, l2=0.1), TypeError, "params"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_values_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(("n", "d", "fit_intercept"), [(2, 3, True), (2, 4, False), (3, 9, True), (20, 40, False)])
def test_as_many_features_as_sides_of_rows(n, d, fit_intercept):
    rng = np.random.default_rng(5)
    x, y, l2, epsilon = rng.normal(size=(n, d)), rng.normal(size=n), 0.1, 0.05
    found = jh.solve_regression(x, y, l2=l2, epsilon=epsilon, fit_intercept=fit_intercept, as_numpy=True)
    r = y - x @ found.params.w - found.params.b
    primal = np.maximum(np.abs(r) - epsilon, 0).mean() + l2 / 2 * found.params.w @ found.params.w
    net = found.dual[0::2] - found.dual[1::2]
    dual = net @ y - epsilon * found.dual.sum() - (net @ x) @ (net @ x) / (2 * l2)
    assert found.status == Status.CONVERGED
    assert (found.dual >= 0).all()
    assert found.dual.max() <= (1 + 1e-12) / n
    assert not fit_intercept or abs(net.sum()) < 1e-12
    np.testing.assert_allclose((found.primal_value, found.dual_value), (primal, dual), rtol=1e-9)
    assert -1e-12 <= primal - dual <= 1.0001e-4 * primal
