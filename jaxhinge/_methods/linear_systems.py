r"""The linear system of an interior-point step, `(P + A' D A) dz = rhs`, by its features or by its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxhinge._base.precision import eps
from jaxhinge._methods.certificate import Program
from jaxhinge._methods.cholesky import cholesky

# Narrow data are multiplied as a batch of blocks of so many rows: XLA's CPU backend runs the blocks in parallel, where
# one long thin product uses one core (106,496 x 51: 7 ms for 22 ms in float32).
_BLOCK = 128
_NARROW = 128
# Above the first many numbers; and the second many at a time, or the weighted copy falls out of the cache.
_FEW = 250_000
_CHUNK = 1_400_000


class NewtonSystem(NamedTuple):
    """How to factor `P + A' D A` for a given D, and how to solve with the factor for one right-hand side."""

    factor: Callable[[jax.Array], Any]
    solve: Callable[[Any, jax.Array], jax.Array]


def by_features(program: Program) -> NewtonSystem:
    """The p x p system itself, in the precision of the program."""
    rows = _blocked(program.columns)

    def factor(weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        gram = weighted_gram(rows, weight * program.sign * program.sign)
        return factored(gram + jnp.diag(program.penalty), eps(weight.dtype))

    return NewtonSystem(factor, solved)


def factored(hessian: jax.Array, rounding: float) -> tuple[jax.Array, jax.Array]:
    """The Cholesky factor of the system scaled to a unit diagonal, known to a relative `rounding`; and that scale."""
    scale = jax.lax.rsqrt(jnp.diag(hessian))
    # What rounding may take from a unit diagonal: a product of duplicate columns would have no Cholesky factor.
    jitter = max(4, len(scale) / 2) * rounding * jnp.eye(len(scale), dtype=hessian.dtype)
    return cholesky(hessian * scale[:, None] * scale[None, :] + jitter), scale


def solved(factor: tuple[jax.Array, jax.Array], rhs: jax.Array) -> jax.Array:
    """The solution for one right-hand side."""
    root, scale = factor
    solution: jax.Array = scale * jax.scipy.linalg.cho_solve((root, True), scale * rhs)
    return solution


def _blocked(rows: jax.Array) -> jax.Array:
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


def by_rows(program: Program) -> NewtonSystem:
    """An n x n system instead (Woodbury), for more features than rows.

    With `t = D A dz` and K = A_w P_w^-1 A_w', the penalised coordinates are eliminated, which leaves
    `(1 + D^(1/2) K D^(1/2)) D^(-1/2) t = D^(1/2) (A_w P_w^-1 rhs_w + a_b db)` and one equation for a free bias.
    """
    at = program.at
    penalised = at[:-1] if program.free_bias else at
    penalty = program.penalty[: len(penalised)]
    kernel = penalised.T @ (penalised / penalty[:, None])

    def factor(weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        scale = jnp.sqrt(weight)
        unit = jnp.eye(len(scale), dtype=kernel.dtype) + kernel * scale[:, None] * scale[None, :]
        return cholesky(unit), scale

    def solve(factored: tuple[jax.Array, jax.Array], rhs: jax.Array) -> jax.Array:
        root, scale = factored

        def rows_solve(value: jax.Array) -> jax.Array:
            return scale * jax.scipy.linalg.cho_solve((root, True), scale * value)

        head = rhs[: len(penalised)]
        t = rows_solve((head / penalty) @ penalised)
        if not program.free_bias:
            return (head - penalised @ t) / penalty
        side = at[-1]
        response = rows_solve(side)
        db = (rhs[-1] - side @ t) / (side @ response)
        return jnp.append((head - penalised @ (t + db * response)) / penalty, db)

    return NewtonSystem(factor, solve)
