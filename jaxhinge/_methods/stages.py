"""From rows to a certified solution: choose the method by its cost, follow it, round, certify."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import eps, rounded_down, rounded_up, tiny
from jaxhinge._methods.ascent import ascend, ascent_start
from jaxhinge._methods.certificate import (
    FLOOR,
    Certified,
    Program,
    allowed_gap,
    better,
    certify,
    dual_value,
    feasible,
    gap_between,
    net,
    over_penalty,
    primal_value,
    within,
)
from jaxhinge._methods.coordinates import Task, reflected, task_of, working_program
from jaxhinge._methods.executor import choose, column, dot, each, namespace
from jaxhinge._methods.interior_point import Progress, central_start, interior_point_steps
from jaxhinge._methods.linear_systems import by_features, by_rows
from jaxhinge._methods.newton import FIRST_RATE, newton_start, newton_steps, plain_rate, warm_rate
from jaxhinge._methods.problem import Answer, Config, Rows, Start, Status

# Beyond this many features a p x p Cholesky factor costs more than many products with the data.
_MANY_FEATURES = 1000
ASCENT_STEPS = 30
# Below this many features one more corrector costs more than the step it saves.
_NARROW = 128
# Complementarity, relative to the objective, below which float32 resolves no further progress.
_FLOAT32_FLOOR = 1e-7
# Newton's steps in float32 end at this relative gap.
_FLOAT32_GAP = 1e-5
# Smallest initial barrier parameter of a warm start, relative to a cold one.
_CLOSEST = 1e-3


class SolverState(NamedTuple):
    """The state of a solve between two methods.

    Attributes:
      best: The best certificate.
      steps: Made so far.
      limited: Whether `max_steps` ended them.
      warm: Whether the next method starts from `best` rather than from 0.
    """

    best: Certified
    steps: Array
    limited: Array
    warm: Array


Stage = Callable[[Config, Task, SolverState, jax.Array, jax.Array], SolverState]


def solve_rows(
    config: Config, rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array, stage: Stage | None = None
) -> Answer:
    """Minimise to a relative gap of `tol`, by both stages or by one. The precision of the work is that of `rows`."""
    task = task_of(config, rows)
    found = (stage or _solved)(config, task, given_start(task, start), tol, max_steps)
    return finish(config, rows, task, found, tol)


def gap_of_rows(config: Config, improve: bool, rows: Rows, start: Start, tol: Array, max_steps: Array) -> Array:
    """The objective at the start minus a dual value: of its dual as it is, or improved by the solver's steps."""
    task = task_of(config, rows)
    alpha = start.dual
    if improve:
        zeros = certify(task.program, jnp.zeros_like(task.program.penalty), jnp.zeros_like(start.dual))
        alpha = _solved(config, task, unsolved(zeros), tol, max_steps).best.alpha
    gap = gap_at(config, task, start, alpha)
    return jnp.where(rows.valid, rounded_up(gap, config.dtype), jnp.full_like(gap, jnp.nan))


def gap_at(config: Config, task: Task, start: Start, alpha: Array) -> Array:
    """A bound on the objective at the parameters of `start` minus the value of a dual point, made feasible."""
    xp, program = namespace(alpha), task.program
    b = xp.zeros_like(start.b) if config.intercept == "none" else start.b + dot(start.w, task.centre)
    z = xp.concatenate([start.w, column(b)], axis=-1)[..., : program.shape[0]]
    violations = program.r - program.scores(z)
    if config.intercept == "none":
        violations = violations - program.sign * start.b
    alpha = feasible(program, alpha)
    adjoint = program.adjoint(alpha)
    gap = gap_between(program, z, violations, alpha, adjoint)
    if config.intercept == "none":
        # A bias that is not a part of the problem moves the violations: what it is worth to the dual point goes out.
        # Without that bias parameters may be worse than with it: then the gap would be negative.
        worth, (p, n) = start.b * dot(program.sign, alpha), program.shape
        moved = dot(program.c, 1 + 2 * xp.maximum(violations, 0)) + xp.sum(alpha)
        gap = xp.maximum(gap - worth, 0) + eps(alpha.dtype) * (p + n) * abs(start.b) * moved
    return gap


def cold_progress(program: Program) -> Progress:
    """Progress at step 0, from `z = 0`."""
    return central_start(program, namespace(program.c).zeros_like(program.penalty), unit_of_margin(program))


def given_start(task: Task, start: Start) -> SolverState:
    """The start, certified, or 0 where there is none."""
    xp = namespace(start.dual)
    # A start that is not finite, from a solve that was refused, is no start.
    usable = start.warm & xp.isfinite(xp.sum(start.w, axis=-1) + start.b + xp.sum(start.dual, axis=-1))
    z = xp.concatenate([start.w, column(start.b + dot(start.w, task.centre))], axis=-1)[..., : task.program.shape[0]]
    z, dual = choose(usable, (z, start.dual), (xp.zeros_like(z), xp.zeros_like(start.dual)))
    return unsolved(certify(task.program, z, dual))._replace(warm=usable)


def unsolved(best: Certified) -> SolverState:
    """The state before the first method."""
    # Numbers that vary over the axes of a `shard_map` as the data do.
    never = namespace(best.primal).isnan(best.primal) & False
    return SolverState(best, never * namespace(best.primal).int32(0), never, never)


def _solved(config: Config, task: Task, found: SolverState, tol: jax.Array, max_steps: jax.Array) -> SolverState:
    if config.method == "newton" or (config.method == "auto" and task.program.rows.by_products):
        return _by_newton(task, found, tol, max_steps)
    found = float32_stage(config, task, found, tol, max_steps)
    return float64_stage(config, task, found._replace(warm=jnp.isfinite(found.best.primal)), tol, max_steps)


def float32_stage(config: Config, task: Task, found: SolverState, tol: jax.Array, max_steps: jax.Array) -> SolverState:
    """What float32 can do: exact enough until the gap is small."""
    p, n = task.program.shape
    if ascends(config, task):
        limit = max_steps if config.method == "ascent" else jnp.minimum(max_steps, ASCENT_STEPS)
        ascent = ascend(task.program, ascent_start(found.best, jnp.float32), tol, limit)
        found = SolverState(ascent.best, found.steps + ascent.steps, ascent.steps >= max_steps, found.warm)
    if config.method == "ascent" or p > n:
        return found
    low = working_program(task, jnp.float32)
    progress, correctors = warm_start(task, low, found), num_correctors(p)
    progress = interior_point_steps(low, progress, by_features(low), tol, max_steps, correctors, _FLOAT32_FLOOR)
    # Lower precision may only believe that it has reached what it says.
    z, alpha = reflected(task, progress.best.astype(task.program.c.dtype))[:2]
    best = better(found.best, certify(task.program, z, alpha))
    return SolverState(best, progress.steps, progress.steps >= max_steps, found.warm)


def _by_newton(task: Task, found: SolverState, tol: jax.Array, max_steps: jax.Array) -> SolverState:
    """Newton's method alone: in float32 to the gap that it resolves, then in the precision of the program; by products
    in that precision alone."""
    given, best, steps = task.program, found.best, found.steps
    fraction, rate = best.alpha / given.c, jnp.where(found.warm, warm_rate(best), FIRST_RATE)
    precisions = [(jnp.float32, _FLOAT32_GAP), (given.c.dtype, 0.0)]
    if given.rows.by_products:
        rate, precisions = plain_rate(given), precisions[1:]
    for dtype, least in precisions:
        program = working_program(task, dtype)
        start, allowed = reflected(task, best).astype(dtype), jnp.maximum(tol, least).astype(dtype)
        state = newton_start(program, start, fraction.astype(dtype), rate.astype(dtype))._replace(steps=steps)
        state = newton_steps(program, state, partial(allowed_gap, program, tol=allowed), max_steps, None)
        # Lower precision may only believe that it has reached what it says.
        z, alpha = reflected(task, state.best.astype(given.c.dtype))[:2]
        best, fraction, rate, steps = better(best, certify(given, z, alpha)), state.fraction, state.rate, state.steps
    return SolverState(best, steps, steps >= max_steps, found.warm)


def ascends(config: Config, task: Task) -> bool:
    """Whether a solve begins with ascents."""
    p, n = task.program.shape
    return config.method == "ascent" or (config.method == "auto" and (p > n or p > _MANY_FEATURES))


def float64_stage(config: Config, task: Task, found: SolverState, tol: jax.Array, max_steps: jax.Array) -> SolverState:
    """The rest, in the precision of the program; where that leads nowhere, once more from the beginning."""
    if config.method == "ascent":
        return found
    p, n = task.program.shape
    program = working_program(task, task.program.c.dtype)

    def attempts(found: SolverState) -> SolverState:
        cold, system = cold_progress(program), by_rows(program) if p > n else by_features(program)

        # One fori_loop, not two calls: the step is compiled once, and under vmap its counter is not batched.
        def attempt(number: jax.Array, progress: Progress) -> Progress:
            progress = restart_from(progress, choose(number > 0, cold, progress))
            return interior_point_steps(program, progress, system, tol, max_steps, num_correctors(p))

        progress = jax.lax.fori_loop(0, 2, attempt, warm_start(task, program, found))
        return SolverState(reflected(task, progress.best), progress.steps, progress.steps >= max_steps, found.warm)

    if p <= n:
        return attempts(found)
    # The kernel of the rows costs as much as hundreds of ascent steps: not if those were enough.
    return jax.lax.cond(within(program, found.best, tol), lambda found: found, attempts, found)  # type: ignore[no-any-return]


def restart_from(progress: Progress, iterate: Progress) -> Progress:
    """What was reached and the steps made, to go on from another place."""
    return progress._replace(
        point=iterate.point,
        complementarity_gap=iterate.complementarity_gap,
        steps_without_progress=0 * progress.steps_without_progress,
    )


def warm_start(task: Task, working: Program, found: SolverState) -> Progress:
    """Progress from the central point above what is found: no nearer to the end of the path than the gap there."""
    xp, given = namespace(working.c), reflected(task, found.best).astype(working.c.dtype)
    closeness = (given.primal - given.dual) / xp.maximum(abs(given.primal), tiny(given.primal.dtype))
    closeness = xp.where(found.warm, xp.minimum(xp.maximum(closeness, _CLOSEST), 1), 1)
    progress = central_start(working, given.z, closeness * unit_of_margin(working))
    return progress._replace(best=better(progress.best, given), steps=progress.steps + found.steps)


def num_correctors(p: int) -> int:
    """How many of Gondzio's correctors pay for a system of p coordinates."""
    return 1 if p < _NARROW else 2


def unit_of_margin(program: Program) -> Array:
    """The size of the required margins; where all are 0 (one-class), of the scores that the mid-box dual implies."""
    where, total = namespace(program.c).where, namespace(program.c).sum(program.c, axis=-1)
    required = dot(program.c, abs(program.r)) / total
    implied = over_penalty(program, program.adjoint(feasible(program, program.c / 2)) - program.q)
    unit = where(required > 0, required, dot(program.c, abs(program.scores(implied))) / total)
    return where(unit > 0, unit, 1)


def finish(config: Config, rows: Rows, task: Task, found: SolverState, tol: Array) -> Answer:
    """Round to the caller's dtype first, then bound the gap of exactly what is returned."""
    program, best = task.program, found.best
    xp = namespace(program.c)
    params, shifted = _rounded(config, task, best.z)
    dual = net(best.alpha) if config.paired else best.alpha
    dual = xp.where(rows.c > 0, dual, 0).astype(config.dtype).astype(program.c.dtype)
    alpha = feasible(program, dual)
    adjoint = program.adjoint(alpha)
    # Without a linear term no objective is negative, which is what a dual of 0 proves.
    never_negative = xp.all(program.q == 0, axis=-1)
    useless = ~(dual_value(program, alpha, adjoint) >= 0) & never_negative
    dual, alpha, adjoint = choose(useless, jax.tree.map(xp.zeros_like, (dual, alpha, adjoint)), (dual, alpha, adjoint))
    violations = program.r - program.scores(shifted)
    primal = primal_value(program, shifted, violations)
    gap = gap_between(program, shifted, violations, alpha, adjoint)
    gap = xp.where(never_negative, xp.minimum(gap, primal), gap)
    allowed = tol * xp.maximum(abs(primal), FLOOR * xp.minimum(xp.sum(program.c, axis=-1), 1))
    d = task.centre.shape[-1]
    b = xp.zeros_like(primal) if config.intercept == "none" else params[..., d]
    return answered(config.dtype, found, rows.valid, allowed, (params[..., :d], b, dual, primal, gap))


def answered(dtype: DTypeLike, found: SolverState, valid: Array, allowed: Array, values: tuple[Array, ...]) -> Answer:
    """The answer `(w, b, dual, primal, gap)` with its status, given the gap that is allowed; NaN where something is not
    valid. Its bounds stay bounds in a narrower `dtype`."""
    *point, primal, gap = values
    # The bound is the gap below: the gap is smaller than the last digit of the values.
    bound, gap = rounded_down(primal - gap, dtype), rounded_up(gap, dtype)
    xp = namespace(primal)
    valid = valid & xp.isfinite(primal) & xp.isfinite(gap)

    def unless_refused(values: Array) -> Array:
        return choose(valid, values, xp.full_like(values, xp.nan))

    otherwise = xp.where(found.limited, int(Status.STEP_LIMIT), int(Status.STALLED))
    status = xp.where(valid, xp.where(gap <= allowed, int(Status.CONVERGED), otherwise), int(Status.REFUSED))
    w, b, dual, primal, bound, gap = map(unless_refused, (*point, primal, bound, gap))
    return Answer(w, b, dual, primal, bound, gap, found.steps, status.astype(xp.int32))


def _rounded(config: Config, task: Task, z: Array) -> tuple[Array, Array]:
    """Parameters that are exact in the caller's dtype, and the same with the bias of centred features.

    A few lengths are tried (see `stretches`). A free bias is rounded last and takes up what the weights lost.
    """
    xp, program, centre = namespace(z), task.program, task.centre
    d = centre.shape[-1]

    def candidate(stretch: Array) -> tuple[Array, Array]:
        w = (stretch * z[..., :d]).astype(config.dtype).astype(z.dtype)
        if config.intercept == "none":
            return w, w
        shift = dot(w, centre)
        b = (stretch * z[..., d] - shift).astype(config.dtype).astype(z.dtype)
        params, shifted = (xp.concatenate([w, column(bias)], axis=-1) for bias in (b, b + shift))
        return params, shifted

    candidates = each(candidate, stretches(config.dtype, z))
    values = each(lambda z: primal_value(program, z, program.r - program.scores(z)), candidates[1])
    found: tuple[Array, Array] = least(candidates, values)
    return found


def stretches(dtype: DTypeLike, z: Array) -> Array:
    """The lengths of `z` to try when it is rounded to a dtype.

    Where every margin is exactly 1, rounding down costs more than the objective is worth, so that slightly longer
    parameters are tried as well. Parameters of 0 are tried too: rounding must not be worse.
    """
    rounding = eps(dtype)
    longer = [0.0, 2.0, 8.0, 32.0] if rounding > eps(z.dtype) else [0.0]
    return 1 + rounding * namespace(z).asarray([*longer, -1 / rounding], z.dtype)


def least(candidates: Any, values: Array) -> Any:
    """The candidate of least value, along the first axis of every leaf; the first of equals, and NaN is never less."""
    found, value = jax.tree.map(lambda leaf: leaf[0], candidates), values[0]
    for number in range(1, len(values)):
        lower = values[number] < value
        found = choose(lower, jax.tree.map(lambda leaf: leaf[number], candidates), found)  # noqa: B023
        value = namespace(value).where(lower, values[number], value)
    return found
