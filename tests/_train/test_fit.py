"""`fit`: against hand-written loops, exact optima, and everything that users get wrong."""

from __future__ import annotations

import functools
import pickle
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import jaxhinge as jh
from jaxhinge._train.static import freeze, join, split

NDArray = np.ndarray[Any, Any]

N, D = 40, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = np.where(X[:, 0] + 0.3 * RNG.normal(size=N) > 0, 1, -1)
# One set of shapes for most tests, so that they share what is compiled.
RUN: dict[str, Any] = {"l2": 0.1, "batch_size": 16, "epochs": 4}


def by_hand(epochs: int, weight: Any = None, **options: Any) -> Any:
    """The same run with `train`, whose batches the tests of `train` compare with a plain loop."""

    @jax.jit
    def run() -> Any:
        return jh.train(
            jh.init_params(D), X, Y, num_steps=3 * epochs, batch_size=16, key=jax.random.key(0), sample_weight=weight,
            **options,
        )[0]  # fmt: skip

    return run()


def assert_same(found: Any, expected: Any, rtol: float = 1e-4) -> None:
    np.testing.assert_allclose(found[0], expected[0], rtol=rtol, atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=rtol, atol=1e-5)


# ---- the run itself


@pytest.mark.parametrize("weighted", [False, True])
def test_fit_is_train_epoch_by_epoch(weighted: bool) -> None:
    weight = RNG.integers(0, 3, N).astype(np.float32) if weighted else None
    result = jh.fit(X, Y, **RUN, optimizer=optax.adam(0.1), sample_weight=weight)
    for epochs in (1, 4):
        params = by_hand(epochs, weight, l2=0.1, optimizer=optax.adam(0.1))
        objective = jh.loss(params, X, Y, l2=0.1, sample_weight=weight)
        np.testing.assert_allclose(result.history["loss"][epochs - 1], objective, rtol=1e-4)
    assert_same(result.params, params)
    assert result.history.loss.shape == (4,)
    assert not result.stopped_early


def test_averaging_starts_with_the_epoch_that_was_asked_for() -> None:
    result = jh.fit(X, Y, **RUN, optimizer=optax.sgd(0.1), average_from=2)
    params = by_hand(4, l2=0.1, optimizer=optax.sgd(0.1), average_from=6)
    assert_same(result.params, params)
    np.testing.assert_allclose(result.history.loss[-1], jh.loss(params, X, Y, l2=0.1), rtol=1e-5)


def test_early_stopping_is_the_stated_criterion() -> None:
    options: dict[str, Any] = {**RUN, "epochs": 60, "optimizer": optax.sgd(0.5)}
    loss = jh.fit(X, Y, **options).history.loss
    tol, patience = 0.01, 3
    best, stale, expected = np.inf, 0, 0
    for epoch, value in enumerate(loss):
        stale = 0 if value < best - tol * abs(best) else stale + 1
        best = min(best, value)
        expected = epoch + 1
        if stale == patience:
            break
    result = jh.fit(X, Y, **options, tol=tol, patience=patience)
    assert result.stopped_early
    assert len(result.history.loss) == expected < 60
    np.testing.assert_array_equal(result.history.loss, loss[:expected])


def test_a_warm_start_begins_where_it_is_told() -> None:
    start = (np.array([1.0, 0.0, -1.0]), 0.5)
    result = jh.fit(X, Y, **RUN, optimizer=optax.sgd(0.0), params=start)
    assert_same(result.params, start)
    assert isinstance(result.params, jh.LinearParams)


def test_a_weight_of_two_is_a_row_given_twice_and_of_zero_a_row_left_out() -> None:
    weight = np.arange(N) % 3
    rows = np.repeat(np.arange(N), weight)
    full: dict[str, Any] = {"l2": 0.1, "epochs": 30, "batch_size": N, "optimizer": optax.sgd(0.1)}
    repeated = jh.fit(X[rows], Y[rows], **full)
    assert_same(jh.fit(X, Y, **full, sample_weight=weight).params, repeated.params)
    assert_same(jh.fit(X, Y, **full, sample_weight=1e40 * weight).params, repeated.params)  # beyond float32


def test_options_reach_the_loss() -> None:
    exact = {"subgradient": 1.0, "margin": 0.5}
    given = jh.fit(X, Y, **RUN, optimizer=optax.sgd(0.1), **exact)
    bound = functools.partial(jh.losses.hinge_loss, **exact)
    assert_same(jh.fit(X, Y, **RUN, optimizer=optax.sgd(0.1), loss_fn=bound).params, given.params)
    assert_same(by_hand(4, l2=0.1, optimizer=optax.sgd(0.1), **exact), given.params)


def test_regularize_bias() -> None:
    result = jh.fit(X, Y, **RUN, optimizer=optax.sgd(0.1), regularize_bias=True)
    assert_same(result.params, by_hand(4, l2=0.1, optimizer=optax.sgd(0.1), regularize_bias=True))


def test_the_key_decides() -> None:
    first, again = (jh.fit(X, Y, **RUN, key=jax.random.key(1)).params for _ in range(2))
    other = jh.fit(X, Y, **RUN, key=jax.random.key(2)).params
    assert (first.w == again.w).all()
    assert (first.w != other.w).any()


# ---- data of every kind


def test_lists_frames_and_jax_arrays_are_the_same_data() -> None:
    expected = jh.fit(X, Y, **RUN).params
    for x, y in ((X.tolist(), Y.tolist()), (pd.DataFrame(X), pd.Series(Y)), (jnp.asarray(X), jnp.asarray(Y))):
        assert_same(jh.fit(x, y, **RUN).params, expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.int8, np.bool_])
def test_other_dtypes_train_in_float32(dtype: Any) -> None:
    x = np.rint(2 * X).astype(dtype)
    result = jh.fit(x, Y, **RUN)
    assert result.params.w.dtype == result.history.loss.dtype == np.float32
    assert_same(result.params, jh.fit(x.astype(np.float32), Y, **RUN).params)


def test_float64_where_x64_is_on(x64: None) -> None:
    result = jh.fit(X.astype(np.float64), Y, **RUN)
    assert result.params.w.dtype == np.float64
    np.testing.assert_allclose(result.history.loss[-1], jh.loss(result.params, X, Y, l2=0.1), rtol=1e-12)


# ---- nothing compiles twice


OPTIMIZERS = {
    "adam": optax.adam,
    "momentum": lambda rate: optax.sgd(rate, momentum=rate),
    "chain": lambda rate: optax.chain(optax.clip_by_global_norm(10 * rate), optax.adamw(rate, weight_decay=rate)),
    "cosine": lambda rate: optax.adam(optax.warmup_cosine_decay_schedule(0.0, rate, 3, 12)),
    "injected": lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_new_learning_rate_does_not_compile(name: str, compilations: Any) -> None:
    make = OPTIMIZERS[name]
    jh.fit(X, Y, **RUN, optimizer=make(0.1))
    with compilations() as names:
        result = jh.fit(X, Y, **RUN, optimizer=make(0.2))
    assert names == []
    assert_same(result.params, by_hand(4, l2=0.1, optimizer=make(0.2)))


def test_new_numbers_do_not_compile(compilations: Any) -> None:
    options: dict[str, Any] = {"batch_size": 16, "average_from": 1}
    jh.fit(X, Y, l2=0.1, epochs=4, tol=0.1, patience=3, subgradient=0.5, **options)
    with compilations() as names:
        jh.fit(X, Y, l2=0.2, epochs=5, tol=0.2, patience=2, subgradient=0.25, key=jax.random.key(3), **options)
    assert names == []


def users_own(rate: float) -> optax.GradientTransformation:
    def update(grads: Any, state: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda g: -rate * jnp.sign(g), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def users_own_that_branches(rate: float) -> optax.GradientTransformation:
    def update(grads: Any, state: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda g: -(rate if rate > 0.15 else 0.15) * g, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def test_an_optimizer_of_the_user_s_own(compilations: Any) -> None:
    jh.fit(X, Y, **RUN, optimizer=users_own(0.1))
    with compilations() as names:
        result = jh.fit(X, Y, **RUN, optimizer=users_own(0.2))
    assert names == []
    assert_same(result.params, by_hand(4, l2=0.1, optimizer=users_own(0.2)))


def test_an_optimizer_that_branches_on_its_numbers_is_compiled_for_each(compilations: Any) -> None:
    first, second = (jh.fit(X, Y, **RUN, optimizer=users_own_that_branches(rate)).params for rate in (0.1, 0.3))
    assert_same(first, by_hand(4, l2=0.1, optimizer=optax.sgd(0.15)))
    assert_same(second, by_hand(4, l2=0.1, optimizer=optax.sgd(0.3)))
    with compilations() as names:
        jh.fit(X, Y, **RUN, optimizer=users_own_that_branches(0.3))
    assert names == []


def test_several_labels_for_each_row_are_for_the_step_and_not_for_fit() -> None:
    x, targets = np.float32([[1, 0], [0, 1], [1, 1]]), np.array([[0, -1], [1, -1], [0, 1]])
    with pytest.raises(ValueError, match=r"multilabel_margin_loss needs a list.*make_train_step"):
        jh.fit(x, targets, l2=0.1, loss_fn=functools.partial(jh.losses.multilabel_margin_loss, margin=0.5))
    params, history = jh.train(
        jh.init_params(2, 2), x, targets, l2=0.01, optimizer=optax.sgd(0.5), num_steps=40, batch_size=2,
        key=jax.random.key(0), loss_fn=jh.losses.multilabel_margin_loss,
    )  # fmt: skip
    assert float(history.loss[0]) == 0.5
    assert float(jh.loss(params, x, targets, loss_fn=jh.losses.multilabel_margin_loss)) < 0.1


def test_static_parts_keep_what_is_not_a_number() -> None:
    def make(number: float, flag: bool, count: int) -> Any:
        return lambda scale=number, *, shift=2.0: (scale + shift, flag, count, {"a": [number]})

    structure, numbers = split(make(0.5, True, 1))
    assert numbers == [0.5, 2.0, 0.5]
    assert join(structure, numbers)() == make(0.5, True, 1)()
    assert join(structure, [1.5, 3.0, 0.25])() == (4.5, True, 1, {"a": [0.25]})
    assert structure == split(make(7.5, True, 1))[0]
    for other in (make(0.5, False, 1), make(0.5, True, 2), make(0.5, 1, 1)):  # type: ignore[arg-type]
        assert structure != split(other)[0]
    assert freeze(make(0.5, True, 1)) == freeze(make(0.5, True, 1)) != freeze(make(0.75, True, 1))


# ---- the default optimizer


@functools.cache
def standardised(name: str) -> tuple[NDArray, NDArray]:
    x, y = (load_breast_cancer if name == "cancer" else load_digits)(return_X_y=True)
    x, y = (x[::3], y[::3]) if name == "digits" else (x, y)  # a third, for speed
    return StandardScaler().fit_transform(x), np.where(y % 2, 1, -1)


@functools.cache
def optimum(name: str, l2: float) -> float:
    """The smallest objective, by LIBSVM's exact dual solver, with its own duality gap as proof."""
    x, y = standardised(name)
    cost = 1 / (l2 * len(y))
    machine = SVC(kernel="linear", C=cost, tol=1e-6, cache_size=500).fit(x, y)
    w, b = machine.coef_[0], machine.intercept_[0]
    value = primal(w, b, x, y, l2)
    dual = l2 * np.abs(machine.dual_coef_).sum() - l2 / 2 * w @ w
    assert 0 <= value - dual < 1e-4 * value
    return value


def primal(w: Any, b: Any, x: NDArray, y: NDArray, l2: float) -> float:
    w, b = np.asarray(w, float), float(b)
    return float(np.maximum(0, 1 - y * (x @ w + b)).mean() + l2 / 2 * w @ w)


@pytest.mark.parametrize("name", ["cancer", "digits"])
@pytest.mark.parametrize(("l2", "allowed"), [(1e-2, 0.005), (1e-3, 0.005), (1e-4, 0.02)])
def test_the_default_needs_no_tuning(name: str, l2: float, allowed: float) -> None:
    x, y = standardised(name)
    for seed in (0, 1):
        result = jh.fit(x, y, l2=l2, key=jax.random.key(seed))
        value = primal(*result.params, x, y, l2)
        assert value <= (1 + allowed) * optimum(name, l2)
        sgd = SGDClassifier(alpha=l2, max_iter=100, tol=None, random_state=seed).fit(x, y)
        assert value <= primal(sgd.coef_[0], sgd.intercept_[0], x, y, l2)


def test_ten_passes_come_close() -> None:
    x, y = standardised("cancer")
    for seed in (0, 1):
        result = jh.fit(x, y, l2=1e-2, epochs=10, key=jax.random.key(seed))
        assert primal(*result.params, x, y, 1e-2) <= 1.05 * optimum("cancer", 1e-2)


def test_the_units_and_offsets_of_features_do_not_matter() -> None:
    x, y = standardised("cancer")
    scale = 10.0 ** (np.arange(30) % 5 - 2)
    weight = np.full(len(y), 1.0)
    loss_only = {"l2": 0.0, "epochs": 30, "sample_weight": weight}
    reference = jh.fit(x, y, **loss_only).history.loss[-1]
    np.testing.assert_allclose(jh.fit(x * scale + 3 * scale, y, **loss_only).history.loss[-1], reference, atol=0.004)


OUTLIER = X.copy()
OUTLIER[3] = [1e6, 0, 0]
AWKWARD = {  # mostly of one shape, to share what is compiled
    "two rows": (np.array([[1.0], [-1.0]]), np.array([1, -1])),
    "more features than rows, and than a matrix is kept for": (
        RNG.normal(size=(8, 300)),
        np.where(np.arange(8) % 2, 1, -1),
    ),
    "all zero": (0 * X, Y),
    "constant feature": (np.c_[X[:, :2], np.full(N, 7.0)], Y),
    "far from the origin": (X + 1000, Y),
    "separable": (X, np.where(X @ [1, 2, 3] > 0, 1, -1)),
    "one outlier": (OUTLIER, Y),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_data_never_diverges(name: str) -> None:
    x, y = AWKWARD[name]
    result = jh.fit(x, y, l2=1e-2)
    assert np.isfinite(result.history.loss).all()
    constant = 2 * min(np.mean(y > 0), np.mean(y < 0))  # the best that w = 0 can do
    assert result.history.loss[-1] <= 1.01 * constant


@pytest.mark.parametrize("loss_fn", [jh.losses.multiclass_hinge_loss, jh.losses.one_vs_rest_hinge_loss])
def test_multiclass_is_inferred_from_the_loss(loss_fn: Any) -> None:
    x, y = load_iris(return_X_y=True)
    result = jh.fit(x, y, l2=1e-3, loss_fn=functools.partial(loss_fn, margin=1.0))
    assert result.params.w.shape == (4, 3)
    assert np.mean(jh.predict(result.params, x) == y) >= 0.94


def test_num_classes_makes_room_for_classes_not_seen() -> None:
    x, y = load_iris(return_X_y=True)
    result = jh.fit(x, y, l2=1e-2, loss_fn=jh.losses.multiclass_hinge_loss, num_classes=5, epochs=3)
    assert result.params.w.shape == (4, 5)


def test_a_quantile_of_targets_far_from_zero() -> None:
    x, y = RNG.normal(size=(300, 2)), 1e4 + 50 * RNG.normal(size=300)
    result = jh.fit(x, y, l2=1.0, loss_fn=jh.losses.pinball_loss, quantile=0.9)
    assert abs(float(result.params.b) - np.quantile(y, 0.9)) < 8
    inside = jh.fit(x, 1e-3 * x[:, 0], l2=1e-3, loss_fn=jh.losses.epsilon_insensitive_loss, epochs=3)
    assert np.isfinite(inside.params.w).all()  # no row has a gradient


# ---- bad input


def refuse(error: type[Exception], message: str, x: Any = X, y: Any = Y, **options: Any) -> None:
    with pytest.raises(error, match=message):
        jh.fit(x, y, **{**RUN, **options})


def with_nan(array: Any) -> NDArray:
    array = np.array(array, float)
    array.flat[3] = np.nan
    return array


def test_bad_targets() -> None:
    refuse(ValueError, r"must be -1 and \+1; got 0, 1. Labels 0 and 1 become targets with 2 \* y - 1", y=(Y + 1) // 2)
    refuse(ValueError, r"got 'no', 'yes'. Convert: numpy.where\(y == 'yes', 1, -1\)", y=np.where(Y > 0, "yes", "no"))
    refuse(ValueError, r"Convert: numpy.where\(y, 1, -1\)", y=Y > 0)
    refuse(ValueError, "one class only: 1", y=np.ones(N))
    refuse(ValueError, "one class only", sample_weight=(Y > 0).astype(float))
    refuse(ValueError, "For several classes there are multiclass loss_fn and solve_multiclass", y=np.arange(N))
    refuse(ValueError, r"y has NaN or infinity in 1 of 40 places", y=with_nan(Y))
    refuse(ValueError, r"Drop the last axis: y\[:, 0\]", y=Y[:, None])
    refuse(ValueError, r"y has shape \(39,\), but x has 40 rows", y=Y[:-1])


def test_bad_labels_and_real_targets() -> None:
    multiclass = jh.losses.multiclass_hinge_loss
    refuse(ValueError, "got labels from -1 to 1", loss_fn=multiclass)
    refuse(ValueError, r"must be labels 0..2 \(num_classes=3\)", y=np.arange(N) % 4, loss_fn=multiclass, num_classes=3)
    refuse(ValueError, "must be integer labels", y=np.arange(N) / 2, loss_fn=multiclass)
    refuse(ValueError, "needs a multiclass loss_fn", num_classes=3)
    refuse(ValueError, "y must be real targets", y=np.full(N, "a"), loss_fn=jh.losses.pinball_loss)
    refuse(ValueError, "y has NaN", y=with_nan(Y), loss_fn=jh.losses.pinball_loss)


def test_bad_features_and_weights() -> None:
    refuse(ValueError, r"x has NaN or infinity in 1 of 120 places, the first at \(1, 0\)", x=with_nan(X))
    refuse(ValueError, "x has values beyond the range of float32", x=np.full((N, D), 1e39))
    refuse(ValueError, r"x must have shape \(n, d\).*x\[:, None\]", x=X[:, 0])
    refuse(ValueError, "x is empty", x=X[:0], y=Y[:0])
    refuse(TypeError, "x must be real numbers", x=X.astype(str))
    refuse(ValueError, "sample_weight must not be negative", sample_weight=-np.ones(N))
    refuse(ValueError, "sample_weight is 0 for every row", sample_weight=np.zeros(N))
    refuse(ValueError, "sample_weight has NaN", sample_weight=with_nan(np.ones(N)))
    refuse(ValueError, "sample_weight has shape", sample_weight=np.ones(N - 1))


def test_bad_numbers() -> None:
    refuse(ValueError, "l2 must be a finite number, at least 0; got -1", l2=-1)
    refuse(ValueError, "l2 must be .* one number; got shape", l2=[0.1, 0.2])
    refuse(ValueError, "l2 must be", l2=np.nan)
    refuse(ValueError, "epochs must be at least 1; got 0", epochs=0)
    refuse(ValueError, "batch_size must be at least 1; got 0", batch_size=0)
    refuse(TypeError, "epochs must be a Python integer", epochs=1.5)
    refuse(ValueError, "patience must be at least 1", tol=0.1, patience=0)
    refuse(ValueError, "tol must be", tol=-0.1)
    refuse(ValueError, r"average_from must be an epoch of the run, 0..3; got 4", average_from=4)
    refuse(TypeError, "optimizer must be an optax optimizer", optimizer=0.1)
    refuse(ValueError, r"params: w has shape \(2,\), but x and y need \(3,\)", params=(np.zeros(2), 0.0))
    refuse(TypeError, "params must be LinearParams", params=1.0)


def test_fit_belongs_on_the_host() -> None:
    with pytest.raises(TypeError, match="inside jit, where everything is traced"):
        jax.jit(lambda x: jh.fit(x, Y, **RUN).params)(X)
    with pytest.raises(TypeError, match="l2 is traced"):
        jax.vmap(lambda l2: jh.fit(X, Y, l2=l2).params)(jnp.ones(2))


# ---- progress


def test_no_bar_unless_it_is_wanted(capfd: Any, monkeypatch: Any) -> None:
    expected = jh.fit(X, Y, **RUN).params
    assert capfd.readouterr().err == ""
    shown = jh.fit(X, Y, **RUN, progress=True).params
    assert "4/4" in capfd.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert_same(jh.fit(X, Y, **RUN).params, expected)
    assert capfd.readouterr().err == ""  # a terminal, but the run is short
    assert_same(shown, expected)


def test_the_caller_s_arrays_are_left_alone() -> None:
    x, y = jnp.asarray(X), jnp.asarray(Y)
    start = jh.init_params(D)
    jh.fit(x, y, **RUN, params=start)
    np.testing.assert_array_equal(x, X)
    assert (start.w == 0).all()


# ---- the proof


@pytest.mark.parametrize("options", [{}, {"loss_fn": jh.losses.squared_hinge_loss}, {"regularize_bias": True}])
def test_a_fit_carries_its_gap(options: dict[str, Any]) -> None:
    result = jh.fit(X, Y, **RUN, **options)
    intercept: Any = "regularized" if "regularize_bias" in options else True
    loss: Any = "squared_hinge" if "loss_fn" in options else "hinge"
    best = jh.solve(X, Y, l2=0.1, fit_intercept=intercept, loss=loss, tol=1e-7, as_numpy=True)
    excess = float(jh.loss(result.params, X, Y, l2=0.1, **options)) - float(best.primal_value)
    # Seven digits of an objective below 1.
    assert excess - 1e-6 <= result.gap <= excess + 1e-6


@pytest.mark.parametrize(
    ("l2", "options"), [(0.0, {}), (0.1, {"margin": 2.0}), (0.1, {"loss_fn": jh.losses.perceptron_loss})]
)
def test_a_fit_without_a_certificate_says_so(l2: float, options: dict[str, Any]) -> None:
    result = jh.fit(X, Y, **{**RUN, "l2": l2}, **options)
    with pytest.raises(ValueError, match="There is a certificate for l2 > 0"):
        _ = result.gap


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_fit_is_pickled_with_its_certificate(asked_before: bool) -> None:
    result = jh.fit(X, Y, **RUN)
    gap = result.gap if asked_before else None
    again = pickle.loads(pickle.dumps(result))
    assert type(again) is type(result)
    np.testing.assert_array_equal(again.params.w, result.params.w)
    assert again.gap == (result.gap if gap is None else gap)
