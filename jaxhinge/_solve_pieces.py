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

from jaxhinge import _ascent
from jaxhinge._ascent import Ascent
from jaxhinge._certificate import Certified, Program
from jaxhinge._core import (
    ASCENT_STEPS,
    Found,
    ascended,
    ascends,
    cold_progress,
    finish,
    given_start,
    joined,
    on_central_path,
    once_more,
    quick_steps,
    thorough_steps,
)
from jaxhinge._interior_point import Progress
from jaxhinge._precision import in_float64
from jaxhinge._rows import Answer, Config, Rows, Start
from jaxhinge._solve_task import Task, task_of, working_program
from jaxhinge._waiting import computed

_PAUSE = 0.5  # seconds between two looks, or a step if that takes longer

State = TypeVar("State", Ascent, Progress)
Reached = Callable[[], Found]


def quickly_in_pieces(config: Config, rows: Rows, start: Start, tol: np.float64, max_steps: np.int32) -> Answer:
    """As `solve_quickly`; on Ctrl-C what was reached, with the status STEP_LIMIT where that is not within `tol`."""
    return _in_pieces(_quick_pieces, config, rows, start, tol, max_steps)


def thoroughly_in_pieces(config: Config, rows: Rows, start: Start, tol: np.float64, max_steps: np.int32) -> Answer:
    """As `solve_thoroughly`; on Ctrl-C what was reached, with the status STEP_LIMIT where that is not within `tol`."""
    return _in_pieces(_thorough_pieces, config, rows, start, tol, max_steps)


def _in_pieces(pieces: Any, config: Config, rows: Rows, start: Start, tol: np.float64, max_steps: np.int32) -> Answer:
    """Before the start is certified there is nothing to return: KeyboardInterrupt."""
    task, found = computed(_begun(config)(rows, start))

    def nothing_more() -> Found:
        return found  # type: ignore[no-any-return]

    reached: Reached = nothing_more
    try:
        for after in pieces(config, task, found, tol, max_steps):
            reached = after
        answer: Answer = computed(_finished(config)(rows, reached(), tol))
    except KeyboardInterrupt:
        limited = reached()._replace(limited=jnp.asarray(True))
        answer = computed(_finished(config)(rows, limited, tol))
    return answer


def _quick_pieces(config: Config, task: Task, found: Found, tol: Any, max_steps: Any) -> Iterator[Reached]:
    """`_core._quickly`, with what there is after each piece."""
    p, n = task.program.shape
    if ascends(config, task):
        most = max_steps if config.method == "ascent" else min(max_steps, np.int32(ASCENT_STEPS))
        for ascent in _pieces(_ascend, task, _at_rest(found.best), tol, most):
            yield partial(ascended, found, ascent, max_steps)
        found = ascended(found, ascent, max_steps)
    if config.method != "ascent" and p <= n:
        for progress in _pieces(_quick_steps, task, _quick_start(task, found), tol, max_steps):
            yield partial(_joined, task, found, progress, max_steps)


def _thorough_pieces(config: Config, task: Task, found: Found, tol: Any, max_steps: Any) -> Iterator[Reached]:
    """`_core._thoroughly`, with what there is after each piece."""
    if config.method == "ascent":
        return
    progress = _thorough_start(task, found)
    for again in (False, True):
        if again:
            progress = once_more(progress, _cold_start(task))
        for after in _pieces(_thorough_steps, task, progress, tol, max_steps):
            progress = after
            yield partial(_joined, task, found, progress, max_steps)


def _pieces(advance: Any, task: Task, state: State, tol: Any, max_steps: Any) -> Iterator[State]:
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
    def begun(rows: Rows, start: Start) -> tuple[Task, Found]:
        task = task_of(config, rows)
        return task, given_start(task, start)

    return _compiled(begun)


@lru_cache
def _finished(config: Config) -> Any:
    def finished(rows: Rows, found: Found, tol: jax.Array) -> Answer:
        return finish(config, rows, task_of(config, rows), found, tol)

    return jax.jit(in_float64(finished, config.dtype))


@_compiled
def _at_rest(best: Certified) -> Ascent:
    return _ascent.start(best, jnp.float32)


@_compiled
def _ascend(task: Task, ascent: Ascent, tol: jax.Array, limit: jax.Array) -> Ascent:
    return _ascent.ascend(task.program, ascent._replace(momentum=_rounded(ascent.momentum)), tol, limit)


@_compiled
def _quick_start(task: Task, found: Found) -> Progress:
    return on_central_path(task, working_program(task, jnp.float32), found)


@_compiled
def _quick_steps(task: Task, progress: Progress, tol: jax.Array, limit: jax.Array) -> Progress:
    return quick_steps(working_program(task, jnp.float32), _rounded(progress), tol, limit)


@_compiled
def _thorough_start(task: Task, found: Found) -> Progress:
    return on_central_path(task, _working(task), found)


@_compiled
def _cold_start(task: Task) -> Progress:
    return cold_progress(_working(task))


@_compiled
def _thorough_steps(task: Task, progress: Progress, tol: jax.Array, limit: jax.Array) -> Progress:
    return thorough_steps(_working(task))(progress, tol, limit)


_joined = _compiled(joined)


def _working(task: Task) -> Program:
    return working_program(task, task.program.rows.dtype)


def _rounded(tree: Any) -> Any:
    """The same in float32."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
