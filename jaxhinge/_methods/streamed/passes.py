"""Passes over rows that are read block by block, and what is kept of them between two passes."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.precision import rounded_down, rounded_up
from jaxhinge._base.threads import num_threads
from jaxhinge._methods.certificate import FLOOR, Program
from jaxhinge._methods.problem import Answer, Status
from jaxhinge._methods.streamed.kernels import Block, Certificate, Coordinates, KernelConfig, program_of, sliced
from jaxhinge._methods.streamed.rows import StreamedRows

# `_MOST_WORKERS`: the kernels of so many blocks run side by side, and as many more blocks are held, to read ahead.
_MOST_WORKERS = 8


class StreamedProblem(NamedTuple):
    """Rows and their problem.

    Attributes:
      streamed: The rows.
      coordinates: What their blocks share.
      penalty: `(p,)`, of each coordinate.
      unit: The size of the required margins.
      at_zero: The objective at 0.
    """

    streamed: StreamedRows
    coordinates: Coordinates
    penalty: NDArray
    unit: float
    at_zero: float


class Values(NamedTuple):
    """A primal and a dual value, and what the two sides of the dual were multiplied by to be in balance."""

    primal: float
    dual: float
    ratio: NDArray

    @property
    def gap(self) -> float:
        """How far apart they are."""
        return self.primal - self.dual


class Best(NamedTuple):
    """The best primal and dual points so far: `z`, and `alpha` block by block (None for 0) before it is balanced; or
    what these follow from."""

    z: Any
    alpha: Any
    values: Values


class Watcher(Protocol):
    """Whoever is told how far a solve is."""

    def tick(self) -> None:
        """A block has been worked on."""

    def show(self, gap: float, primal: float, steps: int) -> None:
        """A step has been certified."""


class Stop(NamedTuple):
    """When to stop: at a relative gap, or after a number of steps."""

    tol: float
    max_steps: int


class StreamState:
    """What has been reached, to be read by whoever interrupts.

    Attributes:
      best: The best certificate.
      steps: Made so far.
      passes: Over the rows, begun so far.
      watcher: Told of progress, or None.
    """

    def __init__(self, best: Best, watcher: Watcher | None = None) -> None:
        self.best = best
        self.steps = self.passes = 0
        self.watcher = watcher

    def tick(self) -> None:
        """A block has been worked on."""
        if self.watcher is not None:
            self.watcher.tick()

    def certify(self, z: Any, alpha: Any, values: Values) -> None:
        """A step has been made: keep the better primal point and the better dual point. NaN is never better."""
        old = self.best
        lower, higher = values.primal < old.values.primal, values.dual > old.values.dual
        primal, dual = values.primal if lower else old.values.primal, values.dual if higher else old.values.dual
        kept = Values(primal, dual, values.ratio if higher else old.values.ratio)
        self.best = Best(z if lower else old.z, alpha if higher else old.alpha, kept)
        self.steps += 1
        if self.watcher is not None:
            self.watcher.show(kept.gap, kept.primal, self.steps)

    def is_over(self, stop: Stop) -> bool:
        """Whether the gap is small enough, or the steps are used up."""
        return self.steps >= stop.max_steps or within(self.best.values, stop.tol)


def nothing(problem: StreamedProblem) -> Best:
    """What is known without looking at the features: the objective at 0, and that a dual of 0 proves a bound of 0."""
    return Best(np.zeros_like(problem.penalty), None, Values(problem.at_zero, 0.0, np.ones(2)))


def within(values: Values, tol: float) -> bool:
    """Whether the gap is small enough; the shares of all rows sum to 1."""
    return values.gap <= tol * max(abs(values.primal), FLOOR)


def ended(answer: Answer, state: StreamState, stop: Stop, dtype: Any, *, interrupted: bool) -> Answer:
    """The answer in the caller's dtype, with the steps that were made, and how they ended."""
    primal, gap = answer.primal_value, answer.gap
    if not np.isfinite(primal):
        raise ValueError("The objective overflows float64: scale the features down, or change l2.")
    bound, gap = rounded_down(np.float64(primal - gap), dtype), rounded_up(np.float64(gap), dtype)
    status = Status.STEP_LIMIT if interrupted or state.steps >= stop.max_steps else Status.STALLED
    status = Status.CONVERGED if gap <= stop.tol * max(abs(primal), FLOOR) else status
    primal, bound, gap = map(np.dtype(dtype).type, (primal, bound, gap))
    steps, code = np.int32(state.steps), np.int32(status)
    return answer._replace(primal_value=primal, dual_value=bound, gap=gap, steps=steps, status=code)


def values_of(kernel_config: KernelConfig, penalty: NDArray, z: NDArray, sums: Certificate) -> Values:
    """Both values from the sums over all rows, the dual point balanced first."""
    primal = float(penalty @ (z * z) / 2 + sums.loss)
    ratio = balance(sums.sides) if kernel_config.intercept == "free" else np.ones(2)
    adjoint, penalised = ratio @ sums.adjoint, penalty > 0
    dual = ratio @ sums.linear - float(np.sum(adjoint[penalised] ** 2 / penalty[penalised])) / 2
    return Values(primal, float(dual - ratio**2 @ sums.squares), ratio)


def balance(sides: NDArray) -> NDArray:
    """What the two sides of a dual are multiplied by for a free bias: the heavier is scaled down to the lighter."""
    ratio: NDArray = np.divide(sides.min(), sides, out=np.ones(2), where=sides > 0)
    return ratio


def one_pass(
    streamed: StreamedRows, kernel: Callable[[int, Block], Any], state: StreamState
) -> tuple[list[Any], Any, Any]:
    """The kernel's results for all blocks: those of rows in a list, sums added up in float64, and the largest."""
    state.passes += 1
    rows: list[Any] = []
    sums: Any = None
    largest = -np.inf
    for per_row, part, high in _in_turn(streamed, kernel):
        rows.append(per_row)
        sums = part if sums is None else jax.tree.map(np.add, sums, part)
        # `np.maximum` keeps NaN, so that the caller hears of it.
        largest = largest if high is None else float(np.maximum(largest, high))
        state.tick()
    return rows, sums, largest


def visit(
    problem: StreamedProblem,
    kernel_config: KernelConfig,
    function: Callable[[Program, Any], Any],
    state: StreamState,
    kept: list[Any] | None = None,
    *,
    last: bool = False,
) -> tuple[list[Any], Any, Any]:
    """One pass of `function(program, kept)` over slices of the rows, with what an earlier pass has kept of them; with
    `last` that is dropped block by block, for it is needed no more."""

    def kernel(index: int, block: Block) -> Any:
        rows = None if kept is None else kept[index]
        if last and kept is not None:
            kept[index] = None
        return sliced(
            lambda part, some: function(program_of(kernel_config, problem.coordinates, part), some), block, rows
        )

    return one_pass(problem.streamed, kernel, state)


def _in_turn(streamed: StreamedRows, kernel: Callable[[int, Block], Any]) -> Iterator[Any]:
    """`kernel(index, block)` for every block, in order, some computed at a time while the next is read."""
    pending: collections.deque[Future[Any]] = collections.deque()
    workers = min(num_threads(), _MOST_WORKERS)
    pool = ThreadPoolExecutor(workers, "jaxhinge stream")
    try:
        for index, block in enumerate(streamed.blocks()):
            pending.append(pool.submit(kernel, index, block))
            if len(pending) == 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
