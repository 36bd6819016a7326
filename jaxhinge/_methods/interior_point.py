r"""Primal-dual interior point for `Program`, certified at every step.

With slacks s, xi >= 0 and the dual as a fraction of its bound, alpha_i = c_i f_i, g_i = 1 - f_i, the optimality
conditions of `min 1/2 z.P z + q.z + sum_i c_i max(0, r_i - a_i.z)` are

    P z + q = A' (c f),    A z + xi - s = r,    f_i s_i = kappa,    g_i xi_i = kappa        with kappa -> 0

(squared hinge: xi_i = f_i / 2, and f has no upper bound). Eliminating f, s and xi from the Newton equations leaves
the p x p system `(P + A' D A) dz = rhs` with `D_i = c_i / (s_i / f_i + xi_i / g_i)`. Steps are Mehrotra's predictor
and corrector with Gondzio's centrality correctors. The predicted point, clipped to its box, is already a much better
certificate than the iterate itself, so that is what is certified.

Ferris and Munson, Interior-point methods for massive support vector machines, 2002; Mehrotra, On the implementation
of a primal-dual interior point method, 1992; Gondzio, Multiple centrality corrections, 1996; Woodsend and Gondzio,
Exploiting separability in large-scale linear SVM training, 2011.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import Array
from jaxhinge._methods.certificate import Certified, Program, better, certify, within
from jaxhinge._methods.executor import Watch, choose, column, namespace, while_loop
from jaxhinge._methods.interior_rows import (
    Interior,
    Targets,
    along,
    central_rows,
    complementarity_gap_of,
    corrector_targets,
    direction_of,
    inverse_of,
    predictor_targets,
    primal_residual,
    pull,
    shrinkage,
    weight_of,
)
from jaxhinge._methods.linear_systems import NewtonSystem

# `_STEP_FRACTION`: share of the longest feasible step that is taken.
_STEP_FRACTION = 0.995
# `PATIENCE`: stop after this many steps without progress; no run that stalled so long ever improved again.
PATIENCE = 6
# `_LONG_PATIENCE`: the same while the dual bound is less than half of the objective. Columns with tails like Cauchy's
# keep steps short for long, in which the dual residual alone falls.
_LONG_PATIENCE = 40
# `_LAG`: the iterate is certified too where the certificate exceeds the gap of its complementarity by this factor.
_LAG = 1.0


class Progress(NamedTuple):
    """The state of the loop, for whatever an interior point is made of.

    `complementarity_gap` is the gap that complementarity leaves at `point`. `steps_without_progress` counts the steps
    since the certificate or that gap last improved.
    """

    point: Any
    best: Certified
    complementarity_gap: Array
    steps: Array
    steps_without_progress: Array


def unfinished(program: Program, progress: Progress, tol: Array, max_steps: Array, floor: ArrayLike) -> Array:
    """Whether to make another step: the arguments are those of `interior_point_steps`."""
    best = progress.best
    unknown = best.primal - best.dual > abs(best.primal) / 2
    patience = namespace(program.c).where(unknown, _LONG_PATIENCE, PATIENCE)
    going = (progress.steps < max_steps) & (progress.steps_without_progress < patience)
    going = going & ~within(program, progress.best, tol)
    return going & (progress.complementarity_gap > floor * abs(progress.best.primal))


def interior_point_steps(
    program: Program,
    start: Progress,
    newton_system: NewtonSystem,
    tol: Array,
    max_steps: Array,
    num_correctors: int,
    floor: ArrayLike = 0.0,
    watch: Watch | None = None,
) -> Progress:
    """Step until the certificate is within `tol`, progress ends, or `max_steps` are made.

    A system in low precision is left when complementarity, relative to the objective, falls below `floor`: residuals
    that it cannot remove would otherwise be carried into a corner that no later step gets out of.
    """
    return while_loop(
        lambda progress: unfinished(program, progress, tol, max_steps, floor),
        lambda progress: step(program, progress, newton_system, num_correctors),
        start,
        watch,
    )


def central_start(program: Program, z: Array, kappa: Array) -> Progress:
    """Progress at step 0, from the central point above `z`."""
    point = central_rows(program, z, program.scores(z), kappa)
    best = certify(program, z, program.c * point.f, point.scores)
    gap = complementarity_gap_of(program, point)
    # All of it varies over the axes of a `shard_map` as the data do.
    unknown = namespace(gap).isnan(gap)
    point, best = choose(unknown, (point, best), (point, best))
    none = unknown * namespace(gap).int32(0)
    return Progress(point, best, gap, none, none)


def step(program: Program, progress: Progress, newton_system: NewtonSystem, num_correctors: int) -> Progress:
    """One step: the predicted point is certified, the corrected one is where the next step begins."""
    xp = namespace(progress.complementarity_gap)
    point = progress.point
    inverse = inverse_of(point)
    direction_to = _newton(program, point, inverse, newton_system)
    predictor = direction_to(predictor_targets(point))
    predicted = along(program, point, predictor, xp.ones_like(progress.complementarity_gap))
    best = better(progress.best, certify(program, predicted.z, program.c * predicted.f, predicted.scores))

    moved = _corrected(program, point, inverse, direction_to, predictor, num_correctors)
    # A direction spoilt by rounding is not taken: the next precision, or the caller, hears of it as a stall.
    sound = xp.isfinite(xp.sum(moved.z, axis=-1) + xp.sum(moved.f, axis=-1) + xp.sum(moved.s, axis=-1))
    moved = choose(sound, moved, point)
    complementarity_gap = complementarity_gap_of(program, moved)
    # Near the solution the predicted point proves more. It proves nothing where its clipping moves `A' alpha`.
    lags = best.primal - best.dual > _LAG * complementarity_gap
    # Under a trace always: JAX 0.10 cannot batch a branch that reads the rows in a loop under shard_map.
    if xp is not np or np.any(lags):
        best = better(best, certify(program, moved.z, program.c * moved.f, moved.scores))
    gap, old_gap = best.primal - best.dual, progress.best.primal - progress.best.dual
    steps_without_progress = xp.where(
        gained(gap, old_gap, complementarity_gap, progress.complementarity_gap), 0, progress.steps_without_progress + 1
    )
    steps_without_progress = xp.where(sound, steps_without_progress, _LONG_PATIENCE)
    return Progress(moved, best, complementarity_gap, progress.steps + 1, steps_without_progress)


def gained(gap: Array, old_gap: Array, complementarity_gap: Array, old_complementarity_gap: Array) -> Array:
    """Whether a step was of use.

    Early on the certificate may rest while complementarity falls; once it is the smaller part of the gap, it tells
    nothing more.
    """
    return (gap < 0.99 * old_gap) | (
        (complementarity_gap < 0.9 * old_complementarity_gap) & (complementarity_gap > 0.01 * gap)
    )


def _corrected(
    program: Program,
    point: Interior,
    inverse: Interior,
    direction_to: Callable[[Targets], Interior],
    predictor: Interior,
    num_correctors: int,
) -> Interior:
    """The next iterate: Mehrotra's corrector, then Gondzio's."""
    kappa = _complementarity(program, point)
    length = longest_step(shrinkage(program, inverse, predictor))
    reached = _complementarity(program, along(program, point, predictor, length))
    target = next_target(kappa, reached)
    targets = corrector_targets(point, predictor, target)
    direction = direction_to(targets)
    length = longest_step(shrinkage(program, inverse, direction))
    for _ in range(num_correctors):
        targets, direction, length = _centre(program, point, inverse, direction_to, targets, direction, length, target)
    return along(program, point, direction, step_length(length))


def next_target(kappa: Array, reached: Array) -> Array:
    """What the corrector aims for, from what the predictor would make of the mean product `kappa`."""
    xp = namespace(kappa)
    return xp.minimum(xp.maximum((reached / kappa) ** 3, 1e-8), 1) * kappa


def step_length(longest: Array) -> Array:
    """How far to go of the longest step: not quite to the boundary."""
    return namespace(longest).minimum(1, _STEP_FRACTION * longest)


def newton_weight(program: Program, point: Interior) -> Array:
    """The diagonal D of the Newton system."""
    return program.c / (point.s / point.f + (0.5 if program.squared else point.xi / point.g))


def _newton(
    program: Program, point: Interior, inverse: Interior, newton_system: NewtonSystem
) -> Callable[[Targets], Interior]:
    """The Newton direction at `point` for any right-hand side of the complementarity equations."""
    dual_residual = program.penalty * point.z + program.q - program.adjoint(program.c * point.f)
    residual = primal_residual(program, point)
    weight = weight_of(program, point, inverse)
    factored = newton_system.factor(program.c * weight)

    def direction_to(targets: Targets) -> Interior:
        rhs = residual + pull(program, inverse, targets)
        dz = newton_system.solve(factored, program.adjoint(program.c * weight * rhs) - dual_residual)
        return direction_of(program, point, inverse, weight, targets, dz, program.scores(dz))

    return direction_to


def _centre(
    program: Program,
    point: Interior,
    inverse: Interior,
    direction_to: Callable[[Targets], Interior],
    targets: Targets,
    direction: Interior,
    length: Array,
    target: Array,
) -> tuple[Targets, Interior, Array]:
    """One of Gondzio's correctors: aim for a longer step with no complementarity product far from the target."""
    xp, goal = namespace(length), column(target)
    aim = xp.minimum(1, length + 0.3)
    ahead = along(program, point, direction, aim)

    def correction(product: Array) -> Array:
        return xp.maximum(xp.clip(product, 0.1 * goal, 10 * goal) - product, -10 * goal)

    corrected = Targets(targets.lower + correction(ahead.f * ahead.s), targets.upper + correction(ahead.g * ahead.xi))
    new = direction_to(corrected)
    new_length = longest_step(shrinkage(program, inverse, new))
    pays = new_length >= length + 0.003
    return (
        choose(pays, corrected, targets),
        choose(pays, new, direction),
        xp.where(pays, new_length, length),
    )


def _complementarity(program: Program, point: Interior) -> Array:
    """The weighted mean of the complementarity products."""
    total = namespace(program.c).sum(program.c, axis=-1)
    return complementarity_gap_of(program, point) / ((1 if program.squared else 2) * total)


def longest_step(largest: Array) -> Array:
    """The longest step, at most 1, that keeps every sign, given the `shrinkage` over all rows."""
    return 1 / namespace(largest).maximum(1, largest)
