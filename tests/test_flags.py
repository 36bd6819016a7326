"""JAX's strict flags: no promotion of dtypes, none of ranks (see conftest.py), NaN and infinity stop the program."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxhinge as jh
from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV, HingeRegressor

N, D = 30, 3
rng = np.random.default_rng(0)
X = rng.normal(size=(N, D))
Y = np.where(X[:, 0] + 0.5 * rng.normal(size=N) > 0, 1, -1)
REAL = X @ [1.0, 2.0, 3.0] + rng.normal(size=N)
LABELS = np.arange(N) % 3
WEIGHT = rng.uniform(0.5, 2.0, N)
PAIRS = np.array([[0, 1], [2, 3], [4, 5]])
PARAMS = np.ones(D), 0.5


@contextlib.contextmanager
def strictly():
    with jax.numpy_dtype_promotion("strict"), jax.debug_nans(True), jax.debug_infs(True):
        yield


def solve_with(**options):
    return lambda x, l2, weight: jh.solve(x, Y, l2=l2, sample_weight=weight, **options)


def classes_with(loss):
    return lambda x, l2, weight: jh.solve_multiclass(
        x, LABELS, l2=l2, sample_weight=weight, loss=loss, num_classes=3, max_steps=5
    )


# Targets are integers here, features float32 or float64, options Python's numbers: a user mixes them all.
SOLVERS = {
    "solve": solve_with(),
    "newton": solve_with(method="newton"),
    "interior point": solve_with(method="interior_point", fit_intercept="regularized"),
    "ascent": solve_with(method="ascent", fit_intercept=False),
    "squared": solve_with(loss="squared_hinge"),
    "more features than rows": lambda x, l2, weight: jh.solve(x.T, np.array([1, -1, 1]), l2=l2),
    "regression": lambda x, l2, weight: jh.solve_regression(x, REAL, l2=l2, sample_weight=weight, epsilon=0),
    "quantile": lambda x, l2, weight: jh.solve_quantile(x, Y, l2=l2, sample_weight=weight, quantile=0.3),
    "ranking": lambda x, l2, weight: jh.solve_ranking(x, PAIRS, l2=l2),
    "one class": lambda x, l2, weight: jh.solve_one_class(x, nu=0.3, l2=l2, sample_weight=weight),
    "one against the rest": classes_with("one_vs_rest"),
    "crammer_singer": classes_with("crammer_singer"),
    "weston_watkins": classes_with("weston_watkins"),
    "gap": lambda x, l2, weight: jh.duality_gap(PARAMS, x, Y, l2=l2, sample_weight=weight),
    "gap of a dual": lambda x, l2, weight: jh.duality_gap(PARAMS, x, Y, l2=l2, dual=np.ones(N)),
}


def gradient(w, b, x, y):
    """The gradient of the hinge as a student writes it in JAX: its author is as strict."""
    push = jnp.where(y * (x @ w + b) < 1, -y, 0) / len(y)
    return push @ x + 0.1 * w, jnp.sum(push)


HOST_ONLY = {
    "path": lambda x, l2, weight: jh.path(x, Y, l2=[l2, 1.0], sample_weight=weight),
    "sweep": lambda x, l2, weight: jh.sweep(x, Y, l2=[l2, 1.0], folds=3, sample_weight=weight)[:-1],
    "blocks": lambda x, l2, weight: jh.solve([(x[:20], Y[:20]), (x[20:], Y[20:])], l2=l2),
    "diagnose": lambda x, l2, weight: jh.assert_valid_gradient(gradient, (np.zeros(D), 0.0), x, Y, l2=0.1),
    "classifier": lambda x, l2, weight: HingeClassifier().fit(x, LABELS, weight).predict(x),
    "grid": lambda x, l2, weight: HingeClassifierCV(Cs=2, cv=2).fit(x, Y, weight).predict(x),
    "regressor": lambda x, l2, weight: HingeRegressor().fit(x, REAL, weight).predict(x),
    "predict": lambda x, l2, weight: jh.predict(PARAMS, x),
    "loss": lambda x, l2, weight: jh.loss(PARAMS, x, np.where(Y > 0, 1.0, -1.0), l2=l2, sample_weight=weight),
}


@pytest.mark.parametrize("name", SOLVERS | HOST_ONLY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_the_host(name, dtype):
    call, inputs = (SOLVERS | HOST_ONLY)[name], (X.astype(dtype), 0.1, WEIGHT.astype(dtype))
    with strictly():
        found = call(*inputs)
    for mine, usual in zip(*map(jax.tree.leaves, (found, call(*inputs))), strict=True):
        np.testing.assert_array_equal(mine, usual)


def one_number(found):
    return found.primal_value + jnp.sum(found.params.w) if isinstance(found, jh.Solution) else found


# The front door as it is lowered in test_lowering.py promotes nothing either; there all inputs have one dtype.
MIXED = ("solve", "more features than rows", "quantile", "one against the rest", "crammer_singer", "gap")


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", MIXED)
def test_traced(name, wide):
    call = SOLVERS[name]
    dtype = jnp.float64 if wide else jnp.float32
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((N, D), (), (N,))]
    with jax.enable_x64(wide), jax.numpy_dtype_promotion("strict"):
        out = jax.eval_shape(call, *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} <= {jnp.dtype(dtype), jnp.dtype(jnp.int32)}


def test_a_gradient_over_lanes():
    def summed(l2):
        return jnp.sum(one_number(jax.vmap(SOLVERS["solve"], (None, 0, None))(X, l2, WEIGHT)))

    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(jax.grad(summed), jax.ShapeDtypeStruct((2,), jnp.float32)).shape == (2,)


@pytest.mark.parametrize(
    ("loss", "y", "optimizer"),
    [("hinge_loss", Y, None), ("multiclass_hinge_loss", LABELS, optax.sgd(0.1)), ("pinball_loss", REAL, None)],
)
def test_fit(loss, y, optimizer):
    options = {"l2": 0.1, "optimizer": optimizer, "loss_fn": getattr(jh.losses, loss), "epochs": 2, "batch_size": 16}
    x = X.astype(np.float16)
    with strictly():
        found = jh.fit(x, y, **options, tol=0.0, patience=5)
    assert np.isfinite(found.history.loss).all()
    assert found.params.w.dtype == jnp.float32


def test_fit_of_batches():
    with strictly():
        found = jh.fit([(X[:20], Y[:20]), (X[20:], Y[20:])], l2=0.1, epochs=2)
    assert np.isfinite(found.history.loss).all()


def test_train():
    with strictly():
        _, history = jh.train(
            jh.init_params(D), X, Y, l2=0.1, optimizer=optax.sgd(0.1), num_steps=5, batch_size=8,
            key=jax.random.key(0), sample_weight=WEIGHT, average_from=2,
        )  # fmt: skip
    assert np.isfinite(history.loss).all()


def test_a_first_epoch_is_progress():
    found = jh.fit(X, Y, l2=0.1, epochs=3, batch_size=N, tol=1e-9, patience=1, optimizer=optax.sgd(0.01))
    assert len(found.history.loss) == 3
