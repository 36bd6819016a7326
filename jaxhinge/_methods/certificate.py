r"""Duality: the value of any point, and of any dual point after it is made feasible.

Every problem of this package is one program in the parameters z = (w, b), p of them:

    minimise    1/2 sum_j penalty_j z_j^2 + q . z + sum_i c_i loss(r_i - a_i . z)

where loss(v) is max(0, v) or its square. Its dual (Boyd and Vandenberghe, Convex Optimization, 2004, ch. 5) is

    maximise    r . alpha - sum_j (a_j . alpha - q_j)^2 / (2 penalty_j)     [- sum_i alpha_i^2 / (4 c_i) if squared]
    subject to  0 <= alpha_i <= c_i   [alpha_i >= 0 if squared]
                a_j . alpha = q_j     where penalty_j = 0; here at most the last coordinate, the free bias

Any primal value minus any dual value bounds how far both are from optimal.

The functions here run in NumPy and under a trace. In NumPy their arrays may have leading axes: many problems on the
same rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import eps
from jaxhinge._methods.executor import choose, column, dot, namespace

# Smallest objective, relative to that of an all-violated margin, that the relative stopping test divides by.
FLOOR = 1e-12


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "sign", "r", "c", "penalty", "q"],
    meta_fields=["squared", "free_bias"],
)
@dataclass(frozen=True)
class Program:
    """The data of the program above.

    Attributes:
      rows: An operator, row i is `a_i` but for its sign, so that problems which differ in their targets share them.
      sign: `(n,)`, of `a_i`; 0 for a row that should not count, whose `r_i` is 0 too.
      r: `(n,)`.
      c: `(n,)`, positive.
      penalty: `(p,)`, positive but for a free bias, where it is 0.
      q: `(p,)`.
      squared: Whether the loss is squared.
      free_bias: Whether the last coordinate has no penalty.
    """

    rows: Any
    sign: Array
    r: Array
    c: Array
    penalty: Array
    q: Array
    squared: bool
    free_bias: bool

    @property
    def shape(self) -> tuple[int, int]:
        """`(p, n)`."""
        return self.penalty.shape[-1], self.sign.shape[-1]

    def products(self, z: Array) -> Array:
        """The products of `z` with the rows, whatever their signs, `(n,)`."""
        return self.rows.products(z)

    def scores(self, z: Array) -> Array:
        """`a_i . z` for every row, `(n,)`."""
        return self.sign * self.rows.products(z)

    def adjoint(self, alpha: Array) -> Array:
        """`sum_i alpha_i a_i`, `(p,)`."""
        return self.rows.adjoint(self.sign * alpha)

    def gram(self, weight: Array) -> Array:
        """`sum_i weight_i a_i a_i'`, `(p, p)`, for weights of at least 0."""
        return self.rows.gram(weight * self.sign * self.sign)

    def astype(self, dtype: DTypeLike) -> Program:
        """The program rounded to another precision."""

        def converted(leaf: Array) -> Array:
            # Sparse rows hold integers, too: where their numbers belong.
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        rounded: Program = jax.tree.map(converted, self)
        return rounded

    def take(self, chosen: Array) -> Program:
        """The program of some of the problems that lead in its arrays."""
        parts = (self.sign, self.r, self.c, self.penalty, self.q)
        sign, r, c, penalty, q = (part[chosen] for part in parts)
        return replace(self, rows=self.rows.of_problems(chosen), sign=sign, r=r, c=c, penalty=penalty, q=q)


class Certified(NamedTuple):
    """A primal and a feasible dual point with their values, not necessarily of one iterate.

    Attributes:
      z: `(p,)`; with several classes `(k, p)`.
      alpha: `(n,)`, feasible; with several classes the pushes `(k, n)`.
      primal: The objective at `z`.
      dual: The dual objective at `alpha`.
    """

    z: Array
    alpha: Array
    primal: Array
    dual: Array

    def astype(self, dtype: DTypeLike) -> Certified:
        """The same in another precision."""
        return Certified(*(leaf.astype(dtype) for leaf in self))


def within(program: Any, found: Certified, tol: Array) -> Array:
    """Whether the gap is at most `tol` times the primal value, or times a floor where that is all but 0."""
    return found.primal - found.dual <= allowed_gap(program, found, tol)


def allowed_gap(program: Any, found: Certified, tol: Array) -> Array:
    """The largest gap that is `within` a tolerance."""
    xp = namespace(program.c)
    # One-class weights may add up to anything, while its dual adds up to 1.
    floor = FLOOR * xp.minimum(xp.sum(program.c, axis=-1), 1)
    return tol * xp.maximum(abs(found.primal), floor)


def losses(program: Program, violations: Array) -> Array:
    """The loss of each row, given `violations = r - scores(z)`."""
    excess = namespace(violations).maximum(violations, 0)
    return excess * excess if program.squared else excess


def primal_value(program: Program, z: Array, violations: Array) -> Array:
    """The objective at `z`, given `violations = r - scores(z)`."""
    return dot(program.penalty * z, z) / 2 + dot(program.q, z) + dot(program.c, losses(program, violations))


def dual_value(program: Program, alpha: Array, adjoint: Array) -> Array:
    """The dual objective at a feasible `alpha`, given `adjoint(alpha)`."""
    slack = adjoint - program.q
    value = dot(program.r, alpha) - dot(slack, over_penalty(program, slack)) / 2
    return value - dot(alpha, alpha / program.c) / 4 if program.squared else value


def over_penalty(program: Program, values: Array) -> Array:
    """`values / penalty`, and 0 for a coordinate without a penalty."""
    return _over(program.penalty, values)


def _over(penalty: Array, values: Array) -> Array:
    where, penalised = namespace(values).where, penalty > 0
    return where(penalised, values / where(penalised, penalty, 1), 0)


def gap_between(program: Program, z: Array, violations: Array, alpha: Array, adjoint: Array) -> Array:
    """The primal value at `z` less the dual value at a feasible `alpha`, bounded from above.

    By the inequality of Fenchel and Young the difference is a sum of terms of at least 0, one for each row and one for
    each penalised coordinate:

        c loss(v) - alpha v [+ alpha^2 / (4 c)]     and     (penalty z - slack)^2 / (2 penalty)

    Its relative error is that of a sum without cancellation. What rounding may have taken from the violations, from the
    slack and from the balance of a free bias is added, so that the true difference is not above what is returned.
    """
    of_scores, of_adjoint = program.rows.magnitudes(abs(z), alpha)
    rows = row_gaps(program, violations, alpha, of_scores)
    return gap_of_sums(program.penalty, program.q, program.shape[1], z, adjoint, of_adjoint, rows)


class RowGaps(NamedTuple):
    """The part of the rows in `gap_between`, as sums over them.

    Attributes:
      terms: Of the gap.
      wrong: What the rounding of the violations may have taken from the terms.
      balance: The sum of `alpha |v|`, to which the rounding of the balance is in proportion.
    """

    terms: Array
    wrong: Array
    balance: Array


def row_gaps(program: Program, violations: Array, alpha: Array, of_scores: Array) -> RowGaps:
    """The part of all rows, or of a block of them; `of_scores` is `|A| |z|`, the size of what the scores sum."""
    xp = namespace(violations)
    wrong = eps(violations.dtype) * (program.shape[0] + 2) * (abs(program.r) + of_scores)
    # How fast the term of a row changes with its violation: not at all where the row is satisfied and has no dual.
    if program.squared:
        # Clipped at 0 where v < 0, so that no term is a difference of large numbers.
        excess, half = xp.maximum(violations, 0), alpha / (2 * program.c)
        terms = program.c * (excess - half) ** 2 + alpha * (excess - violations)
        slope = 2 * program.c * (excess + wrong) + alpha
    else:
        terms = xp.where(violations > 0, (program.c - alpha) * violations, -alpha * violations)
        slope = xp.where(violations > -wrong, program.c - alpha, 0) + alpha
    return RowGaps(xp.sum(terms, axis=-1), dot(slope, wrong), dot(alpha, abs(violations)))


def gap_of_sums(penalty: Array, q: Array, n: int, z: Array, adjoint: Array, of_adjoint: Array, rows: RowGaps) -> Array:
    """The gap, from sums over rows; `of_adjoint` is `|A|' alpha`, the size of what the adjoint sums.

    A sum of m numbers errs by at most m eps/2 of the sum of their sizes; sums over many rows are made in blocks, which
    err by less.
    """
    xp, unit, p = namespace(adjoint), eps(adjoint.dtype), penalty.shape[-1]
    many = min(n, 100 + n**0.5)
    stationary = penalty * z - (adjoint - q)
    gap = rows.terms + dot(stationary, _over(penalty, stationary)) / 2
    of_slack = unit * (many * of_adjoint + abs(q) + abs(penalty * z))
    of_coordinates = dot(abs(stationary) + of_slack, _over(penalty, of_slack))
    rounding = rows.wrong + of_coordinates + unit * many * rows.balance + unit * (many + p) * gap
    return xp.maximum(gap, 0) + rounding


def feasible(program: Program, alpha: Array) -> Array:
    """The dual point made feasible: clipped to its box, and balanced where the bias is free.

    The heavier side of the balance `sum_i a_ip alpha_i = q_p` is scaled down; what the lighter side
    then still lacks (only where `q_p > 0`) is added in proportion to its room.
    """
    xp = namespace(alpha)
    alpha = xp.maximum(alpha, 0) if program.squared else xp.clip(alpha, 0, program.c)
    if not program.free_bias:
        return alpha
    side, target = program.sign, program.q[..., -1]
    above, below = side > 0, side < 0
    push = xp.sum(xp.where(above, alpha, 0), axis=-1)
    pull = xp.sum(xp.where(below, alpha, 0), axis=-1)
    of_push, of_pull = xp.minimum(push, pull + target), xp.minimum(xp.maximum(push - target, 0), pull)
    alpha = alpha * xp.where(above, column(_ratio(of_push, push)), 1)
    alpha = alpha * xp.where(below, column(_ratio(of_pull, pull)), 1)
    room = xp.where(above, program.c - alpha, 0)
    lack = xp.maximum(target - push, 0)
    return xp.where(side == 0, 0, alpha + room * column(_ratio(lack, xp.sum(room, axis=-1))))


def net(alpha: Array) -> Array:
    """The dual of mirrored rows, with no push against a pull on the same row: as feasible, and never worse."""
    pairs = alpha.reshape(*alpha.shape[:-1], -1, 2)
    return (pairs - namespace(alpha).min(pairs, axis=-1, keepdims=True)).reshape(alpha.shape)


def _ratio(part: Array, whole: Array) -> Array:
    where = namespace(part).where
    return where(whole > 0, part / where(whole > 0, whole, 1), 0)


def certify(program: Program, z: Array, alpha: Array, scores: Array | None = None) -> Certified:
    """Both values, the dual point made feasible first; `scores(z)` where they are known already."""
    alpha = feasible(program, alpha)
    primal = primal_value(program, z, program.r - (program.scores(z) if scores is None else scores))
    return Certified(z, alpha, primal, dual_value(program, alpha, program.adjoint(alpha)))


def better(old: Certified, new: Certified) -> Certified:
    """The better primal point with the better dual point; NaN is never better."""
    lower, higher = new.primal < old.primal, new.dual > old.dual
    primal = choose(lower, (new.z, new.primal), (old.z, old.primal))
    dual = choose(higher, (new.alpha, new.dual), (old.alpha, old.dual))
    return Certified(primal[0], dual[0], primal[1], dual[1])
