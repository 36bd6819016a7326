"""From rows to a certified solution: choose the method by its cost, follow it, round, certify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from jaxhinge import _ascent, _interior_point, _newton
from jaxhinge._certificate import Certified, Program, better, certify, dual_value, feasible, primal_value, within
from jaxhinge._interior_point import Progress
from jaxhinge._precision import eps, tiny
from jaxhinge._rows import Answer, Config, Rows, Start, Status, build

# Beyond this many features a p x p Cholesky factor costs more than many products with the data.
_MANY_FEATURES = 1000
_ASCENT_STEPS = 300
# Below, one more corrector costs more than the step it saves.
_NARROW = 128
_QUICK_FLOOR = 1e-5
_POWER_STEPS = 3


def solve_rows(config: Config, rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
    """Minimise to a relative gap of `tol`. The precision of the work is that of `rows`."""
    program, centre = build(config, rows)
    cold = cold_progress(program)
    # A start that is not finite, from a solve that was refused, is no start.
    warm = start.warm & jnp.isfinite(jnp.sum(start.w) + start.b + jnp.sum(start.dual))
    progress = jax.tree.map(partial(jnp.where, warm), _warm_progress(program, start, centre), cold)
    best, steps, limited = _minimise(config, program, progress, tol, max_steps)
    return _finish(
        config, rows, program, centre, best, tol, jnp.where(limited, Status.STEP_LIMIT, Status.STALLED), steps
    )


def gap_of_rows(
    config: Config, improve: bool, rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array
) -> jax.Array:
    """The objective at the start minus a dual value: of its dual as it is, or improved by the solver's steps."""
    program, centre = build(config, rows)
    b = jnp.zeros_like(start.b) if config.intercept == "none" else start.b + start.w @ centre
    z = jnp.append(start.w, b)[: len(program.penalty)]
    violations = program.r - z @ program.at
    if config.intercept == "none":
        violations = violations - jnp.where(rows.c > 0, rows.sign, 0) * start.b
    primal = primal_value(program, z, violations)
    best = certify(program, z, start.dual)
    if improve:
        best, _, _ = _minimise(config, program, cold_progress(program), tol, max_steps)
    return jnp.where(rows.valid, primal - best.dual, jnp.nan)


def cold_progress(program: Program) -> Progress:
    """Progress at step 0, from `z = 0`."""
    return _interior_point.start(program, jnp.zeros_like(program.penalty), _unit_of_margin(program))


def _warm_progress(program: Program, start: Start, centre: jax.Array) -> Progress:
    """Progress at step 0 from an earlier solution, joined to the central path no nearer to its end than its gap."""
    z = jnp.append(start.w, start.b + start.w @ centre)[: len(program.penalty)]
    given = certify(program, z, start.dual)
    closeness = (given.primal - given.dual) / jnp.maximum(jnp.abs(given.primal), tiny(z.dtype))
    closeness = jnp.minimum(jnp.maximum(closeness, 1e-3), 1)
    progress = _interior_point.start(program, z, closeness * _unit_of_margin(program))
    return progress._replace(best=better(progress.best, given))


def _minimise(
    config: Config, program: Program, progress: Progress, tol: jax.Array, max_steps: jax.Array
) -> tuple[Certified, jax.Array, jax.Array]:
    """The best certificate, the steps made, and whether it was `max_steps` that ended them."""
    p, n = program.at.shape
    if program.free_bias or p > n:
        return _make_steps(config, program, progress, tol, max_steps)
    # No free bias takes up a common offset of the features: they are turned so that one coordinate holds it.
    turn = _reflection(program)
    turned = replace(program, at=turn(program.at), q=turn(program.q))
    point = progress.point._replace(z=turn(progress.point.z))
    progress = progress._replace(point=point, best=progress.best._replace(z=turn(progress.best.z)))
    best, steps, limited = _make_steps(config, turned, progress, tol, max_steps)
    return best._replace(z=turn(best.z)), steps, limited


def _reflection(program: Program) -> Callable[[jax.Array], jax.Array]:
    """The reflection (Householder's) that takes the direction in which `at` is longest to the first coordinate.

    It is its own inverse, and where all penalties are equal the program keeps its form.
    """
    direction = jnp.ones_like(program.penalty)
    for _ in range(_POWER_STEPS):
        direction = program.at @ (direction @ program.at)
        direction = direction / jnp.maximum(jnp.max(jnp.abs(direction)), tiny(direction.dtype))
    unit = direction / jnp.maximum(jnp.sqrt(direction @ direction), tiny(direction.dtype))
    normal = unit.at[0].add(jnp.where(unit[0] < 0, -1, 1))
    scaled = 2 * normal / (normal @ normal)

    def turn(columns: jax.Array) -> jax.Array:
        return columns - jnp.tensordot(normal, scaled @ columns, axes=0)

    return turn


def _make_steps(
    config: Config, program: Program, progress: Progress, tol: jax.Array, max_steps: jax.Array
) -> tuple[Certified, jax.Array, jax.Array]:
    """As `_minimise`, in the coordinates given."""
    p, n = program.at.shape
    ascents = jnp.int32(0)
    if config.method == "ascent" or (config.method == "auto" and (p > n or p > _MANY_FEATURES)):
        limit = max_steps if config.method == "ascent" else jnp.int32(_ASCENT_STEPS)
        best, ascents = _ascent.ascend(program, progress.best, tol, limit, jnp.float32)
        progress = progress._replace(best=best)
    if config.method == "ascent":
        return progress.best, ascents, ascents >= max_steps
    run = partial(_interior_point.run, program, tol=tol, max_steps=max_steps, num_correctors=1 if p < _NARROW else 2)
    if p > n:
        # The kernel of the rows costs as much as hundreds of ascent steps: not if those were enough.
        done = within(program, progress.best, tol)
        progress = jax.lax.cond(done, lambda p: p, lambda p: run(p, _newton.by_rows(program)), progress)
        return progress.best, progress.steps + ascents, progress.steps >= max_steps

    cold, system = cold_progress(program), _newton.by_features(program)

    def stage(number: jax.Array, progress: Progress) -> Progress:
        # First with products in float32, whose direction is exact enough until the gap is small, then in full. Where
        # float32 has spoilt the point, once more from the beginning. The stages share one compiled step, and the
        # counter of a loop stays whole under vmap.
        quick, again = number == 0, number == 2
        point, left = jax.tree.map(partial(jnp.where, again), (cold.point, cold.left), (progress.point, progress.left))
        progress = progress._replace(point=point, left=left, idle=0 * progress.idle)
        return run(progress, system(quick), floor=_QUICK_FLOOR * quick.astype(program.at.dtype))

    progress = jax.lax.fori_loop(0, 3, stage, progress)
    return progress.best, progress.steps + ascents, progress.steps >= max_steps


def _unit_of_margin(program: Program) -> jax.Array:
    """The size of the required margins; where all are 0 (one-class), of the scores that the mid-box dual implies."""
    total = jnp.sum(program.c)
    required = program.c @ jnp.abs(program.r) / total
    penalised = program.penalty > 0
    implied = (program.at @ feasible(program, program.c / 2) - program.q) / jnp.where(penalised, program.penalty, 1)
    unit = jnp.where(required > 0, required, program.c @ jnp.abs(jnp.where(penalised, implied, 0) @ program.at) / total)
    return jnp.where(unit > 0, unit, 1)


def _finish(
    config: Config,
    rows: Rows,
    program: Program,
    centre: jax.Array,
    best: Certified,
    tol: jax.Array,
    otherwise: jax.Array,
    steps: jax.Array,
) -> Answer:
    """Round to the caller's dtype first, then evaluate both values for exactly what is returned."""
    params, primal = _rounded(config, program, centre, best.z)
    dual = _net(best.alpha) if config.paired else best.alpha
    dual = jnp.where(rows.c > 0, dual, 0).astype(config.dtype).astype(primal.dtype)
    alpha = feasible(program, dual)
    bound = dual_value(program, alpha, program.at @ alpha)
    converged = within(program, Certified(params, alpha, primal, bound), tol)
    valid = rows.valid & jnp.isfinite(primal) & jnp.isfinite(bound)

    def unless_refused(values: jax.Array) -> jax.Array:
        return jnp.where(valid, values, jnp.full_like(values, jnp.nan))

    d = rows.xt.shape[0]
    b = jnp.zeros_like(primal) if config.intercept == "none" else params[d]
    status = jnp.where(valid, jnp.where(converged, Status.CONVERGED, otherwise), Status.REFUSED)
    # The gap is taken before the values are rounded: it is smaller than their last digit.
    w, b, dual, primal, bound, gap = map(unless_refused, (params[:d], b, dual, primal, bound, primal - bound))
    return Answer(w, b, dual, primal, bound, gap, steps, status.astype(jnp.int32))


def _net(alpha: jax.Array) -> jax.Array:
    """The dual of mirrored rows, with no push against a pull on the same row: as feasible, and never worse."""
    pairs = alpha.reshape(-1, 2)
    return (pairs - jnp.min(pairs, axis=1, keepdims=True)).ravel()


def _rounded(config: Config, program: Program, centre: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Parameters that are exact in the caller's dtype, and their primal value.

    Where every margin is exactly 1, rounding down costs more than the objective is worth, so that slightly longer
    parameters are tried as well. A free bias is rounded last and takes up what the weights lost.
    """
    d = centre.shape[0]
    rounding = eps(config.dtype)
    narrower = rounding > eps(z.dtype)
    stretch = 1 + rounding * jnp.asarray([0.0, 2.0, 8.0, 32.0] if narrower else [0.0], z.dtype)
    w = (stretch[:, None] * z[None, :d]).astype(config.dtype).astype(z.dtype)
    candidates, shifted = w, w
    if config.intercept != "none":
        b = (stretch * z[d] - w @ centre).astype(config.dtype).astype(z.dtype)
        candidates = jnp.concatenate([w, b[:, None]], axis=1)
        shifted = jnp.concatenate([w, (b + w @ centre)[:, None]], axis=1)
    violations = program.r[None, :] - shifted @ program.at
    params, value = candidates[0], primal_value(program, shifted[0], violations[0])
    for point, moved, v in zip(candidates[1:], shifted[1:], violations[1:], strict=True):
        other = primal_value(program, moved, v)
        params, value = jnp.where(other < value, point, params), jnp.minimum(other, value)
    return params, value
