r"""The optimizer that `fit` uses when none is given.

Adam rescales each coordinate of the gradient by its root mean square. For an affine model the whole
second moment `G = E[g g^T]` over the `d + 1` rows of the parameters is affordable, and its inverse
root makes the noise of the gradient equal in every direction, not only along the axes:

    m <- b m + (1 - b) g,    theta <- theta - rate(t) G^{-1/2} m

Full-matrix AdaGrad (Duchi, Hazan and Singer, JMLR 2011) with a forgetting average, the root taken
rarely (Shampoo: Gupta, Koren and Singer, ICML 2018). Near a solution the rows beyond the margin
have no gradient, so `G` is the covariance of the rows that still matter. Everything happens in the
coordinates of standardised features, so units and offsets of the features do not matter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxhinge._base.arrays import at_least_float32
from jaxhinge._base.sparse import is_sparse
from jaxhinge._objective.objective import LinearParams
from jaxhinge._train.step import Optimizer

# Largest number of rows of a matrix `G`. Beyond it only the diagonal is kept, as in Adam: the root would take too long.
_MAX_MATRIX = 160
# Number of times that the root of `G` is computed in a run: after 1/2, 1/4, 1/8, ... of the steps.
_ROOTS = 6
# Newton-Schulz iterations for one root. Each multiplies the root of a small eigenvalue by 1.5, until it has converged.
_REFINEMENTS = 16
# Length of a run, in standard units times `sqrt(num_steps)`. Of 0.6, 1, 1.5, 2, 3 and 5, 2 was the best compromise on
# breast cancer and the digits, l2 from 1e-4 to 1e-2, 10 and 100 passes.
_REACH = 2.0


class FeatureScale(NamedTuple):
    """Mean and spread of the features.

    Attributes:
      mean: `(d,)`.
      spread: `(d,)`, 1 for a constant feature.
    """

    mean: jax.Array
    spread: jax.Array


class _State(NamedTuple):
    steps: jax.Array
    momentum: jax.Array
    moment: jax.Array
    root: jax.Array


def feature_scale(x: Any, weight: jax.Array | None) -> FeatureScale:
    """Weighted mean and standard deviation of the features `(n, d)`, which may be a BCOO without duplicates."""
    x = x.astype(at_least_float32(x.dtype))
    weight = jnp.ones(x.shape[0], x.dtype) if weight is None else weight.astype(x.dtype)
    share = weight / jnp.sum(weight)
    if is_sparse(x):
        rows, columns = x.indices[:, 0], x.indices[:, 1]
        none, stored = jnp.zeros(x.shape[1], x.dtype), share.at[rows].get(mode="fill", fill_value=0)
        mean = none.at[columns].add(stored * x.data, mode="drop")
        squares = stored * (x.data - mean.at[columns].get(mode="fill", fill_value=0)) ** 2
        # What is not stored is 0, and as far from the mean as the mean is large.
        absent = jnp.maximum(0, 1 - none.at[columns].add(stored, mode="drop"))
        variance = none.at[columns].add(squares, mode="drop") + absent * mean**2
    else:
        mean = share @ x
        variance = share @ (x - mean[None]) ** 2
    # The computed spread of a constant feature is rounding, some eps times its mean. Divided by it,
    # the feature would be noise.
    eps = float(np.finfo(np.dtype(x.dtype)).eps)
    constant = variance <= (64 * eps * jnp.abs(mean)) ** 2
    return FeatureScale(mean, jnp.sqrt(jnp.where(constant, 1, variance)))


def default_optimizer(scale: FeatureScale, target_scale: jax.Array, num_steps: jax.Array) -> Optimizer:
    """Preconditioned momentum in standardised coordinates, for `LinearParams`.

    Args:
      scale: From `feature_scale`.
      target_scale: The size of the scores: 1 for a margin, the spread of the targets of a regression.
      num_steps: The number of steps of the whole run, which may be traced. The step size is
        proportional to `1 / sqrt(num_steps)` and falls along half a cosine.
    """
    num_rows = scale.mean.shape[0] + 1
    full = num_rows <= _MAX_MATRIX
    length = jnp.asarray(num_steps).astype(scale.mean.dtype)
    decay = 1 - 1 / jnp.clip(length / 60, 5, 20)
    rate = _REACH * jnp.asarray(target_scale).astype(length.dtype) / jnp.sqrt(length)

    def init(params: LinearParams) -> _State:
        zeros = jnp.zeros_like(_to_standard(params, scale))
        identity = jnp.eye(num_rows, dtype=zeros.dtype) if full else zeros + 1
        return _State(jnp.zeros((), jnp.int32), zeros, identity, identity)

    def update(grads: LinearParams, state: _State, params: Any = None) -> tuple[LinearParams, _State]:
        del params
        gradient = _to_standard(grads, scale)
        steps = state.steps + 1
        # `moment` is an average over about the last third of the steps so far.
        square = _outer(gradient) if full else gradient**2
        moment = state.moment + 3 / (steps + 2).astype(square.dtype) * (square - state.moment)
        direction = state.root @ gradient if full else state.root * gradient
        # `root` is out of date: without the limit, one row unlike those before could make a huge step.
        limit = num_rows**0.5 / jnp.maximum(jnp.linalg.norm(direction), 1e-30)
        momentum = decay * state.momentum + (1 - decay) * jnp.minimum(1, limit) * direction
        root = jax.lax.cond(
            _is_root_step(steps, num_steps), lambda: _inverse_root(moment, steps, num_rows), lambda: state.root
        )
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(1, state.steps.astype(length.dtype) / length)))
        return _from_standard(-rate * cosine * momentum, scale, grads), _State(steps, momentum, moment, root)

    transformation: Optimizer = optax.GradientTransformation(init, update)
    return transformation


def _outer(gradient: jax.Array) -> jax.Array:
    # With one column the product is elementwise, and XLA fuses it into the average; a matrix product is a call.
    return gradient * gradient.T if gradient.shape[1] == 1 else gradient @ gradient.T


def _is_root_step(steps: jax.Array, num_steps: jax.Array) -> jax.Array:
    marks = jnp.maximum(1, num_steps >> jnp.arange(1, _ROOTS + 1))
    return jnp.any(steps == marks)


def _inverse_root(moment: jax.Array, steps: jax.Array, num_rows: int) -> jax.Array:
    # `floor`: share of the average moment that every direction is given. After fewer steps than
    # directions, some have had no gradient; without it their first would be magnified without bound.
    floor = jnp.maximum(1e-4, 0.03 * num_rows / steps.astype(moment.dtype))
    if moment.shape != (num_rows, num_rows):
        return 1 / jnp.sqrt(moment + floor * jnp.mean(moment) + 1e-30)
    identity = jnp.eye(num_rows, dtype=moment.dtype)
    moment = moment + (floor * jnp.trace(moment) / num_rows + 1e-30) * identity
    # Newton-Schulz (Higham, Functions of Matrices, 2008, eq. 6.35). LAPACK's eigh takes as long by
    # itself, but its threads and XLA's fight for the cores: 10 times as long inside this loop.
    size = jnp.trace(moment)  # not the norm, whose squares would underflow where gradients vanish

    def refine(_: int, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        root, inverse = pair
        correction = 1.5 * identity - 0.5 * (inverse @ root)
        return root @ correction, correction @ inverse

    inverse: jax.Array = jax.lax.fori_loop(0, _REFINEMENTS, refine, (moment / size, identity))[1]
    return inverse / jnp.sqrt(size)


def _to_standard(grads: LinearParams, scale: FeatureScale) -> jax.Array:
    """The gradient in the coordinates `(spread * w, b + mean . w)`: a row per feature and one for the bias."""
    columns = max(1, jnp.size(grads.b))
    w, b = jnp.reshape(grads.w, (-1, columns)), jnp.reshape(grads.b, (1, columns))
    return jnp.concatenate([(w - scale.mean[:, None] * b) / scale.spread[:, None], b])


def _from_standard(step: jax.Array, scale: FeatureScale, like: LinearParams) -> LinearParams:
    """A step in those coordinates as one of `(w, b)`."""
    w = step[:-1] / scale.spread[:, None]
    b = step[-1] - scale.mean @ w
    return LinearParams(jnp.reshape(w, like.w.shape), jnp.reshape(b, like.b.shape))
