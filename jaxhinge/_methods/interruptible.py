"""The two halves of a solve in calls of about half a second, so that there is something to return on Ctrl-C.

A compiled loop cannot be left from outside. Here the same steps are made, some at a time; what they reached is
certified in the precision of the rows at the end. Each piece costs a pass or two over the rows more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.interrupts import computed
from jaxhinge._base.precision import in_float64
from jaxhinge._methods.ascent import Ascent, ascend, ascent_start
from jaxhinge._methods.certificate import Certified, Program
from jaxhinge._methods.coordinates import Task, task_of, working_program
from jaxhinge._methods.interior_point import Progress
from jaxhinge._methods.problem import Answer, Config, Rows, Start
from jaxhinge._methods.stages import (
    ASCENT_STEPS,
    SolverState,
    ascended,
    ascends,
    cold_progress,
    finish,
    float32_steps,
    float64_steps,
    given_start,
    merge_certificates,
    restart_from,
    warm_start,
)

_PAUSE = 0.5  # seconds between two looks, or a step if that takes longer

State = TypeVar("State", Ascent, Progress)
ResultSoFar = Callable[[], SolverState]


def interruptible_float32_stage(
    config: Config, rows: Rows, start: Start, tol: np.float64, max_steps: np.int32
) -> Answer:
    """As `solve_float32_stage`; after Ctrl-C the result so far, STEP_LIMIT where that is not within `tol`."""
    return _interruptible(_float32_chunks, config, rows, start, tol, max_steps)


def interruptible_float64_stage(
    config: Config, rows: Rows, start: Start, tol: np.float64, max_steps: np.int32
) -> Answer:
    """As `solve_float64_stage`; after Ctrl-C the result so far, STEP_LIMIT where that is not within `tol`."""
    return _interruptible(_float64_chunks, config, rows, start, tol, max_steps)


def _interruptible(
    chunks: Any, config: Config, rows: Rows, start: Start, tol: np.float64, max_steps: np.int32
) -> Answer:
    """Before the start is certified there is nothing to return: KeyboardInterrupt."""
    task, found = computed(_begun(config)(rows, start))

    def nothing_more() -> SolverState:
        return found  # type: ignore[no-any-return]

    result_so_far: ResultSoFar = nothing_more
    try:
        for after in chunks(config, task, found, tol, max_steps):
            result_so_far = after
        answer: Answer = computed(_finished(config)(rows, result_so_far(), tol))
    except KeyboardInterrupt:
        limited = result_so_far()._replace(limited=jnp.asarray(True))
        answer = computed(_finished(config)(rows, limited, tol))
    return answer


def _float32_chunks(config: Config, task: Task, found: SolverState, tol: Any, max_steps: Any) -> Iterator[ResultSoFar]:
    """`_core._float32_stage`, with what there is after each piece."""
    p, n = task.program.shape
    if ascends(config, task):
        most = max_steps if config.method == "ascent" else min(max_steps, np.int32(ASCENT_STEPS))
        for ascent in _chunks(_ascend, task, _at_rest(found.best), tol, most):
            yield partial(ascended, found, ascent, max_steps)
        found = ascended(found, ascent, max_steps)
    if config.method != "ascent" and p <= n:
        for progress in _chunks(_float32_steps, task, _float32_start(task, found), tol, max_steps):
            yield partial(_merged, task, found, progress, max_steps)


def _float64_chunks(config: Config, task: Task, found: SolverState, tol: Any, max_steps: Any) -> Iterator[ResultSoFar]:
    """`_core._float64_stage`, with what there is after each piece."""
    if config.method == "ascent":
        return
    progress = _float64_start(task, found)
    for again in (False, True):
        if again:
            progress = restart_from(progress, _cold_start(task))
        for after in _chunks(_float64_steps, task, progress, tol, max_steps):
            progress = after
            yield partial(_merged, task, found, progress, max_steps)


def _chunks(advance: Any, task: Task, state: State, tol: Any, max_steps: Any) -> Iterator[State]:
    """Steps until they end by themselves, as many in a piece as fit in the pause; at least one piece."""
    size, limit = 1, 0
    while limit < max_steps:
        before, began = int(state.steps), time.perf_counter()
        limit = min(before + size, int(max_steps))
        state = computed(advance(task, state, tol, np.int32(limit)))
        yield state
        made = int(state.steps) - before
        if before + made < limit:
            return
        size = max(1, int(_PAUSE * made / (time.perf_counter() - began)))


# ---- the compiled pieces: their numbers are float64, which those of the first half round to float32


def _compiled(function: Callable[..., Any]) -> Any:
    return jax.jit(in_float64(function, jnp.float64))


@lru_cache
def _begun(config: Config) -> Any:
    def begun(rows: Rows, start: Start) -> tuple[Task, SolverState]:
        task = task_of(config, rows)
        return task, given_start(task, start)

    return _compiled(begun)


@lru_cache
def _finished(config: Config) -> Any:
    def finished(rows: Rows, found: SolverState, tol: jax.Array) -> Answer:
        return finish(config, rows, task_of(config, rows), found, tol)

    return jax.jit(in_float64(finished, config.dtype))


@_compiled
def _at_rest(best: Certified) -> Ascent:
    return ascent_start(best, jnp.float32)


@_compiled
def _ascend(task: Task, ascent: Ascent, tol: jax.Array, limit: jax.Array) -> Ascent:
    return ascend(task.program, ascent._replace(momentum=_rounded(ascent.momentum)), tol, limit)


@_compiled
def _float32_start(task: Task, found: SolverState) -> Progress:
    return warm_start(task, working_program(task, jnp.float32), found)


@_compiled
def _float32_steps(task: Task, progress: Progress, tol: jax.Array, limit: jax.Array) -> Progress:
    return float32_steps(working_program(task, jnp.float32), _rounded(progress), tol, limit)


@_compiled
def _float64_start(task: Task, found: SolverState) -> Progress:
    return warm_start(task, _working(task), found)


@_compiled
def _cold_start(task: Task) -> Progress:
    return cold_progress(_working(task))


@_compiled
def _float64_steps(task: Task, progress: Progress, tol: jax.Array, limit: jax.Array) -> Progress:
    return float64_steps(_working(task))(progress, tol, limit)


_merged = _compiled(merge_certificates)


def _working(task: Task) -> Program:
    return working_program(task, task.program.rows.dtype)


def _rounded(tree: Any) -> Any:
    """The same in float32."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
