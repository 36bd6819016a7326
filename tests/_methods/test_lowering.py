"""Every traced function of the front door is lowered for cuda and tpu, here, where there is neither."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxhinge as jh

N, D, K = 5, 3, 3
HOST_ONLY = {
    "Checkpoints", "Diagnosis", "FitResult", "LinearParams", "Path", "ShardedRows", "Solution", "Status", "Sweep",
    "adapt_arguments", "assert_valid_gradient", "diagnose", "diagnose_loss", "fit", "init_params", "load", "losses",
    "module_gradient", "path", "plot",
    "save", "shard_rows", "sweep",
}  # fmt: skip
PLATFORMS = ("cuda", "tpu")


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


X, Y, NUMBER = shape(N, D), shape(N), shape()
PAIRS, LABELS = shape(N, 2, dtype=jnp.int32), shape(N, dtype=jnp.int32)
MODEL = jh.LinearParams(shape(D), shape())
MULTICLASS_MODEL = jh.LinearParams(shape(D, K), shape(K))


def sum_of_primal_and_params(solver, *args, **options):
    """One number through which all that is differentiable of a solution flows."""
    solution = solver(*args, **options)
    return solution.primal_value + jnp.sum(solution.params.w) + jnp.sum(solution.params.b)


def loss_arguments(name):
    if name == "triplet_margin_loss":
        return X, X, X
    if name == "margin_ranking_loss":
        return Y, Y, Y
    if name == "multilabel_margin_loss":
        return shape(N, K), shape(N, K, dtype=jnp.int32)
    if "multiclass" in name or name in ("weston_watkins_loss", "one_vs_rest_hinge_loss"):
        return shape(N, K), LABELS
    return Y, Y


LOSSES = {name: loss_arguments(name) for name in jh.losses.__all__}


def every_loss(arguments):
    """All losses and the gradients of their sums, in one program."""
    functions = [*(getattr(jh.losses, name) for name in LOSSES), jh.hinge, jh.positive_part]
    return [
        (function(*args), jax.grad(lambda *args, function=function: jnp.sum(function(*args)))(*args))
        for function, args in zip(functions, arguments, strict=True)
    ]


def step(params, x, y, l2):
    init, one_step = jh.make_train_step(optax.sgd(0.1))
    return one_step(init(params), x, y, l2=l2)


def train(params, x, y, l2, weight, seed):
    return jh.train(
        params, x, y, l2=l2, sample_weight=weight, optimizer=optax.sgd(0.1), num_steps=4, batch_size=2,
        key=jax.random.key(seed),
    )  # fmt: skip


def solved(x, y, l2, weight, **options):
    return jh.solve(x, y, l2=l2, sample_weight=weight, **options)


def regression(x, y, l2, epsilon):
    return jh.solve_regression(x, y, l2=l2, epsilon=epsilon)


def quantile(x, y, l2, quantile):
    return jh.solve_quantile(x, y, l2=l2, quantile=quantile)


def ranking(x, pairs, l2):
    return jh.solve_ranking(x, pairs, l2=l2)


def one_class(x, nu, l2):
    return jh.solve_one_class(x, nu=nu, l2=l2)


def gap(params, x, y, l2, **options):
    return jh.duality_gap(params, x, y, l2=l2, **options)


def gap_of_dual(params, x, y, l2, dual):
    return jh.duality_gap(params, x, y, l2=l2, dual=dual)


def objective(params, x, y, l2, weight):
    return jh.loss(params, x, y, l2=l2, sample_weight=weight)


def multiclass_objective(params, x, labels, l2):
    return jh.loss(params, x, labels, l2=l2, loss_fn=jh.losses.multiclass_hinge_loss)


def multiclass(x, labels, l2, **options):
    return jh.solve_multiclass(x, labels, l2=l2, num_classes=K, **options)


# The solver's programs, by the name of the function of the front door.
SOLVERS = {
    "solve": (solved, (X, Y, NUMBER, Y)),
    "solve_regression": (regression, (X, Y, NUMBER, NUMBER)),
    "solve_quantile": (quantile, (X, Y, NUMBER, NUMBER)),
    "solve_ranking": (ranking, (X, PAIRS, NUMBER)),
    "solve_one_class": (one_class, (X, NUMBER, NUMBER)),
}


def cases():
    """Name, function and arguments of every case; the name begins with that of the front door's function."""
    yield " ".join([*LOSSES, "hinge", "positive_part"]), every_loss, ([*LOSSES.values(), (Y,), (Y,)],)
    for kind, model, y, function in (
        ("", MODEL, Y, objective),
        (" multiclass", MULTICLASS_MODEL, LABELS, multiclass_objective),
    ):
        args = (model, X, y, NUMBER) + ((Y,) if function is objective else ())
        yield f"loss{kind}", function, args
        yield f"loss{kind} gradient", jax.grad(function, argnums=(0, 1, 3)), args
        yield f"decision_function{kind}", jh.decision_function, (model, X)
        yield f"predict{kind}", jh.predict, (model, X)
    yield "make_train_step", step, (MODEL, X, Y, NUMBER)
    yield "train", train, (MODEL, X, Y, NUMBER, Y, shape(dtype=jnp.int32))
    yield "duality_gap", gap, (MODEL, X, Y, NUMBER)
    yield "duality_gap of a dual", gap_of_dual, (MODEL, X, Y, NUMBER, Y)
    for name, (function, args) in SOLVERS.items():
        yield name, function, args
        yield f"{name} gradient", jax.grad(partial(sum_of_primal_and_params, function), argnums=(0, 2)), args
    yield "solve squared", partial(solved, loss="squared_hinge", fit_intercept="regularized"), SOLVERS["solve"][1]
    yield "solve by ascent", partial(solved, method="ascent"), SOLVERS["solve"][1]
    yield "solve vmap", jax.vmap(solved, in_axes=(None, None, 0, None)), (X, Y, shape(2), Y)
    if hasattr(jh, "solve_multiclass"):
        for loss in ("crammer_singer", "one_vs_rest"):
            yield f"solve_multiclass {loss}", partial(multiclass, loss=loss), (X, LABELS, NUMBER)


CASES = {name: (function, args) for name, function, args in cases()}
CERTIFYING = [name for name in CASES if name.startswith(("solve", "duality_gap")) and "gradient" not in name]


@cache
def jitted(name):
    # Shared by the platforms, so that each is traced once.
    return jax.jit(CASES[name][0])


@cache
def lowered(name, platform):
    # What mixes dtypes lowers too where JAX is told to promote none.
    with jax.numpy_dtype_promotion("strict"):
        return jax.export.export(jitted(name), platforms=[platform])(*CASES[name][1]).mlir_module()


def test_every_name_of_the_front_door_is_lowered_or_for_the_host():
    names = {word for name in CASES for word in name.split()}
    assert set(jh.__all__) - HOST_ONLY <= names
    assert set(jh.losses.__all__) <= names


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", CASES)
def test_lowers(name, platform):
    module = lowered(name, platform)
    assert "@main" in module
    if platform == "tpu":
        # Scalars that are constants are folded, but only the multiclass solver has any.
        assert ("xf64" if name.startswith("solve_multiclass") else "f64") not in module


@pytest.mark.parametrize("name", CERTIFYING)
def test_certificates_ask_for_float64_on_cuda_and_whole_products_on_tpu(name):
    assert "f64" in lowered(name, "cuda")
    products = re.findall(r"stablehlo\.dot_general.*", lowered(name, "tpu"))
    whole = sum("precision = [HIGHEST, HIGHEST]" in line for line in products)
    # The point near the mean that is taken from the features may be any: the one product of default precision.
    assert whole >= max(2, len(products) - 1)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_float64_lowers_where_it_is_switched_on(platform, x64):
    wide = shape(N, D, dtype=jnp.float64), shape(N, dtype=jnp.float64), shape(dtype=jnp.float64)
    solver = jax.jit(lambda x, y, l2: jh.solve(x, y, l2=l2))
    exported = jax.export.export(solver, platforms=[platform])(*wide)
    assert exported.out_avals[0].dtype == np.float64
