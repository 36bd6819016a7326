"""Rows laid out over eight devices. Run by `test_sharding.py` in a process of its own, which XLA shows eight CPUs."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxhinge as jh
from jaxhinge._methods import batch as batch_module
from jaxhinge._methods import sharded
from jaxhinge._methods.problem import Config
from jaxhinge._rows import gram

N, D = 61, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = np.where(X[:, 0] + 0.5 * X[:, 1] ** 2 > 0, 1, -1)
WEIGHT = RNG.integers(1, 4, N).astype(np.float32)
PARAMS = jh.LinearParams(jnp.linspace(-1, 1, D), jnp.array(0.1))
L2 = 0.02

MESHES = {
    "automatic": lambda: Mesh(np.array(jax.devices()), ("data",)),
    "explicit": lambda: jax.make_mesh((8,), ("data",)),
    "plane": lambda: jax.make_mesh((4, 2), ("data", "model")),
    "four": lambda: Mesh(np.array(jax.devices()[:4]), ("data",)),
}


def rows_on(name: str, x: Any = X, y: Any = Y, weight: Any = WEIGHT) -> jh.ShardedRows:
    return jh.shard_rows(MESHES[name](), x, y, weight, axis="data")


KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"


def communication(compiled: Any) -> list[tuple[str, list[int]]]:
    """What travels between devices in a compiled program: kinds, and how many numbers each array has."""
    found = []
    for line in compiled.as_text().splitlines():
        match = re.search(rf"= (.*?) ({KINDS})(-start)?\(", line)
        if match:
            shapes = re.findall(r"\[([\d,]*)\]", re.sub(r"\{[^}]*\}", "", match[1]))
            found.append((match[2], [math.prod(int(size) for size in shape.split(",") if size) for shape in shapes]))
    return found


def assert_only_sums_travel(compiled: Any, largest: int) -> None:
    found = communication(compiled)
    assert found, "nothing travels at all, so nothing is shared"
    for kind, sizes in found:
        assert kind == "all-reduce"
        assert max(sizes) <= largest


def test_there_are_eight_devices() -> None:
    assert jax.device_count() == 8


def test_classes_one_by_one_stay_on_their_devices() -> None:
    labels = np.arange(N) % 3
    rows, options = rows_on("automatic", y=labels), {"l2": L2, "loss": "one_vs_rest"}
    found = jh.solve_multiclass(rows.x, rows.y, sample_weight=rows.sample_weight, **options)
    alone = jh.solve_multiclass(X, labels, sample_weight=WEIGHT, **options)
    assert found.status == jh.Status.CONVERGED
    assert len(found.dual.sharding.device_set) == 8
    assert alone.dual_value <= found.primal_value <= alone.primal_value + found.gap
    for loss in ("crammer_singer", "weston_watkins"):
        with pytest.raises(ValueError, match=rf'mesh, but loss="{loss}".*numpy.asarray'):
            jh.solve_multiclass(rows.x, rows.y, l2=L2, loss=loss)


# ---- placing


@pytest.mark.parametrize("mesh", MESHES)
def test_rows_are_padded_with_rows_that_weigh_nothing(mesh: str) -> None:
    rows = rows_on(mesh)
    shards = 4 if mesh in ("plane", "four") else 8
    assert rows.x.shape == (64, D)
    assert {shard.data.shape for shard in rows.x.addressable_shards} == {(64 // shards, D)}
    np.testing.assert_array_equal(np.asarray(rows.x)[:N], X)
    np.testing.assert_array_equal(np.asarray(rows.x)[N:], 0)
    np.testing.assert_array_equal(np.asarray(rows.sample_weight), [*WEIGHT, 0, 0, 0])
    np.testing.assert_array_equal(np.asarray(rows.y), [*Y, Y[0], Y[0], Y[0]])


def test_long_shards_are_whole_blocks() -> None:
    for count, padded in ((8 * 8191 + 1, 8 * 8192), (8 * 8192 + 1, 8 * 8704), (8 * 8000, 8 * 8000)):
        rows = jh.shard_rows(MESHES["automatic"](), np.ones((count, 1), np.float32), np.ones(count))
        assert rows.x.shape == (padded, 1)
        assert float(rows.sample_weight.sum()) == count


def test_few_rows_and_no_weights() -> None:
    rows = jh.shard_rows(MESHES["automatic"](), X[:3], Y[:3])
    np.testing.assert_array_equal(np.asarray(rows.sample_weight), [1, 1, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("error", "message", "arguments", "axis"),
    [
        (ValueError, r"x must have shape \(n, d\)", (X[:, 0], Y), "data"),
        (ValueError, r"x must have shape \(n, d\)", (X[:0], Y[:0]), "data"),
        (ValueError, r"x has 61 rows, so y and sample_weight need shape \(61,\)", (X, Y[:3]), "data"),
        (ValueError, "got 61 numbers in 2 dimensions and 61 in 1", (X, Y[:, None]), "data"),
        (ValueError, "axis='rows' is not of the mesh, whose axes are", (X, Y), "rows"),
        (ValueError, "say with axis= along which the rows are laid out", (X, Y), None),
        (TypeError, "x must be real numbers", (X.astype(str), Y), "data"),
    ],
)
def test_rows_that_do_not_fit(error: Any, message: str, arguments: Any, axis: Any) -> None:
    with pytest.raises(error, match=message):
        jh.shard_rows(MESHES["plane"](), *arguments, axis=axis)


def test_a_mesh_is_needed() -> None:
    with pytest.raises(TypeError, match=r"mesh must be a jax\.sharding\.Mesh; got list"):
        jh.shard_rows(jax.devices(), X, Y)  # type: ignore[arg-type]


# ---- the objective and the step


@pytest.mark.parametrize(
    ("mesh", "loss_fn"),
    [
        ("automatic", jh.losses.hinge_loss),
        ("explicit", jh.losses.multiclass_hinge_loss),
        ("plane", jh.losses.hinge_loss),
    ],
)
def test_loss_and_gradient(mesh: str, loss_fn: Any) -> None:
    multiclass = loss_fn is jh.losses.multiclass_hinge_loss
    y = np.arange(N) % 3 if multiclass else Y
    params = jh.LinearParams(jnp.ones((D, 3)), jnp.arange(3.0)) if multiclass else PARAMS

    def value(params: Any, x: Any, y: Any, weight: Any) -> Any:
        return jh.loss(params, x, y, l2=L2, loss_fn=loss_fn, sample_weight=weight, subgradient=0.5)

    run = jax.jit(jax.value_and_grad(value))
    rows = rows_on(mesh, y=y)
    compiled = run.lower(params, *rows).compile()
    assert_only_sums_travel(compiled, D * 3)
    found, expected = compiled(params, *rows), run(params, X, y, WEIGHT)
    # Sums of 61 numbers in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
    # The same outside jit, the value at least; JAX wants a mesh in its context for an eager gradient.
    np.testing.assert_allclose(value(params, *rows), expected[0], rtol=1e-5)


def test_steps() -> None:
    init, step = jh.make_train_step(optax.adam(0.1))
    run = jax.jit(lambda state, x, y, weight: step(state, x, y, l2=L2, sample_weight=weight)[0])
    rows = rows_on("explicit")
    found, expected = init(PARAMS), init(PARAMS)
    assert_only_sums_travel(run.lower(found, *rows).compile(), D)
    for _ in range(5):
        found, expected = run(found, *rows), run(expected, X, Y, WEIGHT)
    np.testing.assert_allclose(found.params.w, expected.params.w, rtol=1e-4)


def train(rows: Any, blocks: int = 8) -> Any:
    x, y, weight = rows
    return jh.train(
        PARAMS, x, y, sample_weight=weight, l2=L2, optimizer=optax.sgd(0.1), num_steps=20, batch_size=16,
        key=jax.random.key(0), blocks=blocks,
    )  # fmt: skip


@pytest.mark.parametrize("mesh", ["automatic", "four"])
def test_train_on_blocks_moves_no_row_and_is_the_same_on_any_number_of_devices(mesh: str) -> None:
    run = jax.jit(train)
    rows = rows_on(mesh)
    assert_only_sums_travel(run.lower(rows).compile(), D)
    one_device = jax.tree.map(np.asarray, rows)
    found, expected = run(rows), run(one_device)
    # Twenty steps whose sums are added in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


def test_train_without_blocks_works_but_lets_batches_travel() -> None:
    run = jax.jit(lambda rows: train(rows, blocks=1))
    rows = rows_on("automatic")
    compiled = run.lower(rows).compile()
    found, expected = compiled(rows), run(jax.tree.map(np.asarray, rows))
    np.testing.assert_allclose(found[0].w, expected[0].w, rtol=1e-4)
    assert {kind for kind, _ in communication(compiled)} == {"all-reduce"}


# ---- the solver


@functools.cache
def exact() -> jh.Solution:
    return jh.solve(X, Y, l2=L2, sample_weight=WEIGHT, tol=1e-9, as_numpy=True)


def test_solve() -> None:
    rows = rows_on("automatic")
    found = jh.solve(rows.x, rows.y, l2=L2, sample_weight=rows.sample_weight, tol=1e-6)
    assert int(found.status) == jh.Status.CONVERGED
    assert found.params.w.sharding.is_fully_replicated
    assert len(found.dual.sharding.device_set) == rows.x.sharding.num_devices
    primal = float(jh.loss(found.params, X, Y, l2=L2, sample_weight=WEIGHT))
    optimum = float(exact().dual_value)
    # The gap is proven in float64 for float32 parameters, the objective recomputed in float32.
    assert 0 <= float(found.gap) <= 1e-6 * primal
    assert optimum - 1e-6 <= primal <= optimum + float(found.gap) + 1e-6
    again = jh.solve(rows.x, rows.y, l2=L2, sample_weight=rows.sample_weight, tol=1e-6, init=found)
    assert int(again.steps) == 0


def test_solve_in_float64_is_the_solution_of_one_device() -> None:
    rows = rows_on("explicit")
    found = jh.solve(rows.x, rows.y, l2=L2, sample_weight=rows.sample_weight, tol=1e-9, as_numpy=True)
    assert isinstance(found.params.w, np.ndarray)
    np.testing.assert_allclose(found.params.w, exact().params.w, atol=1e-4)
    np.testing.assert_allclose(found.primal_value, exact().primal_value, rtol=1e-8)
    assert found.gap <= 1e-9 * found.primal_value
    assert not found.dual[N:].any()


def test_solve_inside_jit_moves_sums_only() -> None:
    run = jax.jit(lambda rows, l2: jh.solve(rows.x, rows.y, l2=l2, sample_weight=rows.sample_weight))
    rows = rows_on("explicit")
    compiled = run.lower(rows, L2).compile()
    assert_only_sums_travel(compiled, (D + 1) ** 2)
    found = compiled(rows, L2)
    assert float(found.gap) <= 1e-4 * float(found.primal_value)
    assert found.dual.sharding.spec == P("data")
    np.testing.assert_allclose(found.primal_value, exact().primal_value, rtol=1e-4)


# ---- the solver's other problems

TARGETS = (X @ [1.0, -2.0, 0.5, 0.0, 1.0] + 3.0 + RNG.normal(size=N)).astype(np.float32)


def test_regression() -> None:
    rows = rows_on("automatic", y=TARGETS)
    options: Any = {"l2": L2, "epsilon": 0.3}
    found = jh.solve_regression(rows.x, rows.y, sample_weight=rows.sample_weight, tol=1e-6, **options)
    expected = jh.solve_regression(X, TARGETS, sample_weight=WEIGHT, tol=1e-8, **options)
    assert int(found.status) == jh.Status.CONVERGED
    assert found.dual.shape == (128,)
    assert found.dual.sharding.spec == P("data")
    np.testing.assert_allclose(found.primal_value, expected.primal_value, rtol=2e-6)
    again = jh.solve_regression(rows.x, rows.y, sample_weight=rows.sample_weight, tol=1e-6, **options, init=found)
    assert int(again.steps) == 0


def test_quantiles_and_one_class() -> None:
    rows = rows_on("automatic", y=TARGETS)
    found = jh.solve_quantile(rows.x, rows.y, l2=L2, quantile=0.8, sample_weight=rows.sample_weight)
    expected = jh.solve_quantile(X, TARGETS, l2=L2, quantile=0.8, sample_weight=WEIGHT)
    np.testing.assert_allclose(found.primal_value, expected.primal_value, rtol=2e-4)
    rows = rows_on("automatic", x=X + 2)
    found = jh.solve_one_class(rows.x, nu=0.2, sample_weight=rows.sample_weight)
    expected = jh.solve_one_class(X + 2, nu=0.2, sample_weight=WEIGHT)
    np.testing.assert_allclose(found.primal_value, expected.primal_value, rtol=2e-4)
    np.testing.assert_allclose(np.asarray(found.dual).sum(), 1, rtol=1e-6)


def test_a_path_and_a_gap() -> None:
    rows, l2 = rows_on("automatic"), [0.02, 1.0, 0.2]
    found = jh.path(rows.x, rows.y, l2=l2, sample_weight=rows.sample_weight)
    expected = jh.path(X, Y, l2=l2, sample_weight=WEIGHT)
    np.testing.assert_allclose(found.primal_value, expected.primal_value, rtol=2e-4)
    assert found.dual.sharding.spec == P(None, "data")
    params = jh.LinearParams(found.params.w[0], found.params.b[0])
    gaps = [jh.duality_gap(params, x, y, l2=L2, sample_weight=weight) for x, y, weight in (rows, (X, Y, WEIGHT))]
    np.testing.assert_allclose(gaps[0], gaps[1], atol=1e-6)
    dual = jh.duality_gap(params, rows.x, rows.y, l2=L2, sample_weight=rows.sample_weight, dual=found.dual[0])
    np.testing.assert_allclose(dual, found.gap[0], atol=1e-6)


def test_what_is_solved_on_a_mesh_moves_sums_only() -> None:
    rows = rows_on("automatic", y=TARGETS)
    loss = sharded.MeshLoss("sides", (0.3, 1.0, 1.0))
    on_mesh = sharded.MeshRows(Config(), False, rows.x, rows.y, rows.sample_weight, loss)
    layout, numbers = on_mesh._layout, (np.float64(1e-4), np.int32(50))
    with jax.enable_x64(True):
        weighed = sharded._weighed(layout, "sides").lower(*rows, tuple(map(np.float64, loss.numbers))).compile()
        start = sharded._started(layout)(None, on_mesh._rows)
        solved = sharded._compiled_sharded(on_mesh._config, layout).lower(on_mesh._rows, start, *numbers).compile()
    assert_only_sums_travel(weighed, D)
    assert_only_sums_travel(solved, (D + 1) ** 2)


def test_what_a_mesh_cannot_do_is_refused_by_name() -> None:
    rows = rows_on("automatic")
    with pytest.raises(ValueError, match="solve_ranking compares rows that lie on different ones"):
        jh.solve_ranking(rows.x, [[0, 1]], l2=L2)
    for call in (jh.solve, jh.solve_regression, jh.solve_quantile, jh.path):
        for option in ({"on_interrupt": "return"}, {"progress": True})[: 1 if call is jh.path else 2]:
            with pytest.raises(ValueError, match="is for the CPU: on a mesh"):
                call(rows.x, rows.y, l2=[L2] if call is jh.path else L2, **option)  # type: ignore[operator]


def test_no_block_of_rows_lies_on_two_devices(monkeypatch: Any) -> None:
    monkeypatch.setattr(gram, "_FEW", 0)
    # As many on each device, but no whole number of blocks, of chunks that hold a part of them.
    n = 8 * (2 * gram._BLOCK + 1)
    x, y = np.resize(X, (n, D)), np.resize(Y, n)
    rows, expected = rows_on("automatic", x, y, np.resize(WEIGHT, n)), jh.solve(x, y, l2=L2)
    assert rows.x.shape == (n, D)
    monkeypatch.setattr(gram, "_CHUNK", n * D // 2)
    compiled = jax.jit(lambda rows: jh.solve(rows.x, rows.y, l2=L2)).lower(rows).compile()
    assert_only_sums_travel(compiled, (D + 1) ** 2)
    np.testing.assert_allclose(compiled(rows).primal_value, expected.primal_value, rtol=2e-4)


def test_values_that_solve_refuses() -> None:
    x, y, weight = rows_on("automatic")
    for message, arguments in {
        "x has NaN or infinity": (x.at[3, 2].set(jnp.nan), y, weight),
        r"y must be -1 and \+1": (x, y * 2, weight),
        "y has one class only": (x, abs(y), weight),
        "sample_weight must be finite, not negative": (x, y, -weight),
        r"y has shape \(61,\), but x has 64 rows": (x, Y, weight),
    }.items():
        with pytest.raises(ValueError, match=message):
            jh.solve(*arguments[:2], l2=L2, sample_weight=arguments[2])
    with pytest.raises(ValueError, match="l2 must be a number above 0"):
        jh.solve(x, y, l2=-1.0)
    with pytest.raises(ValueError, match=r"init has params\.w of shape"):
        jh.solve(x, y, l2=L2, init=exact()._replace(params=jh.init_params(D + 1)))


def test_features_laid_out_over_devices_are_refused() -> None:
    mesh = MESHES["plane"]()
    x = jax.device_put(np.zeros((8, 4), np.float32), NamedSharding(mesh, P("data", "model")))
    with pytest.raises(ValueError, match=r"x lies along its features, too.*Lay out its rows only"):
        jh.solve(x, np.ones(8), l2=L2)


def test_rows_that_every_device_has_whole_are_no_different() -> None:
    x = jax.device_put(X, NamedSharding(MESHES["automatic"](), P()))
    found = jh.solve(x, Y, l2=L2, sample_weight=WEIGHT, tol=1e-9, as_numpy=True)
    assert found.params.w.tobytes() == exact().params.w.tobytes()


# ---- determinism


def test_the_bits_of_this_process_are_written_down() -> None:
    """For `test_sharding.py`, which compares them with those of another process."""
    rows = rows_on("automatic")
    solution = jh.solve(rows.x, rows.y, l2=L2, sample_weight=rows.sample_weight)
    bits = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((jax.jit(train)(rows), solution)))
    Path(os.environ["JAXHINGE_BITS"]).write_text(hashlib.sha256(bits).hexdigest())


# ---- sweeps


def test_a_sweep_on_padded_rows_is_the_sweep_without_them() -> None:
    grid: dict[str, Any] = {"l2": [0.3, 0.03], "folds": 3, "tol": 1e-5}
    rows = rows_on("explicit")
    found = jh.sweep(rows.x, rows.y, sample_weight=rows.sample_weight, **grid)
    expected = jh.sweep(X, Y, sample_weight=WEIGHT, **grid)
    # Scores of two solutions that agree to 1e-5 of the objective.
    np.testing.assert_allclose(found.val_score, expected.val_score, atol=1e-6)
    assert float(found.best_l2) == float(expected.best_l2)
    np.testing.assert_allclose(found.best.primal_value, expected.best.primal_value, rtol=2e-5)
    assert (np.asarray(found.gap) >= 0).all()


def test_a_sweep_moves_sums_only() -> None:
    rows = rows_on("automatic")
    shared = batch_module.share(rows.x, np.asarray(rows.sample_weight, float))
    count = 3
    lanes = batch_module.Batch(*(np.tile(values, (count, 1)) for values in rows[1:]), np.full(count, L2))  # type: ignore[arg-type]
    arguments = (
        batch_module._batch_rows(shared, lanes),
        batch_module._batch_start(shared, lanes, None),
        np.float64(1e-4),
        np.int32(50),
    )
    with jax.enable_x64(True):
        compiled = batch_module._float32_stage(Config()).lower(*arguments).compile()
    assert_only_sums_travel(compiled, count * (D + 1) ** 2)
