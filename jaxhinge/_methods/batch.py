"""Many problems over the same rows, solved at once: on the host in NumPy, elsewhere by one compiled step for all."""

from __future__ import annotations

import threading
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.precision import in_float64
from jaxhinge._base.sparse import is_sparse
from jaxhinge._base.values import is_on_accelerator
from jaxhinge._methods.host import host_operator
from jaxhinge._methods.host_batch import solve_batch_on_host
from jaxhinge._methods.padded import centre_of, padded, padded_size
from jaxhinge._methods.problem import Answer, Config, Rows, Start, Status, numpy_start
from jaxhinge._methods.sharded import Layout, is_sharded, layout_of, on_host, sharded_features
from jaxhinge._methods.stages import float32_stage, float64_stage, solve_rows

# A batch runs until its slowest problem converges, and its row vectors should fit the cache: limit rows x problems.
_ROWS_AT_ONCE = 65_536
# XLA's Cholesky factorisation of a batch waits, on a thread of the pool that all programs share, for tasks of that same
# pool: with as many programs at once as it has threads, all would wait for ever.
_ONE_PROGRAM = threading.Lock()
# `_NUMBERS_PER_ROW`: a problem keeps about so many numbers of 4 bytes for each row.
_NUMBERS_PER_ROW = 60
# `_VECTORS`: over sparse rows it keeps about so many numbers of 8 bytes for each feature.
_VECTORS = 20
# `_MATRICES`: it also keeps so many square matrices of the order of its Newton system.
_MATRICES = 5
# `_MEMORY`: bytes, about, that problems at once take where nothing is said.
_MEMORY = 4e9


class Shared(NamedTuple):
    """The rows that all problems share, on the device and padded to `size` rows, of which `n` are real.

    `layout` says how they are spread over devices, if they are.
    """

    xt: Any
    centre: Any
    n: int
    size: int
    layout: Layout | None = None


class HostRows(NamedTuple):
    """The rows that all problems share on the host, transposed, their centre, and their operators."""

    xt: Any
    centre: NDArray
    operators: dict[Config, Any]

    @property
    def size(self) -> int:
        """How many rows."""
        return int(self.xt.shape[1])


class Batch(NamedTuple):
    """What differs from problem to problem: signs and weights `(batch, n)`, strengths `(batch,)`."""

    sign: NDArray
    weight: NDArray
    l2: NDArray


def share(x: Any, weight: NDArray) -> Shared | HostRows:
    """Rows for a batch, from checked features."""
    if not is_sharded(x) and not is_on_accelerator(x):
        return HostRows(x.T, centre_of(x, weight), {})
    if is_sharded(x):
        with jax.enable_x64(True):
            return Shared(*sharded_features(x, weight), len(x), len(x), layout_of(x))
    size = padded_size(len(x))
    with jax.enable_x64(True):
        return Shared(jax.device_put(padded(x.T, size)), jax.device_put(centre_of(x, weight)), len(x), size)


def problems_at_once(count: int, x: Any, size: int, memory_budget: float | None) -> int:
    """How many of `count` problems over the rows `x`, padded to `size`, to solve at once, in chunks of equal size.

    Without a `memory_budget` it is that of `sweep`, and one problem may always be solved.
    """
    num_features, itemsize = x.shape[1], x.dtype.itemsize
    if is_sparse(x):
        shared, each = x.nnz * (itemsize + 16), 8 * (_NUMBERS_PER_ROW * size + _VECTORS * num_features)
    else:
        shared = size * num_features * (itemsize + 16)
        each = 4 * (_NUMBERS_PER_ROW * size + _MATRICES * min(size, num_features + 1) ** 2)
    if memory_budget is None:
        memory_budget = max(_MEMORY, shared + each)
    if shared + each > memory_budget:
        raise ValueError(
            f"memory_budget is {memory_budget / 1e9:.3g} GB, but one problem of {size} rows and {num_features} "
            f"features needs about {(shared + each) / 1e9:.3g} GB at a time: raise it, or take fewer rows."
        )
    most = max(1, min(count, _ROWS_AT_ONCE // size, int((memory_budget - shared) // each)))
    chunks = -(-count // most)
    return -(-count // chunks)


def chunks_of(count: int, at_once: int) -> list[NDArray]:
    """The numbers of `count` problems, equally many in each chunk, so that they are compiled once: the last chunk
    repeats the last problem."""
    numbers = np.minimum(np.arange(-(-count // at_once) * at_once), count - 1)
    return list(numbers.reshape(-1, at_once))


def solve_in_chunks(
    config: Config,
    shared: Shared | HostRows,
    batch: Batch,
    before: Answer | None,
    at_once: int,
    tol: float,
    max_steps: int,
) -> Answer:
    """The answers of all problems, so many at once."""
    found = []
    for chunk in chunks_of(len(batch.l2), at_once):
        part = Batch(*(leaf[chunk] for leaf in batch))
        start = None if before is None else Answer(*(leaf[chunk] for leaf in before))
        found.append(solve_batch(config, shared, part, start, tol, max_steps))
    return Answer(*(np.concatenate(leaves)[: len(batch.l2)] for leaves in zip(*found, strict=True)))


def solve_batch(
    config: Config, shared: Shared | HostRows, batch: Batch, before: Answer | None, tol: float, max_steps: int
) -> Answer:
    """The answers of all problems, in NumPy arrays, each with gap and status; `before` are answers to start from."""
    rows, start = _batch_rows(shared, batch), _batch_start(shared, batch, before)
    if isinstance(shared, HostRows):
        if config not in shared.operators:
            shared.operators[config] = host_operator(config, rows)
        return solve_batch_on_host(config, rows, start, tol, max_steps, shared.operators[config])
    numbers = np.float64(tol), np.int32(max_steps)
    with _ONE_PROGRAM, jax.enable_x64(True):
        found: Answer = jax.tree.map(on_host, _float32_stage(config)(rows, start, *numbers))
        left = found.status == Status.STALLED
        if left.any():
            # The batch keeps its size, or another program would be compiled: the other problems have no steps left.
            limits = np.where(left, max_steps - found.steps, 0).astype(np.int32)
            start = _batch_start(shared, batch, found._replace(dual=found.dual[:, : shared.n]))
            again = jax.tree.map(on_host, _float64_stage(config)(rows, start, numbers[0], limits))
            better = left & (again.gap <= found.gap)
            steps = found.steps + np.where(left, again.steps, 0)
            found = jax.tree.map(partial(_where, better), again, found)
            found = found._replace(status=np.where(left, again.status, found.status), steps=steps)
    return found._replace(dual=found.dual[:, : shared.n])


def _batch_rows(shared: Shared | HostRows, batch: Batch) -> Rows:
    return Rows(
        xt=shared.xt,
        sign=_placed(shared, batch.sign),
        r=_placed(shared, np.ones(shared.size)),
        c=_placed(shared, batch.weight / batch.weight.sum(axis=1, keepdims=True)),
        l2=np.asarray(batch.l2, np.float64),
        q_bias=np.float64(0),
        centre=shared.centre,
        valid=np.ones(len(batch.l2), bool),
    )


def _batch_start(shared: Shared | HostRows, batch: Batch, before: Answer | None) -> Start:
    if before is not None:
        # A row that a problem leaves out has no dual there.
        before = before._replace(dual=np.where(batch.weight > 0, before.dual, 0))
    start = numpy_start(before, *batch.sign.shape, shared.xt.shape[0])
    return start._replace(dual=_placed(shared, start.dual))


def _placed(shared: Shared | HostRows, values: NDArray) -> Any:
    """What there is one of per row, `(..., n)`, padded like the rows or spread as they are."""
    if isinstance(shared, HostRows):
        return values
    if shared.layout is None:
        return padded(values, shared.size)
    layout = shared.layout.columns if values.ndim == 2 else shared.layout.vector
    with jax.enable_x64(True):
        return jax.device_put(values, layout)


def _where(chosen: NDArray, new: NDArray, old: NDArray) -> NDArray:
    return np.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)


# The leaves that differ from problem to problem have an axis for it.
_ROW_AXES = Rows(xt=None, sign=0, r=None, c=0, l2=0, q_bias=None, centre=None, valid=0)


@lru_cache
def _float32_stage(config: Config) -> Any:
    solver = jax.vmap(partial(solve_rows, config, stage=float32_stage), in_axes=(_ROW_AXES, 0, None, None))
    return jax.jit(in_float64(solver, config.dtype))


@lru_cache
def _float64_stage(config: Config) -> Any:
    solver = jax.vmap(partial(solve_rows, config, stage=float64_stage), in_axes=(_ROW_AXES, 0, None, 0))
    return jax.jit(in_float64(solver, config.dtype))
