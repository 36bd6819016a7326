r"""The linear system of an interior-point step, `(P + A' D A) dz = rhs`, by its features or by its rows."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxhinge._certificate import Program
from jaxhinge._precision import eps

# Above this many numbers, narrow data are multiplied as a batch of row blocks: XLA's CPU backend runs the blocks in
# parallel, where one long thin product uses one core (106,496 x 51: 5 ms for 18 ms in float32).
_BLOCK_THRESHOLD = 2_000_000
_BLOCK_ROWS = 512
_NARROW = 128


def by_features(program: Program, dtype: DTypeLike) -> Callable[[jax.Array], Callable[[jax.Array], jax.Array]]:
    """Factor the p x p system, its matrix product in `dtype`; the diagonal is scaled to 1 first."""
    at = program.at.astype(dtype)
    p, n = at.shape
    blocks = n // _BLOCK_ROWS if p < _NARROW and p * n > _BLOCK_THRESHOLD and n % _BLOCK_ROWS == 0 else 1
    rows = at.reshape(p, blocks, -1).swapaxes(0, 1) if blocks > 1 else at
    # What rounding adds to a unit diagonal; without it a product of duplicate columns has no Cholesky factor.
    jitter = 4 * eps(dtype)

    def factor(weight: jax.Array) -> Callable[[jax.Array], jax.Array]:
        hessian = _weighted_product(rows, weight.astype(dtype)).astype(weight.dtype) + jnp.diag(program.penalty)
        scale = jax.lax.rsqrt(jnp.diag(hessian))
        unit = hessian * scale[:, None] * scale[None, :] + jitter * jnp.eye(p, dtype=hessian.dtype)
        root = jnp.linalg.cholesky(unit.astype(dtype))

        def solve(rhs: jax.Array) -> jax.Array:
            scaled = (scale * rhs).astype(dtype)
            return scale * jax.scipy.linalg.cho_solve((root, True), scaled).astype(rhs.dtype)

        return solve

    return factor


def _weighted_product(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """`at @ diag(weight) @ at.T`, for `at` whole `(p, n)` or in blocks `(blocks, p, n / blocks)`."""
    if rows.ndim == 2:
        return (rows * weight[None, :]) @ rows.T
    blocks = rows.shape[0]
    return jnp.sum(jnp.einsum("bpi,bqi->bpq", rows * weight.reshape(blocks, 1, -1), rows), axis=0)


def by_rows(program: Program) -> Callable[[jax.Array], Callable[[jax.Array], jax.Array]]:
    """Factor an n x n system instead (Woodbury), for more features than rows.

    With `t = D A dz` and K = A_w P_w^-1 A_w', the penalised coordinates are eliminated, which leaves
    `(1 + D^(1/2) K D^(1/2)) D^(-1/2) t = D^(1/2) (A_w P_w^-1 rhs_w + a_b db)` and one equation for a free bias.
    """
    penalised = program.at[:-1] if program.free_bias else program.at
    penalty = program.penalty[: len(penalised)]
    kernel = penalised.T @ (penalised / penalty[:, None])
    n = kernel.shape[0]

    def factor(weight: jax.Array) -> Callable[[jax.Array], jax.Array]:
        root_weight = jnp.sqrt(weight)
        unit = jnp.eye(n, dtype=kernel.dtype) + kernel * root_weight[:, None] * root_weight[None, :]
        root = jnp.linalg.cholesky(unit)

        def rows_solve(rhs: jax.Array) -> jax.Array:
            return root_weight * jax.scipy.linalg.cho_solve((root, True), root_weight * rhs)

        def solve(rhs: jax.Array) -> jax.Array:
            head = rhs[: len(penalised)]
            t = rows_solve((head / penalty) @ penalised)
            if not program.free_bias:
                return (head - penalised @ t) / penalty
            side = program.at[-1]
            response = rows_solve(side)
            db = (rhs[-1] - side @ t) / (side @ response)
            return jnp.append((head - penalised @ (t + db * response)) / penalty, db)

        return solve

    return factor
