"""Rows in memory under a trace: transposed, for XLA's products run along the rows faster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxhinge._rows.gram import blocked, weighted_gram


@partial(jax.tree_util.register_dataclass, data_fields=["features"], meta_fields=["ones", "pairs"])
@dataclass(frozen=True)
class Columns:
    """Rows `a_i` as columns.

    Attributes:
      features: `(d, n)` or `(p, n)`.
      ones: Whether `features` leaves out a last row of ones: a copy of the rows saved.
      pairs: Whether every row stands twice, one after the other: the two sides of a residual. They are not repeated.
    """

    features: jax.Array
    ones: bool = False
    pairs: bool = False

    @property
    def once(self) -> jax.Array:
        """`(p, n)`, the row of ones included, and no row repeated."""
        return jnp.concatenate([self.features, jnp.ones_like(self.features[:1])]) if self.ones else self.features

    @property
    def by_products(self) -> bool:
        """Systems are solved by a matrix of the features, or of the rows."""
        return False

    def kernel(self, *, last: bool) -> jax.Array:
        """The products of all pairs of rows, with or without their last coordinate, `(n, n)`."""
        rows = self.whole if last else self.whole[:-1]
        return rows.T @ rows

    @property
    def whole(self) -> jax.Array:
        """All columns, `(p, n)` or `(p, 2 n)`."""
        return twice(self.once) if self.pairs else self.once

    def products(self, z: jax.Array) -> jax.Array:
        """`a_i . z` for every row, `(..., n)` for `z` `(..., p)`."""
        found = z[..., :-1] @ self.features + z[..., -1:] if self.ones else z @ self.features
        return twice(found) if self.pairs else found

    def adjoint(self, push: jax.Array) -> jax.Array:
        """`sum_i push_i a_i`, `(..., p)` for `push` `(..., n)`."""
        push = added(push) if self.pairs else push
        sums = self.features @ push if push.ndim == 1 else push @ self.features.T
        return jnp.concatenate([sums, jnp.sum(push, axis=-1, keepdims=True)], axis=-1) if self.ones else sums

    def gram(self, weight: jax.Array) -> jax.Array:
        """`sum_i weight_i a_i a_i'`, `(p, p)`."""
        gram: jax.Array = weighted_gram(self.once, added(weight) if self.pairs else weight)
        return gram

    def gram_of_few(self, weight: jax.Array) -> jax.Array:
        """The same for weights of which most are 0; where they are not, an estimate from rows spread evenly over them.

        Rows are gathered into an array of fixed size. Where they may lie on several devices none are, or they would
        travel.
        """
        weight, rows = added(weight) if self.pairs else weight, self.once
        p, n = rows.shape
        room = max(8 * p, n // 8)
        if 2 * room >= n or jax.device_count() > 1:
            gram: jax.Array = weighted_gram(rows, weight)
            return gram
        rank = jnp.cumsum(weight > 0)
        count = rank[-1]
        share = jnp.maximum(count.astype(weight.dtype) / room, 1)
        wanted = (jnp.arange(room).astype(weight.dtype) * share).astype(rank.dtype)
        chosen = jnp.minimum(jnp.searchsorted(rank, wanted + 1), n - 1)
        few = rows[:, chosen]
        return (few * jnp.where(wanted < count, share * weight[chosen], 0)[None, :]) @ few.T

    def magnitudes(self, z: jax.Array, push: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`|A| z` and `|A|' push`: the scale of what rounding may take from products and sums."""
        rows = Columns(jnp.abs(self.features), self.ones, self.pairs)
        return rows.products(z), rows.adjoint(push)

    def astype(self, dtype: DTypeLike) -> Columns:
        """The rows rounded to another precision."""
        return Columns(self.features.astype(dtype), self.ones, self.pairs)

    def prepared(self) -> Columns:
        """The rows in the layout in which their Gram matrix is fastest, where a loop makes it again and again."""
        return _Blocked(self.once, pairs=self.pairs, blocks=blocked(self.once))


@partial(jax.tree_util.register_dataclass, data_fields=["features", "blocks"], meta_fields=["ones", "pairs"])
@dataclass(frozen=True)
class _Blocked(Columns):
    blocks: jax.Array | None = None

    def gram(self, weight: jax.Array) -> jax.Array:
        gram: jax.Array = weighted_gram(self.blocks, added(weight) if self.pairs else weight)
        return gram


def twice(values: jax.Array) -> jax.Array:
    """Every number twice, one after the other."""
    # No gather, which would take rows from device to device.
    return jnp.stack([values, values], axis=-1).reshape(*values.shape[:-1], -1)


def added(values: jax.Array) -> jax.Array:
    """The sums of every two numbers that are next to each other."""
    return jnp.sum(values.reshape(*values.shape[:-1], -1, 2), axis=-1)
