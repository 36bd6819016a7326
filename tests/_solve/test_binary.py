"""`solve` as its users meet it: errors, statuses, dtypes, warm starts, methods, compilations and platforms."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.svm_references import D, Machine, N, noisy, primal_value, relative_gap

import jaxhinge as jh
from jaxhinge import Status
from jaxhinge._methods.padded import padded_size

X, Y = noisy()
X32, Y32 = X.astype(np.float32), Y.astype(np.float32)


@partial(jax.jit, static_argnames="options")
def solve_in_float32(x, y, l2, weight, options=()):
    return jh.solve(x, y, l2=l2, sample_weight=weight, **dict(options))


def spoilt(value):
    x = X32.copy()
    x[3, 1] = value
    return x


ONES = np.ones(N, np.float32)
BAD_VALUES = {
    "NaN": ((spoilt(np.nan), Y32, 0.1, ONES), "x has NaN or infinity"),
    "infinity": ((spoilt(np.inf), Y32, 0.1, ONES), "x has NaN or infinity"),
    "one class": ((X32, np.ones_like(Y32), 0.1, ONES), "one class only"),
    "one class by weight": ((X32, Y32, 0.1, np.where(Y32 > 0, ONES, 0)), "one class only"),
    "targets 0 and 1": ((X32, (Y32 + 1) / 2, 0.1, ONES), r"2 \* y - 1"),
    "three targets": ((X32, np.where(np.arange(N) == 0, 3, Y32), 0.1, ONES), "must be -1 and \\+1"),
    "NaN target": ((X32, np.where(np.arange(N) == 0, np.nan, Y32), 0.1, ONES), "y has NaN"),
    "l2 of 0": ((X32, Y32, 0.0, ONES), "l2 must be a number above 0"),
    "l2 below 0": ((X32, Y32, -0.1, ONES), "l2 must be a number above 0"),
    "l2 NaN": ((X32, Y32, np.nan, ONES), "l2 must be a number above 0"),
    "l2 infinite": ((X32, Y32, np.inf, ONES), "l2 must be a number above 0"),
    "no weight": ((X32, Y32, 0.1, 0 * ONES), "sample_weight is 0 for every row"),
    "weight below 0": ((X32, Y32, 0.1, np.where(np.arange(N) == 0, -1, ONES)), "must not be negative"),
    "weight NaN": ((X32, Y32, 0.1, np.where(np.arange(N) == 0, np.nan, ONES)), "sample_weight"),
    "weight infinite": ((X32, Y32, 0.1, np.where(np.arange(N) == 0, np.inf, ONES)), "sample_weight"),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_values_are_an_error_on_the_host_and_a_status_under_jit(name):
    (x, y, l2, weight), message = BAD_VALUES[name]
    with pytest.raises(ValueError, match=message):
        jh.solve(x, y, l2=l2, sample_weight=weight)
    refused = solve_in_float32(x, y.astype(np.float32), l2, weight.astype(np.float32))
    assert refused.status == Status.REFUSED
    floats = [*refused.params, refused.dual, refused.primal_value, refused.dual_value, refused.gap]
    assert all(np.isnan(leaf).all() for leaf in floats)
    assert refused.params.w.shape == (D,)
    # Good values through the same compiled function.
    good = solve_in_float32(X32, Y32, 0.1, ONES)
    assert good.status == Status.CONVERGED
    assert relative_gap(Machine(X32, Y32, np.float32(0.1)), good) <= 1e-4


WRONG_SHAPES = [
    ((X32[0], Y32), {}, ValueError, r"x must have shape \(n, d\)"),
    ((X32[:0], Y32[:0]), {}, ValueError, "empty"),
    ((X32[:, :0], Y32), {}, ValueError, "empty"),
    ((X32, Y32[:, None]), {}, ValueError, r"\(48, 1\)"),
    ((X32, Y32[:-1]), {}, ValueError, r"\(47,\)"),
    ((X32, 1.0), {}, ValueError, "y"),
    ((X32, Y32), {"sample_weight": ONES[:-1]}, ValueError, "sample_weight"),
    ((X32, Y32), {"sample_weight": ONES[:, None]}, ValueError, "sample_weight"),
    ((X32, Y32), {"l2": np.ones(2, np.float32)}, ValueError, "l2"),
    ((X32, Y32), {"fit_intercept": "yes"}, ValueError, "fit_intercept"),
    ((X32, Y32), {"loss": "logistic"}, ValueError, "loss"),
    ((X32, Y32), {"method": "magic"}, ValueError, "method"),
    ((X32, Y32), {"init": (np.zeros(D), 0.0)}, TypeError, "init"),
    ((X32 + 0j, Y32), {}, TypeError, "x must be"),
]


@pytest.mark.parametrize(("arrays", "options", "error", "message"), WRONG_SHAPES)
def test_wrong_shapes_and_options_are_errors_on_both_paths(arrays, options, error, message):
    options = {"l2": 0.1, **options}
    with pytest.raises(error, match=message):
        jh.solve(*arrays, **options)
    l2 = options.pop("l2")
    with pytest.raises(error, match=message):
        jax.jit(lambda arrays, l2: jh.solve(*arrays, l2=l2, **options))(arrays, l2)


def test_numpy_results_and_host_numbers_are_refused_under_jit():
    with pytest.raises(ValueError, match="as_numpy=True"):
        jax.jit(lambda x: jh.solve(x, Y, l2=0.1, as_numpy=True))(X)
    with pytest.raises(ValueError, match="tol"):
        jh.solve(X, Y, l2=0.1, tol=-1.0)
    with pytest.raises(ValueError, match="max_steps"):
        jh.solve(X, Y, l2=0.1, max_steps=0)


def test_a_generator_is_refused_by_its_name():
    with pytest.raises(TypeError, match="x must be real numbers"):
        jh.solve((row for row in X), Y, l2=0.1)


def test_every_status_has_advice():
    assert [status.name for status in Status] == ["CONVERGED", "STEP_LIMIT", "STALLED", "REFUSED"]
    assert len({status.advice for status in Status}) == 4


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.float64])
def test_any_float_dtype_is_certified_for_the_values_it_holds(dtype):
    x = X.astype(dtype)
    solution = jh.solve(x, Y, l2=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(solution[:5])} == {jnp.float32.dtype}
    assert {leaf.dtype for leaf in solution[5:]} == {jnp.int32.dtype}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(solution))
    assert solution.status == Status.CONVERGED
    assert relative_gap(Machine(x, Y, 0.02), solution) <= 1e-4
    traced = solve_in_float32(jnp.asarray(x), jnp.asarray(Y), 0.02, jnp.ones(N))
    assert traced.primal_value == pytest.approx(float(solution.primal_value), rel=1e-6)


def test_integers_lists_frames_and_jax_arrays_are_the_same_data():
    pandas = pytest.importorskip("pandas")
    x, y = np.round(X).astype(np.int64), Y.astype(np.int64)
    expected = jh.solve(x.astype(np.float64), Y, l2=0.1)
    frame = pandas.DataFrame(x, columns=list("abcd"))
    for features, targets in [
        (x, y),
        (x.astype(np.int8), y.astype(np.int8)),
        (x.tolist(), y.tolist()),
        (frame, pandas.Series(y)),
        (np.asfortranarray(x), y[::-1][::-1]),
    ]:
        solution = jh.solve(features, targets, l2=0.1)
        jax.tree.map(np.testing.assert_array_equal, solution, expected)
    on_device = jh.solve(jnp.asarray(x), jnp.asarray(y), l2=jnp.float32(0.1))
    np.testing.assert_allclose(on_device.params.w, expected.params.w, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_float64_comes_back_under_x64_for_float64_features_only():
    wide, narrow = jh.solve(X, Y, l2=0.02, tol=1e-10), jh.solve(X32, Y, l2=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide[:5])} == {jnp.float64.dtype}
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow[:5])} == {jnp.float32.dtype}
    assert relative_gap(Machine(X, Y, 0.02), wide) <= 1e-10
    traced = jax.jit(lambda x, l2: jh.solve(x, Y, l2=l2, tol=1e-10))(X, 0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(traced[:5])} == {jnp.float64.dtype}
    np.testing.assert_allclose(traced.params.w, wide.params.w, rtol=0, atol=1e-7)


def test_numpy_results_are_float64_without_any_flag():
    solution = jh.solve(X, Y, l2=0.02, as_numpy=True)
    assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(solution))
    assert {leaf.dtype for leaf in jax.tree.leaves(solution[:5])} == {np.dtype(np.float64)}
    assert not jax.config.jax_enable_x64


def test_a_warm_start_gives_the_same_answer_in_fewer_steps():
    options = {"tol": 1e-8, "as_numpy": True}
    cold = jh.solve(X, Y, l2=0.02, **options)
    near = jh.solve(X, Y, l2=0.021, **options)
    warm = jh.solve(X, Y, l2=0.02, init=near, **options)
    assert warm.status == Status.CONVERGED
    assert warm.steps < cold.steps
    assert warm.primal_value == pytest.approx(float(cold.primal_value), rel=1e-8)
    assert jh.solve(X, Y, l2=0.02, init=cold, **options).steps == 0
    # A start that is no good costs steps, not the answer.
    far = cold._replace(params=jh.LinearParams(cold.params.w * -1e3, np.float64(1e3)), dual=np.zeros(N))
    assert relative_gap(Machine(X, Y, 0.02), jh.solve(X, Y, l2=0.02, init=far, **options)) <= 1e-8
    in_float32 = jax.jit(lambda l2, init: jh.solve(X32, Y32, l2=l2, init=init))(0.02, jh.solve(X32, Y32, l2=0.021))
    assert relative_gap(Machine(X32, Y, 0.02), in_float32) <= 1e-4
    with pytest.raises(ValueError, match=r"\(48,\)"):
        jh.solve(X, Y, l2=0.02, init=jh.solve(X[:40], Y[:40], l2=0.02))


def test_a_poisoned_warm_start_does_not_spoil_the_answer():
    cold = jh.solve(X, Y, l2=0.02, as_numpy=True)
    poisoned = cold._replace(params=jh.LinearParams(cold.params.w * np.nan, cold.params.b), dual=cold.dual * np.nan)
    solution = jh.solve(X, Y, l2=0.02, as_numpy=True, init=poisoned)
    assert solution.status == Status.CONVERGED
    assert relative_gap(Machine(X, Y, 0.02), solution) <= 1e-4


WIDE = np.random.default_rng(8).normal(size=(14, 40))
WIDE_Y = np.where(np.arange(14) % 3 == 0, 1.0, -1.0)


@pytest.mark.parametrize("intercept", [True, False, "regularized"])
def test_more_features_than_rows_by_every_method(intercept):
    for l2 in (1e-6, 1e-2, 10.0):
        machine = Machine(WIDE, WIDE_Y, l2, None, intercept)
        for method in ("auto", "interior_point"):
            solution = jh.solve(WIDE, WIDE_Y, l2=l2, fit_intercept=intercept, method=method, as_numpy=True)
            assert relative_gap(machine, solution) <= 1e-4
            assert solution.status == Status.CONVERGED


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_ascent_reaches_the_same_optimum(loss):
    for l2 in (0.1, 1.0):
        machine = Machine(X, Y, l2, squared=loss == "squared_hinge")
        ascent = jh.solve(X, Y, l2=l2, loss=loss, method="ascent", max_steps=3000, as_numpy=True)
        exact = jh.solve(X, Y, l2=l2, loss=loss, tol=1e-9, as_numpy=True)
        assert ascent.status == Status.CONVERGED
        assert relative_gap(machine, ascent) <= 1e-4
        assert primal_value(machine, ascent.params) == pytest.approx(float(exact.primal_value), rel=1e-4)
    cut = jh.solve(X, Y, l2=1e-6, loss=loss, method="ascent", max_steps=20, as_numpy=True)
    assert cut.status == Status.STEP_LIMIT
    assert float(cut.gap) == pytest.approx(
        relative_gap(Machine(X, Y, 1e-6, squared=loss == "squared_hinge"), cut) * cut.primal_value, rel=1e-9
    )


def test_new_values_and_nearby_numbers_of_rows_do_not_compile_again(compilations):
    weights = np.random.default_rng(9).uniform(0.1, 1.0, N)
    # Beyond what float32 can do, so that both of its programs are compiled.
    assert jh.solve(X, Y, l2=0.1, tol=0.0).status == Status.STALLED
    solve_in_float32(X32, Y32, 0.1, ONES)
    with compilations() as names:
        for n, l2, tol in itertools.product((33, 40, 48), (1e-3, 7.0), (1e-3, 1e-6)):
            jh.solve(X[::-1][:n], Y[::-1][:n], l2=l2, tol=tol, max_steps=90, sample_weight=weights[:n])
        jh.solve(X, Y, l2=0.1, init=jh.solve(X, Y, l2=0.2))
        solve_in_float32(X32 + 1, -Y32, 0.3, ONES / 2)
    assert names == []


def test_padding_costs_at_most_an_eighth_or_a_few_rows():
    sizes = [padded_size(n) for n in range(1, 5000)]
    for n, size in enumerate(sizes, start=1):
        assert n <= size <= max(16 * -(-n // 16), 1.125 * n)
    assert len(set(sizes)) < 60


@pytest.mark.parametrize("n", [2, 3, 17])
def test_a_handful_of_rows(n):
    x, y = np.arange(1.0, n + 1)[:, None] * np.eye(1, D), np.where(np.arange(n) == 0, 1.0, -1.0)
    solution = jh.solve(x, y, l2=0.1, as_numpy=True)
    assert solution.status == Status.CONVERGED
    assert relative_gap(Machine(x, y, 0.1), solution) <= 1e-4


def test_lowers_for_cuda_in_float64_and_for_tpu_without_it():
    shapes = (jax.ShapeDtypeStruct((N, D), jnp.float32), jax.ShapeDtypeStruct((N,), jnp.float32), 0.1)
    solver = jax.jit(lambda x, y, l2: jh.solve(x, y, l2=l2))
    modules = {
        platform: jax.export.export(solver, platforms=[platform])(*shapes).mlir_module()
        for platform in ("cuda", "tpu", "cpu")
    }
    assert "f64" in modules["cuda"]
    assert "f64" in modules["cpu"]
    assert "f64" not in modules["tpu"]


def test_rows_beyond_any_precision_end_no_worse_than_zero():
    x = np.where(np.arange(N)[:, None] % 2, 1e-9 * X[:, :1], -3.4e38).astype(np.float32)
    far = jh.solve(X[:, :1], Y, l2=0.1)
    for init in (None, far):
        for method in ("auto", "ascent"):
            solution = jh.solve(x, Y, l2=0.1, fit_intercept=False, init=init, method=method, as_numpy=True)
            assert 0 <= solution.dual_value <= solution.primal_value <= 1
            assert solution.gap == solution.primal_value - solution.dual_value
            assert solution.status != Status.REFUSED


@pytest.mark.parametrize("kind", ["f8", "f4", "i4"])
def test_the_byte_order_of_a_file_changes_nothing(kind):
    x = (10 * X).astype(f"<{kind}")
    expected = jh.solve(x, Y, l2=0.1, as_numpy=True)
    found = jh.solve(x.astype(f">{kind}"), Y.astype(">i8"), l2=0.1, sample_weight=np.ones(len(Y), ">f4"), as_numpy=True)
    np.testing.assert_array_equal(found.params.w, expected.params.w)
    assert jh.loss(expected.params, x.astype(f">{kind}"), Y) == jh.loss(expected.params, x, Y)


def test_weights_whose_sum_is_beyond_float64_count_by_their_ratios():
    weight = 1.0 + np.arange(len(Y)) % 3
    expected = jh.solve(X, Y, l2=0.1, sample_weight=weight, as_numpy=True)
    found = jh.solve(X, Y, l2=0.1, sample_weight=weight * 5e307, as_numpy=True)
    np.testing.assert_allclose(found.primal_value, expected.primal_value, rtol=1e-4)


def test_numpy_results_may_be_written_to():
    solution = jh.solve(X, Y, l2=0.1, as_numpy=True)
    solution.params.w[0] = 3.0
    solution.dual[0] = 0.0


@pytest.mark.parametrize(
    "solve",
    [
        lambda x, y: jh.solve_regression(x, y, l2=0.1),
        lambda x, y: jh.solve_quantile(x, y, l2=0.1),
        lambda x, y: jh.solve_ranking(x, [[3, 1], [2, 5]], l2=0.1),
    ],
)
def test_infinity_is_named_by_its_place_in_what_was_given(solve):
    x = X.copy()
    x[3, 1] = np.inf
    with pytest.raises(ValueError, match=rf"x has NaN or infinity in 1 of {x.size} places, the first at \(3, 1\)"):
        solve(x, 1.0 * Y)


def test_infinity_in_the_rows_of_a_dual_is_refused():
    solution = jh.solve(X, Y, l2=0.1, fit_intercept=False)
    x = X.copy()
    x[np.argmax(solution.dual), 1] = np.inf
    with pytest.raises(ValueError, match="x has NaN or infinity"):
        jh.duality_gap(solution.params, x, Y, l2=0.1, fit_intercept=False, dual=solution.dual)
