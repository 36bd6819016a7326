r"""The formulas of an interior-point step that concern each row by itself; see `interior_point` for what they solve.

They hold for all rows at once, for any block of them, and in NumPy for many problems at once. What a step needs beside
them are sums over rows, products with the rows, and one p x p system.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxhinge._base.arrays import Array
from jaxhinge._methods.certificate import Program
from jaxhinge._methods.executor import column, dot, namespace


class Interior(NamedTuple):
    """An interior point: `z` `(p,)`, its `scores`, and per row the fractions `f`, `g` and the slacks `s`, `xi`.

    A direction has the same fields; all of them move linearly. A block of rows has no `z` (None).
    """

    z: Any
    scores: Array
    f: Array
    g: Array
    s: Array
    xi: Array


class Targets(NamedTuple):
    """Right-hand sides of the two complementarity equations."""

    lower: Array
    upper: Array


def central_rows(program: Program, z: Any, scores: Array, kappa: Array) -> Interior:
    """The point whose complementarity products all equal `kappa` and whose primal residual is 0."""
    xp, kappa = namespace(scores), column(kappa)
    v = program.r - scores
    if program.squared:
        # xi = f / 2 and s = kappa / f with xi - s = v: a quadratic in f, its positive root without cancellation.
        root = xp.sqrt(v * v + 2 * kappa)
        f = xp.where(v > 0, v + root, 2 * kappa / (root + abs(v)))
        return Interior(z, scores, f, xp.ones_like(f), kappa / f, f / 2)
    root = xp.sqrt(v * v + 4 * kappa * kappa)
    smaller = (4 * kappa * kappa / (root + abs(v)) + 2 * kappa) / (root + 2 * kappa) / 2
    f, g = xp.where(v > 0, 1 - smaller, smaller), xp.where(v > 0, smaller, 1 - smaller)
    return Interior(z, scores, f, g, kappa / f, kappa / g)


def inverse_of(point: Interior) -> Interior:
    """The reciprocals of the fractions and slacks: each step divides by them a dozen times."""
    return point._replace(f=1 / point.f, g=1 / point.g, s=1 / point.s, xi=1 / point.xi)


def weight_of(program: Program, point: Interior, inverse: Interior) -> Array:
    """The diagonal of the Newton system, but for `c`."""
    return 1 / (point.s * inverse.f + (0.5 if program.squared else point.xi * inverse.g))


def primal_residual(program: Program, point: Interior) -> Array:
    """How far the scores and slacks are from their equation."""
    return program.r - point.scores - point.xi + point.s


def pull(program: Program, inverse: Interior, targets: Targets) -> Array:
    """What the targets add to the residual once `f`, `s` and `xi` are eliminated; linear in them."""
    lower = targets.lower * inverse.f
    return lower if program.squared else lower - targets.upper * inverse.g


def predictor_targets(point: Interior) -> Targets:
    """Those that aim for the end of the central path."""
    return Targets(-point.f * point.s, -point.g * point.xi)


def corrector_targets(point: Interior, predictor: Interior, target: Array) -> Targets:
    """Mehrotra's: products equal to `target`, with the second-order terms of the predictor."""
    return Targets(
        column(target) - point.f * point.s - predictor.f * predictor.s,
        column(target) - point.g * point.xi + predictor.f * predictor.xi,
    )


def direction_of(
    program: Program,
    point: Interior,
    inverse: Interior,
    weight: Array,
    targets: Targets,
    dz: Any,
    dscores: Array,
) -> Interior:
    """How all fields move with the scores, for given targets."""
    rhs = primal_residual(program, point) + pull(program, inverse, targets)
    df = weight * (rhs - dscores)
    dxi = df / 2 if program.squared else (targets.upper + point.xi * df) * inverse.g
    return Interior(dz, dscores, df, -df, (targets.lower - point.s * df) * inverse.f, dxi)


def along(program: Program, point: Interior, direction: Interior, length: Array) -> Interior:
    """The point so far along the direction."""
    length = column(length)
    new: Interior = jax.tree.map(lambda value, change: value + length * change, point, direction)
    return new._replace(g=namespace(new.f).ones_like(new.f)) if program.squared else new


def complementarity_gap_of(program: Program, point: Interior) -> Array:
    """The gap at a point without residuals: the complementarity products summed, rows weighted by `c`."""
    lower = dot(program.c, point.f * point.s)
    return lower if program.squared else lower + dot(program.c, point.g * point.xi)


def shrinkage(program: Program, inverse: Interior, direction: Interior) -> Array:
    """The largest share of a fraction or slack that a full step would take away; above 1 it changes a sign."""
    shrink = [direction.f * inverse.f, direction.s * inverse.s]
    if not program.squared:
        shrink += [direction.g * inverse.g, direction.xi * inverse.xi]
    xp = namespace(direction.f)
    return -xp.min(xp.stack([xp.min(ratio, axis=-1) for ratio in shrink]), axis=0)
