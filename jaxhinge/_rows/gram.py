"""Weighted Gram matrices of rows under a trace, `sum_i weight_i a_i a_i'`, laid out for XLA."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

# Narrow rows are multiplied as a batch of blocks of `_BLOCK` rows: XLA's CPU backend runs the blocks in parallel, where
# one long thin product uses one core (106,496 x 51: 7 ms for 22 ms in float32).
_BLOCK = 128
_NARROW = 128
# `_FEW`: arrays of fewer numbers are multiplied at once.
_FEW = 250_000
# `_CHUNK`: arrays of more numbers are multiplied in chunks of so many, whose weighted copy fits the cache.
_CHUNK = 1_400_000


def blocked(rows: jax.Array) -> jax.Array:
    """`rows` whole, or as `(blocks, p, n / blocks)` where one chunk holds them all: the others are blocked as they go.

    No block may lie on two devices, or it would travel: how many share the rows is not known here, but they are a
    divisor of all there are.
    """
    p, n = rows.shape
    one_chunk = p < _NARROW and _FEW < p * n <= _CHUNK
    return _blocks_of(rows) if one_chunk and n % (_BLOCK * jax.device_count()) == 0 else rows


def _blocks_of(rows: jax.Array) -> jax.Array:
    return rows.reshape(len(rows), -1, _BLOCK).swapaxes(0, 1)


@custom_vmap
def weighted_gram(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """`rows @ diag(weight) @ rows.T`, for `rows` whole `(p, n)` or in blocks `(blocks, p, n / blocks)`."""
    if rows.ndim == 3:
        return _gram_of_blocks(rows, weight)
    p, n = rows.shape
    if p >= _NARROW or p * n <= _CHUNK or n % jax.device_count():
        return _gram_at_once(rows, weight)
    gram: jax.Array = jax.lax.platform_dependent(rows, weight, cpu=_gram_by_chunks, default=_gram_at_once)
    return gram


def _gram_at_once(rows: jax.Array, weight: jax.Array) -> jax.Array:
    return (rows * weight[None, :]) @ rows.T


def _gram_by_chunks(rows: jax.Array, weight: jax.Array) -> jax.Array:
    (p, n), devices = rows.shape, jax.device_count()
    # What lies on one device stays there: every chunk has a part of each.
    parts, weights = rows.reshape(p, devices, -1), weight.reshape(devices, -1)
    size = _BLOCK * max(1, _CHUNK // (p * _BLOCK * devices))

    def add(index: jax.Array, gram: jax.Array) -> jax.Array:
        some, by = (jax.lax.dynamic_slice_in_dim(part, index * size, size, axis=-1) for part in (parts, weights))
        return gram + _gram_of_chunk(some, by)

    number, left = divmod(n // devices, size)
    # A sum that varies over the axes of a `shard_map` as the rows do.
    zero = 0 * jnp.isnan(rows[:, :1] + rows[:, :1].T + weight[0]).astype(rows.dtype)
    gram: jax.Array = jax.lax.fori_loop(0, number, add, zero)
    return gram + _gram_of_chunk(parts[..., n // devices - left :], weights[..., n // devices - left :])


def _gram_of_chunk(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """Of `(p, devices, m)` and `(devices, m)`: in blocks, and what is left."""
    p, _, size = rows.shape
    end = size - size % _BLOCK
    rest = rows[..., end:].reshape(p, -1)
    gram = (rest * weight[..., end:].reshape(1, -1)) @ rest.T
    return gram + _gram_of_blocks(_blocks_of(rows[..., :end]), weight[..., :end])


def _gram_of_blocks(rows: jax.Array, weight: jax.Array) -> jax.Array:
    blocks, _, size = rows.shape
    return jnp.sum(jnp.einsum("bpi,bqi->bpq", rows * weight.reshape(blocks, 1, size), rows), axis=0)


@weighted_gram.def_vmap
def _weighted_grams(axis_size: int, batched: list[bool], rows: jax.Array, weight: jax.Array) -> tuple[jax.Array, bool]:
    """One after the other where the rows are shared: a batch would write a weighted copy of the rows for each."""
    if batched[0]:
        axes = tuple(0 if b else None for b in batched)
        return jax.vmap(weighted_gram.fun, in_axes=axes, axis_size=axis_size)(rows, weight), True
    return jax.lax.map(lambda one: weighted_gram(rows, one), weight), True
