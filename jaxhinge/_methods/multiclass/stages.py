"""From rows with class labels to a certified solution: choose the method by its cost, follow it, round, certify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxhinge._base.precision import eps, tiny
from jaxhinge._methods.multiclass.ascent import ascend
from jaxhinge._methods.multiclass.interior_point import Progress, central_start, interior_point_steps, widened
from jaxhinge._methods.multiclass.linear_systems import by_matrix
from jaxhinge._methods.multiclass.program import (
    Certified,
    Program,
    better,
    certify,
    dual_value,
    feasible,
    in_dtype,
    primal_value,
    violations,
    within,
)
from jaxhinge._methods.problem import Answer, Status

# `_LARGEST_SYSTEM`: a Newton matrix of higher order, its factor and their copies would take gigabytes.
_LARGEST_SYSTEM = 8192
# `_LARGE_SYSTEM`: beyond this order a step of the interior point costs more than hundreds of ascents, which come first.
_LARGE_SYSTEM = 1500
# `_ASCENT_STEPS`: so many certificates of the ascent are made before the interior point is tried.
_ASCENT_STEPS = 20
# `_FLOAT32_FLOOR`: complementarity, relative to the objective, below which float32 resolves no further progress.
_FLOAT32_FLOOR = 1e-5
# `_OUT_OF_REACH`: the bias of a class without rows lies so far below the smallest score of a label that no row violates
# a margin against it.
_OUT_OF_REACH = 2.0

Intercept = Literal["free", "regularized", "none"]
Leaf = Any


@dataclass(frozen=True)
class Config:
    """What is fixed when a solve is compiled. `dtype` is the caller's."""

    summed: bool
    intercept: Intercept
    num_classes: int
    dtype: Any = jnp.float32


class LabelledRows(NamedTuple):
    """A problem by its rows: features `xt` `(d, n)`, labels `(n,)`, `c` `(n,)`, 0 where a row does not count, `l2`.

    `valid` is whether the caller's checks passed.
    """

    xt: Leaf
    labels: Leaf
    c: Leaf
    l2: Leaf
    valid: Leaf


class Start(NamedTuple):
    """Where to start: `w` `(d, k)`, `b` `(k,)`, a dual `(n, k)`, and whether they come from an earlier solution."""

    w: Leaf
    b: Leaf
    dual: Leaf
    warm: Leaf


class MulticlassTask(NamedTuple):
    """A program as it is worked on, the program as it was given, and the ways of `z` there and back."""

    program: Program
    given: Program
    centre: jax.Array
    turn: Callable[[jax.Array], jax.Array]
    turn_back: Callable[[jax.Array], jax.Array]


def solve_rows(config: Config, rows: LabelledRows, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
    """Minimise to a relative gap of `tol`. The precision of the work is that of `rows`."""
    task = _task(config, rows)
    progress = _float64_stage(task, _float32_stage(config, task, start, tol, max_steps), tol, max_steps)
    return _finish(config, rows, task, progress, tol, max_steps)


def solve_float32_stage(
    config: Config, rows: LabelledRows, start: Start, tol: jax.Array, max_steps: jax.Array
) -> tuple[Answer, Progress]:
    """The answer where float32 is enough for it; otherwise a status that is not CONVERGED, and where to go on."""
    task = _task(config, rows)
    progress = _float32_stage(config, task, start, tol, max_steps)
    return _finish(config, rows, task, progress, tol, max_steps), progress


def solve_float64_stage(
    config: Config, rows: LabelledRows, progress: Progress, tol: jax.Array, max_steps: jax.Array
) -> Answer:
    """Go on where `solve_float32_stage` ended, in the precision of `rows`."""
    task = _task(config, rows)
    progress = _float64_stage(task, widened(task.program, progress), tol, max_steps)
    return _finish(config, rows, task, progress, tol, max_steps)


def build(config: Config, rows: LabelledRows) -> tuple[Program, jax.Array]:
    """The program of the rows, and the mean that was taken from the features where a free bias absorbs it."""
    counts = rows.c > 0
    classes = jnp.arange(config.num_classes)[:, None]
    label = ((rows.labels[None, :] == classes) & counts[None, :]).astype(rows.c.dtype)
    wrong = counts.astype(rows.c.dtype)[None, :] - label
    centre = jnp.zeros_like(rows.xt[:, 0])
    xt, penalty = rows.xt, jnp.broadcast_to(rows.l2, centre.shape)
    if config.intercept == "free":
        # A class without rows is best kept out of reach by its bias: no row is pushed against it.
        wrong = wrong * jnp.max(label, axis=1)[:, None]
        centre = xt @ rows.c / jnp.sum(rows.c)
        xt = xt - centre[:, None]
    if config.intercept != "none":
        xt = jnp.concatenate([xt, jnp.ones_like(xt[:1])])
        penalty = jnp.append(penalty, rows.l2 if config.intercept == "regularized" else 0)
    mean_weight = jnp.sum(rows.c) / jnp.maximum(jnp.sum(counts), 1)
    c = jnp.where(counts, rows.c, mean_weight)
    return Program(xt, label, wrong, c, penalty, config.summed, config.intercept == "free"), centre


def _task(config: Config, rows: LabelledRows) -> MulticlassTask:
    """The program in at most as many features as there are rows.

    The weights are combinations of the rows: in an orthonormal basis of these, nothing else changes.
    """
    program, centre = build(config, rows)
    d = len(centre)
    if d <= program.xt.shape[1]:
        return MulticlassTask(program, program, centre, lambda z: z, lambda z: z)
    basis, coordinates = jnp.linalg.qr(program.xt[:d])
    fewer = len(coordinates)
    xt = jnp.concatenate([coordinates, program.xt[d:]])
    small = replace(program, xt=xt, penalty=jnp.concatenate([program.penalty[:fewer], program.penalty[d:]]))
    return MulticlassTask(
        small,
        program,
        centre,
        lambda z: jnp.concatenate([z[:, :d] @ basis, z[:, d:]], axis=1),
        lambda z: jnp.concatenate([z[:, :fewer] @ basis.T, z[:, fewer:]], axis=1),
    )


def _begin(config: Config, task: MulticlassTask, start: Start) -> tuple[Certified, jax.Array]:
    """What to start from, certified, and how near the end of the central path: 1 for a cold start, else as its gap."""
    z = start.w.T
    if config.intercept != "none":
        z = jnp.concatenate([z, (start.b + z @ task.centre)[:, None]], axis=1)
    z = task.turn(z - jnp.mean(z, axis=0)[None, :])
    # A start that is not finite, from a solve that was refused, is no start.
    usable = start.warm & jnp.isfinite(jnp.sum(z) + jnp.sum(start.dual))
    given = certify(task.program, jnp.where(usable, z, 0), jnp.where(usable, start.dual.T, 0))
    closeness = (given.primal - given.dual) / jnp.maximum(given.primal, tiny(z.dtype))
    return given, jnp.where(usable, jnp.clip(closeness, 1e-3, 1), 1)


def _float32_stage(
    config: Config, task: MulticlassTask, start: Start, tol: jax.Array, max_steps: jax.Array
) -> Progress:
    """What float32 can do: exact enough until the gap is small. Where the system is too large, ascent."""
    given, closeness = _begin(config, task, start)
    low = in_dtype(task.program, jnp.float32)
    progress = central_start(low, given.z.astype(low.xt.dtype), closeness.astype(low.xt.dtype))
    if _order(task.program) > _LARGE_SYSTEM:
        limit = max_steps if _too_large(task.program) else jnp.minimum(max_steps, _ASCENT_STEPS)
        given, steps = ascend(task.program, given, tol, limit, low.xt.dtype)
        progress = progress._replace(steps=steps)
    progress = progress._replace(best=better(progress.best, in_dtype(given, low.xt.dtype)))
    if not _too_large(task.program):
        system = by_matrix(low)
        progress = interior_point_steps(low, progress, system, tol, max_steps, _FLOAT32_FLOOR)
    progress = widened(task.program, progress)
    return progress._replace(best=better(given, progress.best))


def _float64_stage(task: MulticlassTask, progress: Progress, tol: jax.Array, max_steps: jax.Array) -> Progress:
    """The rest, in the precision of the program; where float32 has spoilt the point, once more from the beginning."""
    program = task.program
    if _too_large(program):
        return progress
    zeros = jnp.zeros((len(program.label), len(program.penalty)), program.penalty.dtype)
    cold = central_start(program, zeros, jnp.ones_like(program.penalty[0]))
    system = by_matrix(program)

    # One fori_loop, not two calls: the step is compiled once, and under vmap its counter is not batched.
    def attempt(number: jax.Array, progress: Progress) -> Progress:
        again = (number > 0) | ~jnp.isfinite(progress.complementarity_gap)
        point, complementarity_gap = jax.tree.map(
            partial(jnp.where, again),
            (cold.point, cold.complementarity_gap),
            (progress.point, progress.complementarity_gap),
        )
        progress = progress._replace(
            point=point,
            complementarity_gap=complementarity_gap,
            steps_without_progress=0 * progress.steps_without_progress,
        )
        return interior_point_steps(program, progress, system, tol, max_steps)

    result: Progress = jax.lax.fori_loop(0, 2, attempt, progress)
    return result


def _order(program: Program) -> int:
    return (len(program.label) - 1) * len(program.penalty)


def _too_large(program: Program) -> bool:
    return _order(program) > _LARGEST_SYSTEM


def _canonical(program: Program, z: jax.Array) -> jax.Array:
    """Of all `z` with the same differences, the one that sums to 0 over the classes, whose norm is the smallest.

    Where biases are free a class without rows takes no part.
    """
    counted = jnp.max(program.label, axis=1) if program.free_bias else jnp.ones_like(z[:, 0])
    mean = counted @ z / jnp.maximum(jnp.sum(counted), 1)
    return counted[:, None] * (z - mean[None, :])


def _finish(
    config: Config, rows: LabelledRows, task: MulticlassTask, progress: Progress, tol: jax.Array, max_steps: jax.Array
) -> Answer:
    """Round to the caller's dtype first, then evaluate both values for exactly what is returned."""
    program, best = task.given, progress.best
    w, b, primal = _rounded(config, rows, program, task.centre, _canonical(program, task.turn_back(best.z)))
    dual = best.push.astype(config.dtype).astype(primal.dtype)
    push = feasible(program, dual)
    bound = dual_value(program, push)
    converged = within(program, Certified(best.z, push, primal, bound), tol)
    valid = rows.valid & jnp.isfinite(primal) & jnp.isfinite(bound)

    def unless_refused(values: jax.Array) -> jax.Array:
        return jnp.where(valid, values, jnp.full_like(values, jnp.nan))

    otherwise = jnp.where(progress.steps >= max_steps, Status.STEP_LIMIT, Status.STALLED)
    status = jnp.where(valid, jnp.where(converged, Status.CONVERGED, otherwise), Status.REFUSED)
    # The gap is taken before the values are rounded: it is smaller than their last digit.
    w, b, dual, primal, bound, gap = map(unless_refused, (w.T, b, dual.T, primal, bound, primal - bound))
    return Answer(w, b, dual, primal, bound, gap, progress.steps, status.astype(jnp.int32))


def _rounded(
    config: Config, rows: LabelledRows, program: Program, centre: jax.Array, z: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`w` `(k, d)` and `b` `(k,)` that are exact in the caller's dtype, and their primal value.

    Where every margin is exactly 1, rounding down costs more than the objective is worth, so that slightly longer
    parameters are tried as well. A free bias is rounded last and takes up what the weights lost.
    """
    rounding, d = eps(config.dtype), len(centre)

    def rounded(values: jax.Array) -> jax.Array:
        return values.astype(config.dtype).astype(z.dtype)

    def candidate(stretch: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        w = rounded(stretch * z[:, :d])
        if config.intercept == "none":
            b, point = jnp.zeros_like(z[:, 0]), w
        else:
            b = rounded(stretch * z[:, d] - w @ centre)
            if program.free_bias:
                b = rounded(_kept_out_of_reach(rows, program, w, b))
            point = jnp.concatenate([w, (b + w @ centre)[:, None]], axis=1)
        return w, b, primal_value(program, point, violations(program, point @ program.xt))

    narrower = rounding > eps(z.dtype)
    stretches = 1 + rounding * jnp.asarray([0.0, 2.0, 8.0, 32.0] if narrower else [0.0], z.dtype)
    candidates = jax.vmap(candidate)(stretches)
    best: tuple[jax.Array, jax.Array, jax.Array] = jax.tree.map(lambda leaf: leaf[0], candidates)
    for number in range(1, len(stretches)):
        other = jax.tree.map(lambda leaf: leaf[number], candidates)  # noqa: B023
        best = jax.tree.map(partial(jnp.where, other[2] < best[2]), other, best)
    return best


def _kept_out_of_reach(rows: LabelledRows, program: Program, w: jax.Array, b: jax.Array) -> jax.Array:
    """The biases, those of classes without rows so low that no row violates a margin against them."""
    scores = jnp.sum(program.label * (w @ rows.xt + b[:, None]), axis=0)
    lowest = jnp.min(jnp.where(jnp.sum(program.label, axis=0) > 0, scores, jnp.inf))
    return jnp.where(jnp.max(program.label, axis=1) > 0, b, lowest - _OUT_OF_REACH)
