"""One multiclass problem solved on the host, in NumPy: nothing is compiled.

Which method. Where the system of a Newton step is large, ascents come first; where it would not fit, nothing else
comes. The interior point solves the rest, in as many coordinates as there are rows where there are more features.
"""

from __future__ import annotations

import numpy as np

from jaxhinge._base.threads import one_blas_thread
from jaxhinge._methods.certificate import better, within
from jaxhinge._methods.executor import Watch
from jaxhinge._methods.host import in_dtype, in_turn, operator_of
from jaxhinge._methods.multiclass.ascent import ascend
from jaxhinge._methods.multiclass.interior_point import interior_point_steps
from jaxhinge._methods.multiclass.linear_systems import by_matrix
from jaxhinge._methods.multiclass.stages import (
    ASCENT_STEPS,
    Config,
    LabelledRows,
    MulticlassTask,
    Reduced,
    begins_with_ascents,
    cold_start,
    ends_with_ascents,
    finish,
    given_start,
    program_of,
    reduced,
    unreduced,
    warm_start,
)
from jaxhinge._methods.problem import Answer, Start
from jaxhinge._methods.stages import SolverState, restart_from
from jaxhinge._rows.dense import DenseRows


def solve_on_host(
    config: Config, rows: LabelledRows, start: Start, tol: float, max_steps: int, watch: Watch | None = None
) -> Answer:
    """Minimise to a relative gap of `tol`; the answer in NumPy arrays."""
    with one_blas_thread(), np.errstate(all="ignore"):
        task = host_task(config, rows)
        found = given_start(task, unreduced(task.program), start)
        found = in_turn((_by_ascent, _by_interior_point), config, task, found, tol, max_steps, watch or Watch())
        return in_dtype(finish(config, task, found, np.float64(tol)), config.dtype)


def host_task(config: Config, rows: LabelledRows) -> MulticlassTask:
    """The rows as a program of NumPy arrays; `rows.xt` is not copied where it is large."""
    centre = np.zeros(rows.xt.shape[0])
    if config.intercept == "free":
        centre = np.asarray(rows.xt @ (rows.c / np.sum(rows.c)).astype(rows.xt.dtype), np.float64)
    operator = operator_of(rows.xt.T, centre, config.intercept != "none")
    return MulticlassTask(program_of(config, operator, rows), centre, rows.valid)


def _by_ascent(
    config: Config, task: MulticlassTask, found: SolverState, tol: float, max_steps: int, watch: Watch
) -> SolverState:
    order = _order(task)
    if not begins_with_ascents(config, order):
        return found
    limit = max_steps if ends_with_ascents(config, order) else min(max_steps, ASCENT_STEPS)
    ascent = ascend(task.program, found.best, np.float64(tol), np.int32(limit), np.float64, watch)
    return SolverState(ascent.best, ascent.steps, ascent.steps >= max_steps, found.warm)


def _by_interior_point(
    config: Config, task: MulticlassTask, found: SolverState, tol: float, max_steps: int, watch: Watch
) -> SolverState:
    if found.limited or ends_with_ascents(config, _order(task)):
        return found
    small, limits = _reduced(task), (np.float64(tol), np.int32(max_steps))
    program, system = small.program, by_matrix(small.program)
    progress = warm_start(program, found._replace(best=found.best._replace(z=small.turn(found.best.z))))
    progress = interior_point_steps(program, progress, system, *limits, watch=watch)
    if found.warm and not watch.interrupted and not within(program, progress.best, limits[0]):
        # A start may lead nowhere: once more, from the beginning.
        progress = interior_point_steps(
            program, restart_from(progress, cold_start(program)), system, *limits, watch=watch
        )
    best = progress.best._replace(z=small.turn_back(progress.best.z))
    return SolverState(better(found.best, best), progress.steps, progress.steps >= max_steps, found.warm)


def _order(task: MulticlassTask) -> int:
    """Of the Newton system of the reduced program."""
    (k, n), p = task.program.label.shape, len(task.program.penalty)
    order: int = (k - 1) * (min(p, n + 1) if isinstance(task.program.rows, DenseRows) else p)
    return order


def _reduced(task: MulticlassTask) -> Reduced:
    """The program in at most as many features as there are rows, where these are in memory."""
    rows = task.program.rows
    wide = isinstance(rows, DenseRows) and len(task.centre) > rows.shape[1]
    return reduced(task, rows.take(slice(None)).x.T) if wide else unreduced(task.program)
