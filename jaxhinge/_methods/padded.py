"""Solving padded rows on the host: what float32 can do first and, where that is not enough, the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.interrupts import OnInterrupt, computed
from jaxhinge._base.precision import in_float64
from jaxhinge._methods.interruptible import interruptible_float32_stage, interruptible_float64_stage
from jaxhinge._methods.problem import Answer, Config, Rows, Start, Status
from jaxhinge._methods.stages import solve_float32_stage, solve_float64_stage

_ALIGNMENT = 64  # bytes
_COLUMNS = 512


def solve_padded(
    config: Config,
    rows: Rows,
    start: Start,
    tol: np.float64,
    max_steps: np.int32,
    on_interrupt: OnInterrupt = "raise",
) -> Answer:
    """The answer in NumPy arrays. A program of its own tries what float32 can do: few problems need the other."""
    float32_stage, float64_stage = _halves(config, on_interrupt)
    with jax.enable_x64(True):
        answer = _fetched(float32_stage(rows, start, tol, max_steps))
        if answer.status != Status.STALLED:
            return answer
        left = np.int32(max_steps - answer.steps)
        w, b, dual = (leaf.astype(np.float64) for leaf in (answer.w, answer.b, answer.dual))
        try:
            again = _fetched(float64_stage(rows, Start(w, b, dual, np.asarray(True)), tol, left))
        except KeyboardInterrupt:
            if on_interrupt == "raise":
                raise
            return answer._replace(status=np.int32(Status.STEP_LIMIT))
    # Rounding may have spoilt the better one.
    found = again if again.gap <= answer.gap else answer
    return found._replace(steps=answer.steps + again.steps, status=again.status)


def _fetched(answer: Answer) -> Answer:
    # Copies, which may be written to.
    return jax.tree.map(np.array, answer)  # type: ignore[no-any-return]


def _halves(config: Config, on_interrupt: OnInterrupt) -> tuple[Callable[..., Answer], Callable[..., Answer]]:
    """The two halves: each a program, or in pieces, between which there is something to return."""
    if on_interrupt == "return":
        return partial(interruptible_float32_stage, config), partial(interruptible_float64_stage, config)
    return partial(_uninterrupted, solve_float32_stage, config), partial(_uninterrupted, solve_float64_stage, config)


def _uninterrupted(solver: Any, config: Config, *arguments: Any) -> Answer:
    return computed(_compiled_stage(solver, config)(*arguments))  # type: ignore[no-any-return]


@lru_cache
def _compiled_stage(solver: Any, config: Config) -> Any:
    return jax.jit(in_float64(partial(solver, config), config.dtype))


def centre_of(x: NDArray, weight: NDArray) -> NDArray:
    """The weighted mean row, `(d,)`, in the precision of `x`.

    Not by a product of BLAS: its threads spin on for milliseconds, and take the cores from the solver.
    """
    # NaN and infinity are named afterwards.
    with np.errstate(invalid="ignore", over="ignore"):
        centre: NDArray = np.einsum("n,nd->d", (weight / weight.sum()).astype(x.dtype), x)
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
            # NaN and infinity are named afterwards.
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
