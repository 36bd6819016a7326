"""From rows to a certified solution: choose the method by its cost, follow it, round, certify."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxhinge._base.precision import eps, tiny
from jaxhinge._methods.ascent import Ascent, ascend, ascent_start
from jaxhinge._methods.certificate import (
    Certified,
    Program,
    better,
    certify,
    dual_value,
    feasible,
    primal_value,
    within,
)
from jaxhinge._methods.coordinates import Task, reflected, task_of, working_program
from jaxhinge._methods.interior_point import Progress, central_start, choose, interior_point_steps
from jaxhinge._methods.linear_systems import by_features, by_rows
from jaxhinge._methods.problem import Answer, Config, Rows, Start, Status

# Beyond this many features a p x p Cholesky factor costs more than many products with the data.
_MANY_FEATURES = 1000
ASCENT_STEPS = 30
# Below, one more corrector costs more than the step it saves.
_NARROW = 128
# Complementarity, of the objective, below which float32 holds nothing more.
_FLOAT32_FLOOR = 1e-7
# A start is not taken for nearer to the end of the central path than this.
_CLOSEST = 1e-3


class SolverState(NamedTuple):
    """What the solver has: the best certificate, the steps made, whether `max_steps` ended them, and whether to go on
    from it rather than from 0."""

    best: Certified
    steps: jax.Array
    limited: jax.Array
    warm: jax.Array


def solve_rows(config: Config, rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
    """Minimise to a relative gap of `tol`. The precision of the work is that of `rows`."""
    task = task_of(config, rows)
    return finish(config, rows, task, _solved(config, task, given_start(task, start), tol, max_steps), tol)


def solve_float32_stage(config: Config, rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
    """The first half of `solve_rows`: what float32 can do, which may be something for the other half to start from."""
    task = task_of(config, rows)
    return finish(config, rows, task, _float32_stage(config, task, given_start(task, start), tol, max_steps), tol)


def solve_float64_stage(config: Config, rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
    """The other half of `solve_rows`."""
    task = task_of(config, rows)
    return finish(config, rows, task, _float64_stage(config, task, given_start(task, start), tol, max_steps), tol)


def gap_of_rows(
    config: Config, improve: bool, rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array
) -> jax.Array:
    """The objective at the start minus a dual value: of its dual as it is, or improved by the solver's steps."""
    task = task_of(config, rows)
    program = task.program
    b = jnp.zeros_like(start.b) if config.intercept == "none" else start.b + start.w @ task.centre
    z = jnp.append(start.w, b)[: len(program.penalty)]
    violations = program.r - program.scores(z)
    if config.intercept == "none":
        violations = violations - program.sign * start.b
    primal = primal_value(program, z, violations)
    best = certify(program, z, start.dual)
    if improve:
        zeros = certify(program, jnp.zeros_like(z), jnp.zeros_like(start.dual))
        best = _solved(config, task, _unsolved(zeros), tol, max_steps).best
    gap = primal - best.dual
    return jnp.where(rows.valid, gap, jnp.full_like(gap, jnp.nan))


def cold_progress(program: Program) -> Progress:
    """Progress at step 0, from `z = 0`."""
    return central_start(program, jnp.zeros_like(program.penalty), _unit_of_margin(program))


def given_start(task: Task, start: Start) -> SolverState:
    """The start, certified, or 0 where there is none."""
    # A start that is not finite, from a solve that was refused, is no start.
    usable = start.warm & jnp.isfinite(jnp.sum(start.w) + start.b + jnp.sum(start.dual))
    z = jnp.append(start.w, start.b + start.w @ task.centre)[: len(task.program.penalty)]
    best = certify(task.program, jnp.where(usable, z, 0), jnp.where(usable, start.dual, 0))
    return _unsolved(best)._replace(warm=usable)


def _unsolved(best: Certified) -> SolverState:
    # Numbers that vary over the axes of a `shard_map` as the data do.
    never = jnp.isnan(best.primal) & False
    return SolverState(best, never * jnp.int32(0), never, never)


def _solved(config: Config, task: Task, found: SolverState, tol: jax.Array, max_steps: jax.Array) -> SolverState:
    found = _float32_stage(config, task, found, tol, max_steps)
    return _float64_stage(config, task, found._replace(warm=jnp.isfinite(found.best.primal)), tol, max_steps)


def _float32_stage(config: Config, task: Task, found: SolverState, tol: jax.Array, max_steps: jax.Array) -> SolverState:
    """What float32 can do: exact enough until the gap is small."""
    p, n = task.program.shape
    if ascends(config, task):
        limit = max_steps if config.method == "ascent" else jnp.minimum(max_steps, ASCENT_STEPS)
        ascent = ascend(task.program, ascent_start(found.best, jnp.float32), tol, limit)
        found = ascended(found, ascent, max_steps)
    if config.method == "ascent" or p > n:
        return found
    low = working_program(task, jnp.float32)
    progress = float32_steps(low, warm_start(task, low, found), tol, max_steps)
    return merge_certificates(task, found, progress, max_steps)


def ascends(config: Config, task: Task) -> bool:
    """Whether a solve begins with ascents."""
    p, n = task.program.shape
    return config.method == "ascent" or (config.method == "auto" and (p > n or p > _MANY_FEATURES))


def ascended(found: SolverState, ascent: Ascent, max_steps: jax.Array) -> SolverState:
    """What is found after ascents from it."""
    return SolverState(ascent.best, found.steps + ascent.steps, ascent.steps >= max_steps, found.warm)


def float32_steps(low: Program, progress: Progress, tol: jax.Array, max_steps: jax.Array) -> Progress:
    """Interior point steps of a program in float32."""
    system, correctors = by_features(low), _num_correctors(len(low.penalty))
    return interior_point_steps(low, progress, system, tol, max_steps, correctors, _FLOAT32_FLOOR)


def merge_certificates(task: Task, found: SolverState, progress: Progress, max_steps: jax.Array) -> SolverState:
    """The better of what was found and what lower precision believes that it has reached."""
    z, alpha = reflected(task, progress.best.astype(task.program.rows.dtype))[:2]
    best = better(found.best, certify(task.program, z, alpha))
    return SolverState(best, progress.steps, progress.steps >= max_steps, found.warm)


def _float64_stage(config: Config, task: Task, found: SolverState, tol: jax.Array, max_steps: jax.Array) -> SolverState:
    """The rest, in the precision of the program; where that leads nowhere, once more from the beginning."""
    if config.method == "ascent":
        return found
    p, n = task.program.shape
    program = working_program(task, task.program.rows.dtype)

    def attempts(found: SolverState) -> SolverState:
        cold, make_steps = cold_progress(program), float64_steps(program)

        # The attempts share one compiled step, and the counter of a loop stays whole under vmap.
        def attempt(number: jax.Array, progress: Progress) -> Progress:
            return make_steps(restart_from(progress, choose(number > 0, cold, progress)), tol, max_steps)

        progress = jax.lax.fori_loop(0, 2, attempt, warm_start(task, program, found))
        return SolverState(reflected(task, progress.best), progress.steps, progress.steps >= max_steps, found.warm)

    if p <= n:
        return attempts(found)
    # The kernel of the rows costs as much as hundreds of ascent steps: not if those were enough.
    return jax.lax.cond(within(program, found.best, tol), lambda found: found, attempts, found)  # type: ignore[no-any-return]


def float64_steps(program: Program) -> Callable[[Progress, jax.Array, jax.Array], Progress]:
    """Interior point steps in the precision of the program, as a function `(progress, tol, max_steps)`."""
    p, n = program.shape
    system = by_rows(program) if p > n else by_features(program)

    def make_steps(progress: Progress, tol: jax.Array, max_steps: jax.Array) -> Progress:
        return interior_point_steps(program, progress, system, tol, max_steps, _num_correctors(p))

    return make_steps


def restart_from(progress: Progress, iterate: Progress) -> Progress:
    """What was reached and the steps made, to go on from another place."""
    return progress._replace(
        point=iterate.point,
        complementarity_gap=iterate.complementarity_gap,
        steps_without_progress=0 * progress.steps_without_progress,
    )


def warm_start(task: Task, working: Program, found: SolverState) -> Progress:
    """Progress from the central point above what is found: no nearer to the end of the path than the gap there."""
    given = reflected(task, found.best).astype(working.rows.dtype)
    closeness = (given.primal - given.dual) / jnp.maximum(jnp.abs(given.primal), tiny(given.primal.dtype))
    closeness = jnp.where(found.warm, jnp.minimum(jnp.maximum(closeness, _CLOSEST), 1), 1)
    progress = central_start(working, given.z, closeness * _unit_of_margin(working))
    return progress._replace(best=better(progress.best, given), steps=progress.steps + found.steps)


def _num_correctors(p: int) -> int:
    return 1 if p < _NARROW else 2


def _unit_of_margin(program: Program) -> jax.Array:
    """The size of the required margins; where all are 0 (one-class), of the scores that the mid-box dual implies."""
    total = jnp.sum(program.c)
    required = program.c @ jnp.abs(program.r) / total
    penalised = program.penalty > 0
    implied = program.adjoint(feasible(program, program.c / 2)) - program.q
    implied = jnp.where(penalised, implied, 0) / jnp.where(penalised, program.penalty, 1)
    unit = jnp.where(required > 0, required, program.c @ jnp.abs(program.scores(implied)) / total)
    return jnp.where(unit > 0, unit, 1)


def finish(config: Config, rows: Rows, task: Task, found: SolverState, tol: jax.Array) -> Answer:
    """Round to the caller's dtype first, then evaluate both values for exactly what is returned."""
    program, best = task.program, found.best
    params, primal = _rounded(config, task, best.z)
    at_zero = primal_value(program, jnp.zeros_like(best.z), program.r)
    params, primal = choose(primal > at_zero, (jnp.zeros_like(params), at_zero), (params, primal))
    dual = _net(best.alpha) if config.paired else best.alpha
    dual = jnp.where(rows.c > 0, dual, 0).astype(config.dtype).astype(primal.dtype)
    alpha = feasible(program, dual)
    bound = dual_value(program, alpha, program.adjoint(alpha))
    # Where no linear term asks for more, a dual of 0 is feasible and proves as much as that no objective is negative.
    useless = ~(bound >= 0) & jnp.all(program.q == 0)
    dual, alpha, bound = choose(useless, jax.tree.map(jnp.zeros_like, (dual, alpha, bound)), (dual, alpha, bound))
    converged = within(program, Certified(params, alpha, primal, bound), tol)
    valid = rows.valid & jnp.isfinite(primal) & jnp.isfinite(bound)

    def unless_refused(values: jax.Array) -> jax.Array:
        return jnp.where(valid, values, jnp.full_like(values, jnp.nan))

    otherwise = jnp.where(found.limited, Status.STEP_LIMIT, Status.STALLED)
    d = rows.xt.shape[0]
    b = jnp.zeros_like(primal) if config.intercept == "none" else params[d]
    status = jnp.where(valid, jnp.where(converged, Status.CONVERGED, otherwise), Status.REFUSED)
    # The gap is taken before the values are rounded: it is smaller than their last digit.
    w, b, dual, primal, bound, gap = map(unless_refused, (params[:d], b, dual, primal, bound, primal - bound))
    return Answer(w, b, dual, primal, bound, gap, found.steps, status.astype(jnp.int32))


def _net(alpha: jax.Array) -> jax.Array:
    """The dual of mirrored rows, with no push against a pull on the same row: as feasible, and never worse."""
    pairs = alpha.reshape(-1, 2)
    return (pairs - jnp.min(pairs, axis=1, keepdims=True)).ravel()


def _rounded(config: Config, task: Task, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Parameters that are exact in the caller's dtype, and their primal value.

    Where every margin is exactly 1, rounding down costs more than the objective is worth, so that slightly longer
    parameters are tried as well. A free bias is rounded last and takes up what the weights lost.
    """
    program, centre = task.program, task.centre
    d = len(centre)
    rounding = eps(config.dtype)
    narrower = rounding > eps(z.dtype)
    stretch = 1 + rounding * jnp.asarray([0.0, 2.0, 8.0, 32.0] if narrower else [0.0], z.dtype)
    w = (stretch[:, None] * z[None, :d]).astype(config.dtype).astype(z.dtype)
    candidates, shifted = w, w
    if config.intercept != "none":
        b = (stretch * z[d] - w @ centre).astype(config.dtype).astype(z.dtype)
        candidates = jnp.concatenate([w, b[:, None]], axis=1)
        shifted = jnp.concatenate([w, (b + w @ centre)[:, None]], axis=1)
    values = jax.vmap(lambda z: primal_value(program, z, program.r - program.scores(z)))(shifted)
    params, value = candidates[0], values[0]
    for point, other in zip(candidates[1:], values[1:], strict=True):
        params, value = jnp.where(other < value, point, params), jnp.minimum(other, value)
    return params, value
