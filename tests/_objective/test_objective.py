"""The regularised objective against plain loops, its conventions, its gradient's structure, and its refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from helpers import references
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec

import jaxhinge
from jaxhinge import LinearParams, losses

INF, NAN = float("inf"), float("nan")
# Compiled, for one operation after the other each would be compiled alone.
CHOICES = ("loss_fn", "regularize_bias")
loss = jax.jit(jaxhinge.loss, static_argnames=CHOICES)
value_and_gradient = jax.jit(jax.value_and_grad(jaxhinge.loss), static_argnames=CHOICES)
gradient_of = jax.jit(jax.grad(jaxhinge.loss), static_argnames=CHOICES)


def problem(n=20, d=3, k=None, seed=0):
    """Parameters, features, targets and weights as float64 NumPy; no row lies on the kink."""
    rng = np.random.default_rng(seed)
    classes = () if k is None else (k,)
    params = LinearParams(w=rng.normal(size=(d, *classes)), b=rng.normal(size=classes))
    y = rng.choice([-1, 1], n) if k is None else rng.integers(0, k, n)
    return params, rng.normal(size=(n, d)), y, rng.uniform(0.5, 2.0, n)


def plain_loss(params, x, y, weight, l2=0.0, regularize_bias=False):
    """The objective of the binary hinge and its gradient, one row at a time."""
    w, b = params
    value, grad_w, grad_b = 0.0, np.zeros_like(w), 0.0
    for row, target, a in zip(x, y, weight, strict=True):
        z = 1 - target * (row @ w + b)
        if z > 0:
            value += a * z
            grad_w -= a * target * row
            grad_b -= a * target
    total = sum(weight)
    value, grad_w, grad_b = value / total + l2 / 2 * w @ w, grad_w / total + l2 * w, grad_b / total
    if regularize_bias:
        value, grad_b = value + l2 / 2 * b**2, grad_b + l2 * b
    return value, grad_w, grad_b


# Values and gradients


@pytest.mark.parametrize("regularize_bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_those_of_a_plain_loop(weighted, regularize_bias, x64):
    params, x, y, weight = problem()
    options = {"sample_weight": weight} if weighted else {}
    value, gradient = value_and_gradient(params, x, y, l2=0.3, regularize_bias=regularize_bias, **options)
    expected = plain_loss(params, x, y, weight if weighted else np.ones(20), 0.3, regularize_bias)
    for got, wanted in zip((value, *gradient), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-13, atol=1e-15)


def test_the_bias_is_free_unless_asked_for():
    params, x, y = LinearParams(jnp.zeros(2), jnp.float32(3.0)), np.zeros((2, 2)), [1, -1]
    y = np.array(y)
    assert float(loss(params, x, y, l2=2.0)) == 2
    assert float(loss(params, x, y, l2=2.0, regularize_bias=True)) == 2 + 9


@pytest.mark.parametrize("name", [name for name in losses.__all__ if "multiclass" in name] + ["weston_watkins_loss"])
def test_multiclass(name, x64):
    (w, b), x, y, weight = problem(k=4)
    loss_fn = getattr(losses, name)
    value, gradient = value_and_gradient(LinearParams(w, b), x, y, loss_fn=loss_fn, l2=0.3, sample_weight=weight)
    rows = [getattr(references, name)(row @ w + b, label) for row, label in zip(x, y, strict=True)]
    np.testing.assert_allclose(value, np.average(rows, weights=weight) + 0.15 * np.sum(w**2), rtol=1e-13)
    assert isinstance(gradient, LinearParams)
    assert (gradient.w.shape, gradient.b.shape) == ((3, 4), (4,))
    # Raising every score alike changes no margin between classes.
    np.testing.assert_allclose(np.sum(gradient.b), 0, atol=1e-15)


def test_a_weight_of_2_is_a_row_given_twice(x64):
    params, x, y, _ = problem()
    weight = np.ones(20)
    weight[[2, 7]] = 2
    twice = np.r_[np.arange(20), 2, 7]
    weighted = value_and_gradient(params, x, y, sample_weight=weight, l2=0.1)
    repeated = value_and_gradient(params, x[twice], y[twice], l2=0.1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-13), weighted, repeated)


def test_a_weight_of_0_is_a_row_left_out_and_the_scale_of_weights_is_no_matter(x64):
    params, x, y, weight = problem()
    weight[5:] = 0
    left_out = value_and_gradient(params, x[:5], y[:5], sample_weight=weight[:5])
    weighted = value_and_gradient(params, x, y, sample_weight=8 * weight)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-13), weighted, left_out)


def test_l2_is_one_over_c_times_n(x64):
    params, x, y, _ = problem()
    c = 0.7
    liblinear = params.w @ params.w / 2 + c * np.sum(np.maximum(0, 1 - y * (x @ params.w + params.b)))
    np.testing.assert_allclose(c * 20 * float(loss(params, x, y, l2=1 / (c * 20))), liblinear, rtol=1e-14)


def test_options_reach_the_loss():
    x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1, -1])
    params = LinearParams(jnp.array([1.0, 0.5]), jnp.float32(0))
    for s in (0.0, 0.25, 1.0):
        gradient = gradient_of(params, x, y, subgradient=s)
        np.testing.assert_array_equal(gradient.w, [-s / 2, 1])
        np.testing.assert_array_equal(gradient.b, 0.5 - s / 2)
    assert float(loss(params, x, y, margin=2.0)) == 2


# Structure and precision


@pytest.mark.parametrize("kind", [LinearParams._make, tuple, list])
def test_the_gradient_has_the_structure_of_the_parameters(kind):
    (w, b), x, y, _ = problem()
    params = kind((jnp.asarray(w), jnp.asarray(b)))
    gradient = gradient_of(params, x, y, l2=0.1)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert type(gradient) is type(params)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_the_loss_is_float32_at_least_and_gradients_keep_their_dtype(dtype):
    params, x, y, weight = jax.tree.map(lambda a: jnp.asarray(a, dtype), problem())
    value, gradient = value_and_gradient(params, x, y, sample_weight=weight, l2=0.1)
    assert value.dtype == jnp.float32
    assert gradient.w.dtype == gradient.b.dtype == dtype
    exact = plain_loss(*jax.tree.map(lambda a: np.asarray(a, np.float64), (params, x, y, weight)), 0.1)
    # The value is a float32 sum; the gradient is rounded to its dtype once.
    np.testing.assert_allclose(value, exact[0], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(gradient.w, float), exact[1], rtol=float(jnp.finfo(dtype).eps), atol=1e-6)


def test_float64_is_kept(x64):
    params, x, y, _ = problem()
    value, gradient = jax.eval_shape(value_and_gradient, params, x, y)
    assert value.dtype == gradient.w.dtype == jnp.float64


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_hundred_thousand_rows_of_low_precision(dtype):
    # 1/n is subnormal in float16, and the sum of the losses is beyond its range.
    n = 100_000
    rng = np.random.default_rng(0)
    x, y = rng.integers(-2, 3, (n, 3)).astype(dtype), rng.choice([-1, 1], n)
    params = LinearParams(jnp.array([1.0, -0.5, 0.25], dtype), jnp.asarray(0.125, dtype))
    value, gradient = value_and_gradient(params, x, y)
    margins = y * (x.astype(float) @ [1.0, -0.5, 0.25] + 0.125)
    active = margins < 1
    np.testing.assert_allclose(value, np.mean(np.maximum(0, 1 - margins)), rtol=1e-5)
    expected = -np.mean((active * y)[:, None] * x.astype(float), axis=0)
    rounding = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(gradient.w, float), expected, rtol=rounding, atol=1e-6)
    np.testing.assert_allclose(float(gradient.b), -np.mean(active * y), rtol=rounding, atol=1e-6)


def test_a_float16_score_beyond_its_range_is_no_infinity_in_the_loss():
    params = LinearParams(jnp.full(2, 300, jnp.float16), jnp.float16(0))
    x = jnp.full((1, 2), 300, jnp.float16)
    assert float(loss(params, x, np.array([-1]))) == 180_001
    assert jax.eval_shape(jaxhinge.decision_function, params, x).dtype == jnp.float16


def test_without_l2_a_norm_that_overflows_does_not_count():
    params = LinearParams(jnp.array([1e30, -1e30]), jnp.float32(0))
    value, gradient = value_and_gradient(params, np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([1, 1]))
    assert float(value) == 0.5
    np.testing.assert_array_equal(gradient.w, [-0.5, -0.5])


@pytest.mark.parametrize("where", ["x", "w", "b", "y", "sample_weight"])
def test_nan_is_let_through(where):
    parts = dict(zip(("w", "b", "x", "y", "sample_weight"), jax.tree.leaves(problem()), strict=True))
    parts = {name: np.asarray(value, float).copy() for name, value in parts.items()}
    parts[where][(0,) * parts[where].ndim] = NAN
    params = parts["w"], parts["b"]
    value, gradient = value_and_gradient(params, parts["x"], parts["y"], sample_weight=parts["sample_weight"])
    assert np.isnan(value)
    assert np.isnan(gradient[0]).any()


def test_an_infinite_violation_has_slope_minus_1():
    # The score is minus infinity through the bias, so no infinite feature meets a slope of 0.
    value, gradient = value_and_gradient((np.zeros(1), np.float32(-INF)), np.ones((2, 1)), np.array([1, 1]))
    assert (float(value), float(gradient[0][0]), float(gradient[1])) == (INF, -1, -1)


# Transformations


def test_one_row_and_gradients_per_example():
    params, x, y, _ = problem()
    assert jax.eval_shape(lambda: jaxhinge.loss(params, x[0], y[0].item())).shape == ()
    per_example = jax.vmap(gradient_of, (None, 0, 0))(params, x, y)
    assert per_example.w.shape == (20, 3)
    together = gradient_of(params, x, y)
    jax.tree.map(lambda one, all: np.testing.assert_allclose(np.mean(one, 0), all, atol=1e-6), per_example, together)


def test_vmap_over_l2_weights_and_parameters():
    params, x, y, _ = problem()
    l2 = jnp.array([0.0, 0.1, 1.0])
    many = jax.vmap(lambda params, l2: gradient_of(params, x, y, l2=l2), (None, 0))(params, l2)
    for i, strength in enumerate(l2):
        np.testing.assert_allclose(many.w[i], gradient_of(params, x, y, l2=strength).w, atol=1e-6)


def test_new_numbers_do_not_recompile(compilations):
    params, x, y, weight = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), problem())
    of = jax.jit(jax.grad(jaxhinge.loss))
    with compilations() as names:
        for l2, s in ((0.1, 0.0), (0.2, 0.5), (0.0, 1.0)):
            of(params, x, y, l2=l2, subgradient=s, sample_weight=weight)
    assert len(names) == 1


def test_l2_is_differentiable_and_the_subgradient_is_not():
    (w, b), x, y, _ = problem()
    of = jax.jit(jax.grad(lambda l2, s: jaxhinge.loss((w, b), x, y, l2=l2, subgradient=s), (0, 1)))
    by_l2, by_subgradient = of(0.5, 0.5)
    np.testing.assert_allclose(by_l2, w @ w / 2, rtol=1e-6)
    assert float(by_subgradient) == 0


def test_second_order_forward_mode_and_checkpoint(x64):
    params, x, y, _ = problem()

    def objective(params):
        return jaxhinge.loss(params, x, y, l2=0.5)

    @jax.jit
    def every_way(params):
        forward = jax.jvp(objective, (params,), (params,))[1]
        return (
            jax.hessian(objective)(params),
            jax.grad(objective)(params),
            forward,
            jax.grad(jax.checkpoint(objective))(params),
        )

    hessian, gradient, forward, again = every_way(params)
    np.testing.assert_allclose(hessian.w.w, 0.5 * np.eye(3), atol=1e-15)
    np.testing.assert_array_equal(hessian.b.b, 0)
    np.testing.assert_allclose(forward, gradient.w @ params.w + gradient.b * params.b, rtol=1e-13)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-13), again, gradient)


def test_rows_may_be_sharded():
    params, x, y, _ = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), problem())
    mesh, rows = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,)), PartitionSpec("rows")

    def mean_over_devices(params, x, y):
        return jax.lax.pmean(jaxhinge.loss(params, x, y, l2=0.1), "rows")

    sharded = jax.shard_map(
        mean_over_devices, mesh=mesh, in_specs=(PartitionSpec(), rows, rows), out_specs=PartitionSpec()
    )
    got, expected = jax.jit(jax.grad(sharded))(params, x, y), gradient_of(params, x, y, l2=0.1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, expected)


# What goes in


def test_features_of_other_dtypes_are_converted():
    params, scores = LinearParams(np.float32([2, -200]), np.float32(0.5)), [-199.5, -197.5, 2.5]
    of_dtype = [
        np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
        for dtype in (bool, np.uint8, np.int8, np.int32, np.int64, np.float16, np.float64)
    ]
    y = np.array([1, -1, 1])
    run = jax.jit(lambda: [(jaxhinge.decision_function(params, x), jaxhinge.loss(params, x, y)) for x in of_dtype])
    for found in run():
        jax.tree.map(np.testing.assert_array_equal, found, (np.float32(scores), np.float32(200.5 / 3)))


def test_lists_frames_and_read_only_arrays_are_taken():
    params, x, y, weight = problem()
    expected = loss(params, x, y, sample_weight=weight)
    x.flags.writeable = y.flags.writeable = False
    index = range(100, 120)
    inputs = [
        (x, y, weight),
        (x.tolist(), y.tolist(), weight.tolist()),
        (pandas.DataFrame(x, index), pandas.Series(y, index), pandas.Series(weight, index)),
    ]
    as_lists = [params.w.tolist(), float(params.b)]
    every = [(which, *some) for some in inputs for which in (params, as_lists)]
    for found in jax.jit(lambda: [jaxhinge.loss(*some[:3], sample_weight=some[3]) for some in every])():
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(jaxhinge.predict(as_lists, x.tolist()), np.where(x @ params.w + params.b > 0, 1, -1))


W, B, X, Y = np.zeros(3), np.zeros(()), np.zeros((5, 3)), np.ones(5)


@pytest.mark.parametrize(
    ("params", "x", "y", "weight", "shapes", "advice"),
    [
        ((W, B), X, Y[:, None], None, ["(5, 1)", "(5,)"], "y[:, 0]"),
        ((W, B), X, Y[:4], None, ["(4,)", "(5,)"], ""),
        ((W, B), X, np.ones(()), None, ["()", "(5,)"], ""),
        ((W, B), X, Y, Y[:, None], ["(5, 1)", "(5,)"], "sample_weight[:, 0]"),
        ((W, B), X, Y, np.ones(()), ["()", "(5,)"], ""),
        ((W, B), X.T, Y, None, ["(3, 5)", "(3,)"], "transposed"),
        ((W, B), X[:, :2], Y, None, ["(5, 2)", "(3,)"], ""),
        ((W, B), X[:, :, None], Y, None, ["(5, 3, 1)", "(3,)"], "reshape"),
        ((W[:1], B), Y, Y, None, ["(5,)", "(1,)"], "x[:, None]"),
        ((W, np.zeros(1)), X, Y, None, ["(1,)", "(3,)"], "b[0]"),
        ((W[:, None], B), X, Y, None, ["()", "(3, 1)"], "w[:, 0]"),
        ((W[:, None], np.zeros(1)), X, Y, None, ["(5,)", "(5, 1)"], "w[:, 0]"),
        ((np.zeros((3, 4)), np.zeros(4)), X, Y, None, ["(5,)", "(5, 4)"], "multiclass"),
        ((np.zeros((4, 3)), np.zeros(3)), X, Y, None, ["(5, 3)", "(4, 3)"], ""),
        ((np.zeros((3, 4)), B), X, Y, None, ["()", "(3, 4)"], ""),
        ((B, B), X, Y, None, ["()"], "(d,) or (d, k)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_inside_jit(params, x, y, weight, shapes, advice):
    with pytest.raises(ValueError, match="shape") as error:
        jax.eval_shape(jax.grad(lambda *a: jaxhinge.loss(*a[:3], sample_weight=a[3])), params, x, y, weight)
    assert all(part in str(error.value) for part in [*shapes, advice])


@pytest.mark.parametrize(
    "params", [{"w": W, "b": B}, {0: W, 1: B}, (W,), (W, B, B), W, np.zeros((2, 3)), "wb", None], ids=str
)
def test_parameters_that_are_no_pair_are_refused(params):
    for function in (jaxhinge.decision_function, jaxhinge.predict, functools.partial(jaxhinge.loss, y=Y)):
        with pytest.raises(TypeError, match=r"params must be LinearParams or a 2-tuple \(w, b\)"):
            function(params, x=X)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.masked_array(X, mask=np.eye(5, 3)), "masked entries"),
        (pandas.DataFrame({"a": [1.0], "b": [2.0], "c": ["red"]}), "dtype object"),
        ([["a", "b", "c"]], "must be real numbers"),
        (X.astype(complex), "complex"),
        (np.full((5, 3), 2**40), "do not fit in int32"),
        ([[1.0, 2.0, 3.0], [1.0]], "must be real numbers"),
        (None, "NoneType"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_features_that_are_no_numbers_are_refused(x, message):
    with pytest.raises(TypeError, match=message):
        jaxhinge.loss((W, B), x, Y)


@pytest.mark.parametrize("y", [Y > 0, ["a"] * 5, [None] * 5, Y * 1j], ids=repr)
def test_targets_that_are_no_numbers_are_refused(y):
    with pytest.raises(TypeError, match="must be"):
        jaxhinge.loss((W, B), X, y)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        jaxhinge.loss((W, B), X[:0], Y[:0])


@pytest.mark.parametrize("l2", [-1, -1e-9, NAN, np.float32(-1)])
def test_a_negative_l2_is_refused(l2):
    with pytest.raises(ValueError, match=r"l2 must be .* at least 0"):
        jaxhinge.loss((W, B), X, Y, l2=l2)


@pytest.mark.parametrize("l2", ["1", True, None, 1j])
def test_an_l2_that_is_no_number_is_refused(l2):
    with pytest.raises(TypeError, match="l2 must be"):
        jaxhinge.loss((W, B), X, Y, l2=l2)


def test_several_l2_are_refused_with_vmap_for_the_mend():
    with pytest.raises(ValueError, match=r"got shape \(2,\).*jax\.vmap over l2"):
        jaxhinge.loss((W, B), X, Y, l2=np.ones(2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss_fn": "hinge"}, TypeError, "loss_fn must be a function"),
        ({"loss_fn": lambda s, y: jnp.mean(s * y)}, ValueError, r"one loss per row, shape \(5,\); got shape \(\)"),
        ({"loss_fn": lambda s, y: jnp.outer(s, y)}, ValueError, "one loss per row"),
        ({"loss_fn": lambda s, y: None}, TypeError, "result of loss_fn"),
        ({"loss_fn": lambda s, y: s * y <= 0}, TypeError, "result of loss_fn"),
        ({"loss_fn": losses.multiclass_hinge_loss}, TypeError, "integer class labels"),
        ({"subgradent": 0.5}, TypeError, "subgradent"),
        ({"regularize_bias": "no"}, TypeError, "regularize_bias must be True or False"),
        ({"subgradient": np.zeros(4)}, ValueError, r"shape \(5,\); got shape \(4,\)"),
        ({"sample_weight": Y > 0}, TypeError, "sample_weight must be"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        jaxhinge.loss((W, B), X, Y, **options)


def test_a_loss_of_ones_own():
    squared = lambda scores, y, scale: scale * (scores - y) ** 2  # noqa: E731
    assert float(loss((W, B), X, Y, loss_fn=squared, scale=3.0)) == 3


# Models and predictions


@pytest.mark.parametrize(("k", "shapes"), [(None, ((3,), ())), (1, ((3, 1), (1,))), (4, ((3, 4), (4,)))])
@pytest.mark.parametrize("dtype", [None, jnp.float16, "bfloat16"])
def test_init_params(k, shapes, dtype):
    w, b = jaxhinge.init_params(3, k, dtype)
    assert (w.shape, b.shape) == shapes
    assert w.dtype == b.dtype == (jnp.dtype(dtype) if dtype else jnp.float32)
    assert not w.any()
    assert not b.any()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((0,), ValueError), ((3, 0), ValueError), ((3.0,), TypeError), ((3, True), TypeError), ((3, 2, int), TypeError)],
)
def test_init_params_refuses_bad_sizes(arguments, error):
    with pytest.raises(error, match="must be"):
        jaxhinge.init_params(*arguments)


def test_predictions():
    params = LinearParams(jnp.array([1.0]), jnp.float32(0))
    predicted = jaxhinge.predict(params, np.array([[2.0], [0.0], [-0.0], [-1.0], [INF], [NAN]]))
    assert predicted.dtype == jnp.int32
    np.testing.assert_array_equal(predicted, [1, -1, -1, -1, 1, -1])
    classes = LinearParams(jnp.array([[1.0, 1.0, 0.0]]), jnp.zeros(3))
    np.testing.assert_array_equal(jaxhinge.predict(classes, np.array([[1.0], [0.0], [-1.0]])), [0, 0, 2])
    assert jaxhinge.predict(classes, np.array([1.0])).shape == ()


def test_decision_function_is_x_w_plus_b():
    (w, b), x, _, _ = problem(k=4)
    for rows in (x, x[0]):
        found = jax.jit(jaxhinge.decision_function)((w, b), rows)
        np.testing.assert_allclose(found, rows @ w + b, rtol=1e-5, atol=1e-6)


# Properties. Small integers and halves are exact in float32, the mean of eight as well.

integers = st.integers(-3, 3)


def _draw(data):
    floats = lambda size: np.float32(data.draw(st.lists(integers, min_size=size, max_size=size)))  # noqa: E731
    x = floats(16).reshape(8, 2)
    y = np.float32(data.draw(st.lists(st.sampled_from([-1, 1]), min_size=8, max_size=8)))
    u, v = (LinearParams(floats(2) / 2, np.float32(data.draw(integers))) for _ in range(2))
    return u, v, x, y


@given(data=st.data(), s=st.sampled_from([0.0, 0.25, 0.5, 1.0]), l2=st.sampled_from([0.0, 0.5]))
def test_the_gradient_is_a_subgradient_of_a_convex_function(data, s, l2):
    u, v, x, y = _draw(data)
    options = {"l2": l2, "subgradient": s}
    (at_u, gradient), (at_v, _) = value_and_gradient(u, x, y, **options), value_and_gradient(v, x, y, **options)
    inner = gradient.w @ (v.w - u.w) + gradient.b * (v.b - u.b)
    assert at_v >= at_u + inner
    middle = LinearParams((u.w + v.w) / 2, (u.b + v.b) / 2)
    assert 2 * value_and_gradient(middle, x, y, **options)[0] <= at_u + at_v


@given(data=st.data(), order=st.permutations(range(8)), s=st.sampled_from([0.0, 0.25, 1.0]))
def test_the_order_of_rows_is_no_matter(data, order, s):
    u, _, x, y = _draw(data)
    order = np.array(order)
    here, there = (
        value_and_gradient(u, x, y, l2=0.5, subgradient=s),
        value_and_gradient(u, x[order], y[order], l2=0.5, subgradient=s),
    )
    jax.tree.map(np.testing.assert_array_equal, here, there)


# Integer targets that are labels, several labels for each row, and strict promotion


@pytest.mark.parametrize(
    "y",
    [[0, 1], np.array([0, 1]), np.array([0, 0], np.uint8), pandas.Series([1, 0])],
    ids=["list", "int", "0", "frame"],
)
@pytest.mark.parametrize("name", ["hinge_loss", "squared_hinge_loss", "smooth_hinge_loss", "perceptron_loss"])
def test_integer_labels_0_and_1_are_refused_with_the_mend(name, y):
    params, x = LinearParams(jnp.zeros(2), jnp.float32(0)), np.ones((2, 2))
    for loss_fn in (getattr(losses, name), functools.partial(getattr(losses, name), margin=0.5)):
        of = functools.partial(jaxhinge.loss, loss_fn=loss_fn)
        # A constant is concrete under jit and grad too.
        for call in (of, jax.grad(of), lambda p, x, y, of=of: jax.eval_shape(lambda p: of(p, x, y), p)):
            with pytest.raises(ValueError, match=r"y must be -1 and \+1; got integers that hold 0.* 2 \* y - 1\."):
                call(params, x, y)
    own = lambda scores, targets: getattr(losses, name)(scores, targets)  # noqa: E731
    with pytest.raises(ValueError, match=r"2 \* targets - 1"):
        jaxhinge.loss(params, x, y, loss_fn=own)


def test_other_targets_that_hold_0_pass():
    params, x, y = LinearParams(jnp.zeros(2), jnp.float32(0)), np.ones((2, 2)), np.array([0, 1])
    expected = jaxhinge.loss(params, x, y.astype(float))
    for same in (jnp.asarray(y), [0.0, 1.0], [jnp.int32(0), jnp.int32(1)]):
        assert jaxhinge.loss(params, x, same) == expected
    assert jax.jit(jaxhinge.loss)(params, x, y) == expected
    assert float(jaxhinge.loss(params, x, y, loss_fn=losses.epsilon_insensitive_loss, epsilon=0.5)) == 0.25
    many = LinearParams(jnp.zeros((2, 2)), jnp.zeros(2))
    assert float(jaxhinge.loss(many, x, y, loss_fn=losses.multiclass_hinge_loss)) == 1


def test_a_loss_that_does_not_hash_is_no_known_one():
    class Own:
        __hash__ = None

        def __call__(self, scores, y):
            return (scores - y) ** 2

    assert float(jaxhinge.loss((jnp.zeros(1), 0.0), np.ones((2, 1)), np.array([0, 1]), loss_fn=Own())) == 0.5


def test_several_labels_for_each_row(x64):
    (w, b), x, _, weight = problem(n=12, k=4)
    y = next(case for case in references.DEFAULT_CASES if case.name == "multilabel_margin_loss").arguments()[1]
    of = functools.partial(jaxhinge.loss, loss_fn=losses.multilabel_margin_loss)
    value, gradient = jax.jit(jax.value_and_grad(of))((w, b), x, y, l2=0.3, sample_weight=weight)
    rows = [references.multilabel_margin_loss(row @ w + b, label) for row, label in zip(x, y.tolist(), strict=True)]
    np.testing.assert_allclose(value, np.average(rows, weights=weight) + 0.15 * np.sum(w**2), rtol=1e-13)
    assert gradient[0].shape == (3, 4)
    one = jax.jit(of)((w, b), x[0], y[0])
    np.testing.assert_allclose(one, rows[0], rtol=1e-13)
    for wrong in (y[:, 0], y[:, :3], y[:5]):
        with pytest.raises(ValueError, match=r"y has shape .*need shape \(12, 4\)"):
            of((w, b), x, wrong)


# Losses of one score for each row or class, and of each only what differs in more than a number.
OF_AN_AFFINE_MODEL = [
    case
    for case in references.CASES
    if case.num_scores == 1
    and case.name != "hinge_embedding_loss"
    and not {"margin", "width", "epsilon", "quantile"} & {*case.options}
]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("case", OF_AN_AFFINE_MODEL, ids=references.case_id)
def test_strict_promotion(case, dtype):
    scores, y = case.arguments()
    k = scores.shape[1:]
    params = LinearParams(jnp.ones((2, *k)), jnp.zeros(k))
    x = jnp.asarray(np.arange(24.0).reshape(12, 2), dtype)
    options = {"loss_fn": getattr(losses, case.name), "sample_weight": np.ones(12), "l2": 0.1, **case.options}

    def every_way(params):
        of = lambda params: jaxhinge.loss(params, x, y, regularize_bias=True, **options)  # noqa: E731
        of_one_row = jaxhinge.decision_function(params, np.ones(2))
        return jax.value_and_grad(of)(params), jax.hessian(of)(params), jaxhinge.predict(params, x), of_one_row

    expected = jax.eval_shape(every_way, params)
    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(every_way, params) == expected
