"""The primitive: its values, its slope on the kink under every transformation, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

import jaxhinge
from jaxhinge import hinge, positive_part
from jaxhinge.losses._kink import max_over_classes

INF, NAN = float("inf"), float("nan")
LOW_AND_SINGLE = [jnp.float16, jnp.bfloat16, jnp.float32]
SUBGRADIENTS = [0.0, 0.25, 0.5, 1.0]


@jax.jit
def slope(z, **options):
    return jax.grad(lambda z: positive_part(z, **options).sum())(z)


@jax.jit
def hinge_slope(margin, **options):
    return jax.grad(lambda margin: hinge(margin, **options).sum())(margin)


# Values


@pytest.mark.parametrize("dtype", LOW_AND_SINGLE)
def test_values_and_dtype(dtype):
    z = jnp.array([-INF, -2.0, -0.0, 0.0, 2.0, INF, NAN], dtype)
    out = jax.jit(positive_part)(z, subgradient=0.5, kink_tol=3.0)
    assert out.dtype == dtype
    np.testing.assert_array_equal(np.asarray(out).astype(np.float32), [0, 0, 0, 0, 2, INF, NAN])
    assert jax.eval_shape(slope, z).dtype == dtype


def test_float64(x64):
    z = jnp.array([-1e-300, 0.0, 1e-300])
    assert positive_part(z).dtype == slope(z).dtype == jnp.float64
    np.testing.assert_array_equal(slope(z, subgradient=0.5), [0, 0.5, 1])


def test_hinge_is_the_positive_part_of_one_minus_the_margin():
    margin = np.linspace(-3, 3, 25, dtype=np.float32)
    np.testing.assert_array_equal(hinge(margin), positive_part(1 - margin))
    np.testing.assert_array_equal(hinge(margin), np.maximum(0, 1 - margin))


def test_kink_tol_and_subgradient_never_change_values():
    z = jnp.linspace(-1, 1, 21)
    np.testing.assert_array_equal(positive_part(z, subgradient=1.0, kink_tol=0.5), positive_part(z))


# The slope


@pytest.mark.parametrize("dtype", LOW_AND_SINGLE)
def test_slope_is_exact_off_and_on_the_kink(dtype):
    z = jnp.array([-INF, -1, -0.0, 0.0, 1, INF], dtype)
    for s in SUBGRADIENTS:
        np.testing.assert_array_equal(slope(z, subgradient=s), [0, 0, s, s, 1, 1])


def test_the_default_subgradient_is_0():
    assert float(jax.grad(positive_part)(0.0)) == 0
    assert float(jax.grad(hinge)(1.0)) == 0


def test_hinge_slope_in_the_margin_is_minus_the_subgradient():
    for s in SUBGRADIENTS:
        np.testing.assert_array_equal(hinge_slope(np.float32([-1, 1, 3]), subgradient=s), [-1, -s, 0])


def test_the_kink_band_includes_its_edges():
    z = jnp.array([-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75])
    np.testing.assert_array_equal(slope(z, subgradient=0.25, kink_tol=0.5), [0, 0.25, 0.25, 0.25, 0.25, 0.25, 1])
    np.testing.assert_array_equal(
        hinge_slope(1 - z, subgradient=0.25, kink_tol=0.5), [0, -0.25, -0.25, -0.25, -0.25, -0.25, -1]
    )


def test_one_subgradient_and_one_tolerance_for_each_entry():
    z = jnp.array([0.0, 0.0, 0.25, 0.25])
    np.testing.assert_array_equal(
        slope(z, subgradient=np.array([0, 1, 0.5, 0.5]), kink_tol=np.array([0, 0, 0, 0.25])), [0, 1, 1, 0.5]
    )


def test_nan_is_nan_in_value_and_derivative():
    z = jnp.array([NAN, 1.0])
    np.testing.assert_array_equal(positive_part(z), [NAN, 1])
    np.testing.assert_array_equal(slope(z, kink_tol=1.0, subgradient=0.5), [NAN, 0.5])
    value, tangent = jax.jit(lambda z: jax.jvp(positive_part, (z,), (jnp.ones(2),)))(z)
    np.testing.assert_array_equal(value, [NAN, 1])
    np.testing.assert_array_equal(tangent, [NAN, 1])


def test_the_second_derivative_is_0_on_the_kink_and_off_it():
    hessian = jax.jit(jax.hessian(lambda z, s: positive_part(z, subgradient=s).sum()))
    for s in SUBGRADIENTS:
        np.testing.assert_array_equal(hessian(np.float32([-1, 0, 1]), s), np.zeros((3, 3), np.float32))


def test_the_options_have_derivative_0():
    def value(z, s, tol):
        return positive_part(z, subgradient=s, kink_tol=tol)

    @jax.jit
    def derivatives(*at):
        first, second = jax.grad(value, (1, 2))(*at), jax.grad(jax.grad(value), (1, 2))(*at)
        return first, second, jax.jvp(value, at, (0.0, 1.0, 1.0))

    np.testing.assert_array_equal(derivatives(0.0, 0.5, 0.25), np.zeros((3, 2)))


def test_derivatives_off_the_kink_agree_with_finite_differences(x64):
    z = jnp.array([-2.0, -0.5, 0.5, 2.0])
    check_grads(jax.jit(functools.partial(positive_part, subgradient=0.3)), (z,), order=2)
    check_grads(jax.jit(hinge), (z,), order=2)


# Transformations: each returns the slopes of a positive part at z


def _by_scan(f, z):
    def step(carry, z):
        return carry + f(z), None

    return jax.grad(lambda z: jax.lax.scan(step, 0.0, z)[0])(z)


def _by_shard_map(f, z):
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("rows")
    return jax.jit(jax.shard_map(jax.vmap(jax.grad(f)), mesh=mesh, in_specs=rows, out_specs=rows))(z)


TRANSFORMS = {
    "grad": lambda f, z: jax.grad(lambda z: f(z).sum())(z),
    "jit(grad)": lambda f, z: jax.jit(jax.grad(lambda z: f(z).sum()))(z),
    "vmap(grad)": lambda f, z: jax.vmap(jax.grad(f))(z),
    "vmap(grad(jit))": lambda f, z: jax.vmap(jax.grad(jax.jit(f)))(z),
    "grad(vmap)": lambda f, z: jax.grad(lambda z: jax.vmap(f)(z).sum())(z),
    "jvp": lambda f, z: jax.jvp(f, (z,), (jnp.ones_like(z),))[1],
    "linearize": lambda f, z: jax.linearize(f, z)[1](jnp.ones_like(z)),
    "vjp": lambda f, z: jax.vjp(f, z)[1](jnp.ones_like(z))[0],
    "jacfwd": lambda f, z: jnp.diag(jax.jacfwd(f)(z)),
    "jacrev": lambda f, z: jnp.diag(jax.jacrev(f)(z)),
    "checkpoint": lambda f, z: jax.grad(lambda z: jax.checkpoint(f)(z).sum())(z),
    "scan": _by_scan,
    "shard_map": _by_shard_map,
}


def test_the_slope_survives_every_transformation():
    z = jnp.array([-1.0, 0.0, 1.0])

    @jax.jit
    def slopes(traced):
        every = {}
        for name, transform in TRANSFORMS.items():
            every[name] = [transform(functools.partial(positive_part, subgradient=s), z) for s in (0.25, traced)]
        return every

    for s in (0.25, 1.0):
        for name, (constant, traced) in slopes(s).items():
            np.testing.assert_array_equal(constant, [0, 0.25, 1], err_msg=name)
            np.testing.assert_array_equal(traced, [0, s, 1], err_msg=name)


@pytest.mark.parametrize("name", ["grad", "vmap(grad)", "linearize"])
def test_the_slope_outside_a_compiled_program(name):
    slope = TRANSFORMS[name](functools.partial(positive_part, subgradient=0.25), jnp.array([-1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(slope, [0, 0.25, 1])


def test_vmap_over_the_subgradient():
    at = jax.vmap(lambda s, tol: jax.grad(hinge)(1.25, subgradient=s, kink_tol=tol), (0, None))
    np.testing.assert_array_equal(jax.jit(at)(jnp.array([0, 0.5, 1]), 0.25), [0, -0.5, -1])


def test_new_numbers_do_not_recompile(compilations):
    at = jax.jit(jax.grad(lambda z, s, tol: positive_part(z, subgradient=s, kink_tol=tol)))
    with compilations() as names:
        slopes = [float(at(z, s, tol)) for z, s, tol in ((0.0, 0.25, 0.0), (0.5, 0.5, 0.5), (0.0, 1.0, 2.0))]
    assert slopes == [0.25, 0.5, 1]
    assert len(names) == 1


# What goes in


@pytest.mark.parametrize("z", [2, [2, 2], np.array([2, 2]), np.float64(2), np.array([2.0], np.float64), (2.0, 2.0)])
def test_numbers_lists_and_integers_become_floats(z):
    out = positive_part(z)
    assert out.dtype == jnp.float32
    assert out.shape == np.shape(z)
    np.testing.assert_array_equal(out, np.full(np.shape(z), 2, np.float32))


@pytest.mark.parametrize("z", [True, np.array([True]), 1j, "1", ["a"], None, np.array([1, "a"], object), {"z": 1}])
def test_what_is_not_real_is_refused(z):
    with pytest.raises(TypeError, match="z must be real numbers"):
        positive_part(z)


@pytest.mark.parametrize("name", ["subgradient", "kink_tol"])
@pytest.mark.parametrize("value", [True, "0.5", 0.5j, None, np.array(True)])
def test_options_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        positive_part(0.0, **{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"subgradient": 1.5},
        {"subgradient": -0.1},
        {"subgradient": NAN},
        {"kink_tol": -1.0},
        {"kink_tol": np.float32(-1)},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        hinge(0.0, **options)


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 1)])
def test_an_option_of_another_shape_is_refused_while_tracing(shape):
    with pytest.raises(ValueError, match=r"subgradient .* shape \(3,\); got shape " + rf"\({shape[0]},"):
        jax.jit(lambda z, s: positive_part(z, subgradient=s))(jnp.zeros(3), jnp.zeros(shape))


# The maximum over classes


TIES = [
    ("uniform", [0, 2, 1], [0, 1, 0]),
    ("uniform", [2, 2, 1], [0.5, 0.5, 0]),
    ("uniform", [1, 1, 1], [1 / 3] * 3),
    ("first", [2, 2, 1], [1, 0, 0]),
    ("first", [1, 2, 2], [0, 1, 0]),
    ("uniform", [-INF, 2, 2], [0, 0.5, 0.5]),
    ("uniform", [INF, INF, 0], [0.5, 0.5, 0]),
    ("first", [NAN, 1, 0], [NAN] * 3),
    ("uniform", [1, NAN, 0], [NAN] * 3),
]


@pytest.mark.parametrize("dtype", LOW_AND_SINGLE)
@pytest.mark.parametrize("ties", ["uniform", "first"])
def test_ties_share_as_asked(ties, dtype):
    _, rows, expected = zip(*(case for case in TIES if case[0] == ties), strict=True)
    z = np.array([*rows, [5, 4, 3]]).astype(dtype)

    @jax.jit
    def share_and_values(z):
        return jax.grad(lambda z: max_over_classes(z, ties=ties).sum())(z), max_over_classes(z, ties=ties)

    share, values = share_and_values(z)
    assert share.dtype == values.dtype == dtype
    # NumPy calls two bfloat16 NaN unequal, so they are compared as float32.
    expected = np.array([*expected, [1, 0, 0]]).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(share).astype(np.float32), expected)
    np.testing.assert_array_equal(np.asarray(values).astype(np.float32), np.float32([*map(np.max, rows), 5]))


def test_ties_of_more_classes_than_float16_can_count():
    share = jax.jit(jax.grad(max_over_classes))(np.zeros(70_000, np.float16))
    np.testing.assert_array_equal(share, np.full(70_000, 1 / 70_000).astype(np.float16))


@pytest.mark.parametrize("ties", ["uniform", "first"])
def test_the_maximum_has_second_derivative_0(ties):
    hessian = jax.jit(jax.hessian(lambda z: max_over_classes(z, ties=ties)))(np.float32([1, 1, 0]))
    np.testing.assert_array_equal(hessian, np.zeros((3, 3), np.float32))


@pytest.mark.parametrize("ties", ["last", None, "", ["first"]])
def test_an_unknown_tie_rule_is_refused(ties):
    with pytest.raises(ValueError, match='"uniform" or "first"'):
        jaxhinge.losses.multiclass_hinge_loss(jnp.zeros(3), 0, ties=ties)


# Properties. Quarters are exact in float32, so the inequalities hold without a tolerance.

quarters = st.lists(st.integers(-8, 8).map(lambda i: i / 4), min_size=8, max_size=8).map(np.float32)
value_and_slope = jax.jit(
    lambda z, s, tol: jax.vmap(jax.value_and_grad(lambda z: positive_part(z, subgradient=s, kink_tol=tol)))(z)
)


@given(quarters, quarters, st.sampled_from(SUBGRADIENTS))
def test_the_slope_is_a_subgradient(u, v, s):
    value, slope = value_and_slope(u, s, 0.0)
    assert (np.maximum(v, 0) >= value + slope * (v - u)).all()


@given(quarters, st.sampled_from(SUBGRADIENTS), st.sampled_from([0.0, 0.25, 1.0]))
def test_the_slope_is_the_textbook_rule(u, s, tol):
    value, slope = value_and_slope(u, s, tol)
    np.testing.assert_array_equal(value, [max(z, 0) for z in u])
    np.testing.assert_array_equal(slope, [s if abs(z) <= tol else float(z > 0) for z in u])
