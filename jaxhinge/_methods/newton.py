r"""A semismooth Newton method on the augmented Lagrangian of `Program`.

With a multiplier `c f`, f in [0, 1], and a rate rho (the kink is then 1 / rho wide) the inner problem has the gradient
`P z + q - A' push` and the Hessian `P + rho A_a' C_a A_a`, where

    push = c clip(f + rho v, 0, 1),    v = r - A z    (squared hinge: push = 2 c max(0, v), without a multiplier)

and a are the active rows, those strictly inside their box. Where margins are continuous these are few, and a step costs
two products with the rows and one small Gram matrix. `push` is itself a dual point. The gap at (z, push) is

    sum_i c_i max(0, v_i) - push_i v_i     +     |gradient|^2 / (2 penalty)

once the bias is balanced. Only a new multiplier removes the first part, only Newton steps the second: the larger one
says what to do next.

Many rows are solved by few. The solution of a sample says which rows lie far from the kink: these keep their side while
the others, the working set, are solved for, and are looked at again afterwards.

Yan and Li, An efficient augmented Lagrangian method for support vector machine, 2019; Niu et al., A sparse semismooth
Newton based augmented Lagrangian method for large-scale SVMs, 2019; Keerthi and DeCoste, A modified finite Newton
method for fast solution of large scale linear SVMs, 2005; Joachims, Making large-scale SVM learning practical, 1999.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxhinge._base.arrays import Array, NDArray
from jaxhinge._base.precision import eps, tiny
from jaxhinge._methods.active_set import active_set_steps
from jaxhinge._methods.certificate import (
    Certified,
    Program,
    better,
    certify,
    dual_value,
    feasible,
    losses,
    over_penalty,
    primal_value,
)
from jaxhinge._methods.executor import Watch, choose, dot, either, namespace, while_loop
from jaxhinge._methods.linear_systems import conjugate_gradients, diagonal, factored, solved

# `FIRST_RATE`: the rate of a cold start; the width of the kink is then twice the margin.
FIRST_RATE = 0.5
# `_SAMPLED_RATE`: the rate after a sample is solved, which tells the scores to about this width.
_SAMPLED_RATE = 1 / 0.3
# `_GROWTH`: how much the rate grows with each new multiplier.
_GROWTH = 3.0
# Where systems are solved by products with the rows, these take more of them the larger the rate is. It begins at
# `_PLAIN` of the rate at which a row alone would move its dual variable from one end to the other, whatever that is:
# where the penalty is strong, a fixed one took twice the products. It grows by `_SLOW_GROWTH` with a multiplier that
# leaves more than `_SHARE` of what the one before has left.
_PLAIN = 0.3
_SLOW_GROWTH = 2.0
_SHARE = 0.5
# `_ROUGH`: where systems are solved by products, the steps on the rows of the margin go on from this relative gap.
_ROUGH = 1e-3
# `_WARMER`: at the solution of a problem like this one the rate begins so many times higher.
_WARMER = 4.0
# `_AT_ITS_END`: a push of this share of `c` is at its upper end, from which rounding to the caller's dtype may move it.
_AT_ITS_END = 1 - 1e-6
# `_LARGEST_RATE`: beyond it the Hessian loses the penalty to rounding.
_LARGEST_RATE = 1e9
# `PATIENCE`: the method is left where a multiplier takes more Newton steps than this: rows are then heaped on the kink,
# or separable, and the interior point needs fewer steps.
PATIENCE = 25
# `_LONG_PATIENCE`: the same for rows that no other method suits.
_LONG_PATIENCE = 100
# Conjugate gradients end at this reduction of the residual, or after so many iterations.
_REDUCTION = 0.1
_ITERATIONS = 100
# The line search ends where the slope is this share of the first one, or after so many evaluations.
_FLAT = 0.05
_EVALUATIONS = 14
# A sample has this many rows for each feature, or one row of so many.
_ROWS_PER_FEATURE = 16
_SAMPLED = 16
_SAMPLE_TOL = 3e-2
# The working set are rows within so many standard errors of the kink; it must be small to be worth its copy.
_STANDARD_ERRORS = 4.0
_SMALL_SHARE = 0.4
_ROUNDS = 6


class NewtonState(NamedTuple):
    """The state of the loop.

    Attributes:
      z: `(p,)`.
      violations: `(n,)`, `r - scores(z)`.
      fraction: `(n,)`, the multiplier as a share of `c`.
      rate: How steep the smoothed kink is.
      removable: The part of the gap that the last multiplier was to remove.
      best: The best certificate.
      inner: Newton steps since the last multiplier.
      steps: Newton steps in all.
    """

    z: Array
    violations: Array
    fraction: Array
    rate: Array
    removable: Array
    best: Certified
    inner: Array
    steps: Array


def newton_start(program: Program, best: Certified, fraction: Array, rate: Array | float) -> NewtonState:
    """At the primal point of a certificate, with a multiplier."""
    xp, violations = namespace(best.z), program.r - program.scores(best.z)
    # Numbers that vary over the axes of a `shard_map` as the data do.
    zero = xp.isnan(best.primal) * xp.int32(0)
    return NewtonState(best.z, violations, fraction, rate + 0 * best.primal, xp.inf + 0 * best.primal, best, zero, zero)


def warm_rate(best: Certified) -> Array:
    """The rate to begin with at the solution of a problem like this one: the larger, the nearer it is."""
    xp = namespace(best.primal)
    gap = (best.primal - best.dual) / xp.maximum(abs(best.primal), tiny(best.primal.dtype))
    return xp.clip(0.1 / xp.maximum(gap, 1e-4), FIRST_RATE, 30.0)


def plain_rate(program: Program) -> Array:
    """The share `_PLAIN` of the rate at which a row alone would move its dual variable from one end to the other."""
    xp, total = namespace(program.c), namespace(program.c).sum(program.c)
    squares = xp.sum(over_penalty(program, program.rows.squares(program.c)))
    weight = squares / total * xp.mean(program.c)
    return xp.where(weight > 0, _PLAIN / xp.where(weight > 0, weight, 1), 1)


def newton_steps(
    program: Program, state: NewtonState, allowed: Callable[[Certified], Array], max_steps: Array, watch: Watch | None
) -> NewtonState:
    """Step until the certificate's gap is `allowed`, the method should be left, or `max_steps` are made."""

    def going(state: NewtonState) -> Array:
        sensible = (state.inner <= _patience(program)) & (state.rate < _LARGEST_RATE) & (state.steps < max_steps)
        return sensible & (state.best.primal - state.best.dual > allowed(state.best))

    return while_loop(going, lambda state: _step(program, state), state, watch)


def _step(program: Program, state: NewtonState) -> NewtonState:
    """A certificate, and then a new multiplier or a Newton step."""
    xp, c, v = namespace(state.z), program.c, state.violations
    reach = _reach(program, state)
    share = xp.maximum(reach, 0) if program.squared else xp.clip(reach, 0, 1)
    push = c * share
    balanced = feasible(program, push)
    if program.free_bias:
        adjoint, of_balanced = program.rows.adjoint(xp.stack([program.sign * push, program.sign * balanced]))
    else:
        adjoint = of_balanced = program.adjoint(push)
    primal, dual = primal_value(program, state.z, v), dual_value(program, balanced, of_balanced)
    best = better(state.best, Certified(state.z, balanced, primal, dual))
    state = state._replace(best=best)
    if program.squared:
        return _newton_step(program, state, reach, adjoint)
    removable = dot(c, losses(program, v)) - dot(push, v)

    def new_multiplier() -> NewtonState:
        slow = removable > _SHARE * state.removable
        growth = xp.where(slow, _SLOW_GROWTH, 1.0) if program.rows.by_products else _GROWTH
        return state._replace(fraction=share, rate=growth * state.rate, inner=0 * state.inner, removable=removable)

    def step() -> NewtonState:
        return _newton_step(program, state, reach, adjoint)

    return either((state.inner > 0) & (primal - dual <= 2 * removable), new_multiplier, step)


def _reach(program: Program, state: NewtonState) -> Array:
    """The push of each row as a share of `c`, before it is clipped."""
    return 2 * state.violations if program.squared else state.fraction + state.rate * state.violations


def _newton_step(program: Program, state: NewtonState, reach: Array, adjoint: Array) -> NewtonState:
    """Along the Newton direction to where the slope of the inner objective is all but 0."""
    xp, z, c = namespace(state.z), state.z, program.c
    gradient = program.penalty * z + program.q - adjoint
    active = reach > 0 if program.squared else (reach > 0) & (reach < 1)
    rate = 2.0 if program.squared else state.rate
    direction = -_inverse_hessian(program, xp.where(active, c * rate, 0), gradient)
    change = program.scores(direction)
    along = dot(program.penalty * z + program.q, direction)
    curved, push, fall = dot(program.penalty * direction, direction), c * change, rate * change

    def slope(t: Array) -> Array:
        moved = reach - t * fall
        return along + t * curved - dot(push, xp.maximum(moved, 0) if program.squared else xp.clip(moved, 0, 1))

    t = _line_search(slope, dot(gradient, direction), slope(1 + 0 * along))
    # A direction spoilt by rounding is not taken: the count of inner steps ends the loop.
    sound = xp.isfinite(xp.sum(direction) + t)
    moved = z + t * direction, state.violations - t * change
    z, violations = choose(sound, moved, (z, state.violations))
    inner = xp.where(sound, state.inner + 1, _patience(program) + 1)
    return state._replace(z=z, violations=violations, inner=inner, steps=state.steps + 1)


def _patience(program: Program) -> int:
    """How many Newton steps a multiplier may take."""
    return _LONG_PATIENCE if program.rows.by_products else PATIENCE


def _inverse_hessian(program: Program, weight: Array, gradient: Array) -> Array:
    """`(P + A' diag(weight) A)^-1 gradient`; a free bias on which no row is active is held by a little penalty."""
    xp = namespace(weight)
    held = xp.where(program.penalty > 0, 0, 1e-6 * xp.max(weight, axis=-1) + xp.min(program.c, axis=-1))
    if program.rows.by_products:
        return conjugate_gradients(program, weight, program.penalty + held, gradient, _REDUCTION, _ITERATIONS)
    hessian = program.rows.gram_of_few(weight) + diagonal(program.penalty + held)
    return solved(factored(hessian, eps(hessian.dtype)), gradient)


def _line_search(slope: Callable[[Array], Array], at_0: Array, at_1: Array) -> Array:
    """Where the increasing function `slope` is all but 0: secant steps kept in a bracket."""
    xp = namespace(at_0)
    one, infinite = 1 + 0 * at_0, xp.inf + 0 * at_0

    def going(s: tuple[Array, ...]) -> Array:
        return (abs(s[5]) > _FLAT * abs(at_0)) & (s[6] < _EVALUATIONS)

    def step(s: tuple[Array, ...]) -> tuple[Array, ...]:
        low, f_low, high, f_high, t, f, k = s
        low, f_low = xp.where(f < 0, t, low), xp.where(f < 0, f, f_low)
        high, f_high = xp.where(f < 0, high, t), xp.where(f < 0, f_high, f)
        width = xp.where(xp.isinf(high), 0, high - low)
        secant = low - f_low * width / xp.where(xp.isinf(f_high), 1, f_high - f_low)
        secant = xp.clip(secant, low + 0.1 * width, low + 0.9 * width)
        t = xp.where(xp.isinf(high), 2 * t, secant)
        return low, f_low, high, f_high, t, slope(t), k + 1

    count = xp.isnan(at_0) * xp.int32(0)
    with np.errstate(invalid="ignore", over="ignore"):
        return while_loop(going, step, (0 * at_0, at_0, infinite, infinite, one, at_1, count))[4]


# ---- many rows by few: on the host, where sizes may depend on values


class NewtonResult(NamedTuple):
    """The certificate of all rows, the steps made, and the rate and multiplier to go on with."""

    best: Certified
    steps: int
    rate: float
    fraction: NDArray
    left: bool


def solve_by_newton(
    program: Program, best: Certified, warm: bool, tol: float, max_steps: int, watch: Watch | None
) -> NewtonResult:
    """From a certificate to one within `tol` where Newton steps lead there; `left` says that they do not.

    Args:
      program: Of NumPy arrays.
      best: Where to start from.
      warm: Whether it is the solution of a problem like this one.
      tol: The relative gap that is wanted.
      max_steps: Newton steps at most.
      watch: Shown each step.
    """
    p, n = program.shape
    few = max(n // _SAMPLED, _ROWS_PER_FEATURE * p)
    share = best.alpha / program.c
    if program.rows.by_products:
        return _by_products(program, best, warm, tol, max_steps, watch)
    if warm:
        return _all_rows(program, best, share, float(warm_rate(best)), tol, max_steps, watch)
    if 4 * few > n or program.squared:
        return _all_rows(program, best, share, FIRST_RATE, tol, max_steps, watch)
    sampled, steps = _sample_solution(program, few, max_steps, watch)
    violations = program.r - program.scores(sampled)
    fraction = np.clip(0.5 + _SAMPLED_RATE * violations, 0, 1)
    best = better(best, certify(program, sampled, program.c * fraction, program.r - violations))
    found = _by_working_sets(program, best, violations, fraction, few, tol, max_steps - steps, watch)
    if found is None:
        best = best._replace(z=sampled)
        found = _all_rows(program, best, fraction, _SAMPLED_RATE, tol, max_steps - steps, watch)
    return found._replace(steps=found.steps + steps)


def _all_rows(
    program: Program, best: Certified, fraction: NDArray, rate: float, tol: float, max_steps: int, watch: Watch | None
) -> NewtonResult:
    state = newton_start(program, best, fraction, rate)
    # The best primal value may be that of another point than `z`.
    state = newton_steps(program, state, lambda found: tol * abs(found.primal), np.int32(max_steps), watch)
    left = bool(state.best.primal - state.best.dual > tol * abs(state.best.primal))
    return NewtonResult(state.best, int(state.steps), float(state.rate), state.fraction, left)


def _by_products(
    program: Program, best: Certified, warm: bool, tol: float, max_steps: int, watch: Watch | None
) -> NewtonResult:
    """A rough solution; from there the rows on the margin; and by the first method what these steps leave undone."""
    plain, steps = float(plain_rate(program)), 0
    share, rate = best.alpha / program.c, plain
    if warm:
        share, rate = _moved_share(program, best), _WARMER * plain
    rough = tol if program.squared else max(tol, _ROUGH)
    for wanted in (rough, None, tol):
        if wanted is None:
            best, more = active_set_steps(program, best, plain, tol, max_steps - steps, watch)
        else:
            found = _all_rows(program, best, share, rate, wanted, max_steps - steps, watch)
            best, more, rate = found.best, found.steps, found.rate
        steps, share = steps + more, best.alpha / program.c
        if program.squared or _is_within(best, tol):
            break
    return NewtonResult(best, steps, rate, share, not _is_within(best, tol))


def _moved_share(program: Program, best: Certified) -> NDArray:
    """The multiplier, as a share of `c`, to begin with at the solution for another strength of the penalty.

    That strength is the one at which `z` is stationary. As long as the rows on the margin stay there and few others
    push, `z` stays as it is where the pushes change as the strength does (Hastie et al., The entire regularization path
    for the support vector machine, 2004). Without this a weaker penalty took twice the products on text.
    """
    share = best.alpha / program.c
    now, before = dot(program.penalty * best.z, best.z), dot(program.adjoint(best.alpha) - program.q, best.z)
    ratio = now / before if now > 0 and before > 0 else 1.0
    moved: NDArray = np.where(share < _AT_ITS_END, np.minimum(ratio * share, 1), share)
    return moved


def _is_within(best: Certified, tol: float) -> bool:
    return bool(best.primal - best.dual <= tol * abs(best.primal))


def _sample_solution(program: Program, few: int, max_steps: int, watch: Watch | None) -> tuple[NDArray, int]:
    """A rough solution of some of the rows, always the same ones."""
    n = program.shape[1]
    chosen = np.sort(np.random.default_rng(0).permutation(n)[:few])
    sample = _part(program, chosen, program.q)
    sample = replace(sample, c=sample.c * (np.sum(program.c) / np.sum(sample.c)))
    zeros = certify(sample, np.zeros_like(program.penalty), np.zeros(few))
    found = _all_rows(sample, zeros, np.zeros(few), FIRST_RATE, _SAMPLE_TOL, max_steps, watch)
    return found.best.z, found.steps


def _part(program: Program, chosen: NDArray, q: NDArray) -> Program:
    rows = program.rows.take(chosen)
    return replace(program, rows=rows, sign=program.sign[chosen], r=program.r[chosen], c=program.c[chosen], q=q)


def _by_working_sets(
    program: Program,
    best: Certified,
    violations: NDArray,
    fraction: NDArray,
    few: int,
    tol: float,
    max_steps: int,
    watch: Watch | None,
) -> NewtonResult | None:
    """Solve for the rows near the kink, the others on their sides, until all rows agree; None where that does not pay.

    A row that keeps its side has a loss that is linear, or 0, and becomes a part of `q` and of a constant.
    """
    p, n = program.shape
    width, rate, steps = _STANDARD_ERRORS * (p / few) ** 0.5, _SAMPLED_RATE, 0
    z = best.z
    for _ in range(_ROUNDS):
        near = np.abs(violations) <= width * _unit(program)
        if np.count_nonzero(near) > _SMALL_SHARE * n:
            return None if not steps else NewtonResult(best, steps, rate, fraction, True)
        chosen, inside = np.flatnonzero(near), ~near & (violations > 0)
        pushed = np.where(inside, program.c, 0.0)
        part = _part(program, chosen, program.q - program.adjoint(pushed))
        constant = float(dot(pushed, program.r))
        start = newton_start(part, certify(part, z, part.c * fraction[chosen]), fraction[chosen], rate)
        state = newton_steps(part, start, partial(_half_of, tol, constant), np.int32(max_steps - steps), watch)
        steps, rate, z = steps + int(state.steps), float(state.rate), state.best.z
        alpha, fraction = pushed, np.where(inside, 1.0, 0.0)
        alpha[chosen], fraction[chosen] = state.best.alpha, state.fraction
        violations = program.r - program.scores(z)
        best = better(best, certify(program, z, alpha, program.r - violations))
        stuck = state.inner > _patience(part) or steps >= max_steps or (watch is not None and watch.interrupted)
        if best.primal - best.dual <= tol * abs(best.primal) or stuck:
            break
        wrong = ~near & (inside != (violations > 0))
        width = max(1.5 * width, 1.5 * float(np.max(np.abs(violations[wrong]), initial=0.0)) + width / 2)
    left = bool(best.primal - best.dual > tol * abs(best.primal))
    return NewtonResult(best, steps, rate, fraction, left)


def _half_of(tol: float, constant: float, found: Certified) -> Array:
    """Half of the gap that all rows are allowed: the rows on their sides may need the other half."""
    return tol / 2 * abs(found.primal + constant)


def _unit(program: Program) -> float:
    """The size of a required margin."""
    return float(dot(program.c, abs(program.r)) / np.sum(program.c)) or 1.0
