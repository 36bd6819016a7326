"""The gradient by blocks of rows against the same formula differentiated as it is written.

A loss that `jaxhinge.loss` does not know is not taken by blocks, so the same loss in a wrapper is the reference; that
one is compared with plain loops in test_objective.py. Blocks are made small here, to be many on small data.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jaxhinge as jh
from jaxhinge import losses
from jaxhinge._objective import one_pass

# 71 rows of 5 make 5 blocks of 14 and one row that is left over.
N, D, BLOCK = 71, 5, 64
RNG = np.random.default_rng(0)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(one_pass, "_BLOCK", BLOCK)
    monkeypatch.setattr(one_pass, "_MIN_BLOCKS", 2)
    monkeypatch.setattr(one_pass, "_MIN_FEATURES", 1)
    monkeypatch.setattr(one_pass, "_MIN_ROWS", 1)


def problem(k=None, dtype=np.float32):
    classes = () if k is None else (k,)
    w, b = RNG.normal(size=(D, *classes)), RNG.normal(size=classes)
    y = RNG.choice([-1, 1], N) if k is None else RNG.integers(0, k, N)
    params = jh.LinearParams(jnp.asarray(w, dtype), jnp.asarray(b, dtype))
    return params, jnp.asarray(RNG.normal(size=(N, D)), dtype), y, jnp.asarray(RNG.uniform(0.5, 2, N), dtype)


PARAMS, X, Y, WEIGHT = problem()
MANY = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), PARAMS)
XS, YS = jnp.stack([X, 2 * X, -X]), jnp.stack([Y, -Y, Y])


def as_written(loss_fn):
    """The same loss, in a coat that `jaxhinge.loss` does not know."""
    return lambda *args, **options: loss_fn(*args, **options)


def check(run, loss_fn=losses.hinge_loss, tol=3e-6, loop=True, written=None):
    """`run(objective)`, compiled, gives the same by blocks and as written."""
    found = []
    for loss, looped in ((loss_fn, loop), (written or as_written(loss_fn), False)):
        traced = jax.jit(lambda loss=loss: run(functools.partial(jh.loss, loss_fn=loss))).trace()
        assert ("scan[" in str(traced.jaxpr)) == looped
        found.append(traced.lower().compile()())
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=tol, atol=tol), *found)


# Values and first derivatives


@pytest.mark.parametrize(
    ("loss_fn", "weighted"),
    [
        (losses.hinge_loss, False),
        (losses.hinge_loss, True),
        (losses.squared_hinge_loss, True),
        (losses.epsilon_insensitive_loss, True),
    ],
)
def test_value_and_gradient(loss_fn, weighted, small_blocks):
    options = {"sample_weight": WEIGHT} if weighted else {}
    check(lambda loss: jax.value_and_grad(loss)(PARAMS, X, Y, l2=0.1, subgradient=0.3, **options), loss_fn)


@pytest.mark.parametrize(
    "loss_fn", [losses.multiclass_hinge_loss, losses.one_vs_rest_hinge_loss], ids=lambda f: f.__name__
)
def test_multiclass(loss_fn, small_blocks):
    params, x, y, weight = problem(k=3)
    words = {"ties": "first"} if loss_fn is losses.multiclass_hinge_loss else {}
    check(lambda loss: jax.value_and_grad(loss)(params, x, y, sample_weight=weight, **words), loss_fn)


def test_a_power_is_known_while_tracing_and_options_for_each_class_are_not_taken_by_blocks(small_blocks):
    params, x, y, weight = problem(k=3)
    squared = {"p": 2, "sample_weight": weight, "margin": 0.5}
    check(lambda loss: jax.value_and_grad(loss)(params, x, y, **squared), losses.weston_watkins_loss)
    for_each = {"class_weight": [1.0, 2.0, 3.0], "class_margin": np.array([1.0, 0.5, 2.0])}
    check(lambda loss: jax.value_and_grad(loss)(params, x, y, **for_each), losses.weston_watkins_loss, loop=False)
    for bad in (3, jnp.int32(2), [1]):
        with pytest.raises((TypeError, ValueError), match="p must be"):
            jh.loss(params, x, y, loss_fn=losses.weston_watkins_loss, p=bad)
    with pytest.raises(TypeError, match="class_weight must be real numbers"):
        jh.loss(params, x, y, loss_fn=losses.weston_watkins_loss, class_weight={0: 1.0})


def test_several_labels_for_each_row(small_blocks):
    params, x, y, weight = problem(k=3)
    lists = np.stack([y, np.where(y > 0, 0, -1), np.full(N, -1)], axis=1)
    known = losses.multilabel_margin_loss
    assert one_pass.blockwise_pays(known, x, {})
    # In a coat its labels would be taken for one to a row.
    written = functools.partial(known, margin=1.0)
    check(lambda loss: jax.value_and_grad(loss)(params, x, lists, sample_weight=weight), known, written=written)


def test_integer_labels_0_and_1_are_refused_and_strict_promotion_is_fine(small_blocks):
    with pytest.raises(ValueError, match=r"y must be .* 2 \* y - 1"):
        jh.loss(PARAMS, X, (Y + 1) // 2)
    run = functools.partial(jax.value_and_grad(jh.loss), PARAMS, X.astype(jnp.bfloat16), Y, l2=0.1, subgradient=0.5)
    expected = jax.eval_shape(run)
    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(run) == expected


def test_derivatives_in_everything_else(small_blocks):
    def everything(loss):
        def of(params, x, weight, margin, l2):
            return loss(params, x, Y, sample_weight=weight, margin=margin, l2=l2)

        args = (PARAMS, X, WEIGHT, 1.3, 0.2)
        forward = jax.jvp(of, args, jax.tree.map(jnp.cos, args))
        return jax.grad(of, (0, 1, 2, 3, 4))(*args), jax.grad(of, (1, 2, 3))(*args), forward

    check(everything)


def test_the_kink_is_where_it_was(small_blocks):
    x, y = jnp.ones((N, D)), np.ones(N, int)
    params = jh.LinearParams(jnp.ones(D) / D, jnp.float32(0))
    gradient = jax.jit(jax.grad(jh.loss))
    for s in (0.0, 0.5, 1.0):
        slope = gradient(params, x, y, subgradient=s, kink_tol=1e-3)
        np.testing.assert_allclose(slope.w, np.full(D, -s), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_is_rounded_once(dtype, small_blocks):
    params, x, y, weight = problem(dtype=dtype)
    run = jax.jit(jax.value_and_grad(jh.loss))
    value, gradient = run(params, x, y, sample_weight=weight)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float32), (params, x, weight))
    _, exact = run(wide[0], wide[1], y, sample_weight=wide[2])
    assert value.dtype == jnp.float32
    assert gradient.w.dtype == gradient.b.dtype == dtype
    np.testing.assert_allclose(np.asarray(gradient.w, float), exact.w, rtol=float(jnp.finfo(dtype).eps))


def test_float64(x64, small_blocks):
    params, x, y, weight = problem(dtype=np.float64)
    check(lambda loss: jax.value_and_grad(loss)(params, x, y, sample_weight=weight), tol=1e-14)


def test_nan_and_infinity_are_let_through_as_before(small_blocks):
    spoilt = [(X.at[20, 1].set(bad), WEIGHT.at[N - 1].set(bad)) for bad in (np.nan, np.inf)]

    def every(loss):
        of = lambda x, weight: jax.value_and_grad(loss)(PARAMS, x, Y, sample_weight=weight)  # noqa: E731
        return [(of(x, WEIGHT), of(X, weight)) for x, weight in spoilt]

    check(every)


# Transformations


def test_second_derivatives_in_every_order(small_blocks):
    def hessians(loss):
        def of(params):
            return loss(params, X, Y, l2=0.1)

        forward, reverse = jax.jacfwd, jax.jacrev
        return [outer(inner(of))(PARAMS) for outer in (forward, reverse) for inner in (forward, reverse)]

    check(hessians, losses.squared_hinge_loss, loop=False)  # as written, or every block would be kept


def test_first_order_in_every_mode(small_blocks):
    def modes(loss):
        def of(params):
            return loss(params, X, Y)

        return (
            jax.jacfwd(of)(PARAMS),
            jax.jacrev(of)(PARAMS),
            jax.grad(jax.checkpoint(of))(PARAMS),
            jax.linearize(of, PARAMS)[1](PARAMS),
            jax.vjp(of, PARAMS)[1](2.0),
        )

    check(modes)


def test_vmap_in_every_nesting(small_blocks):
    numbers = jnp.array([[0.0, 0.2, 1.0], [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]])

    def nestings(loss):
        def gradient(params, x, y):
            return jax.grad(loss)(params, x, y)

        def sum_of_losses(params):
            return jnp.sum(jax.vmap(loss, (0, None, None))(params, X, Y))

        return (
            jax.vmap(gradient, (0, None, None))(MANY, X, Y),
            jax.vmap(jax.jit(gradient), (0, 0, 0))(MANY, XS, YS),
            jax.vmap(gradient, (None, None, 0))(PARAMS, X, YS),
            jax.vmap(jax.vmap(gradient, (0, None, None)), (None, 0, 0))(MANY, XS, YS),
            jax.vmap(jax.vmap(gradient, (None, 0, 0)), (0, None, None))(MANY, XS, YS),
            jax.vmap(lambda s, l2, m: jax.grad(loss)(PARAMS, X, Y, subgradient=s, l2=l2, margin=m))(*numbers),
            jax.grad(sum_of_losses)(MANY),
        )

    check(nestings)


def test_vmap_of_second_derivatives(small_blocks):
    def hessians(loss):
        return jax.vmap(jax.hessian(lambda params: loss(params, X, Y)))(MANY)

    check(hessians, losses.squared_hinge_loss, loop=False)


def test_in_a_loop_and_through_it(small_blocks):
    def last_loss(loss):
        def descend(rate):
            def step(_, params):
                return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params, X, Y))

            found = jax.lax.fori_loop(0, 3, step, PARAMS)
            return loss(found, X, Y)

        return descend(0.1), jax.grad(descend)(0.1)

    # Both programs have loops: those of the descent.
    squared = losses.squared_hinge_loss
    objectives = (functools.partial(jh.loss, loss_fn=loss_fn) for loss_fn in (squared, as_written(squared)))
    np.testing.assert_allclose(*(jax.jit(functools.partial(last_loss, loss))() for loss in objectives), rtol=1e-4)


# Where it does not apply, and what it costs


def test_what_is_not_taken_by_blocks(small_blocks, monkeypatch):
    hinge = losses.hinge_loss
    assert one_pass.blockwise_pays(hinge, X, {"margin": jnp.float32(2), "subgradient": 0.5})
    assert not one_pass.blockwise_pays(as_written(hinge), X, {})
    assert not one_pass.blockwise_pays(hinge, X, {"margin": np.ones(N)})
    assert not one_pass.blockwise_pays(hinge, X[:20], {})
    assert not one_pass.blockwise_pays(hinge, X[0], {})
    # A loss that averages over what it is given would see the blocks.
    check_same = jax.jit(lambda: [jh.loss(PARAMS, X, Y, margin=m) for m in (2.0, np.full(N, 2.0))])
    np.testing.assert_allclose(*check_same(), rtol=1e-6)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert not one_pass.blockwise_pays(hinge, X, {})


def test_rows_of_symbolic_size_are_exported(small_blocks):
    n = jax.export.symbolic_shape("n")[0]
    shapes = (PARAMS, jax.ShapeDtypeStruct((n, D), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32))
    gradient = jax.jit(jax.grad(jh.loss))
    exported, expected = jax.export.export(gradient)(*shapes), gradient(PARAMS, X, Y)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), exported.call(PARAMS, X, jnp.asarray(Y)), expected
    )


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_the_rows_stay_whole(axis_type, small_blocks):
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(axis_type,))
    expected = jax.jit(jax.grad(jh.loss))(PARAMS, X, Y)

    def over_rows(params, x, y):
        return jax.lax.pmean(jh.loss(params, x, y), "rows")

    rows = PartitionSpec("rows")
    with jax.set_mesh(mesh):
        x, y = (jax.device_put(leaf, jax.NamedSharding(mesh, rows)) for leaf in (X, Y))
        sharded = jax.shard_map(over_rows, in_specs=(PartitionSpec(), rows, rows), out_specs=PartitionSpec())
        for objective in (sharded, jh.loss):
            traced = jax.jit(jax.grad(objective)).trace(PARAMS, x, y)
            assert "scan[" not in str(traced.jaxpr)
            got = traced.lower().compile()(PARAMS, x, y)
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), got, expected)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_loop_is_for_cpu_only(platform, small_blocks):
    exported = jax.export.export(jax.jit(jax.grad(jh.loss)), platforms=[platform])(PARAMS, X, Y)
    assert "stablehlo.while" not in exported.mlir_module()


def test_outside_jit_it_compiles_once(small_blocks, compilations):
    jax.grad(jh.loss)(PARAMS, X, Y, l2=0.1, subgradient=0.0)
    with compilations() as names:
        for number in (0.2, 0.3):
            jax.grad(jh.loss)(PARAMS, X, Y, l2=number, subgradient=number, margin=1 + number)
    assert names.count("jit(_compiled)") <= 1  # another set of options, not another number


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subgradient": 2.0}, ValueError, "subgradient"),
        ({"kink_tol": -1.0}, ValueError, "kink_tol"),
        ({"l2": -1.0}, ValueError, "l2"),
        ({"no_such_option": 1.0}, TypeError, "no_such_option"),
        ({"sample_weight": np.ones((N, 1))}, ValueError, "sample_weight"),
        ({"loss_fn": losses.multiclass_hinge_loss}, ValueError, "scores"),
    ],
)
def test_errors_are_those_of_small_data(options, error, message, small_blocks):
    found = []
    for x, y in ((X, Y), (X[:20], Y[:20])):
        weight = {"sample_weight": np.ones((len(x), 1))} if "sample_weight" in options else {}
        with pytest.raises(error, match=message) as raised:
            jax.eval_shape(functools.partial(jax.grad(jh.loss), PARAMS, x, y, **options | weight))
        found.append(str(raised.value).replace(str(N), "20"))
    assert found[0] == found[1]


def test_the_rows_are_read_in_blocks_and_nowhere_else():
    n, d = 100_001, 64
    shapes = [jax.ShapeDtypeStruct(size, jnp.float32) for size in ((d,), (), (n, d), (n,))]

    def of(w, b, x, y):
        return jax.value_and_grad(jh.loss)((w, b), x, y, l2=0.1)

    compiled = jax.jit(of).lower(*shapes).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 2 * 4 * one_pass._BLOCK
    many = jax.jit(jax.vmap(of, (0, 0, None, None)))
    wide = [jax.ShapeDtypeStruct((16, *shape.shape), shape.dtype) for shape in shapes[:2]]
    memory = many.lower(*wide, *shapes[2:]).compile().memory_analysis()
    assert memory is not None
    # Neither the features nor the scores of the whole batch of params, 25 and 6 MB, are ever held.
    assert memory.temp_size_in_bytes < 3 * 4 * one_pass._BLOCK
