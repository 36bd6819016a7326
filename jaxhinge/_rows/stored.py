"""Sparse rows under a trace: the numbers that are stored, and where they belong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxhinge._rows.columns import added, twice


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["data", "rows", "columns", "centre"],
    meta_fields=["shape", "ones", "pairs"],
)
@dataclass(frozen=True)
class StoredRows:
    """Rows `a_i = (x_i - centre, 1)`, or without the 1. The centre is taken from products, not from the rows.

    Attributes:
      data: `(m,)`, the stored numbers. Those of one place are added up.
      rows: `(m,)`, the row of each.
      columns: `(m,)`, the feature of each.
      shape: `(n, d)`, of x.
      centre: `(d,)`, or None for 0.
      ones: Whether every row ends in a 1.
      pairs: Whether every row stands twice, one after the other: the two sides of a residual. They are not repeated.
    """

    data: jax.Array
    rows: jax.Array
    columns: jax.Array
    shape: tuple[int, int]
    centre: jax.Array | None = None
    ones: bool = False
    pairs: bool = False

    @classmethod
    def of(cls, x: Any, dtype: DTypeLike) -> StoredRows:
        """The rows of a BCOO. What lies beyond its shape is padding; an index below 0 is a mistake, and becomes NaN."""
        n, d = x.shape
        rows, columns = x.indices[:, 0], x.indices[:, 1]
        inside = (rows < n) & (columns < d)
        data = jnp.where(inside, x.data.astype(dtype), 0)
        data = jnp.where((rows < 0) | (columns < 0), jnp.nan, data)
        return cls(data, jnp.where(inside, rows, 0), jnp.where(inside, columns, 0), (n, d))

    @property
    def dtype(self) -> Any:
        """That of the numbers."""
        return self.data.dtype

    @property
    def by_products(self) -> bool:
        """Systems are solved by products with the rows."""
        return True

    def products(self, z: jax.Array) -> jax.Array:
        """`a_i . z` for every row, `(..., n)` for `z` `(..., p)`."""
        if z.ndim > 1:
            return jax.vmap(self.products)(z)
        n, d = self.shape
        w = z[:d]
        found = jnp.zeros_like(z, shape=n).at[self.rows].add(self.data * w[self.columns])
        if self.ones:
            found = found + z[d]
        if self.centre is not None:
            found = found - w @ self.centre
        return twice(found) if self.pairs else found

    def adjoint(self, push: jax.Array) -> jax.Array:
        """`sum_i push_i a_i`, `(..., p)` for `push` `(..., n)`."""
        if push.ndim > 1:
            return jax.vmap(self.adjoint)(push)
        push = added(push) if self.pairs else push
        return self._summed(self.data, push, self.centre)

    def squares(self, weight: jax.Array) -> jax.Array:
        """The diagonal of the weighted Gram matrix, `(p,)`; larger where one place has several numbers."""
        weight = added(weight) if self.pairs else weight
        found = self._summed(self.data * self.data, weight, None)
        if self.centre is None:
            return found
        d = self.shape[1]
        lost = self.centre * (2 * self._summed(self.data, weight, None)[:d] - jnp.sum(weight) * self.centre)
        return found.at[:d].set(jnp.maximum(found[:d] - lost, 0))

    def active(self, weight: jax.Array) -> tuple[StoredRows, jax.Array]:
        """All rows, for their number must be known, and their weights."""
        return self, weight

    def magnitudes(self, z: jax.Array, push: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`|A| z` and `|A|' push`: the scale of what rounding may take from products and sums."""
        centre = None if self.centre is None else -jnp.abs(self.centre)
        sizes = StoredRows(jnp.abs(self.data), self.rows, self.columns, self.shape, centre, self.ones, self.pairs)
        return sizes.products(z), sizes.adjoint(push)

    def _summed(self, data: jax.Array, push: jax.Array, centre: jax.Array | None) -> jax.Array:
        sums, total = jnp.zeros_like(push, shape=self.shape[1]), jnp.sum(push)
        sums = sums.at[self.columns].add(data * push[self.rows])
        if centre is not None:
            sums = sums - total * centre
        return jnp.append(sums, total) if self.ones else sums
