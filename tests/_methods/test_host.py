"""The host's executor: it compiles nothing, and agrees with the traced one and with exact arithmetic."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl
from sklearn.base import clone

import jaxhinge as jh
from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV, HingeRegressor


def problem(n, d, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + 0.5
    y = np.where(x @ rng.normal(size=d) / d**0.5 + noise * rng.normal(size=n) > 0.3, 1, -1)
    return x, y, rng.uniform(0.2, 3.0, size=n)


def objective(solution, x, y, weight, l2, *, squared=False, regularized=False):
    w, b = (np.asarray(leaf, np.float64) for leaf in solution.params)
    excess = np.maximum(0, 1 - y * (x @ w + b))
    losses = excess**2 if squared else excess
    return weight @ losses / weight.sum() + l2 / 2 * (w @ w + (b * b if regularized else 0))


X, Y, WEIGHT = problem(60, 3)
CALLS = {
    "solve": lambda x: jh.solve(x, Y, l2=0.1),
    "newton": lambda x: jh.solve(x, Y, l2=0.1, method="newton"),
    "ascent": lambda x: jh.solve(x, Y, l2=0.1, method="ascent"),
    "squared": lambda x: jh.solve(x, Y, l2=0.1, loss="squared_hinge"),
    "regression": lambda x: jh.solve_regression(x, Y, l2=0.1),
    "quantile": lambda x: jh.solve_quantile(x, Y, l2=0.1),
    "one class": lambda x: jh.solve_one_class(x, nu=0.3),
    "ranking": lambda x: jh.solve_ranking(x, np.array([[0, 1], [2, 3], [4, 5]]), l2=0.1),
    "path": lambda x: jh.path(x, Y, l2=[0.1, 1.0]),
    "sweep": lambda x: jh.sweep(x, Y, l2=[0.1, 1.0], folds=3)[:-1],
    "one against the rest": lambda x: jh.solve_multiclass(x, np.arange(60) % 3, l2=0.1, loss="one_vs_rest"),
    "Crammer-Singer": lambda x: jh.solve_multiclass(x, np.arange(60) % 3, l2=0.1),
    "Weston-Watkins": lambda x: jh.solve_multiclass(x, np.arange(60) % 3, l2=0.1, loss="weston_watkins"),
    "classes by ascents": lambda x: jh.solve_multiclass(x, np.arange(60) % 3, l2=0.1, method="ascent"),
    "gap": lambda x: jh.duality_gap((np.zeros(3), 0.0), x, Y, l2=0.1),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["NumPy", "JAX on the CPU"])
def test_nothing_is_compiled(name, kind, compilations):
    x = X if kind == "NumPy" else jnp.asarray(X)
    with compilations() as names:
        jax.block_until_ready(CALLS[name](x))
    assert names == []


@pytest.mark.parametrize("estimator", [HingeClassifier(), HingeClassifierCV(Cs=3, cv=3), HingeRegressor()], ids=repr)
@pytest.mark.parametrize("classes", [2, 3])
def test_estimators_compile_nothing(estimator, classes, compilations):
    labels = np.arange(60) % classes
    with compilations() as names:
        clone(estimator).fit(X, labels).predict(X)
    assert names == []


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("n", [60, 3_000])
def test_a_grid_is_its_problems_one_by_one(n, loss):
    x, y, weight = problem(n, 4, seed=2)
    fold, strengths = np.arange(n) % 3, [1.0, 0.1, 0.01]
    grid = jh.sweep(x, y, l2=strengths, folds=fold, loss=loss, sample_weight=weight, tol=1e-6, as_numpy=True)
    assert (grid.status == jh.Status.CONVERGED).all()
    for (i, l2), held_out in itertools.product(enumerate(strengths), range(3)):
        kept = fold != held_out
        rows = x[kept], y[kept]
        alone = jh.solve(*rows, l2=l2, loss=loss, sample_weight=weight[kept], tol=1e-6, as_numpy=True)
        params = jh.LinearParams(grid.params.w[i, held_out], grid.params.b[i, held_out])
        value = objective(alone._replace(params=params), *rows, weight[kept], l2, squared=loss != "hinge")
        assert alone.dual_value <= value <= alone.primal_value + grid.gap[i, held_out]
        assert 0 <= grid.gap[i, held_out] <= 1e-6 * value


# Compiled are so many that every two of shape, bias and loss meet; NumPy solves all.
COMPILED = [
    (80, True, "hinge"),
    (12, True, "squared_hinge"),
    (12, False, "hinge"),
    (80, False, "squared_hinge"),
    (80, "regularized", "hinge"),
    (12, "regularized", "squared_hinge"),
]


@pytest.mark.parametrize(("n", "d"), [(80, 3), (12, 30)])
@pytest.mark.parametrize("intercept", [True, False, "regularized"])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_both_executors_reach_the_same_optimum(n, d, intercept, loss):
    x, y, weight = problem(n, d, seed=n)
    options = {"sample_weight": weight, "fit_intercept": intercept, "loss": loss, "tol": 1e-4}
    # By another method on the host, too, so that there are always two.
    found = [jh.solve(x, y, l2=0.05, **options), jh.solve(x, y, l2=0.05, **options, method="interior_point")]
    if (n, intercept, loss) in COMPILED:
        found.append(jax.jit(lambda x: jh.solve(x, y, l2=0.05, **options))(x))
    values = [
        objective(s, x, y, weight, 0.05, squared=loss != "hinge", regularized=intercept == "regularized") for s in found
    ]
    for solution, value in zip(found, values, strict=True):
        assert solution.status == jh.Status.CONVERGED
        # The values come back as float32.
        assert solution.primal_value == pytest.approx(value, rel=3e-7)
        assert solution.dual_value <= min(values) * (1 + 3e-7)
        assert 0 <= solution.gap <= 1e-4 * value


@pytest.mark.parametrize("cost", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("intercept", [True, False, "regularized"])
def test_newton_solves_many_rows_by_few(cost, intercept):
    x, y, weight = problem(6_000, 5, seed=1)
    l2 = 1 / (cost * len(y))
    options = {"l2": l2, "sample_weight": weight, "fit_intercept": intercept, "tol": 1e-6, "as_numpy": True}
    found = jh.solve(x, y, method="newton", **options)
    other = jh.solve(x, y, method="interior_point", **options)
    assert found.status == other.status == jh.Status.CONVERGED
    value = objective(found, x, y, weight, l2, regularized=intercept == "regularized")
    # Sums of thousands of float64 numbers.
    assert found.primal_value == pytest.approx(value, rel=1e-12)
    assert other.dual_value <= found.primal_value <= other.primal_value + found.gap


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("intercept", [False, "regularized"])
def test_the_gap_is_a_bound_in_exact_arithmetic(seed, intercept):
    x, y, _ = problem(9, 2, seed=seed, noise=(0.0, 1.0)[seed % 2])
    y[:2] = 1, -1
    solution = jh.solve(x, y, l2=0.125, tol=1e-12, fit_intercept=intercept, as_numpy=True)
    assert solution.gap >= 0
    rows = [[Fraction(v) for v in row] + ([Fraction(1)] if intercept else []) for row in x]
    z = [Fraction(v) for v in solution.params.w] + ([Fraction(float(solution.params.b))] if intercept else [])
    l2, c = Fraction(0.125), Fraction(1, 9)
    scores = [sum(a * b for a, b in zip(row, z, strict=True)) for row in rows]
    primal = sum(c * max(Fraction(0), 1 - int(t) * s) for t, s in zip(y, scores, strict=True))
    primal += l2 / 2 * sum(v * v for v in z)
    alpha = [min(max(Fraction(a), Fraction(0)), c) for a in solution.dual]
    pull = [sum(a * int(t) * row[j] for a, t, row in zip(alpha, y, rows, strict=True)) for j in range(len(z))]
    dual = sum(alpha) - sum(v * v for v in pull) / (2 * l2)
    assert primal - dual <= Fraction(float(solution.gap))
    assert primal >= dual


def test_the_bits_do_not_depend_on_the_threads_of_blas():
    x, y, _ = problem(40_000, 30, seed=3)
    found = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            found.append(jh.solve(x, y, l2=1e-4, as_numpy=True))
            assert {library["num_threads"] for library in threadpoolctl.threadpool_info()} <= {threads}
    np.testing.assert_array_equal(found[0].params.w, found[1].params.w)
    np.testing.assert_array_equal(found[0].dual, found[1].dual)
