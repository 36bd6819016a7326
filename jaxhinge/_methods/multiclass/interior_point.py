r"""Primal-dual interior point for the multiclass `Program`, certified at every step.

Both losses are sums over cells of c times the largest of a few alternatives, affine in the scores: for Crammer-Singer
a row's 0 and its violations; for Weston-Watkins 0 and one violation. With fractions f >= 0 that sum to 1 in each cell,
slacks t = xi - v >= 0 of the alternatives below the cell's level xi, and B = c f, the optimality conditions are

    P z = sum_i V_i(B) a_i,    t = xi - v(z),    sum f = 1,    f t = kappa        with kappa -> 0

Eliminating f, t and xi from the Newton equations leaves, with e = f / t, a k p x k p system for dz whose weight of
one cell is `diag(e) - e e' / sum(e)` in its alternatives. In the classes that is the Laplacian of a weighted graph,
for only differences of scores matter. Steps are Mehrotra's predictor and corrector with Gondzio's centrality
correctors; the predicted point, made feasible, is what is certified.

Mehrotra, On the implementation of a primal-dual interior point method, 1992; Gondzio, Multiple centrality
corrections, 1996; Colombo and Gondzio, Further development of multiple centrality correctors for interior point
methods, 2008; Ferris and Munson, Interior-point methods for massive support vector machines, 2002.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxhinge._base.arrays import Array
from jaxhinge._methods.certificate import better, within
from jaxhinge._methods.executor import Watch, choose, namespace, repeat, while_loop
from jaxhinge._methods.interior_point import PATIENCE, Progress, gained, next_target, step_length
from jaxhinge._methods.multiclass.linear_systems import Edges, NewtonSystem
from jaxhinge._methods.multiclass.program import Program, certify, differences, in_dtype, violations

_CORRECTORS = 2
# `_SLOWEST`: complementarity may fall so much slower than in the binary method, which takes longer steps.
_SLOWEST = 1.08
# A corrector may spoil what the direction had: it is given the best of these weights (Colombo and Gondzio), if any.
_WEIGHTS = (0.25, 0.5, 0.75, 1.0)
_WORTHWHILE = 0.003
_LEVEL_STEPS = 12


class Interior(NamedTuple):
    """An interior point, or a direction: all of its fields move linearly.

    `z` `(k, p)`, its `scores`; per alternative, along the first axis, the fraction `f` and the slack `t`; per cell
    the level `xi`. Alternatives are `(k, n)` with cells `(n,)`, or `(2, k, n)` with cells `(k, n)`.
    """

    z: Array
    scores: Array
    f: Array
    t: Array
    xi: Array


class _Aim(NamedTuple):
    """The residual of complementarity that a direction removes, that direction, and the longest step along it."""

    residual: Array
    direction: Interior
    length: Array


def central_start(program: Program, z: Array, kappa: Array) -> Progress:
    """Progress at step 0, from the point above `z` whose complementarity products all equal `kappa`."""
    xp, scores = namespace(z), program.scores(z)
    v = _alternatives(program, violations(program, scores))
    xi = _level(v, kappa)
    f = kappa / (xi[None] - v)
    f = f / xp.sum(f, axis=0)[None]
    point = Interior(z, scores, f, xi[None] - v, xi)
    best = certify(program, z, pushes_of(program, f), scores)
    complementarity_gap = _complementarity_gap_of(program, point)
    # Counters that vary over the axes of a `shard_map` as the data do.
    none = xp.isnan(complementarity_gap) * xp.int32(0)
    return Progress(point, best, complementarity_gap, none, none)


def interior_point_steps(
    program: Program,
    progress: Progress,
    newton_system: NewtonSystem,
    tol: Array,
    max_steps: Array,
    floor: float = 0.0,
    watch: Watch | None = None,
) -> Progress:
    """Step until the certificate is within `tol`, nothing is gained any more, or `max_steps` are made.

    Low precision is left when complementarity, relative to the objective, falls below `floor`: residuals that it cannot
    remove would otherwise be carried into a corner that no later step gets out of.
    """

    def unfinished(progress: Progress) -> Array:
        going = (
            (progress.steps < max_steps)
            & (progress.steps_without_progress < PATIENCE)
            & ~within(program, progress.best, tol)
        )
        return going & (progress.complementarity_gap > floor * abs(progress.best.primal))

    return while_loop(unfinished, lambda p: _step(program, p, newton_system), progress, watch)


def widened(program: Program, progress: Progress) -> Progress:
    """Progress that was made in lower precision, certified again in that of the program."""
    raised = in_dtype(progress, program.c.dtype)
    f = raised.point.f / namespace(raised.point.f).sum(raised.point.f, axis=0)[None]
    point = raised.point._replace(scores=program.scores(raised.point.z), f=f)
    return raised._replace(point=point, best=certify(program, raised.best.z, raised.best.alpha))


def _alternatives(program: Program, v: Array) -> Array:
    """The violations `(k, n)` as alternatives; a class that is not wrong has 0 and stands for keeping the label."""
    xp = namespace(v)
    return xp.stack([xp.zeros_like(v), v]) if program.summed else v


def pushes_of(program: Program, f: Array) -> Array:
    """B `(k, n)` from the fractions of the alternatives."""
    return program.wrong * program.c[None, :] * (f[1] if program.summed else f)


def _level(v: Array, kappa: Array) -> Array:
    """The level xi of every cell at which `sum kappa / (xi - v) = 1`.

    Newton's method from below on the harmonic mean of `xi - v`, which is concave in xi and next to linear.
    """

    xp = namespace(v)

    def newton(xi: Array) -> Array:
        inverse = 1 / (xi[None] - v)
        total = xp.sum(inverse, axis=0)
        return xi + (kappa * total - 1) * total / xp.sum(inverse * inverse, axis=0)

    return repeat(_LEVEL_STEPS, newton, xp.max(v, axis=0) + kappa)


def _step(program: Program, progress: Progress, newton_system: NewtonSystem) -> Progress:
    xp, point = namespace(progress.complementarity_gap), progress.point
    direction_to = _newton(program, point, newton_system)
    predictor = direction_to(-point.f * point.t)
    predicted = _move(point, predictor, xp.ones_like(progress.complementarity_gap))
    best = better(progress.best, certify(program, predicted.z, pushes_of(program, predicted.f), predicted.scores))

    moved = _corrected(program, point, direction_to, predictor)
    # A direction spoilt by rounding is not taken: the next precision, or the caller, hears of it as a stall.
    sound = xp.isfinite(xp.sum(moved.z)) & xp.isfinite(xp.sum(moved.f)) & xp.isfinite(xp.sum(moved.t))
    moved = choose(sound, moved, point)
    complementarity_gap = _complementarity_gap_of(program, moved)
    gap, old_gap = best.primal - best.dual, progress.best.primal - progress.best.dual
    of_use = gained(gap, old_gap, complementarity_gap, _SLOWEST * progress.complementarity_gap)
    steps_without_progress = xp.where(sound, xp.where(of_use, 0, progress.steps_without_progress + 1), PATIENCE)
    return Progress(moved, best, complementarity_gap, progress.steps + 1, steps_without_progress)


def _corrected(
    program: Program, point: Interior, direction_to: Callable[[Array], Interior], predictor: Interior
) -> Interior:
    """The next iterate: Mehrotra's corrector, then Gondzio's, each given the weight that allows the longest step."""
    xp, kappa = namespace(point.f), _complementarity(program, point)
    length = _step_to_zero(predictor.f / point.f, predictor.t / point.t)
    reached = _complementarity(program, _move(point, predictor, length))
    target = next_target(kappa, reached)
    aimless = -point.f * point.t
    residual = target + aimless - predictor.f * predictor.t
    found = _blended(point, _Aim(aimless, predictor, 0 * length), _Aim(residual, direction_to(residual), length))

    def corrected(found: _Aim) -> _Aim:
        # Gondzio: aim for a longer step with no complementarity product far from the target.
        ahead = _move(point, found.direction, xp.minimum(1, found.length + 0.3))
        product = ahead.f * ahead.t
        correction = xp.maximum(xp.clip(product, 0.1 * target, 10 * target) - product, -10 * target)
        residual = found.residual + correction
        return _blended(point, found, _Aim(residual, direction_to(residual), found.length))

    found = repeat(_CORRECTORS, corrected, found)
    return _move(point, found.direction, step_length(found.length))


def _blended(point: Interior, old: _Aim, new: _Aim) -> _Aim:
    """The new direction by that part which allows the longest step; the old one where the step gains too little."""
    xp = namespace(point.f)
    f, t = old.direction.f / point.f, old.direction.t / point.t
    df, dt = new.direction.f / point.f - f, new.direction.t / point.t - t
    weight, length, enough = 0 * old.length, old.length, old.length + _WORTHWHILE
    for candidate in _WEIGHTS:
        longest = _step_to_zero(f + candidate * df, t + candidate * dt)
        weight = xp.where(longest >= enough, candidate, weight)
        length = xp.where(longest >= enough, longest, length)
        enough = xp.maximum(enough, longest)
    residual, direction = jax.tree.map(lambda a, b: a + weight * (b - a), tuple(old[:2]), tuple(new[:2]))
    return _Aim(residual, direction, length)


def newton_edges(program: Program, point: Interior) -> Edges:
    """The weights of the Newton system at a point."""
    e = point.f / point.t
    return _edges(program, e, 1 / namespace(e).sum(e, axis=0))


def _newton(program: Program, point: Interior, newton_system: NewtonSystem) -> Callable[[Array], Interior]:
    """The Newton direction at `point` for any residual of the complementarity equations."""
    xp, (z, scores, f, t, xi) = namespace(point.f), point
    slack_residual = xi[None] - _alternatives(program, violations(program, scores)) - t
    sum_residual = 1 - xp.sum(f, axis=0)
    inverse_t, inverse_f = 1 / t, 1 / f
    e = f * inverse_t
    inverse_total = 1 / xp.sum(e, axis=0)
    factored = newton_system.factor(_edges(program, e, inverse_total))

    def direction_to(residual: Array) -> Interior:
        q = residual * inverse_t - e * slack_residual
        lack = xp.sum(q, axis=0) - sum_residual
        still = q - e * (lack * inverse_total)[None]
        rhs = program.adjoint(pushes_of(program, f + still)) - program.penalty[None, :] * z
        dz = newton_system.solve(factored, rhs)
        dscores = program.scores(dz)
        dv = _alternatives(program, differences(program, dscores))
        dxi = (lack + xp.sum(e * dv, axis=0)) * inverse_total
        df = q - e * (dxi[None] - dv)
        return Interior(dz, dscores, df, (residual - t * df) * inverse_f, dxi)

    return direction_to


def _edges(program: Program, e: Array, inverse_total: Array) -> Edges:
    """The weighted graph that the cells make between the classes of each row."""
    if program.summed:
        return Edges(program.label, program.wrong * program.c[None, :] * e[0] * e[1] * inverse_total)
    kept = namespace(e).sum((1 - program.wrong) * e, axis=0)
    node = program.wrong * e + program.label * kept[None, :]
    return Edges(node * (program.c * inverse_total / 2)[None, :], node)


def _move(point: Interior, direction: Interior, length: Array) -> Interior:
    return Interior(*(value + length * change for value, change in zip(point, direction, strict=True)))


def _complementarity_gap_of(program: Program, point: Interior) -> Array:
    """The gap at a point without residuals: the complementarity products summed, cells weighted by `c`."""
    xp = namespace(point.f)
    return xp.sum(_cells(program, xp.sum(point.f * point.t, axis=0)))


def _complementarity(program: Program, point: Interior) -> Array:
    """The weighted mean of the complementarity products."""
    xp = namespace(point.f)
    alternatives = len(point.f) * xp.sum(_cells(program, xp.ones_like(point.xi)))
    return _complementarity_gap_of(program, point) / alternatives


def _cells(program: Program, values: Array) -> Array:
    return program.c * values if values.ndim == 1 else program.c[None, :] * values


def _step_to_zero(f: Array, t: Array) -> Array:
    """The longest step, at most 1, that keeps every fraction and slack from changing sign, given how fast each moves
    for its size."""
    xp = namespace(f)
    return 1 / xp.maximum(1, -xp.minimum(xp.min(f), xp.min(t)))
