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
from functools import partial
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxhinge._methods.certificate import Certified, Program, better, certify, within
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

# Of the way to the boundary; the certificate never gained for fewer than this many steps before it stopped for good.
_STEP_FRACTION = 0.995
PATIENCE = 6


class Progress(NamedTuple):
    """The state of the loop.

    `complementarity_gap` is the gap that complementarity leaves at `point`. `steps_without_progress` counts the steps
    since the certificate or that gap last improved.
    """

    point: Interior
    best: Certified
    complementarity_gap: jax.Array
    steps: jax.Array
    steps_without_progress: jax.Array


_Fields = TypeVar("_Fields")


def central_point(program: Program, z: jax.Array, kappa: jax.Array) -> Interior:
    """The point with primal `z` whose complementarity products all equal `kappa` and whose primal residual is 0."""
    return central_rows(program, z, program.scores(z), kappa)


def interior_point_steps(
    program: Program,
    start: Progress,
    newton_system: NewtonSystem,
    tol: jax.Array,
    max_steps: jax.Array,
    num_correctors: int,
    floor: ArrayLike = 0.0,
) -> Progress:
    """Step until the certificate is within `tol`, nothing is gained any more, or `max_steps` are made.

    A system in low precision is left when complementarity, relative to the objective, falls below `floor`: residuals
    that it cannot remove would otherwise be carried into a corner that no later step gets out of.
    """

    def unfinished(progress: Progress) -> jax.Array:
        going = (
            (progress.steps < max_steps)
            & (progress.steps_without_progress < PATIENCE)
            & ~within(program, progress.best, tol)
        )
        return going & (progress.complementarity_gap > floor * jnp.abs(progress.best.primal))

    return jax.lax.while_loop(unfinished, lambda p: _step(program, p, newton_system, num_correctors), start)


def central_start(program: Program, z: jax.Array, kappa: jax.Array) -> Progress:
    """Progress at step 0, from the central point above `z`."""
    point = central_point(program, z, kappa)
    best = certify(program, z, program.c * point.f, point.scores)
    complementarity_gap = complementarity_gap_of(program, point)
    # All of it varies over the axes of a `shard_map` as the data do.
    unknown = jnp.isnan(complementarity_gap)
    point, best = choose(unknown, (point, best), (point, best))
    none = unknown * jnp.int32(0)
    return Progress(point, best, complementarity_gap, none, none)


def _step(program: Program, progress: Progress, newton_system: NewtonSystem, num_correctors: int) -> Progress:
    point = progress.point
    inverse = inverse_of(point)
    direction_to = _newton(program, point, inverse, newton_system)
    predictor = direction_to(predictor_targets(point))
    predicted = along(program, point, predictor, jnp.ones_like(progress.complementarity_gap))
    best = better(progress.best, certify(program, predicted.z, program.c * predicted.f, predicted.scores))

    moved = _corrected(program, point, inverse, direction_to, predictor, num_correctors)
    # A direction spoilt by rounding is not taken: the next precision, or the caller, hears of it as a stall.
    sound = jnp.isfinite(jnp.sum(moved.z)) & jnp.isfinite(jnp.sum(moved.f)) & jnp.isfinite(jnp.sum(moved.s))
    moved = choose(sound, moved, point)
    complementarity_gap = complementarity_gap_of(program, moved)
    gap, old_gap = best.primal - best.dual, progress.best.primal - progress.best.dual
    steps_without_progress = jnp.where(
        gained(gap, old_gap, complementarity_gap, progress.complementarity_gap), 0, progress.steps_without_progress + 1
    )
    steps_without_progress = jnp.where(sound, steps_without_progress, PATIENCE)
    return Progress(moved, best, complementarity_gap, progress.steps + 1, steps_without_progress)


def gained(
    gap: jax.Array, old_gap: jax.Array, complementarity_gap: jax.Array, old_complementarity_gap: jax.Array
) -> jax.Array:
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


def next_target(kappa: jax.Array, reached: jax.Array) -> jax.Array:
    """What the corrector aims for, from what the predictor would make of the mean product `kappa`."""
    return jnp.minimum(jnp.maximum((reached / kappa) ** 3, 1e-8), 1) * kappa


def step_length(longest: jax.Array) -> jax.Array:
    """How far to go of the longest step: not quite to the boundary."""
    return jnp.minimum(1, _STEP_FRACTION * longest)


def newton_weight(program: Program, point: Interior) -> jax.Array:
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
    length: jax.Array,
    target: jax.Array,
) -> tuple[Targets, Interior, jax.Array]:
    """One of Gondzio's correctors: aim for a longer step with no complementarity product far from the target."""
    aim = jnp.minimum(1, length + 0.3)
    ahead = along(program, point, direction, aim)

    def correction(product: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.clip(product, 0.1 * target, 10 * target) - product, -10 * target)

    corrected = Targets(targets.lower + correction(ahead.f * ahead.s), targets.upper + correction(ahead.g * ahead.xi))
    new = direction_to(corrected)
    new_length = longest_step(shrinkage(program, inverse, new))
    pays = new_length >= length + 0.003
    return (
        choose(pays, corrected, targets),
        choose(pays, new, direction),
        jnp.where(pays, new_length, length),
    )


def _complementarity(program: Program, point: Interior) -> jax.Array:
    """The weighted mean of the complementarity products."""
    return complementarity_gap_of(program, point) / ((1 if program.squared else 2) * jnp.sum(program.c))


def longest_step(largest: jax.Array) -> jax.Array:
    """The longest step, at most 1, that keeps every sign, given the `shrinkage` over all rows."""
    return 1 / jnp.maximum(1, largest)


def choose(condition: jax.Array, yes: _Fields, no: _Fields) -> _Fields:
    """One tree or the other, leaf by leaf."""
    return cast(_Fields, jax.tree.map(partial(jnp.where, condition), yes, no))
