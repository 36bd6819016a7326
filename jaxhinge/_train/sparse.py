"""Minibatches of sparse rows: the stored numbers of a batch, in as many places as any batch may need."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.sparse import csr_of, is_bcoo
from jaxhinge._objective.sparse import bcoo_of, sparse_features


class RowStarts(NamedTuple):
    """Where each row of a BCOO begins among its stored numbers, which are in the order of the rows.

    Attributes:
      data: `(stored,)`.
      columns: `(stored,)`.
      start: `(n,)`.
      length: `(n,)`, the stored numbers of each row.
      capacity: How many numbers any batch may have.
      num_features: d.
    """

    data: jax.Array
    columns: jax.Array
    start: jax.Array
    length: jax.Array
    capacity: int
    num_features: int

    @classmethod
    def of(cls, x: Any, capacity: int) -> RowStarts:
        """The rows of a BCOO `(n, d)`. Its padding, which lies outside of its shape, comes last and is in no row."""
        data, rows, columns = x.data, x.indices[:, 0], x.indices[:, 1]
        if not len(data):
            # Nothing can be taken from an empty array, not even a default: a number outside of the shape stands in.
            n, d = x.shape
            data, rows, columns = jnp.zeros(1, data.dtype), jnp.full(1, n, rows.dtype), jnp.full(1, d, rows.dtype)
        if not x.indices_sorted:
            order = jnp.argsort(rows)
            data, rows, columns = data[order], rows[order], columns[order]
        length = jnp.zeros(x.shape[0], jnp.int32).at[rows].add(1, mode="drop")
        return cls(data, columns, jnp.cumsum(length) - length, length, capacity, x.shape[1])

    def take(self, rows: jax.Array) -> Any:
        """The rows `(batch,)` as a BCOO `(batch, d)`; the places that are left over lie outside of its shape."""
        from jax.experimental.sparse import BCOO

        size, places = len(rows), jnp.arange(self.capacity, dtype=jnp.int32)
        ends = jnp.cumsum(self.length[rows])
        row = jnp.searchsorted(ends, places, side="right").astype(jnp.int32)
        # A place past the last number has row `size`, and is dropped wherever it is used.
        before = ends - self.length[rows]
        source = (self.start[rows] - before).at[row].get(mode="fill", fill_value=0) + places
        inside = row < size
        data = jnp.where(inside, self.data.at[source].get(mode="fill", fill_value=0), 0)
        column = jnp.where(inside, self.columns.at[source].get(mode="fill", fill_value=0), self.num_features)
        indices = jnp.stack([row, column.astype(jnp.int32)], axis=1)
        return BCOO((data, indices), shape=(size, self.num_features), indices_sorted=True)


def batch_capacity(x: Any, batch_size: int) -> int:
    """The stored numbers of the `batch_size` longest rows: no batch has more.

    Where `x` is traced its rows may be anything, and a batch has room for all of them: every step costs as much as one
    over all rows.
    """
    n, stored = x.shape[0], int(x.data.shape[0])
    if batch_size >= n or isinstance(x.indices, jax.core.Tracer):
        return stored
    length = np.bincount(np.asarray(x.indices)[:, 0], minlength=n)[:n]
    return max(1, int(np.sort(length)[n - batch_size :].sum()))


def sparse_rows(x: Any) -> Any:
    """Sparse features of `train`, of SciPy or of JAX, as a BCOO of floats; where they are not traced, in order."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x)):
        return sparse_features("x", x, traced=True)
    found = bcoo_of(csr_of("x", x))
    return found.astype(x.dtype) if is_bcoo(x) and jnp.issubdtype(x.dtype, jnp.floating) else found
