r"""The linear system of a multiclass interior-point step, by its matrix.

The unknown is a change dz `(k, p)` of the parameters, the operator

    (H dz)_a = P dz_a + sum_i sum_b W_iab (dz_a . x_i - dz_b . x_i) x_i

with W_i the weights of a graph between the classes of row i. Adding one vector to all columns changes no difference,
so that the right-hand sides and the solutions here sum to 0 over the classes, but for absent ones under a free bias.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.precision import eps
from jaxhinge._methods.cholesky import cholesky
from jaxhinge._methods.multiclass.program import Program

_BLOCK_ROWS = 512
# `_ENOUGH_PAIRS`: for so many pairs of classes the products of features are formed once and summed for all pairs.
_ENOUGH_PAIRS = 16
# `_MANY_FEATURES`: for more features a block of these products would not fit the cache, and is not formed.
_MANY_FEATURES = 160
# `_JITTER`: added to the unit diagonal, in units of rounding.
_JITTER = 4
# `_LAPACK_PAYS`: from this order on the threads of LAPACK save more time than they cost.
_LAPACK_PAYS = 1500


class Edges(NamedTuple):
    """Weights of a graph between the classes for each row, `W_iab = left_ia right_ib + right_ia left_ib`."""

    left: jax.Array
    right: jax.Array


class NewtonSystem(NamedTuple):
    """How to factor the system for given edges, and how to solve with the factor for one right-hand side."""

    factor: Callable[[Edges], Any]
    solve: Callable[[Any, jax.Array], jax.Array]


def by_matrix(program: Program) -> NewtonSystem:
    """The matrix itself, in the precision of the program.

    The sum over the classes is fixed by leaving out the last one, `d_a = dz_a - dz_k`. What is left of the graph's
    Laplacian is its first k - 1 rows and columns, and of the penalty `P (1 - 1 1' / k)`: the smallest norm of all dz
    with these differences.
    """
    blocks = _blocked(program.xt)

    def solve(factored: tuple[jax.Array, jax.Array], rhs: jax.Array) -> jax.Array:
        root, scale = factored
        reduced = scale * jax.scipy.linalg.cho_solve((root, True), scale * rhs[:-1].ravel())
        dz = jnp.pad(reduced.reshape(-1, rhs.shape[1]), ((0, 1), (0, 0)))
        return dz - jnp.mean(dz, axis=0)[None, :]

    return NewtonSystem(partial(_unit_factor, program, blocks), solve)


def _blocked(columns: jax.Array) -> jax.Array:
    """`(p, n)` as `(blocks, p, rows of a block)`, filled up with zeros."""
    p, n = columns.shape
    rows = min(_BLOCK_ROWS, n)
    padded = jnp.pad(columns, ((0, 0), (0, -n % rows)))
    return padded.reshape(p, -1, rows).swapaxes(0, 1)


def _unit_factor(program: Program, blocks: jax.Array, edges: Edges) -> tuple[jax.Array, jax.Array]:
    """The Cholesky factor of the reduced system scaled to a unit diagonal, and that scale."""
    k, p = len(edges.left), len(program.penalty)
    hessian = _graph_of_grams(blocks, edges)
    dtype = hessian.dtype
    spread = jnp.eye(k - 1, dtype=dtype) - 1 / k
    hessian += spread[:, None, :, None] * jnp.diag(program.penalty)[None, :, None, :]
    if program.free_bias:
        hessian = hessian.at[:, -1, :, -1].add(_absent_bias(program))
    hessian = hessian.reshape((k - 1) * p, (k - 1) * p)
    scale = jax.lax.rsqrt(jnp.diag(hessian))
    # What rounding may take from a unit diagonal: a product of duplicate columns would have no Cholesky factor.
    jitter = _JITTER * eps(dtype) * jnp.eye(len(scale), dtype=dtype)
    factor = cholesky if len(scale) <= _LAPACK_PAYS else jnp.linalg.cholesky
    return factor(hessian * scale[:, None] * scale[None, :] + jitter), scale


def _absent_bias(program: Program) -> jax.Array:
    """The squares of `b_j - mean(b)` for classes without rows, whose bias moves nothing and would have no equation."""
    absent = 1 - jnp.max(program.label, axis=1)
    k = len(absent)
    centred = jnp.eye(k, dtype=absent.dtype) - 1 / k
    return (centred @ (absent[:, None] * centred))[:-1, :-1]


def _graph_of_grams(blocks: jax.Array, edges: Edges) -> jax.Array:
    """`sum_i L_i (x) x_i x_i'` as `(k - 1, p, k - 1, p)`, L_i the graph's Laplacian without its last class."""
    k, p = len(edges.left), blocks.shape[1]
    first, second = np.triu_indices(k, 1)
    # Degrees are sums of weights, without cancellation: a class does not border on itself.
    degrees = np.stack([(first == a) | (second == a) for a in range(k - 1)]).astype(np.float64)
    inner = np.flatnonzero(second < k - 1)
    merged = len(first) >= _ENOUGH_PAIRS and p <= _MANY_FEATURES
    product = _merged_grams if merged else _separate_grams

    def add(total: jax.Array, block: tuple[jax.Array, Edges]) -> tuple[jax.Array, None]:
        x, (left, right) = block
        weight = left[first] * right[second] + right[first] * left[second]
        entries = jnp.concatenate([jnp.asarray(degrees, weight.dtype) @ weight, -weight[inner]])
        return total + product(x, entries), None

    shape = (p * (p + 1) // 2, len(first)) if merged else (len(first), p, p)
    graphs = Edges(_blocked(edges.left), _blocked(edges.right))
    total, _ = jax.lax.scan(add, jnp.zeros(shape, blocks.dtype) + 0 * blocks[0, 0, 0], (blocks, graphs))
    if merged:
        total = total[_place_in_triangle(p)].transpose(2, 0, 1)
    place = np.zeros((k - 1, k - 1), np.int32)
    place[np.diag_indices(k - 1)] = np.arange(k - 1)
    place[first[inner], second[inner]] = place[second[inner], first[inner]] = k - 1 + np.arange(len(inner))
    return total[place].transpose(0, 2, 1, 3)


def _merged_grams(x: jax.Array, weight: jax.Array) -> jax.Array:
    """`sum_i weight_mi x_ui x_vi` as `(pairs u <= v, m)`, one matrix product."""
    rows, columns = jnp.triu_indices(len(x))
    return (x[rows] * x[columns]) @ weight.T


def _separate_grams(x: jax.Array, weight: jax.Array) -> jax.Array:
    """`sum_i weight_mi x_ui x_vi` as `(m, u, v)`."""
    m, (p, n) = len(weight), x.shape
    return ((weight[:, None, :] * x[None]).reshape(m * p, n) @ x.T).reshape(m, p, p)


def _place_in_triangle(size: int) -> jax.Array:
    """Where `triu_indices` has the entry (i, j) or (j, i), for a square of all i and j."""
    index = jnp.arange(size)
    low, high = jnp.minimum(index[:, None], index[None, :]), jnp.maximum(index[:, None], index[None, :])
    return low * (2 * size - low - 1) // 2 + high
