r"""The mean loss of affine scores, with its value and gradient in one pass over the rows.

Differentiated as it is written, a mean of losses of `x @ w + b` reads the features twice: for the scores and then,
all of them known, for the gradient. Rows that do not fit the cache come from memory both times, and nothing else takes
as long. But the mean is a sum over blocks of rows, and so is its gradient:

.. math::
    \nabla \frac1a \sum_i a_i\, \mathrm{loss}(x_i \cdot w + b) = \sum_{\text{blocks}} \nabla \frac1a
    \sum_{i \in \text{block}} a_i\, \mathrm{loss}(x_i \cdot w + b)

so a block is read once, kept in the cache, and differentiated there. Under `vmap` over parameters the blocks become
matrix products whose scores never leave the cache either.

The order of the additions is all that differs, so it is done only where it pays: for many rows, on CPU, and where no
array can be sharded, as the blocks of one device would have to be sent to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from jaxhinge import losses

# Numbers in a block of rows: enough for XLA to share a matrix-vector product among its threads, few enough for a cache.
# Half as many lose the threads, four times as many begin to lose the cache.
_BLOCK = 2**20
# With fewer blocks the rows may fit the cache as a whole, and the copies of the blocks do not pay.
_MIN_BLOCKS = 6
# Narrower rows spend their time on the scores, and a block of fewer rows on starting its products.
_MIN_FEATURES, _MIN_ROWS = 32, 128

# Losses known to look at each row by itself.
_BY_ROW = tuple(getattr(losses, name) for name in losses.__all__)

Params = tuple[jax.Array, jax.Array]


class Terms(NamedTuple):
    """What there is one of for each row.

    Attributes:
      x: `(n, d)`.
      y: `(n,)`.
      weight: `(n,)`, or None where all rows count alike.
    """

    x: jax.Array
    y: jax.Array
    weight: jax.Array | None


class Loss(NamedTuple):
    """A loss per row and those of its options that are no numbers; hashable, to be known while compiling."""

    loss_fn: Callable[..., jax.Array]
    words: tuple[tuple[str, Any], ...]


def affine(w: jax.Array, b: jax.Array, x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """`x @ w + b`, accumulated in float32 at least."""
    wide = jnp.promote_types(dtype, jnp.float32)
    scores = jnp.matmul(x, w, preferred_element_type=wide)
    return scores + jnp.broadcast_to(b.astype(wide), scores.shape)


def pays(loss_fn: Callable[..., jax.Array], x: jax.Array, options: dict[str, Any]) -> bool:
    """Whether these rows are worth the one pass, and may be taken in blocks.

    A loss that is not known to go row by row could see the blocks, and so could an option with a number for each row.
    """
    if x.ndim != 2 or not all(isinstance(size, int) for size in x.shape):
        return False
    count = x.size // _BLOCK
    return (
        count >= _MIN_BLOCKS
        and x.shape[1] >= _MIN_FEATURES
        and _MIN_ROWS * count <= x.shape[0] < 2**31
        and any(loss_fn is known for known in _BY_ROW)
        and all(_is_word(value) or jnp.shape(value) == () for value in options.values())
        and jax.typeof(x).sharding.mesh.empty
        and jax.sharding.get_abstract_mesh().empty
        and jax.device_count() == 1
    )


def mean_loss(
    loss_fn: Callable[..., jax.Array], params: Params, rows: Terms, total: jax.Array, options: dict[str, Any]
) -> jax.Array:
    """`sum_i weight_i loss_fn(x_i @ w + b, y_i) / total`, a scalar in the dtype of `total`.

    Args:
      loss_fn: One of `jaxhinge.losses`.
      params: `(w, b)`, fit for `x`.
      rows: Features, targets and weights.
      total: The sum of the weights.
      options: For `loss_fn`: numbers, and words such as `ties="first"`. They are not checked here.
    """
    words = tuple((name, value) for name, value in options.items() if _is_word(value))
    numbers = {name: jnp.asarray(value) for name, value in options.items() if not _is_word(value)}
    return _mean_loss(Loss(loss_fn, words), params, rows, total, numbers)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool))


def _plainly(loss: Loss, params: Params, rows: Terms, total: jax.Array, numbers: dict[str, jax.Array]) -> jax.Array:
    scores = affine(*params, rows.x, total.dtype)
    values = loss.loss_fn(scores, rows.y, **dict(loss.words), **numbers).astype(total.dtype)
    return jnp.sum(values if rows.weight is None else rows.weight * values) / total


_mean_loss = jax.custom_jvp(_plainly, nondiff_argnums=(0,))


@partial(_mean_loss.defjvp, symbolic_zeros=True)
def _mean_loss_jvp(loss: Loss, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """The slope along the tangents; its transpose, taken by JAX, hands on the gradient as it is."""
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
    # Second derivatives are those of the plain formula: a loop would keep every block for them.
    return jax.jvp(partial(_at_once, loss), primals, tangents)


# Compiled by itself, or every call outside `jit` would compile its loop again.
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
    # Differentiated in the dtype of the sums, the gradient is rounded to that of the parameters once, at the end.
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
