"""One problem solved on the host, in NumPy: nothing is compiled.

Which method. Newton's method comes first where there are at least `_ROWS_PER_FEATURE` rows for each feature, and where
rows are sparse or both rows and features are many: its systems are then solved by products with the rows, and the last
digits among the rows on the margin (see `active_set`). It is left where rows are heaped on the kink. The interior point
solves the rest, unless its matrix would be too large; more features than rows in as many coordinates as there are rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxhinge._base.arrays import Array, NDArray
from jaxhinge._base.sparse import is_sparse
from jaxhinge._base.threads import one_blas_thread
from jaxhinge._methods.ascent import ascend, ascent_start
from jaxhinge._methods.balance import with_balanced_forces
from jaxhinge._methods.certificate import Program, better, within
from jaxhinge._methods.coordinates import Task
from jaxhinge._methods.executor import Watch
from jaxhinge._methods.interior_point import interior_point_steps
from jaxhinge._methods.linear_systems import NewtonSystem, by_features, by_rows
from jaxhinge._methods.newton import solve_by_newton
from jaxhinge._methods.problem import Answer, Config, Rows, Start, Status, program_of
from jaxhinge._methods.stages import (
    SolverState,
    cold_progress,
    finish,
    gap_at,
    given_start,
    num_correctors,
    restart_from,
    warm_start,
)
from jaxhinge._methods.wide import in_row_coordinates, inward, outward
from jaxhinge._rows.dense import DenseRows, TwoSided
from jaxhinge._rows.sparse import SparseRows

# Fewer rows for each feature leave margins too discrete for Newton's method, and the interior point takes fewer steps.
_ROWS_PER_FEATURE = 50
# Problems of fewer numbers are solved by the interior point at once: its steps are then a matter of calls, not of sums.
_FEW_NUMBERS = 30_000
# `_LARGEST_SYSTEM`: the largest matrix that the interior point factors; its order is the smaller number of features and
# rows.
_LARGEST_SYSTEM = 4000
# `_ROWS_SUFFICE`: down to this relative gap as many coordinates as rows are solved for by the rows, which takes a third
# of the time but loses the digits beyond.
_ROWS_SUFFICE = 1e-5
# `_NEARER`: share of the tolerance that is aimed for where rounding to the caller's dtype lost the proof.
_NEARER = 1e-2
# A bound for given parameters is improved to this relative gap, or by so many steps.
_TIGHT = 1e-7
_TIGHT_STEPS = 200


def solve_on_host(
    config: Config, rows: Rows, start: Start, tol: float, max_steps: int, watch: Watch | None = None
) -> Answer:
    """Minimise to a relative gap of `tol`; the answer in NumPy arrays."""
    with one_blas_thread(), np.errstate(all="ignore"):
        return solve_task(config, rows, host_task(config, rows), start, tol, max_steps, watch)


def solve_task(
    config: Config, rows: Rows, task: Task, start: Start, tol: float, max_steps: int, watch: Watch | None = None
) -> Answer:
    """The same for rows that are a program already."""
    watch, methods = watch or Watch(), (_by_ascent, _by_newton, _by_interior_point)
    found = in_turn(methods, config, task, given_start(task, start), tol, max_steps, watch)
    answer = finish(config, rows, task, found, np.float64(tol))
    if answer.status == Status.STALLED and within(task.program, found.best, np.float64(tol)):
        # Rounding to the caller's dtype lost what was proven. It loses less of a point nearer to the solution.
        found = _by_interior_point(config, task, found, _NEARER * tol, max_steps, watch)
        nearer = finish(config, rows, task, found, np.float64(tol))
        answer = nearer if nearer.gap < answer.gap else answer
    return in_dtype(answer, config.dtype)


def in_turn(
    methods: tuple[Callable[..., SolverState], ...],
    config: Any,
    task: Any,
    found: SolverState,
    tol: float,
    max_steps: int,
    watch: Watch,
) -> SolverState:
    """What the methods reach, each from what the one before has reached, until it is within `tol`."""
    for method in methods:
        try:
            if not watch.interrupted and not within(task.program, found.best, np.float64(tol)):
                found = method(config, task, found, tol, max_steps, watch)
        except KeyboardInterrupt:
            # Between the steps of a method there is what the method before has reached.
            if not watch.keeps:
                raise
            watch.interrupted = True
    return found._replace(limited=np.True_) if watch.interrupted else found


def in_dtype(answer: Answer, dtype: Any) -> Answer:
    """The answer with its floats in the caller's dtype."""
    return Answer(*(leaf.astype(dtype) if leaf.dtype == np.float64 else leaf for leaf in map(np.asarray, answer)))


def gap_on_host(config: Config, rows: Rows, start: Start, improve: bool) -> Array:
    """The objective at the start minus a dual value: of its dual as it is, or improved by the solver's steps."""
    with one_blas_thread(), np.errstate(all="ignore"):
        task = host_task(config, rows)
        if not improve:
            return gap_at(config, task, start, start.dual)
        found = given_start(task, start._replace(warm=np.False_))
        for method in (_by_newton, _by_interior_point):
            if not within(task.program, found.best, np.float64(_TIGHT)):
                found = method(config, task, found, _TIGHT, _TIGHT_STEPS, None)
        return gap_at(config, task, start, found.best.alpha)


def host_task(config: Config, rows: Rows) -> Task:
    """The rows as a program of NumPy arrays; `rows.xt` is not copied where it is large."""
    centre = _centre(config, rows)
    program = program_of(config, rows, host_operator(config, rows), centre)
    return Task(program, centre, np.zeros_like(program.penalty))


def host_operator(config: Config, rows: Rows) -> Any:
    """The rows as an operator."""
    operator = operator_of(rows.xt.T, _centre(config, rows), config.intercept != "none")
    return TwoSided(operator) if config.paired else operator


def operator_of(x: Any, centre: NDArray, bias: bool) -> DenseRows | SparseRows:
    """The rows `(x_i - centre, 1)`, dense or sparse, with or without the 1."""
    source = SparseRows if is_sparse(x) else DenseRows
    return source.of(x, centre if centre.any() else None, bias)


def _centre(config: Config, rows: Rows) -> NDArray:
    """What is taken from the features: their centre where a free bias absorbs it, and the bias has no other use."""
    d, n = rows.xt.shape
    # The linear term of a bias would become one of the features, which more of them than rows cannot express.
    absorbed = config.intercept == "free" and not (rows.q_bias and d > n)
    return np.asarray(rows.centre, np.float64) if absorbed else np.zeros(d)


def newton_suits(config: Config, program: Program) -> bool:
    """Whether Newton's method comes first."""
    if config.method != "auto":
        return config.method == "newton"
    p, n = program.shape
    if program.rows.sparse or not interior_point_suits(program):
        return True
    return (program.rows.by_products and n >= p) or (n >= _ROWS_PER_FEATURE * p and n * p > _FEW_NUMBERS)


def is_wide(program: Program) -> bool:
    """Whether there are more features than rows."""
    return bool(program.rows.shape[0] > program.rows.shape[1])


def host_system(program: Program, tol: float) -> NewtonSystem:
    """The linear system of an interior-point step."""
    p, n = program.shape
    return by_rows(program) if p >= n and tol >= _ROWS_SUFFICE else by_features(program)


def interior_point_suits(program: Program) -> bool:
    """Whether the matrix of the interior point is of a bearable order."""
    return bool(min(program.rows.shape) <= _LARGEST_SYSTEM)


def _by_ascent(
    config: Config, task: Task, found: SolverState, tol: float, max_steps: int, watch: Watch | None
) -> SolverState:
    if config.method != "ascent":
        return found
    ascent = ascend(task.program, ascent_start(found.best, np.float64), np.float64(tol), np.int32(max_steps), watch)
    return SolverState(ascent.best, ascent.steps, ascent.steps >= max_steps, found.warm)


def _by_newton(
    config: Config, task: Task, found: SolverState, tol: float, max_steps: int, watch: Watch | None
) -> SolverState:
    if not newton_suits(config, task.program):
        return found
    # The interior point is left steps enough where Newton's lead nowhere.
    most = max_steps - int(found.steps)
    most = most // 2 if config.method == "auto" and interior_point_suits(task.program) else most
    new = solve_by_newton(task.program, found.best, bool(found.warm), tol, most, watch)
    steps = found.steps + np.int32(new.steps)
    return SolverState(new.best, steps, steps >= max_steps, np.True_)


def _by_interior_point(
    config: Config, task: Task, found: SolverState, tol: float, max_steps: int, watch: Watch | None
) -> SolverState:
    if config.method in ("ascent", "newton") or not (interior_point_suits(task.program) or config.method != "auto"):
        return found
    given, best = task.program, found.best
    if is_wide(given):
        task = task._replace(program=in_row_coordinates(given))
        found = found._replace(best=inward(given, task.program, best))
    program = task.program
    progress = warm_start(task, program, found)
    system, correctors = host_system(program, tol), num_correctors(program.shape[0])
    limits = np.float64(tol), np.int32(max_steps)
    for attempt in range(2):
        if attempt:
            progress = restart_from(progress, cold_progress(program))
        progress = interior_point_steps(program, progress, system, *limits, correctors, 0.0, watch)
        if within(program, progress.best, limits[0]) or progress.steps >= max_steps or not found.best.z.any():
            # From 0 the steps would be the same ones again.
            break
    reached = progress.best
    if not within(program, reached, limits[0]):
        reached = with_balanced_forces(program, reached)
    reached = outward(given, reached) if is_wide(given) else reached
    return SolverState(better(best, reached), progress.steps, progress.steps >= max_steps, np.True_)
