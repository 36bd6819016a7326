r"""The linear system of a multiclass interior-point step, by its matrix.

The unknown is a change dz `(k, p)` of the parameters, the operator

    (H dz)_a = P dz_a + sum_i sum_b W_iab (dz_a . x_i - dz_b . x_i) x_i

with W_i the weights of a graph between the classes of row i. Adding one vector to all columns changes no difference,
so that the right-hand sides and the solutions here sum to 0 over the classes, but for absent ones under a free bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import Array, NDArray
from jaxhinge._base.precision import eps
from jaxhinge._methods.cholesky import cholesky
from jaxhinge._methods.executor import namespace
from jaxhinge._methods.linear_systems import factored, solved
from jaxhinge._methods.multiclass.program import Program

_BLOCK_ROWS = 512
# `_ENOUGH_PAIRS`: for so many pairs of classes the products of features are formed once and summed for all pairs.
_ENOUGH_PAIRS = 16
# `_MANY_FEATURES`: for more features a block of these products would not fit the cache, and is not formed.
_MANY_FEATURES = 160
# `_LAPACK_PAYS`: from this order on the threads of LAPACK save more time than they cost.
_LAPACK_PAYS = 1500
# `_WEIGHTS_AT_ONCE`: on the host the weights of so many rows x pairs of classes are held at a time.
_WEIGHTS_AT_ONCE = 2**22


class Edges(NamedTuple):
    """Weights of a graph between the classes for each row, `W_iab = left_ia right_ib + right_ia left_ib`."""

    left: Array
    right: Array


class NewtonSystem(NamedTuple):
    """How to factor the system for given edges, and how to solve with the factor for one right-hand side."""

    factor: Callable[[Edges], Any]
    solve: Callable[[Any, Array], Array]


def by_matrix(program: Program) -> NewtonSystem:
    """The matrix itself, in the precision of the program.

    The sum over the classes is fixed by leaving out the last one, `d_a = dz_a - dz_k`. What is left of the graph's
    Laplacian is its first k - 1 rows and columns, and of the penalty `P (1 - 1 1' / k)`: the smallest norm of all dz
    with these differences.
    """
    blocks = None if namespace(program.c) is np else _blocked(program.rows.whole)

    def factor(edges: Edges) -> tuple[Array, Array]:
        graph = graph_of_grams_on_host(program.rows, edges) if blocks is None else _graph_of_grams(blocks, edges)
        return factor_of(program, graph)

    return NewtonSystem(factor, solve_reduced)


def factor_of(program: Program, graph: Array) -> tuple[Array, Array]:
    """The system factored, from the sum over rows `(k - 1, p, k - 1, p)`."""
    hessian = penalised_system(program, graph)
    order = hessian.shape[0] * hessian.shape[1]
    root = jnp.linalg.cholesky if namespace(hessian) is jnp and order > _LAPACK_PAYS else cholesky
    return factored(hessian.reshape(order, order), eps(hessian.dtype), root)


def solve_reduced(factor: tuple[Array, Array], rhs: Array) -> Array:
    """The solution `(k, p)` for a right-hand side that sums to 0 over the classes, as it does itself."""
    xp, reduced = namespace(rhs), solved(factor, rhs[:-1].ravel())
    dz = xp.concatenate([reduced.reshape(-1, rhs.shape[1]), xp.zeros_like(rhs[:1])])
    return dz - xp.mean(dz, axis=0)[None, :]


def penalised_system(program: Program, graph: Array) -> Array:
    """The system `(k - 1, p, k - 1, p)`: what the penalty adds to the graph lies where the coordinates are the same."""
    xp, k = namespace(program.c), len(program.label)
    spread = xp.eye(k - 1, dtype=program.penalty.dtype) - 1 / k
    place = xp.arange(len(program.penalty))
    added = program.penalty[:, None, None] * spread[None]
    if program.free_bias:
        added = added + xp.where(place == place[-1], 1, 0)[:, None, None] * _absent_bias(program)[None]
    if xp is np:
        graph[:, place, :, place] += added
        return graph
    return graph.at[:, place, :, place].add(added)


def _absent_bias(program: Program) -> Array:
    """The squares of `b_j - mean(b)` for classes without rows, whose bias moves nothing and would have no equation."""
    xp = namespace(program.label)
    absent = 1 - xp.max(program.label, axis=1)
    k = len(absent)
    centred = xp.eye(k, dtype=absent.dtype) - 1 / k
    return (centred @ (absent[:, None] * centred))[:-1, :-1]


def graph_of_grams_on_host(rows: Any, edges: Edges) -> NDArray:
    """`sum_i L_i (x) x_i x_i'` as `(k - 1, p, k - 1, p)`, from the Gram matrix of each pair of classes.

    Degrees are sums of weights, without cancellation: a class does not border on itself.
    """
    (left, right), (p, n) = edges, rows.shape
    k = len(left)
    hessian = np.zeros((k, p, k, p))
    first, second = np.triu_indices(k, 1)
    step = max(1, _WEIGHTS_AT_ONCE // n)
    for begin in range(0, len(first), step):
        a, b = first[begin : begin + step], second[begin : begin + step]
        for i, j, gram in zip(a, b, rows.gram(left[a] * right[b] + right[a] * left[b]), strict=True):
            hessian[i, :, i] += gram
            hessian[j, :, j] += gram
            hessian[i, :, j] = hessian[j, :, i] = -gram
    return hessian[:-1, :, :-1]


def _blocked(columns: jax.Array) -> jax.Array:
    """`(p, n)` as `(blocks, p, rows of a block)`, filled up with zeros."""
    p, n = columns.shape
    rows = min(_BLOCK_ROWS, n)
    padded = jnp.pad(columns, ((0, 0), (0, -n % rows)))
    return padded.reshape(p, -1, rows).swapaxes(0, 1)


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
