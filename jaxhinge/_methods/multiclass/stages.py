"""From rows with class labels to a certified solution: choose the method by its cost, follow it, round, certify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import tiny
from jaxhinge._methods.certificate import FLOOR, better
from jaxhinge._methods.executor import choose, each, namespace
from jaxhinge._methods.interior_point import Progress
from jaxhinge._methods.multiclass.ascent import ascend
from jaxhinge._methods.multiclass.interior_point import central_start, interior_point_steps, widened
from jaxhinge._methods.multiclass.linear_systems import by_matrix
from jaxhinge._methods.multiclass.program import (
    Program,
    certify,
    dual_value,
    feasible,
    gap_between,
    in_dtype,
    primal_value,
    violations,
)
from jaxhinge._methods.problem import Answer, Intercept, Leaf, Method, Start
from jaxhinge._methods.stages import SolverState, answered, least, restart_from, stretches, unsolved
from jaxhinge._rows.columns import Columns
from jaxhinge._rows.dense import DenseRows

# `LARGEST_SYSTEM`: a Newton matrix of higher order, its factor and their copies would take gigabytes.
LARGEST_SYSTEM = 8192
# `LARGE_SYSTEM`: beyond this order a step of the interior point costs more than hundreds of ascents, which come first.
LARGE_SYSTEM = 1500
# `ASCENT_STEPS`: so many certificates of the ascent are made before the interior point is tried.
ASCENT_STEPS = 20
# `_FLOAT32_FLOOR`: complementarity, relative to the objective, below which float32 resolves no further progress.
_FLOAT32_FLOOR = 1e-5
# `_CLOSEST`: smallest initial barrier parameter of a warm start, relative to a cold one.
_CLOSEST = 1e-3
# `OUT_OF_REACH`: the bias of a class without rows lies so far below the smallest score of a label that no row violates
# a margin against it.
OUT_OF_REACH = 2.0


@dataclass(frozen=True)
class Config:
    """What is fixed when a solve is compiled. `dtype` is the caller's."""

    summed: bool
    intercept: Intercept
    num_classes: int
    method: Method = "auto"
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


class MulticlassTask(NamedTuple):
    """A program, the mean `(d,)` that was taken from its features, and whether the caller's checks passed."""

    program: Program
    centre: Array
    valid: Array


class Reduced(NamedTuple):
    """A program in at most as many features as there are rows, and the ways of `z` there and back."""

    program: Program
    turn: Callable[[Array], Array]
    turn_back: Callable[[Array], Array]


def solve_rows(config: Config, rows: LabelledRows, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
    """Minimise to a relative gap of `tol`, under a trace. The precision of the work is that of `rows`."""
    task = task_of(config, rows)
    small = reduced(task, task.program.rows.features)
    found = given_start(task, small, start)
    progress = _float32_stage(config, found, small.program, tol, max_steps)
    progress = _float64_stage(config, small.program, progress, tol, max_steps)
    best = progress.best._replace(z=small.turn_back(progress.best.z))
    return finish(config, task, SolverState(best, progress.steps, progress.steps >= max_steps, found.warm), tol)


def task_of(config: Config, rows: LabelledRows) -> MulticlassTask:
    """The program of the rows under a trace; where a free bias absorbs it, their mean is taken from the features."""
    centre, xt = jnp.zeros_like(rows.xt[:, 0]), rows.xt
    if config.intercept == "free":
        centre = xt @ rows.c / jnp.sum(rows.c)
        xt = xt - centre[:, None]
    if config.intercept != "none":
        xt = jnp.concatenate([xt, jnp.ones_like(xt[:1])])
    return MulticlassTask(program_of(config, Columns(xt), rows), centre, rows.valid)


def program_of(config: Config, operator: Any, rows: LabelledRows) -> Program:
    """The program of the rows, for the operator of their features."""
    xp, counts = namespace(rows.c), rows.c > 0
    classes = xp.arange(config.num_classes)[:, None]
    label = ((rows.labels[None, :] == classes) & counts[None, :]).astype(rows.c.dtype)
    wrong = counts.astype(rows.c.dtype)[None, :] - label
    penalty = xp.broadcast_to(rows.l2, rows.xt.shape[:1])
    if config.intercept == "free":
        # A class without rows is best kept out of reach by its bias: no row is pushed against it.
        wrong = wrong * xp.max(label, axis=1)[:, None]
    if config.intercept != "none":
        penalty = xp.append(penalty, rows.l2 if config.intercept == "regularized" else 0)
    mean_weight = xp.sum(rows.c) / xp.maximum(xp.sum(counts), 1)
    c = xp.where(counts, rows.c, mean_weight)
    return Program(operator, label, wrong, c, penalty, config.summed, config.intercept == "free")


def reduced(task: MulticlassTask, features: Array) -> Reduced:
    """The program in at most as many features as there are rows, given its features `(d, n)` or more.

    The weights are combinations of the rows: in an orthonormal basis of these, nothing else changes.
    """
    xp, program, d = namespace(features), task.program, len(task.centre)
    if d <= features.shape[1]:
        return unreduced(program)
    basis, coordinates = xp.linalg.qr(features[:d])
    fewer = len(coordinates)
    ones = xp.ones_like(coordinates[: len(program.penalty) - d])
    penalty = xp.concatenate([program.penalty[:fewer], program.penalty[d:]])
    return Reduced(
        replace(program, rows=_rows_of(xp.concatenate([coordinates, ones])), penalty=penalty),
        lambda z: xp.concatenate([z[:, :d] @ basis, z[:, d:]], axis=1),
        lambda z: xp.concatenate([z[:, :fewer] @ basis.T, z[:, fewer:]], axis=1),
    )


def unreduced(program: Program) -> Reduced:
    """The program as it is."""
    return Reduced(program, lambda z: z, lambda z: z)


def _rows_of(columns: Array) -> Columns | DenseRows:
    """The operator of rows that are given as columns."""
    return DenseRows.of(columns.T, None, False) if namespace(columns) is np else Columns(columns)


def given_start(task: MulticlassTask, small: Reduced, start: Start) -> SolverState:
    """The start, certified in the reduced program, or 0 where there is none."""
    xp, z = namespace(start.w), start.w.T
    if len(task.program.penalty) > len(task.centre):
        z = xp.concatenate([z, (start.b + z @ task.centre)[:, None]], axis=1)
    z = small.turn(z - xp.mean(z, axis=0)[None, :])
    # A start that is not finite, from a solve that was refused, is no start.
    usable = start.warm & xp.isfinite(xp.sum(z) + xp.sum(start.dual))
    best = certify(small.program, xp.where(usable, z, 0), xp.where(usable, start.dual.T, 0))
    return unsolved(best)._replace(warm=usable)


def warm_start(program: Program, found: SolverState) -> Progress:
    """Progress from the central point above what is found: no nearer to the end of the path than the gap there."""
    xp, given = namespace(program.c), in_dtype(found.best, program.c.dtype)
    closeness = (given.primal - given.dual) / xp.maximum(given.primal, tiny(given.primal.dtype))
    closeness = xp.where(found.warm, xp.clip(closeness, _CLOSEST, 1), xp.ones_like(closeness))
    progress = central_start(program, xp.where(found.warm, given.z, 0), closeness)
    return progress._replace(best=better(progress.best, given), steps=progress.steps + found.steps)


def cold_start(program: Program) -> Progress:
    """Progress from 0."""
    xp = namespace(program.c)
    zeros = xp.zeros((len(program.label), len(program.penalty)), program.penalty.dtype)
    return central_start(program, zeros, xp.ones_like(program.penalty[0]))


def begins_with_ascents(config: Config, order: int) -> bool:
    """Whether ascents come first, given the order of the Newton system."""
    return ends_with_ascents(config, order) or (config.method == "auto" and order > LARGE_SYSTEM)


def ends_with_ascents(config: Config, order: int) -> bool:
    """Whether no Newton system is made."""
    return config.method == "ascent" or order > LARGEST_SYSTEM


def _float32_stage(
    config: Config, found: SolverState, program: Program, tol: jax.Array, max_steps: jax.Array
) -> Progress:
    """What float32 can do: exact enough until the gap is small. Where the system is too large, ascent."""
    low = in_dtype(program, jnp.float32)
    only = ends_with_ascents(config, program.order)
    if begins_with_ascents(config, program.order):
        limit = max_steps if only else jnp.minimum(max_steps, ASCENT_STEPS)
        ascent = ascend(program, found.best, tol, limit, jnp.float32)
        found = SolverState(ascent.best, ascent.steps, ascent.steps >= max_steps, found.warm)
    progress = warm_start(low, found)
    if not only:
        progress = interior_point_steps(low, progress, by_matrix(low), tol, max_steps, _FLOAT32_FLOOR)
    progress = widened(program, progress)
    return progress._replace(best=better(found.best, progress.best))


def _float64_stage(
    config: Config, program: Program, progress: Progress, tol: jax.Array, max_steps: jax.Array
) -> Progress:
    """The rest, in the precision of the program; where float32 has spoilt the point, once more from the beginning."""
    if ends_with_ascents(config, program.order):
        return progress
    cold, system = cold_start(program), by_matrix(program)

    # One fori_loop, not two calls: the step is compiled once, and under vmap its counter is not batched.
    def attempt(number: jax.Array, progress: Progress) -> Progress:
        again = (number > 0) | ~jnp.isfinite(progress.complementarity_gap)
        progress = restart_from(progress, choose(again, cold, progress))
        return interior_point_steps(program, progress, system, tol, max_steps)

    result: Progress = jax.lax.fori_loop(0, 2, attempt, progress)
    return result


def canonical(program: Program, z: Array) -> Array:
    """Of all `z` with the same differences, the one that sums to 0 over the classes, whose norm is the smallest.

    Where biases are free a class without rows takes no part.
    """
    xp = namespace(z)
    counted = xp.max(program.label, axis=1) if program.free_bias else xp.ones_like(z[:, 0])
    mean = counted @ z / xp.maximum(xp.sum(counted), 1)
    return counted[:, None] * (z - mean[None, :])


def finish(config: Config, task: MulticlassTask, found: SolverState, tol: Array) -> Answer:
    """Round to the caller's dtype first, then bound the gap of exactly what is returned."""
    program, best = task.program, found.best
    xp, d = namespace(program.c), len(task.centre)
    params, shifted, scores = _rounded(config, task, canonical(program, best.z))
    primal = primal_value(program, shifted, violations(program, scores))
    dual = best.alpha.astype(config.dtype).astype(primal.dtype)
    push = feasible(program, dual)
    adjoint = program.adjoint(push)
    # No objective is negative, which is what a dual of 0 proves.
    useless = ~(dual_value(program, push, adjoint) >= 0)
    dual, push, adjoint = choose(useless, jax.tree.map(xp.zeros_like, (dual, push, adjoint)), (dual, push, adjoint))
    gap = xp.minimum(gap_between(program, shifted, scores, push, adjoint), primal)
    b = params[:, d] if params.shape[1] > d else xp.zeros_like(params[:, 0])
    allowed = tol * xp.maximum(primal, FLOOR * xp.sum(program.c))
    return answered(config.dtype, found, task.valid, allowed, (params[:, :d].T, b, dual.T, primal, gap))


def _rounded(config: Config, task: MulticlassTask, z: Array) -> tuple[Array, Array, Array]:
    """Parameters `(k, p)` that are exact in the caller's dtype, the same with the biases of centred features, and the
    scores of the rows.

    A few lengths are tried (see `stretches`). A free bias is rounded last and takes up what the weights lost.
    """
    xp, program, centre = namespace(z), task.program, task.centre
    d = len(centre)

    def rounded(values: Array) -> Array:
        return values.astype(config.dtype).astype(z.dtype)

    def candidate(stretch: Array) -> tuple[tuple[Array, Array, Array], Array]:
        params = shifted = rounded(stretch * z[:, :d])
        scores = None
        if z.shape[1] > d:
            w, shift = params, params @ centre
            b = rounded(stretch * z[:, d] - shift)
            if program.free_bias:
                scores = program.scores(xp.concatenate([w, (b + shift)[:, None]], axis=1))
                lower = rounded(_kept_out_of_reach(program, scores, b))
                scores, b = scores + (lower - b)[:, None], lower
            params, shifted = (xp.concatenate([w, bias[:, None]], axis=1) for bias in (b, b + shift))
        scores = program.scores(shifted) if scores is None else scores
        return (params, shifted, scores), primal_value(program, shifted, violations(program, scores))

    found: tuple[Array, Array, Array] = least(*each(candidate, stretches(config.dtype, z)))
    return found


def _kept_out_of_reach(program: Program, scores: Array, b: Array) -> Array:
    """The biases, those of classes without rows so low that no row violates a margin against them.

    A class without rows has no weights: its bias is its score.
    """
    xp = namespace(b)
    of_label = xp.sum(program.label * scores, axis=0)
    lowest = xp.min(xp.where(xp.sum(program.label, axis=0) > 0, of_label, xp.inf))
    return xp.where(xp.max(program.label, axis=1) > 0, b, lowest - OUT_OF_REACH)
