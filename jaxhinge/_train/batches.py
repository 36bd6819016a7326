"""Batches of rows: every row once per epoch, with padding of weight 0."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import float_array
from jaxhinge._base.sparse import is_sparse
from jaxhinge._base.values import host_integer
from jaxhinge._train.sparse import RowStarts, batch_capacity

State = TypeVar("State")
Step = Callable[..., tuple[State, Any]]


class Batches(NamedTuple):
    """The data of a run and how they are cut into batches.

    Attributes:
      x: `(n, ...)`.
      y: `(n, ...)`.
      weight: `(n,)`, or None where all rows count alike.
      size: Rows in a batch.
      per_epoch: Batches in an epoch, the last of which may be partial.
      blocks: The number of equal blocks of neighbouring rows; a batch has as many rows of each.
      starts: Of sparse `x`, where each row begins; None for others, and where every batch is all rows.
    """

    x: Any
    y: jax.Array
    weight: jax.Array | None
    size: int
    per_epoch: int
    blocks: int = 1
    starts: RowStarts | None = None

    @classmethod
    def of(
        cls,
        x: Any,
        y: jax.Array,
        sample_weight: ArrayLike | None,
        batch_size: int,
        blocks: int = 1,
        capacity: int | None = None,
    ) -> Batches:
        """Check the shapes; a `batch_size` above the number of rows means all of them.

        A batch of sparse rows has at most `capacity` stored numbers; None looks for it.
        """
        size = host_integer("batch_size", batch_size, at_least=1, at_most=sys.maxsize)
        if x.ndim == 0 or x.shape[0] == 0:
            raise ValueError(f"x has no rows: shape {x.shape}.")
        if y.shape[:1] != x.shape[:1]:
            raise ValueError(f"y has shape {y.shape}, but x has {x.shape[0]} rows: expected ({x.shape[0]}, ...).")
        weight = None
        if sample_weight is not None:
            weight = float_array("sample_weight", sample_weight)
            if weight.shape != x.shape[:1]:
                raise ValueError(f"sample_weight has shape {weight.shape}, but x has {x.shape[0]} rows.")
        size = min(size, x.shape[0])
        blocks = host_integer("blocks", blocks, at_least=1)
        if x.shape[0] % blocks or size % blocks:
            raise ValueError(
                f"blocks={blocks} must divide the {x.shape[0]} rows of x and the {size} of a batch. "
                "jaxhinge.shard_rows pads rows with weight 0 to a multiple of the devices."
            )
        starts = None
        if is_sparse(x) and size < x.shape[0]:
            starts = RowStarts.of(x, batch_capacity(x, size) if capacity is None else capacity)
        return cls(x, y, weight, size, -(-x.shape[0] // size), blocks, starts)

    @property
    def length(self) -> int:
        """Rows in a block."""
        return int(self.x.shape[0]) // self.blocks

    def shuffle(self, key: jax.Array) -> jax.Array:
        """The rows of each block in a random order, int32, from which the order of every epoch is made."""
        bits = jax.random.bits(key, (self.blocks, self.length), jnp.uint32)
        return jnp.argsort(bits, axis=1).astype(jnp.int32)

    def permutation(self, key: jax.Array, epoch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The permutation of an epoch: `(factor, shift)`, which takes `i` to `factor * i + shift` modulo `n`.

        The factor has no divisor in common with `n`, so this is a permutation. Where rows are short, sorting
        random numbers for each epoch would take longer than the epoch itself.
        """
        n = self.length
        # For a larger factor, `factor * i` would not fit 32 bits.
        factors = np.arange(1, max(2, min(n, 2**32 // n)), dtype=np.uint32)
        factors = factors[np.gcd(factors, n) == 1]
        key_factor, key_shift = jax.random.split(jax.random.fold_in(key, epoch))
        factor = jnp.asarray(factors)[jax.random.randint(key_factor, (), 0, len(factors))]
        return factor, jax.random.randint(key_shift, (), 0, n).astype(jnp.uint32)

    def rows(self, shuffled: jax.Array, permutation: tuple[jax.Array, jax.Array], batch: jax.Array) -> tuple[Any, Any]:
        """The row numbers of a batch within each block, and a mask of the real ones: the others pad the last batch."""
        n, size = jnp.uint32(self.length), self.size // self.blocks
        places = batch.astype(jnp.uint32) * jnp.uint32(size) + jnp.arange(size, dtype=jnp.uint32)
        factor, shift = permutation
        mixed = (places % n * factor % n + shift) % n
        # Without the barrier XLA recomputes the row number for every gathered feature.
        rows = jax.lax.optimization_barrier(shuffled[:, mixed.astype(jnp.int32)])  # type: ignore[no-untyped-call]
        return rows, places < n

    def step(
        self, step: Step[State], state: State, rows: jax.Array, real: jax.Array, options: dict[str, Any]
    ) -> tuple[State, Any]:
        """One step on these rows; those that are not real have weight 0."""
        x, y = self._features(rows), self._taken(self.y, rows)
        real = jnp.tile(real, self.blocks)
        if self.weight is None and self.size * self.per_epoch == self.x.shape[0]:
            return step(state, x, y, **options)
        if self.weight is None:
            return step(state, x, y, sample_weight=real.astype(jnp.float32), **options)
        weight = jnp.where(real, self._taken(self.weight, rows), 0)
        # Where all weights are 0 their mean is not defined: weights of 1 stand in, and the new state is dropped.
        empty = jnp.sum(weight) == 0
        new, metrics = step(state, x, y, sample_weight=jnp.where(empty, 1, weight), **options)
        return jax.tree.map(lambda old, new: jnp.where(empty, old, new), state, new), metrics

    def _features(self, rows: jax.Array) -> Any:
        """The features of these rows."""
        if self.starts is None:
            return self._taken(self.x, rows)
        first = self.length * jnp.arange(self.blocks, dtype=rows.dtype)
        return self.starts.take((rows + first[:, None]).reshape(-1))

    def _taken(self, values: jax.Array, rows: jax.Array) -> jax.Array:
        """The values of these rows. Each block takes its own, so that no row leaves the device that holds the block."""
        if self.per_epoch == 1:
            return values  # the batch is all rows, and their order does not matter
        if self.blocks == 1:
            return values[rows[0]]
        blocks = values.reshape(self.blocks, self.length, *values.shape[1:])
        taken: jax.Array = jax.vmap(lambda block, numbers: block[numbers])(blocks, rows)
        return taken.reshape(-1, *values.shape[1:])


def running_mean(mean: Any, params: Any, index: jax.Array, start: ArrayLike | None) -> Any:
    """The mean of the iterates numbered `start..index`; before `start`, the iterate itself."""
    if start is None:
        return mean
    count = jnp.maximum(index - jnp.asarray(start), 0) + 1
    return jax.tree.map(lambda old, new: old + (new - old) / count.astype(new.dtype), mean, params)
