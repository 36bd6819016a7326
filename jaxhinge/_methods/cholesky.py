"""A Cholesky factor that does not call LAPACK, for matrices that LAPACK would factor with threads of its own.

On the CPU those threads spin for tens of milliseconds after each call and take the cores from XLA's (5,120 x 601, two
cores: a step of 70 to 600 ms for 35). Below about 200 columns LAPACK stays on one thread.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import Array, NDArray

_BLOCK = 32
_LAPACK_IS_SERIAL = 128
# `_INVERSE_IS_CHEAP`: in NumPy a matrix of up to this order is inverted: products cost less than calls of SciPy. Of a
# larger one the inverse costs more than the factor (1,000 rows, one core: 20 ms and 13).
_INVERSE_IS_CHEAP = 96
# `_HALVED`: triangles of less than twice this order are inverted at once.
_HALVED = 16


def cholesky(matrix: Array) -> Array:
    """The lower Cholesky factor of a symmetric positive definite matrix; NaN where there is none.

    In NumPy of every matrix `(..., p, p)`, and only `solved_by_root` knows what is given back: small matrices, and
    several at once, have the inverse of the factor.
    """
    if isinstance(matrix, np.ndarray):
        return _root_on_host(matrix)
    if matrix.shape[0] <= _LAPACK_IS_SERIAL:
        serial: jax.Array = jnp.linalg.cholesky(matrix)
        return serial
    factor: jax.Array = jax.lax.platform_dependent(matrix, cpu=_blocked, default=jnp.linalg.cholesky)
    return factor


def _blocked(matrix: jax.Array) -> jax.Array:
    """Left-looking, a block of columns at a time; the last block is filled up with an identity."""
    p = matrix.shape[0]
    size = -(-p // _BLOCK) * _BLOCK
    padded = jnp.pad(matrix, (0, size - p)) + jnp.diag((jnp.arange(size) >= p).astype(matrix.dtype))
    rows = jnp.arange(size)[:, None]

    def eliminate(k: jax.Array, factor: jax.Array) -> jax.Array:
        start = k * _BLOCK
        finished = jax.lax.dynamic_slice_in_dim(factor, start, _BLOCK, axis=0)
        columns = jax.lax.dynamic_slice_in_dim(padded, start, _BLOCK, axis=1) - factor @ finished.T
        inverse = _inverse_of_root(jax.lax.dynamic_slice_in_dim(columns, start, _BLOCK, axis=0))
        # The product also gives the diagonal block of the factor; rows above it are 0.
        columns = jnp.where(rows >= start, columns @ inverse.T, 0)
        return jax.lax.dynamic_update_slice_in_dim(factor, columns, start, axis=1)

    factor: jax.Array = jax.lax.fori_loop(0, size // _BLOCK, eliminate, jnp.zeros_like(padded))
    return jnp.tril(factor[:p, :p])


def _inverse_of_root(block: jax.Array) -> jax.Array:
    """`L^-1` for `L L' = block`, by eliminating the block and an identity beside it, a row at a time."""
    size = block.shape[0]
    index = jnp.arange(size)

    def eliminate(j: jax.Array, state: jax.Array) -> jax.Array:
        pivot_row = state[j] * jax.lax.rsqrt(state[j, j])
        multiples = jnp.where(index > j, pivot_row[:size], 0)
        state = jnp.where((index == j)[:, None], pivot_row[None, :], state)
        return state - multiples[:, None] * pivot_row[None, :]

    state = jnp.concatenate([block, jnp.eye(size, dtype=block.dtype)], axis=1)
    eliminated: jax.Array = jax.lax.fori_loop(0, size, eliminate, state)
    return eliminated[:, size:]


def _root_on_host(matrix: NDArray) -> NDArray:
    """`L^-1` for `L L' = matrix`, in NumPy, or `L` of one large matrix; NaN where there is none."""
    if matrix.ndim == 2 and len(matrix) > _INVERSE_IS_CHEAP:
        # Imported when it is needed: it takes a tenth of a second, and a BLAS of its own along.
        from scipy.linalg import lapack

        # LAPACK reads columns: the transpose of what NumPy holds. NumPy's own call costs up to twice as much.
        upper, failed = lapack.dpotrf(matrix.T, lower=0)
        return np.full_like(matrix, np.nan) if failed else np.asarray(upper.T)
    try:
        return _inverted(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        if matrix.ndim == 2:
            return np.full_like(matrix, np.nan)
        # One matrix without a factor must not spoil the others.
        return np.stack([_root_on_host(one) for one in matrix])


def _inverted(root: NDArray) -> NDArray:
    """The inverse of lower triangles, by halves: NumPy's own takes no notice of the zeros."""
    half = root.shape[-1] // 2
    if half < _HALVED:
        return np.asarray(np.linalg.inv(root))
    inverse = np.zeros_like(root)
    first, last = _inverted(root[..., :half, :half]), _inverted(root[..., half:, half:])
    inverse[..., :half, :half], inverse[..., half:, half:] = first, last
    inverse[..., half:, :half] = -last @ (root[..., half:, :half] @ first)
    return inverse


def solved_by_root(root: NDArray, rhs: NDArray) -> NDArray:
    """The solution for one right-hand side of each matrix, with what `cholesky` gives back in NumPy."""
    if root.ndim == 2 and len(root) > _INVERSE_IS_CHEAP:
        from scipy.linalg import blas

        solution: NDArray = blas.dtrsv(root.T, blas.dtrsv(root.T, rhs, trans=1))
        return solution
    half = np.matmul(root, rhs[..., None])
    found: NDArray = np.matmul(np.swapaxes(root, -1, -2), half)[..., 0]
    return found
