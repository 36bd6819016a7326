"""Many problems on the same rows, solved on the host in NumPy: nothing is compiled.

Which method. Where Newton's method suits the rows (see `host`) the problems are solved one after the other, each from
the solution of a neighbour. Elsewhere a step of the interior point is made for all of them at once, along a leading
axis of every array: small problems spend their time on calls, not on sums. Where a neighbour's solution tells which
rows lie near the kink, these are solved for first (see `working_sets`).
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.threads import in_threads, one_blas_thread
from jaxhinge._methods.certificate import Program, better, certify, within
from jaxhinge._methods.coordinates import Task
from jaxhinge._methods.executor import State
from jaxhinge._methods.host import host_operator, host_system, in_dtype, is_wide, newton_suits, solve_task
from jaxhinge._methods.interior_point import Progress, step, unfinished
from jaxhinge._methods.problem import Answer, Config, Rows, Start, program_of
from jaxhinge._methods.stages import (
    SolverState,
    cold_progress,
    finish,
    given_start,
    num_correctors,
    restart_from,
    warm_start,
)
from jaxhinge._methods.wide import in_row_coordinates, inward, outward
from jaxhinge._methods.working_sets import working_set

# Rows x problems of a part of a batch, at most. The vectors of a part fit the cache; threads share the parts, which are
# the same whatever the number of threads: an even number of nearly one size.
_NUMBERS_AT_ONCE = 2**15
# A working set holds one row of `_SHARE`. It is chosen anew up to `_ROUNDS` times. Of fewer numbers than `_FEW_NUMBERS`
# the rows are no matter: calls are.
_SHARE = 4
_ROUNDS = 3
_FEW_NUMBERS = 30_000


def solve_batch_on_host(
    config: Config, rows: Rows, start: Start, tol: float, max_steps: int, operator: object | None = None
) -> Answer:
    """The answers of all problems, whose signs and weights `(batch, n)` and strengths `(batch,)` differ.

    Args:
      config: The same for all.
      rows: With a leading axis for `sign`, `c` and `l2`.
      start: With a leading axis throughout.
      tol: The relative gap that each is solved to.
      max_steps: The most steps of each.
      operator: `host_operator` of the rows, where it was made before.
    """
    with one_blas_thread():
        task = _batch_task(config, rows, operator or host_operator(config, rows))
        count, one_by_one = len(rows.l2), newton_suits(config, task.program)
        parts = np.array_split(np.arange(count), count if one_by_one else _num_parts(count, len(rows.r)))

        def solve_part(chosen: NDArray) -> Answer:
            part = task._replace(program=task.program.take(chosen))
            of_rows = rows._replace(**{name: getattr(rows, name)[chosen] for name in ("sign", "c", "l2", "valid")})
            of_start = Start(*(leaf[chosen] for leaf in start))
            with np.errstate(all="ignore"):
                if one_by_one:
                    return _one_by_one(config, of_rows, part, of_start, tol, max_steps)
                found = _by_working_sets(part, given_start(part, of_start), tol, max_steps)
                found = _by_interior_point(part, found, tol, max_steps)
                return in_dtype(finish(config, of_rows, part, found, np.float64(tol)), config.dtype)

        answers = in_threads(solve_part, parts)
        return Answer(*(np.concatenate(leaves) for leaves in zip(*answers, strict=True)))


def _num_parts(count: int, n: int) -> int:
    parts = -(-count // max(1, _NUMBERS_AT_ONCE // n))
    return min(count, parts + parts % 2) if parts > 1 else 1


def _one_by_one(config: Config, rows: Rows, task: Task, start: Start, tol: float, max_steps: int) -> Answer:
    """The answer of a batch of one problem, by the methods for single problems."""
    names = ("sign", "r", "c", "penalty", "q")
    program = replace(task.program, **{name: getattr(task.program, name)[0] for name in names})
    rows = rows._replace(**{name: getattr(rows, name)[0] for name in ("sign", "c", "l2", "valid")})
    start = Start(*(leaf[0] for leaf in start))
    kept = np.flatnonzero(rows.c > 0)
    if not program.rows.sparse or len(kept) == len(rows.c):
        answer = solve_task(config, rows, task._replace(program=program), start, tol, max_steps)
        return Answer(*(leaf[None] for leaf in answer))
    # Products cost as much as the rows hold, so that those of other folds are left out.
    of_rows = {name: getattr(program, name)[kept] for name in ("sign", "r", "c")}
    program = replace(program, rows=program.rows.take(kept), **of_rows)
    rows = rows._replace(sign=rows.sign[kept], r=rows.r[kept], c=rows.c[kept])
    start = start._replace(dual=start.dual[kept])
    answer = solve_task(config, rows, task._replace(program=program), start, tol, max_steps)
    dual = np.zeros(task.program.shape[1], answer.dual.dtype)
    dual[kept] = answer.dual
    return Answer(*(leaf[None] for leaf in answer._replace(dual=dual)))


def _batch_task(config: Config, rows: Rows, operator: object) -> Task:
    """The rows as a program whose arrays lead with the problems."""
    centre = np.asarray(rows.centre if config.intercept == "free" else 0 * rows.centre, np.float64)
    return Task(program_of(config, rows, operator, centre), centre, np.zeros(len(rows.l2)))


def _by_working_sets(task: Task, found: SolverState, tol: float, max_steps: int) -> SolverState:
    """Steps for the rows near the kink, until all rows agree or they were chosen often enough."""
    program, z = task.program, found.best.z
    p, n = program.shape
    if program.squared or p > n // _SHARE or n * p < _FEW_NUMBERS or not found.warm.all():
        return found
    for _ in range(_ROUNDS):
        lacking = np.flatnonzero(~within(program, found.best, np.float64(tol)) & (found.steps < max_steps))
        if not len(lacking):
            break
        part, before = program.take(lacking), _taken(found, lacking)
        working = working_set(part, z[lacking], n // _SHARE)
        start = before._replace(best=working.inward(z[lacking], before.best.alpha))
        progress = warm_start(task, working.program, start)
        # The rows that are left out may need the other half of the gap.
        progress = _steps(working.program, progress, np.float64(tol / 2), np.int32(max_steps))
        z = _put(z, lacking, progress.best.z)
        best = better(before.best, certify(part, progress.best.z, working.outward(progress.best.alpha)))
        found = _put(found, lacking, before._replace(best=best, steps=progress.steps))
    return found


def _by_interior_point(task: Task, found: SolverState, tol: float, max_steps: int) -> SolverState:
    given, best, limits = task.program, found.best, (np.float64(tol), np.int32(max_steps))
    if is_wide(given):
        task = task._replace(program=in_row_coordinates(given))
        found = found._replace(best=inward(given, task.program, best))
    program = task.program
    progress = _steps(program, warm_start(task, program, found), *limits)
    lacking = ~within(program, progress.best, limits[0]) & (progress.steps < limits[1])
    if lacking.any():
        # Those that got stuck begin once more, from 0.
        again = np.flatnonzero(lacking)
        part = program.take(again)
        restarted = restart_from(_taken(progress, again), cold_progress(part))
        progress = _put(progress, again, _steps(part, restarted, *limits))
    reached = outward(given, progress.best) if is_wide(given) else progress.best
    return SolverState(better(best, reached), progress.steps, progress.steps >= limits[1], np.ones_like(found.warm))


def _steps(program: Program, progress: Progress, tol: np.float64, max_steps: np.int32) -> Progress:
    """A step of all problems at a time; whoever is done leaves the batch."""
    correctors, finished = num_correctors(program.shape[0]), progress
    pending = np.arange(len(program.sign))
    while len(pending):
        going = unfinished(program, progress, tol, max_steps, 0.0)
        if not going.all():
            finished = _put(finished, pending, progress)
            pending, progress, program = pending[going], _taken(progress, going), program.take(going)
        else:
            progress = step(program, progress, host_system(program, float(tol)), correctors)
    return finished


def _taken(state: State, chosen: NDArray) -> State:
    return jax.tree.map(lambda leaf: leaf[chosen], state)  # type: ignore[no-any-return]


def _put(state: State, places: NDArray, new: State) -> State:
    """The state with that of some problems replaced."""

    def put(old: NDArray, new: NDArray) -> NDArray:
        old = np.array(old)
        old[places] = new
        return old

    return jax.tree.map(put, state, new)  # type: ignore[no-any-return]
