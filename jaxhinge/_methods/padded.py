"""Rows for a compiled solve outside of any trace, as on an accelerator: padded, so that few sizes are compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.interrupts import computed
from jaxhinge._base.precision import in_float64
from jaxhinge._base.sparse import is_sparse
from jaxhinge._methods.problem import Answer, Start
from jaxhinge._methods.stages import solve_rows

_ALIGNMENT = 64  # bytes
_COLUMNS = 512
# Of binary rows and of rows with labels, what there is one of per row.
_PER_ROW = ("xt", "sign", "r", "c", "labels")


def solve_padded(
    config: Any, rows: Any, start: Start, tol: float, max_steps: int, solver: Callable[..., Answer] = solve_rows
) -> Answer:
    """The answer in NumPy arrays, by a program that is compiled for the next of a few numbers of rows."""
    n = len(rows.c)
    size = padded_size(n)
    per_row = {name: padded(getattr(rows, name), size) for name in _PER_ROW if name in rows._fields}
    with jax.enable_x64(True):
        start = start._replace(dual=padded(start.dual.T, size).T)
        found = _compiled(solver, config)(rows._replace(**per_row), start, np.float64(tol), np.int32(max_steps))
        # Copies, which may be written to.
        answer: Answer = jax.tree.map(np.array, computed(found))
    return answer._replace(dual=answer.dual[:n])


@lru_cache
def _compiled(solver: Callable[..., Answer], config: Any) -> Any:
    return jax.jit(in_float64(partial(solver, config), config.dtype))


def centre_of(x: Any, weight: NDArray) -> NDArray:
    """The weighted mean row, `(d,)`, in the precision of `x`.

    Not by a product of BLAS: its threads spin on for milliseconds, and take the cores from the solver.
    """
    # NumPy is not to warn of NaN and infinity: the solver names them.
    with np.errstate(invalid="ignore", over="ignore"):
        share = (weight / weight.sum()).astype(x.dtype)
        centre: NDArray = x.T @ share if is_sparse(x) else np.einsum("n,nd->d", share, x)
    return centre


def padded_size(n: int) -> int:
    """The next of a few sizes: eight to each doubling, so at most an eighth more, and at least 16."""
    unit = 1 << max(4, (n - 1).bit_length() - 4)
    return -(-n // unit) * unit


def padded(array: NDArray, size: int, centre: NDArray | None = None) -> NDArray:
    """The array with zeros appended along its last axis, less a centre `(d,)` of its columns."""
    result, n = _aligned((*array.shape[:-1], size), array.dtype), array.shape[-1]
    # A transposed array is read along its rows: some at a time, or each number would cost a line of the cache.
    for begin in range(0, n, _COLUMNS):
        some = result[..., begin : min(begin + _COLUMNS, n)]
        some[...] = array[..., begin : begin + _COLUMNS]
        if centre is not None:
            # NumPy is not to warn of NaN and infinity: the solver names them.
            with np.errstate(invalid="ignore", over="ignore"):
                some -= centre[:, None]
    result[..., n:] = 0
    return result


def _aligned(shape: tuple[int, ...], dtype: Any) -> NDArray:
    """Memory that JAX takes for its own, on the CPU, where any other would be copied."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    aligned: NDArray = memory[begin : begin + size].view(dtype).reshape(shape)
    return aligned
