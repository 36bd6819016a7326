"""The optax step and the pure loop, against hand-written loops in NumPy and optax."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.compiled import compiled

import jaxhinge as jh
from jaxhinge._train.batches import Batches

N, D, BATCH = 23, 3, 5  # the last batch of an epoch has three rows
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = np.where(X[:, 0] + 0.3 * RNG.normal(size=N) > 0, 1, -1)
WEIGHT = RNG.integers(1, 4, N).astype(np.float32)
KEY = jax.random.key(7)


@functools.cache
def _epoch(n: int, size: int, blocks: int) -> Any:
    batches = Batches.of(jnp.zeros((n, 1)), jnp.zeros(n), None, size, blocks)

    @jax.jit
    def rows(key: Any, epoch: Any) -> Any:
        shuffled, permutation = batches.shuffle(key), batches.permutation(key, epoch)
        return jax.vmap(lambda batch: batches.rows(shuffled, permutation, batch))(jnp.arange(batches.per_epoch))

    return rows


def epoch_rows(
    epoch: int, key: jax.Array = KEY, n: int = N, size: int = BATCH, blocks: int = 1
) -> list[np.ndarray[Any, Any]]:
    """The rows of every batch of one epoch, padding removed, block after block."""
    batches = _epoch(n, size, blocks)(key, epoch)
    first = n // blocks * np.arange(blocks)[:, None]
    return [(first + rows)[:, real].ravel() for rows, real in zip(*(np.asarray(part) for part in batches), strict=True)]


def sgd_by_hand(
    num_steps: int, l2: float, rate: float, weight: np.ndarray[Any, Any] | None = None
) -> list[np.ndarray[Any, Any]]:
    """A plain loop: subgradient 0, the weighted mean over the real rows; every iterate as (w, b)."""
    theta, iterates = np.zeros(D + 1), []
    per_epoch = -(-N // BATCH)
    for step in range(num_steps):
        rows = epoch_rows(step // per_epoch)[step % per_epoch]
        gradient = np.append(l2 * theta[:D], 0.0)
        a = np.ones(N) if weight is None else weight
        for i in rows:
            if Y[i] * (X[i] @ theta[:D] + theta[D]) < 1:
                gradient -= a[i] / a[rows].sum() * Y[i] * np.append(X[i], 1.0)
        theta = theta - rate * gradient
        iterates.append(theta)
    return iterates


def flat(params: Any) -> np.ndarray[Any, Any]:
    return np.append(np.asarray(params[0]), np.asarray(params[1]))


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 1), (7, 3), (20, 20), (23, 5), (70_001, 64)])
def test_every_row_comes_once_per_epoch(n: int, size: int) -> None:
    for epoch in range(3):
        rows = np.concatenate(epoch_rows(epoch, n=n, size=size))
        np.testing.assert_array_equal(np.sort(rows), np.arange(n))


@pytest.mark.parametrize(("n", "size", "blocks"), [(24, 6, 3), (40, 16, 8), (12, 12, 4)])
def test_every_batch_has_as_many_rows_of_each_block(n: int, size: int, blocks: int) -> None:
    batches = epoch_rows(1, n=n, size=size, blocks=blocks)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(n))
    for rows in batches:
        assert len(set(np.bincount(rows // (n // blocks), minlength=blocks))) == 1
    orders = np.concatenate([rows.reshape(blocks, -1) for rows in batches], axis=1) % (n // blocks)
    assert (orders[0] != orders[1]).any()


def test_a_step_takes_the_rows_of_its_blocks() -> None:
    run = functools.partial(jh.train, jh.init_params(D), optimizer=optax.sgd(0.1), num_steps=4, key=KEY)
    n, blocks = 20, 4
    x, y, weight = X[:n], Y[:n], WEIGHT[:n]
    _, history = run(x, y, batch_size=8, l2=0.1, blocks=blocks, sample_weight=weight)
    params = jh.init_params(D)
    for step in range(4):
        rows = epoch_rows(step // 3, n=n, size=8, blocks=blocks)[step % 3]
        value, (dw, db) = jax.value_and_grad(jh.loss)(params, x[rows], y[rows], l2=0.1, sample_weight=weight[rows])
        np.testing.assert_allclose(history.loss[step], value, rtol=1e-5)
        params = jh.LinearParams(params.w - 0.1 * dw, params.b - 0.1 * db)
    for batch_size, number in ((8, 3), (6, 4)):
        with pytest.raises(ValueError, match=f"blocks={number} must divide the 20 rows of x and the {batch_size} of"):
            run(x, y, batch_size=batch_size, blocks=number)


def test_orders_differ_between_epochs_and_keys() -> None:
    first, second = np.concatenate(epoch_rows(0)), np.concatenate(epoch_rows(1))
    other = np.concatenate(epoch_rows(0, key=jax.random.key(8)))
    assert (first != second).any()
    assert (first != other).any()


@pytest.mark.parametrize("weighted", [False, True])
def test_train_is_a_plain_loop_of_sgd(weighted: bool) -> None:
    weight = WEIGHT if weighted else None
    params, history = compiled(
        jh.train, jh.init_params(D), X, Y, l2=0.1, optimizer=optax.sgd(0.2), num_steps=12, batch_size=BATCH, key=KEY,
        sample_weight=weight,
    )  # fmt: skip
    np.testing.assert_allclose(flat(params), sgd_by_hand(12, 0.1, 0.2, weight)[-1], rtol=1e-4, atol=1e-5)
    assert history.loss.shape == history["grad_norm"].shape == (12,)
    np.testing.assert_allclose(history.loss[0], 1.0, rtol=1e-6)


def test_train_averages_from_the_step_that_was_asked_for() -> None:
    params, _ = compiled(
        jh.train, jh.init_params(D), X, Y, l2=0.1, optimizer=optax.sgd(0.2), num_steps=12, batch_size=BATCH, key=KEY,
        average_from=4,
    )  # fmt: skip
    np.testing.assert_allclose(flat(params), np.mean(sgd_by_hand(12, 0.1, 0.2)[4:], axis=0), rtol=1e-4, atol=1e-5)


def test_train_agrees_with_optax_used_by_hand() -> None:
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(optax.cosine_decay_schedule(0.3, 20)))
    gradient = jax.jit(lambda params, x, y: jax.grad(jh.loss)(params, x, y, l2=0.1, subgradient=1.0))
    update = jax.jit(optimizer.update)
    params: Any = jh.init_params(D)
    state = optimizer.init(params)
    per_epoch = -(-N // BATCH)
    for step in range(11):
        rows = epoch_rows(step // per_epoch)[step % per_epoch]
        grads = gradient(params, X[rows], Y[rows])
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    found, _ = compiled(
        jh.train,
        jh.init_params(D),
        X,
        Y,
        l2=0.1,
        subgradient=1.0,
        optimizer=optimizer,
        num_steps=11,
        batch_size=BATCH,
        key=KEY,
    )
    np.testing.assert_allclose(flat(found), flat(params), rtol=1e-4, atol=1e-5)


def test_a_batch_without_weight_is_passed_over() -> None:
    rows = epoch_rows(0)[0]
    weight = np.ones(N, np.float32)
    weight[rows] = 0
    params, _ = compiled(
        jh.train, jh.init_params(D), X, Y, l2=0.1, optimizer=optax.sgd(0.2), num_steps=1, batch_size=BATCH, key=KEY,
        sample_weight=weight,
    )  # fmt: skip
    assert (flat(params) == 0).all()


def test_train_vmaps_over_l2_rates_keys_data_and_weights() -> None:
    def run(l2: Any, rate: Any, key: Any, x: Any, weight: Any) -> Any:
        return jh.train(
            jh.init_params(D), x, Y, l2=l2, optimizer=optax.sgd(rate, momentum=0.9), num_steps=7, batch_size=BATCH,
            key=key, sample_weight=weight,
        )[0]  # fmt: skip

    batch = (
        jnp.array([0.01, 0.1, 1.0]),
        jnp.array([0.1, 0.2, 0.05]),
        jax.random.split(KEY, 3),
        jnp.stack([X, 2 * X, -X]),
        jnp.stack([WEIGHT, WEIGHT[::-1], np.ones(N, np.float32)]),
    )
    together = jax.jit(jax.vmap(run))(*batch)
    run = jax.jit(run)
    for i in range(3):
        np.testing.assert_allclose(
            flat((together.w[i], together.b[i])), flat(run(*(argument[i] for argument in batch))), rtol=2e-4, atol=1e-5
        )


def test_a_sweep_multiplies_matrices() -> None:
    def run(l2: Any, rate: Any, y: Any) -> Any:
        return jh.train(
            jh.init_params(D), X, y, l2=l2, optimizer=optax.adam(rate), num_steps=7, batch_size=BATCH, key=KEY
        )[0]

    ones, columns = jnp.ones(4), jnp.tile(jnp.asarray(Y), (4, 1))
    for axes, inputs in (((0, 0, None), (ones, ones, Y)), ((None, None, 0), (1.0, 1.0, columns))):
        text = str(jax.make_jaxpr(jax.vmap(run, axes))(*inputs))
        # The rows of a minibatch are gathered once for all four runs, never once for each.
        assert f"f32[{BATCH},{D}] = gather" in text
        assert f"f32[4,{BATCH},{D}]" not in text
        assert f"f32[{BATCH},4]" in text or f"f32[4,{BATCH}]" in text


def test_a_batch_of_all_rows_is_taken_as_it_is() -> None:
    def run(l2: Any, key: Any) -> Any:
        return jh.train(jh.init_params(D), X, Y, l2=l2, optimizer=optax.sgd(0.2), num_steps=4, batch_size=N, key=key)[0]

    theta, design = np.zeros(D + 1), np.column_stack([X, np.ones(N)])
    for _ in range(4):
        short = Y * (design @ theta) < 1
        theta = theta - 0.2 * (np.append(0.1 * theta[:D], 0.0) - (short * Y) @ design / N)
    np.testing.assert_allclose(flat(jax.jit(run)(0.1, KEY)), theta, rtol=1e-5, atol=1e-6)
    assert f"f32[{N},{D}] = gather" not in str(jax.make_jaxpr(run)(0.1, KEY))


def test_train_is_differentiable() -> None:
    @jax.jit
    def final(l2: Any) -> Any:
        params, _ = jh.train(
            jh.init_params(D), X, Y, l2=l2, optimizer=optax.sgd(0.1), num_steps=6, batch_size=BATCH, key=KEY
        )
        return jnp.sum(params.w**2)

    step = 1e-2
    numeric = (final(0.5 + step) - final(0.5 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(final)(0.5), numeric, rtol=1e-2)
    np.testing.assert_allclose(jax.jvp(final, (0.5,), (1.0,))[1], numeric, rtol=1e-2)


OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(optax.cosine_decay_schedule(0.1, 50)),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "lbfgs": lambda: optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(max_backtracking_steps=5)),
    "noisy": lambda: optax.noisy_sgd(0.1, key=0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_donated_step_compiles_once_and_leaves_the_caller_s_arrays(name: str, compilations: Any) -> None:
    init, step = jh.make_train_step(OPTIMIZERS[name]())
    step = jax.jit(step, donate_argnums=0)
    params = jh.init_params(D)
    state = init(params)
    before = jax.tree.map(lambda leaf: str(jax.typeof(leaf)), state)
    state, metrics = step(state, X, Y, l2=0.1)
    assert jax.tree.map(lambda leaf: str(jax.typeof(leaf)), state) == before
    with compilations() as names, warnings.catch_warnings():
        warnings.simplefilter("error")
        for l2 in (0.2, 0.3):
            state, metrics = step(state, X, Y, l2=l2)
    assert names == []
    assert float(jnp.sum(params.w)) == 0  # still there
    assert metrics["loss"] is metrics.loss
    assert int(state.step) == 3


def test_step_vmaps_over_data_sets() -> None:
    init, step = jh.make_train_step(optax.adam(0.1))
    xs = np.stack([X, -X])
    one = jax.jit(lambda x: step(init(jh.init_params(D)), x, Y, l2=0.1))
    (state, metrics), (alone, _) = jax.vmap(one)(xs), one(xs[1])
    np.testing.assert_allclose(state.params.w[1], alone.params.w, rtol=1e-6)
    assert metrics.grad_norm.shape == (2,)


def test_metrics_are_those_before_the_step() -> None:
    init, step = jh.make_train_step(optax.sgd(0.1))
    params = jh.LinearParams(w=jnp.array([1.0, -2.0, 0.5]), b=jnp.array(0.1))
    _, (loss, norm) = jax.jit(step)(init(params), X, Y, l2=0.1)
    expected, gradient = jax.jit(jax.value_and_grad(jh.loss))(params, X, Y, l2=0.1)
    assert loss == expected
    np.testing.assert_allclose(norm, np.linalg.norm(flat(gradient)), rtol=1e-5)


def test_any_model_trains_a_two_layer_network() -> None:
    x = RNG.uniform(-1, 1, size=(200, 2)).astype(np.float32)
    y = np.where(x[:, 0] * x[:, 1] > 0, 1, -1)  # no line separates these

    def objective(params: Any, x: Any, y: Any, *, l2: Any, sample_weight: Any = None) -> jax.Array:
        hidden = jax.nn.relu(x @ params["w1"] + params["b1"][None, :])
        losses = jh.losses.hinge_loss(hidden @ params["w2"], y)
        return jnp.average(losses, weights=sample_weight) + l2 / 2 * jnp.sum(params["w2"] ** 2)

    params = {"w1": jax.random.normal(KEY, (2, 16)), "b1": jnp.zeros(16), "w2": jnp.zeros(16)}
    found, history = compiled(
        jh.train,
        params,
        x,
        y,
        l2=1e-4,
        objective=objective,
        optimizer=optax.adam(0.03),
        num_steps=400,
        batch_size=48,
        key=KEY,
    )
    scores = jax.nn.relu(x @ found["w1"] + found["b1"][None, :]) @ found["w2"]
    assert np.mean(np.sign(scores) == y) > 0.95
    assert history.loss[-20:].mean() < 0.3 * history.loss[:5].mean()


def test_float64(x64: None) -> None:
    init, step = jh.make_train_step(optax.adam(0.1))
    state = init(jh.init_params(D))
    assert state.params.w.dtype == np.float64
    state, _ = jax.eval_shape(step, state, X.astype(np.float64), Y, l2=0.1)
    assert state.params.w.dtype == np.float64


def test_bad_input_is_refused_while_tracing() -> None:
    options: dict[str, Any] = {"l2": 0.1, "optimizer": optax.sgd(0.1), "num_steps": 3, "batch_size": 2, "key": KEY}
    params = jh.init_params(D)
    with pytest.raises(ValueError, match=r"y has shape \(22,\), but x has 23 rows"):
        jax.jit(lambda: jh.train(params, X, Y[:-1], **options))()
    with pytest.raises(ValueError, match=r"y has shape \(2, 1\)"):
        jh.train(params, X, Y[:, None], **options)
    with pytest.raises(ValueError, match="no rows"):
        jh.train(params, X[:0], Y[:0], **options)
    for key in (0, (1.0, 2.0, 3.0), jax.random.split(KEY)):
        with pytest.raises(TypeError, match="key must be a JAX key"):
            jh.train(params, X, Y, **{**options, "key": key})
        with pytest.raises(TypeError, match="key must be a JAX key"):
            jh.fit(X, Y, l2=0.1, key=key)
    with pytest.raises(ValueError, match="num_steps must be at least 1; got 0"):
        jh.train(params, X, Y, **{**options, "num_steps": 0})
    with pytest.raises(TypeError, match="batch_size must be a Python integer"):
        jh.train(params, X, Y, **{**options, "batch_size": 2.5})
    with pytest.raises(ValueError, match=r"sample_weight has shape \(23, 1\)"):
        jh.train(params, X, Y, sample_weight=WEIGHT[:, None], **options)
    with pytest.raises(TypeError, match="optimizer must be an optax optimizer"):
        jh.make_train_step(0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sgd", "lbfgs"])
def test_strict_promotion_as_far_as_optax_allows(name: str) -> None:
    # Not adam: optax raises a float to its int32 count.
    optimizer = getattr(optax, name)(0.1)
    x, y = jnp.asarray(X), jnp.asarray(Y)

    def run() -> Any:
        init, step = jh.make_train_step(optimizer)
        state, metrics = step(init(jh.init_params(D)), x, y, l2=0.1, sample_weight=WEIGHT)
        options = {"l2": 0.1, "optimizer": optimizer, "num_steps": 9, "batch_size": BATCH, "key": KEY}
        return state.params, metrics, jh.train(jh.init_params(D), x, y, sample_weight=WEIGHT, average_from=2, **options)

    expected = jax.eval_shape(run)
    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(run) == expected


def test_train_refuses_integer_labels_0_and_1() -> None:
    options = {"l2": 0.1, "optimizer": optax.sgd(0.1), "num_steps": 2, "batch_size": BATCH, "key": KEY}
    labels = (np.asarray(Y) > 0).astype(int)
    with pytest.raises(ValueError, match=r"y must be -1 and \+1; got integers that hold 0.* 2 \* y - 1"):
        jh.train(jh.init_params(D), X, labels, **options)
    init, step = jh.make_train_step(optax.sgd(0.1))
    with pytest.raises(ValueError, match="hold 0"):
        step(init(jh.init_params(D)), X, labels)
    # Other objectives, and other losses, have targets of their own.
    jh.train(jh.init_params(D), X, labels, loss_fn=jh.losses.pinball_loss, **options)
    jh.train(jh.init_params(D), X, labels, **options | {"objective": functools.partial(_own_objective)})


def _own_objective(params: Any, x: Any, y: Any, l2: Any, sample_weight: Any = 1.0) -> Any:
    return jnp.mean(sample_weight * (x @ params[0] - y) ** 2) + l2 * jnp.sum(params[0] ** 2)
