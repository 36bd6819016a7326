r"""The blockwise loss: the mean loss of affine scores, with value and gradient in one pass over the rows.

Plain differentiation of a mean of losses of `x @ w + b` reads the features twice: for the scores, and again for the
gradient. Rows that do not fit the cache come from memory both times, and these two reads take most of the time. But the
mean is a sum over blocks of rows, and so is its gradient:

.. math::
    \nabla \frac1a \sum_i a_i\, \mathrm{loss}(x_i \cdot w + b) = \sum_{\text{blocks}} \nabla \frac1a
    \sum_{i \in \text{block}} a_i\, \mathrm{loss}(x_i \cdot w + b)

so a block is read once, kept in the cache, and differentiated there. Under `vmap` over parameters a block is a factor
of matrix products, whose scores do not leave the cache either.

The result differs by the order of the additions only. So blocks are used where they are faster: for many rows, on CPU,
and where no array can be sharded (a device would have to send its blocks to the others).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from jaxhinge import losses
from jaxhinge._base.arrays import at_least_float32
from jaxhinge._base.sparse import is_sparse
from jaxhinge._objective.sparse import affine as sparse_affine

# Numbers in a block. With half as many, XLA no longer shares a matrix-vector product among its threads; four times as
# many begin to exceed the cache.
_BLOCK = 2**20
# Smallest number of blocks. With fewer, the rows may fit the cache as a whole, and copying the blocks costs more.
_MIN_BLOCKS = 6
# Smallest number of features. With fewer, the losses of the scores take longer than reading the rows.
_MIN_FEATURES = 32
# Smallest number of rows in a block. With fewer, starting the products of a block takes as long as the products.
_MIN_ROWS = 128

# Losses that treat each row by itself, so that they may be given a block of rows.
_BY_ROW = tuple(getattr(losses, name) for name in losses.__all__)

Params = tuple[jax.Array, jax.Array]


class Terms(NamedTuple):
    """The arrays that have one entry for each row.

    Attributes:
      x: `(n, d)`.
      y: `(n,)`.
      weight: `(n,)`, or None where all rows count alike.
    """

    x: jax.Array
    y: jax.Array
    weight: jax.Array | None


class Loss(NamedTuple):
    """A loss and the options on which it branches: hashable, so that they can be a static argument."""

    loss_fn: Callable[..., jax.Array]
    static: tuple[tuple[str, Any], ...]


def affine(w: jax.Array, b: jax.Array, x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """`x @ w + b`, accumulated in float32 at least."""
    if is_sparse(x):
        return sparse_affine(w, b, x, dtype)
    wide = at_least_float32(dtype)
    # A product with one vector takes as long as reading the rows. On a GPU the default precision would round float32 to
    # ten bits for nothing, and copy the rows to do so: 1.0 ms for 0.5 on 2,000,000 x 128.
    precision = jax.lax.Precision.HIGHEST if w.ndim == 1 else None
    scores = jnp.matmul(x, w, precision=precision, preferred_element_type=wide)
    return scores + jnp.broadcast_to(b.astype(wide), scores.shape)


def blockwise_pays(loss_fn: Callable[..., jax.Array], x: jax.Array, options: dict[str, Any]) -> bool:
    """Whether the blockwise loss is right for these arguments, and faster.

    It is wrong for a loss that does not treat each row by itself, and for an option with a number for each row.
    """
    if is_sparse(x) or x.ndim != 2 or not all(isinstance(size, int) for size in x.shape):
        return False
    count = x.size // _BLOCK
    return (
        count >= _MIN_BLOCKS
        and x.shape[1] >= _MIN_FEATURES
        and _MIN_ROWS * count <= x.shape[0] < 2**31
        and any(loss_fn is known for known in _BY_ROW)
        and all(_is_static(name, value) or np.shape(value) == () for name, value in options.items())
        and jax.typeof(x).sharding.mesh.empty
        and jax.sharding.get_abstract_mesh().empty
        and jax.device_count() == 1
    )


def blockwise_mean_loss(
    loss_fn: Callable[..., jax.Array], params: Params, rows: Terms, total: jax.Array, options: dict[str, Any]
) -> jax.Array:
    """`sum_i weight_i loss_fn(x_i @ w + b, y_i) / total`, a scalar in the dtype of `total`.

    Args:
      loss_fn: One of `jaxhinge.losses`.
      params: `(w, b)`, fit for `x`.
      rows: Features, targets and weights.
      total: The sum of the weights.
      options: For `loss_fn`: numbers, and choices such as `ties="first"`. They are not checked here.
    """
    static = tuple((name, value) for name, value in options.items() if _is_static(name, value))
    numbers = {name: jnp.asarray(value) for name, value in options.items() if not _is_static(name, value)}
    return _mean_loss(Loss(loss_fn, static), params, rows, total, numbers)


def _is_static(name: str, value: Any) -> bool:
    """Whether a loss branches on an option: `p` is 1 or 2 in the loss of Weston and Watkins."""
    return name == "p" or value is None or isinstance(value, (str, bool))


def _plainly(loss: Loss, params: Params, rows: Terms, total: jax.Array, numbers: dict[str, jax.Array]) -> jax.Array:
    scores = affine(*params, rows.x, total.dtype)
    values = loss.loss_fn(scores, rows.y, **dict(loss.static), **numbers).astype(total.dtype)
    return jnp.sum(values if rows.weight is None else rows.weight * values) / total


_mean_loss = jax.custom_jvp(_plainly, nondiff_argnums=(0,))


@partial(_mean_loss.defjvp, symbolic_zeros=True)
def _mean_loss_jvp(loss: Loss, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """The derivative along the tangents: their products with the gradient, which reverse mode then returns."""
    leaves, structure = jax.tree.flatten(primals)
    directions = jax.tree.leaves(tangents)
    moving = [i for i, direction in enumerate(directions) if not isinstance(direction, SymbolicZero)]
    num_params = len(primals[0])
    slopes = []
    if moving[:1] and moving[0] < num_params:
        value, gradient = _value_and_gradient(loss, *primals)
        for i in moving:
            if i < num_params:
                slopes.append(jnp.sum(gradient[i].astype(value.dtype) * directions[i].astype(value.dtype)))
    others = [i for i in moving if i >= num_params]
    if others:

        def along(moved: list[jax.Array]) -> jax.Array:
            filled = dict(enumerate(leaves)) | dict(zip(others, moved, strict=True))
            return _plainly(loss, *jax.tree.unflatten(structure, filled.values()))

        value, slope = jax.jvp(along, ([leaves[i] for i in others],), ([directions[i] for i in others],))
        slopes.append(slope)
    return value, sum(slopes[1:], start=slopes[0])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value_and_gradient(loss: Loss, *terms: Any) -> tuple[jax.Array, Params]:
    result: tuple[jax.Array, Params] = _compiled_blocks(loss, *terms)
    return result


@_value_and_gradient.defjvp
def _value_and_gradient_jvp(loss: Loss, primals: Any, tangents: Any) -> Any:
    # Second derivatives are those of the plain formula: the loop would have to keep every block for them.
    return jax.jvp(partial(_at_once, loss), primals, tangents)


# Without a `jit` of its own, every call outside `jit` would compile the loop again.
@partial(jax.jit, static_argnums=0)
def _compiled_blocks(loss: Loss, *terms: Any) -> tuple[jax.Array, Params]:
    result: tuple[jax.Array, Params] = jax.lax.platform_dependent(
        *terms, cpu=partial(_by_blocks, loss), default=partial(_at_once, loss)
    )
    return result


def _at_once(loss: Loss, params: Params, *terms: Any) -> tuple[jax.Array, Params]:
    return jax.value_and_grad(partial(_plainly, loss))(params, *terms)


def _by_blocks(
    loss: Loss, params: Params, rows: Terms, total: jax.Array, numbers: dict[str, jax.Array]
) -> tuple[jax.Array, Params]:
    count = rows.x.size // _BLOCK
    size = rows.x.shape[0] // count
    # Parameters in the dtype of the sums have gradients in it, which are rounded once, after all blocks are added.
    wide = jax.tree.map(lambda leaf: leaf.astype(total.dtype), params)

    def of(part: Terms) -> tuple[jax.Array, Params]:
        return _at_once(loss, wide, part, total, numbers)

    def block(index: jax.Array) -> tuple[jax.Array, Params]:
        return of(jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index * size, size), rows))

    parts = jax.lax.map(block, jnp.arange(count, dtype=jnp.int32))
    value, gradient = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)
    if count * size < rows.x.shape[0]:
        rest = of(jax.tree.map(lambda leaf: leaf[count * size :], rows))
        value, gradient = jax.tree.map(jnp.add, (value, gradient), rest)
    return value, jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), gradient, params)
