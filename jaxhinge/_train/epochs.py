"""The compiled part of `fit`. One call runs any number of epochs, so that the host adds little time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._objective.objective import LinearParams, loss
from jaxhinge._train.batches import Batches, running_mean
from jaxhinge._train.optimizer import default_optimizer, feature_scale
from jaxhinge._train.static import Static, join
from jaxhinge._train.step import Optimizer, TrainState, make_train_step


class Settings(NamedTuple):
    """The static arguments of the compiled program. A number that users vary in a sweep is never one of them.

    Attributes:
      structure: `(optimizer, loss_fn, loss_options)` without their numbers, from `split`.
      batch_size: Rows in a batch.
      regularize_bias: Whether the bias counts in the norm.
      averaging: Whether iterates are averaged.
      history_size: The length of `Carry.history`, at least the number of epochs.
      capacity: Of sparse rows, how many stored numbers a batch may have.
    """

    structure: Static
    batch_size: int
    regularize_bias: bool
    averaging: bool
    history_size: int
    capacity: int | None = None


class TrainingProblem(NamedTuple):
    """The arrays and numbers of a run; new values do not recompile.

    Attributes:
      x: Features `(n, d)`.
      y: Targets or labels `(n,)`.
      weight: `(n,)`, or None.
      target_scale: The unit of the scores: 1, or the standard deviation of real targets.
      l2: The strength of regularisation.
      numbers: The numbers of the optimizer, the loss and its options, from `split`.
      key: The key for the order of the rows.
      epochs: The epochs of the whole run.
      average_from: The epoch from which iterates are averaged.
      tol: The relative progress below which an epoch counts as stale; negative never stops.
      patience: Stale epochs in a row that end the run.
    """

    x: Any
    y: Any
    weight: Any
    target_scale: Any
    l2: Any
    numbers: list[Any]
    key: Any
    epochs: Any
    average_from: Any
    tol: Any
    patience: Any


class Carry(NamedTuple):
    """A run between two epochs, or, with an `epoch` below 0, before its beginning: then only the shapes count.

    Attributes:
      state: The state of the optax step.
      mean: The average of the iterates.
      epoch: Epochs done.
      best: The lowest objective so far.
      stale: Epochs in a row that made no progress.
      history: The objective after each epoch; the first `epoch` entries are filled.
    """

    state: TrainState
    mean: LinearParams
    epoch: Any
    best: Any
    stale: Any
    history: Any


def unbegun(settings: Settings, problem: TrainingProblem, params: LinearParams) -> Carry:
    """A run before its beginning, in NumPy: `run_epochs` begins it, so that one program is compiled and not two."""
    shapes = jax.eval_shape(partial(start, settings), problem, params)
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in jax.tree.leaves(shapes)):
        # NumPy makes no keys, which an optimizer may keep in its state.
        with_keys: Carry = begun(settings, problem, params)
        return with_keys
    placeholder: Carry = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return placeholder._replace(epoch=np.int32(-1))


def start(settings: Settings, problem: TrainingProblem, params: LinearParams) -> Carry:
    """A run before its first epoch."""
    init, _, _, _ = _parts(settings, problem)
    state = init(params)
    zero = jnp.zeros((), jnp.int32)
    dtype = state.params.w.dtype
    # Infinity less a share of infinity is NaN: the first epoch would count as stale, and `jax_debug_infs` would stop.
    best = jnp.asarray(np.finfo(dtype).max, dtype)
    return Carry(state, state.params, zero, best, zero, jnp.zeros(settings.history_size, dtype))


begun = jax.jit(start, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def run_epochs(
    settings: Settings, problem: TrainingProblem, params: LinearParams, carry: Carry, until: ArrayLike
) -> Carry:
    """Epochs up to number `until`, or to the first after which the run has gone stale; it begins at `params`."""
    carry = jax.lax.cond(carry.epoch < 0, lambda: start(settings, problem, params), lambda: carry)
    _, step, objective, batches = _parts(settings, problem)
    options = {"l2": problem.l2}

    shuffled = batches.shuffle(problem.key)
    average_from = problem.average_from * batches.per_epoch if settings.averaging else None

    def epoch(carry: Carry) -> Carry:
        permutation = batches.permutation(problem.key, carry.epoch)

        def batch(carry: tuple[TrainState, LinearParams], rows: tuple[jax.Array, jax.Array]) -> Any:
            state, mean = carry
            state, _ = batches.step(step, state, *rows, options)
            return (state, running_mean(mean, state.params, state.step - 1, average_from)), None

        epoch_rows = jax.vmap(lambda index: batches.rows(shuffled, permutation, index))(jnp.arange(batches.per_epoch))
        (state, mean), _ = jax.lax.scan(batch, (carry.state, carry.mean), epoch_rows)
        params = mean if settings.averaging else state.params
        value = objective(params, batches.x, batches.y, l2=problem.l2, sample_weight=batches.weight)
        value = value.astype(carry.best.dtype)
        progress = value < carry.best - problem.tol * jnp.abs(carry.best)
        stale = jnp.where(progress | (problem.tol < 0), 0, carry.stale + 1)
        history = carry.history.at[carry.epoch].set(value)
        return Carry(state, mean, carry.epoch + 1, jnp.minimum(carry.best, value), stale, history)

    def unfinished(carry: Carry) -> jax.Array:
        return jnp.less(carry.epoch, until) & jnp.less(carry.stale, problem.patience)

    last: Carry = jax.lax.while_loop(unfinished, epoch, carry)
    return last


def _parts(settings: Settings, problem: TrainingProblem) -> tuple[Any, Any, Any, Batches]:
    batches = Batches.of(problem.x, problem.y, problem.weight, settings.batch_size, capacity=settings.capacity)

    def default() -> Optimizer:
        scale = feature_scale(batches.x, batches.weight)
        return default_optimizer(scale, problem.target_scale, problem.epochs * batches.per_epoch)

    return *step_parts(settings.structure, problem.numbers, settings.regularize_bias, default), batches


def step_parts(
    structure: Static, numbers: list[Any], regularize_bias: bool, default: Callable[[], Optimizer]
) -> tuple[Any, Any, Any]:
    """The optax step of a run, `init` and `step`, and its objective; `default()` where no optimizer is given."""
    optimizer, loss_fn, loss_options = join(structure, numbers)
    objective = partial(loss, loss_fn=loss_fn, regularize_bias=regularize_bias, **loss_options)
    init, step = make_train_step(default() if optimizer is None else optimizer, objective)
    return init, step, objective
