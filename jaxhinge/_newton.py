r"""The linear system of an interior-point step, `(P + A' D A) dz = rhs`, by its features or by its rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxhinge._certificate import Program
from jaxhinge._cholesky import cholesky
from jaxhinge._precision import eps

# Above this many numbers, narrow data are multiplied as a batch of row blocks: XLA's CPU backend runs the blocks in
# parallel, where one long thin product uses one core (106,496 x 51: 5 ms for 18 ms in float32).
_BLOCK_THRESHOLD = 2_000_000
_BLOCK_ROWS = 512
_NARROW = 128


class NewtonSystem(NamedTuple):
    """How to factor `P + A' D A` for a given D, and how to solve with the factor for one right-hand side."""

    factor: Callable[[jax.Array], Any]
    solve: Callable[[Any, jax.Array], jax.Array]


def by_features(program: Program) -> Callable[[jax.Array | bool], NewtonSystem]:
    """The p x p system itself; where `quick`, which may be traced, its matrix product is made in float32."""
    low = _blocked(program.at.astype(jnp.float32))
    # The float64 product is seldom made: it is not worth a second copy of the rows in blocks.
    full = program.at

    def solve(factored: tuple[jax.Array, jax.Array], rhs: jax.Array) -> jax.Array:
        root, scale = factored
        return scale * jax.scipy.linalg.cho_solve((root, True), scale * rhs)

    def system(quick: jax.Array | bool) -> NewtonSystem:
        return NewtonSystem(partial(factor, quick), solve)

    def factor(quick: jax.Array | bool, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        factored: tuple[jax.Array, jax.Array] = jax.lax.cond(
            quick, partial(_unit_factor, program, low), partial(_unit_factor, program, full), weight
        )
        return factored

    return system


def _blocked(at: jax.Array) -> jax.Array:
    """`at` whole, or as `(blocks, p, n / blocks)` where that is faster."""
    p, n = at.shape
    blocks = n // _BLOCK_ROWS if p < _NARROW and p * n > _BLOCK_THRESHOLD and n % _BLOCK_ROWS == 0 else 1
    return at.reshape(p, blocks, -1).swapaxes(0, 1) if blocks > 1 else at


def _unit_factor(program: Program, rows: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Cholesky factor of the system scaled to a unit diagonal, and that scale."""
    dtype = rows.dtype
    hessian = _weighted_product(rows, weight.astype(dtype)).astype(weight.dtype) + jnp.diag(program.penalty)
    scale = jax.lax.rsqrt(jnp.diag(hessian))
    # What rounding may take from a unit diagonal: a product of duplicate columns would have no Cholesky factor.
    jitter = 4 * eps(dtype) * jnp.eye(len(scale), dtype=weight.dtype)
    unit = hessian * scale[:, None] * scale[None, :] + jitter
    return cholesky(unit.astype(dtype)).astype(weight.dtype), scale


def _weighted_product(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """`at @ diag(weight) @ at.T`, for `at` whole `(p, n)` or in blocks `(blocks, p, n / blocks)`."""
    if rows.ndim == 2:
        return (rows * weight[None, :]) @ rows.T
    blocks = rows.shape[0]
    return jnp.sum(jnp.einsum("bpi,bqi->bpq", rows * weight.reshape(blocks, 1, -1), rows), axis=0)


def by_rows(program: Program) -> NewtonSystem:
    """An n x n system instead (Woodbury), for more features than rows.

    With `t = D A dz` and K = A_w P_w^-1 A_w', the penalised coordinates are eliminated, which leaves
    `(1 + D^(1/2) K D^(1/2)) D^(-1/2) t = D^(1/2) (A_w P_w^-1 rhs_w + a_b db)` and one equation for a free bias.
    """
    penalised = program.at[:-1] if program.free_bias else program.at
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
        side = program.at[-1]
        response = rows_solve(side)
        db = (rhs[-1] - side @ t) / (side @ response)
        return jnp.append((head - penalised @ (t + db * response)) / penalty, db)

    return NewtonSystem(factor, solve)
