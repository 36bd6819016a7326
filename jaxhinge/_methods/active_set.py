r"""Newton's method on the dual, for the rows on the margin: by products with the rows alone, to the last digit.

Every dual point alpha has a primal point `z = P^-1 (A' alpha - q)`, and their gap lies in the rows alone:
`sum_i c_i max(0, v_i) - alpha_i v_i`, `v = r - A z`. A row is inside (alpha_i = c_i), outside (0), or on the margin
(v_i = 0), as `alpha_i / c_i + rate v_i` is at least 1, at most 0, or between. With K = A P^-1 A' a step moves the first
two to their ends, and solves `K u = v` among the rows on the margin M for the change u of theirs:

    K_MM u + a_b db = (v - K d)_M,    a_b . u = -a_b . d         d the move of the others, a_b the column of a free bias

Conjugate gradients reduce its residual to a tenth: a solution of higher accuracy runs into the box, and the next step
takes up the rest. The way from alpha to the new point, clipped to the box, ends where the dual is largest along it.

The dual is also where conjugate gradients do best: their residual is what is left of the gap, and rows of text, of unit
length, have few products that are not small. On text the way from a relative gap of 1e-3 to 1e-8 takes six tenths to a
seventeenth of the products that steps on the augmented Lagrangian take (see `newton`). Before, while rows still change
their sides, those are better.

Hintermueller, Ito and Kunisch, The primal-dual active set strategy as a semismooth Newton method, 2003; Gould, Hribar
and Nocedal, On the solution of equality constrained quadratic programming problems, 2001.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._methods.certificate import (
    Certified,
    Program,
    better,
    dual_value,
    feasible,
    net,
    over_penalty,
    primal_value,
)
from jaxhinge._methods.executor import Watch, while_loop
from jaxhinge._rows.dense import TwoSided

# Conjugate gradients end at this reduction of the residual, or after so many iterations; and where this share of the
# rows would leave the box, for what follows is cut off.
_REDUCTION = 0.1
_ITERATIONS = 50
_OUTSIDE = 0.1
# `_PATIENCE`: stop after so many steps that did not reduce the gap to `_PROGRESS` of what it was.
_PATIENCE = 6
_PROGRESS = 0.9
# `_BISECTIONS`: the bias that balances the duals is found by so many.
_BISECTIONS = 60
# `_FLAT`: curvature below this share of that of the rows alone is rounding; rows that repeat have none between them.
_FLAT = 1e-12
# `_SMALLEST_NORM`: rows are scaled by their norms, by no less than this share of the mean.
_SMALLEST_NORM = 1e-3


class ActiveSetState(NamedTuple):
    """The state of the loop.

    Attributes:
      z: `(p,)`, the primal point of `alpha`.
      violations: `(n,)`, `r - scores(z)`.
      alpha: `(n,)`, feasible.
      best: The best certificate.
      gap: The gap that the last `idle` steps did not reduce by a tenth.
      idle: How many they are.
      steps: Steps in all.
    """

    z: NDArray
    violations: NDArray
    alpha: NDArray
    best: Certified
    gap: Any
    idle: Any
    steps: Any


def active_set_steps(
    program: Program, best: Certified, rate: float, tol: float, max_steps: int, watch: Watch | None
) -> tuple[Certified, int]:
    """Step from the dual point of a certificate until the gap is within `tol`, or no step reduces it any more.

    Args:
      program: Of NumPy arrays, not squared.
      best: Where to start from.
      rate: How far a violation of 1 moves a dual variable, as a share of `c`, before a row changes its side.
      tol: The relative gap that is wanted.
      max_steps: Steps at most.
      watch: Shown each step.

    Returns:
      The best certificate, and the steps made.
    """
    alpha = net(best.alpha) if isinstance(program.rows, TwoSided) else best.alpha
    z = over_penalty(program, program.adjoint(alpha) - program.q)
    if program.free_bias:
        z[-1] = best.z[-1]
    norms = program.rows.norms(over_penalty(program, np.ones_like(z)))
    norms = np.maximum(norms, _SMALLEST_NORM * np.mean(norms) or 1.0)
    state = ActiveSetState(z, program.r - program.scores(z), alpha, best, np.inf, np.int32(0), np.int32(0))

    def going(state: ActiveSetState) -> Any:
        lacking = state.best.primal - state.best.dual > tol * abs(state.best.primal)
        return lacking and state.idle < _PATIENCE and state.steps < max_steps

    state = while_loop(going, lambda state: _step(program, norms, rate, state), state, watch)
    return state.best, int(state.steps)


def _step(program: Program, norms: NDArray, rate: float, state: ActiveSetState) -> ActiveSetState:
    alpha, violations = state.alpha, state.violations
    target, db = _target(program, norms, rate, state)
    direction = target - alpha
    dz = over_penalty(program, program.adjoint(direction))
    fall = program.scores(dz)
    slope, curved = violations @ direction, direction @ fall
    length = min(1.0, slope / curved) if curved > 0 else 1.0
    if not (slope > 0 and np.isfinite(length)):
        return state._replace(idle=np.int32(_PATIENCE))
    if program.free_bias:
        dz[-1] = db
        fall = fall + program.sign * db
    z, violations, alpha = state.z + length * dz, violations - length * fall, alpha + length * direction
    dual = dual_value(program, alpha, program.penalty * z + program.q)
    best = better(state.best, Certified(z, alpha, primal_value(program, z, violations), dual))
    gap = best.primal - best.dual
    if gap < _PROGRESS * state.gap:
        return ActiveSetState(z, violations, alpha, best, gap, np.int32(0), state.steps + 1)
    return ActiveSetState(z, violations, alpha, best, state.gap, state.idle + 1, state.steps + 1)


def _target(program: Program, norms: NDArray, rate: float, state: ActiveSetState) -> tuple[NDArray, float]:
    """A feasible dual point that solves the equations of the sides, roughly; and the change of a free bias."""
    place = state.alpha / program.c + rate * state.violations
    chosen = np.flatnonzero(_one_side((place > 0) & (place < 1), program, state.alpha))
    target = np.where(place >= 1, program.c, 0.0)
    target[chosen] = state.alpha[chosen]
    margin = MarginRows.of(program, chosen, norms)
    moved = target - state.alpha
    residual = state.violations[chosen]
    if moved.any():
        residual = residual - margin.scores(over_penalty(program, program.adjoint(moved)))
    change, db = margin.solved(residual, float(program.sign @ moved), target[chosen])
    target[chosen] += change
    if program.free_bias:
        others = program.sign @ target - margin.sign @ target[chosen] - program.q[-1]
        target[chosen] = margin.balanced(target[chosen], float(others))
    return feasible(program, target), db


def _one_side(margin: NDArray, program: Program, alpha: NDArray) -> NDArray:
    """Of a residual with both sides on the margin only the one that is pushed: both together are undetermined."""
    if not isinstance(program.rows, TwoSided):
        return margin
    pairs, pushes = margin.reshape(-1, 2), alpha.reshape(-1, 2)
    stronger = pushes >= pushes[:, ::-1]
    stronger[:, 1] &= ~stronger[:, 0]
    return (pairs & (stronger | ~pairs[:, ::-1])).ravel()


@dataclass(frozen=True)
class MarginRows:
    """The rows on the margin, m of them.

    Attributes:
      program: Of all rows.
      rows: The operator of these.
      sign: `(m,)`.
      c: `(m,)`.
      inverse: `(m,)`, of the diagonal of K.
      weight: What a free bias of 1 changes in the balance of the duals, to first order; 0 where no bias is free.
    """

    program: Program
    rows: Any
    sign: NDArray
    c: NDArray
    inverse: NDArray
    weight: float

    @classmethod
    def of(cls, program: Program, chosen: NDArray, norms: NDArray) -> MarginRows:
        """The chosen rows of a program, whose `norms` are the diagonal of K."""
        sign, inverse = program.sign[chosen], 1 / norms[chosen]
        weight = float(sign @ (inverse * sign)) if program.free_bias else 0.0
        return cls(program, program.rows.take(chosen), sign, program.c[chosen], inverse, weight)

    def scores(self, z: NDArray) -> NDArray:
        """`a_i . z`, `(m,)`."""
        scores: NDArray = self.sign * self.rows.products(z)
        return scores

    def response(self, push: NDArray) -> NDArray:
        """`K_MM push`."""
        return self.scores(over_penalty(self.program, self.rows.adjoint(self.sign * push)))

    def solved(self, residual: NDArray, unbalanced: float, alpha: NDArray) -> tuple[NDArray, float]:
        """The change u of `alpha` with `K_MM u + a_b db = residual` and `a_b . u = -unbalanced`, roughly, and db.

        By conjugate gradients among the u that are balanced, preconditioned by the diagonal of K.
        """
        change = np.zeros_like(residual)
        if self.weight:
            change = -unbalanced / self.weight * self.inverse * self.sign
            residual = residual - self.response(change)
        step, db = self._scaled(residual)
        direction, size = step, residual @ step
        wanted = _REDUCTION**2 * size
        for _ in range(_ITERATIONS):
            if not size > wanted:
                break
            image = self.response(direction)
            curved = direction @ image
            if not curved > _FLAT * (direction @ (direction / self.inverse)):
                break
            change, residual = change + size / curved * direction, residual - size / curved * image
            if np.count_nonzero((alpha + change < 0) | (alpha + change > self.c)) > _OUTSIDE * len(change):
                break
            step, db = self._scaled(residual)
            size, before = residual @ step, size
            direction = step + size / before * direction
        return change, db

    def balanced(self, alpha: NDArray, others: float) -> NDArray:
        """`alpha` in its box, moved by a bias so that it balances the others, which add up to `others`, if it can."""
        reach = self.inverse * self.sign

        def moved(bias: float) -> NDArray:
            return np.clip(alpha + bias * reach, 0, self.c)

        used = reach != 0
        ends = np.concatenate([-alpha[used] / reach[used], (self.c - alpha)[used] / reach[used], [0.0]])
        low, high = float(ends.min()), float(ends.max())
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if others + self.sign @ moved(middle) > 0 else (middle, high)
        return moved(high)

    def _scaled(self, residual: NDArray) -> tuple[NDArray, float]:
        """The preconditioned residual of which a bias takes what would unbalance the duals, and that bias."""
        bias = float(self.sign @ (self.inverse * residual)) / self.weight if self.weight else 0.0
        return self.inverse * (residual - bias * self.sign), bias
