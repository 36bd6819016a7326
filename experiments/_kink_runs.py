"""The training runs of `kink_study.py`: one program for all data, seeds, choices and optimizers of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jaxhinge

Array = Any
BATCH, TRAIN_ROWS, HIDDEN = 32, 1280, 32
NEAR = 1 / 16  # margins this near to the kink tell how dense they are there
DATA = ("continuous", "quantised", "on/off")
CHOICES = {"0": 0.0, "1/2": 0.5, "1": 1.0, "placebo": 0.0}
PLACEBO = 3
# Adam or not, learning rate, momentum, l2. Powers of two, but for the second, round nothing where numbers are short.
OPTIMIZERS = {
    "SGD 1/16": (0.0, 2.0**-4, 0.0, 0.0),
    "SGD 0.06, l2": (0.0, 0.06, 0.0, 1e-4),
    "momentum": (0.0, 2.0**-7, 0.9, 0.0),
    "Adam": (1.0, 2.0**-7, 0.0, 0.0),
}


class Precision(NamedTuple):
    name: str
    compute: Any  # of features, weights and hidden units
    scores: Any  # of scores, margins and losses

    @property
    def cell(self) -> float:
        """The width of the interval of numbers that round to 1."""
        return 0.75 * float(jnp.finfo(self.scores).eps)


PRECISIONS = (
    Precision("float64", jnp.float64, jnp.float64),
    Precision("float32", jnp.float32, jnp.float32),
    Precision("float16", jnp.float16, jnp.float16),
    Precision("bfloat16", jnp.bfloat16, jnp.bfloat16),
    Precision("bfloat16, scores float32", jnp.bfloat16, jnp.float32),  # as jaxhinge.loss treats bfloat16 data
)


class Lane(NamedTuple):
    """What one run is trained with; arrays (choice, optimizer)."""

    subgradient: Array
    adam: Array
    rate: Array
    momentum: Array
    l2: Array


class Runs(NamedTuple):
    """All runs of one model in one precision; axes data, seed, (step,) (choice,) optimizer."""

    on_kink: Array  # margins of the batch that are 1 exactly
    near_kink: Array
    hidden_on_kink: Array
    change: Array  # |gradient with 1 - gradient with 0| / |gradient with 0|, on one batch, at the weights of choice 0
    distance: Array  # of the weights from those of choice 0, relative
    accuracy: Array


# ---- data and models


def images() -> tuple[Array, Array]:
    """Features (3, n, 64), one version of the pixels for each of DATA, and targets (n,)."""
    pixels, digit = load_digits(return_X_y=True)
    smooth = pixels + np.random.default_rng(0).uniform(-0.5, 0.5, pixels.shape)
    smooth = (smooth - smooth.mean(axis=0)) / smooth.std(axis=0)
    return np.stack([smooth, pixels / 16, (pixels >= 8).astype(float)]), np.where(digit % 2 == 1, 1.0, -1.0)


def linear_start(rng: np.random.Generator) -> dict[str, Array]:
    del rng
    return {"w": np.zeros(64), "b": np.zeros(())}


def network_start(rng: np.random.Generator) -> dict[str, Array]:
    hidden, out = rng.normal(size=(64, HIDDEN)), rng.normal(size=HIDDEN)
    return {"w": out * (2 / HIDDEN) ** 0.5, "b": np.zeros(()), "w1": hidden / 32**0.5, "b1": np.zeros(HIDDEN)}


def forward(params: dict[str, Array], x: Array, subgradient: Array, precision: Precision) -> tuple[Array, Array]:
    """Scores, and what enters the hidden hinges."""
    params = {name: value.astype(precision.compute) for name, value in params.items()}
    z = jnp.ones((0,), precision.compute)
    if "w1" in params:
        z = jaxhinge.decision_function((params["w1"], params["b1"]), x)
        x = jaxhinge.positive_part(z, subgradient=subgradient)
    w, b, x = (value.astype(precision.scores) for value in (params["w"], params["b"], x))
    return jaxhinge.decision_function((w, b), x), z


# ---- all runs of one model in one precision, as one program


def train_all(start: Callable[..., dict[str, Array]], precision: Precision, seeds: int, epochs: int) -> Runs:
    with jax.enable_x64(True):
        kept = jnp.promote_types(precision.compute, jnp.float32)
        x, y = images()
        drawn = [draw_run(start, np.random.default_rng(seed), precision, len(y), epochs) for seed in range(seeds)]
        starts, batches, tests = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
        columns = [np.array(list(CHOICES.values()))[:, None], *np.array(list(OPTIMIZERS.values())).T[:, None, :]]
        lanes = Lane(*(jnp.asarray(column, kept) for column in np.broadcast_arrays(*columns)))
        starts = jax.tree.map(lambda leaf: jnp.asarray(leaf, kept), starts)
        x, y = jnp.asarray(x, precision.compute), jnp.asarray(y, precision.scores)
        return jax.tree.map(np.asarray, program(precision)(x, y, starts, batches, tests, lanes))


def draw_run(
    start: Callable[..., dict[str, Array]], rng: np.random.Generator, precision: Precision, num_rows: int, epochs: int
) -> tuple[Any, Array, Array]:
    """The split, the batches and, for every choice and optimizer, the start."""
    train, test = np.split(rng.permutation(num_rows).astype(np.int32), [TRAIN_ROWS])
    batches = np.concatenate([rng.permutation(train) for _ in range(epochs)]).reshape(-1, BATCH)
    error = float(jnp.finfo(precision.scores).eps)

    def for_all_lanes(value: Array) -> Array:
        values = np.tile(value, (len(CHOICES), len(OPTIMIZERS)) + (1,) * value.ndim)
        values[PLACEBO] += error * rng.normal(size=value.shape)
        return values

    return {name: for_all_lanes(value) for name, value in start(rng).items()}, batches, test


def program(precision: Precision) -> Callable[..., Runs]:
    """One program for all data, seeds, choices and optimizers."""

    def objective(params: Any, x: Array, y: Array, *, subgradient: Array, l2: Array) -> Array:
        losses = jaxhinge.losses.hinge_loss(forward(params, x, subgradient, precision)[0], y, subgradient=subgradient)
        weights = [value for name, value in params.items() if name.startswith("w")]
        return jnp.mean(losses, dtype=l2.dtype) + l2 / 2 * optax.tree.norm(weights, squared=True)

    def begin(lane: Lane, params: Any) -> Any:
        return jaxhinge.make_train_step(optimizer(lane), objective)[0](params)

    def step(lane: Lane, state: Any, x: Array, y: Array) -> tuple[Any, tuple[Array, Array, Array]]:
        scores, z = forward(state.params, x, lane.subgradient, precision)
        off = (y * scores).astype(lane.rate.dtype) - 1
        counts = jnp.sum(off == 0), jnp.sum(jnp.abs(off) < NEAR), jnp.sum(z == 0)
        _, take = jaxhinge.make_train_step(optimizer(lane), objective)
        return take(state, x, y, subgradient=lane.subgradient, l2=lane.l2)[0], counts

    def change(lane: Lane, state: Any, x: Array, y: Array) -> Array:
        """Both gradients by one vmap: written twice, they may be compiled to different roundings."""
        gradient = jax.vmap(lambda s: jax.grad(objective)(state.params, x, y, subgradient=s, l2=lane.l2))
        both = gradient(jnp.array([0, 1], lane.rate.dtype))
        return optax.tree.norm(jax.tree.map(lambda g: g[1] - g[0], both)) / optax.tree.norm(
            jax.tree.map(lambda g: g[0], both)
        )

    def accuracy(lane: Lane, state: Any, x: Array, y: Array) -> Array:
        return jnp.mean((forward(state.params, x, lane.subgradient, precision)[0] > 0) == (y > 0))

    def run(x: Array, y: Array, start: Any, batches: Array, test: Array, lanes: Lane) -> Runs:
        def body(states: Any, rows: Array) -> tuple[Any, tuple[Array, ...]]:
            batch = x[rows], y[rows]
            changed = over_lanes(change)(*jax.tree.map(lambda leaf: leaf[:1], (lanes, states)), *batch)[0]
            states, counts = over_lanes(step)(lanes, states, *batch)
            moved = jax.tree.map(lambda leaf: leaf - leaf[:1], states.params)
            size, distance = (jax.vmap(jax.vmap(optax.tree.norm))(tree) for tree in (states.params, moved))
            return states, (*counts, changed, distance / size[:1])

        states, history = jax.lax.scan(body, jax.vmap(jax.vmap(begin))(lanes, start), batches)
        return Runs(*history, over_lanes(accuracy)(lanes, states, x[test], y[test]))

    over_seeds = jax.vmap(run, in_axes=(None, None, 0, 0, 0, None))
    return jax.jit(jax.vmap(over_seeds, in_axes=(0, None, None, None, None, None)))


def over_lanes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Choices and optimizers each have their own state and share the batch."""
    return jax.vmap(jax.vmap(function, in_axes=(0, 0, None, None)), in_axes=(0, 0, None, None))


def optimizer(lane: Lane) -> optax.GradientTransformation:
    """Adam, or SGD with momentum, as the lane says: a choice that is a number compiles once for all."""
    adam, momentum = optax.scale_by_adam(), optax.trace(lane.momentum)

    def init(params: Any) -> Any:
        return adam.init(params), momentum.init(params)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        by_adam, adam_state = adam.update(grads, state[0], params)
        by_momentum, trace = momentum.update(grads, state[1], params)
        pick = lambda a, m: -lane.rate * jnp.where(lane.adam == 1, a, m)  # noqa: E731
        return jax.tree.map(pick, by_adam, by_momentum), (adam_state, trace)

    return optax.GradientTransformation(init, update)
