r"""Duality: the value of any point, and of any dual point after it is made feasible.

Every problem of this package is one program in the parameters z = (w, b), p of them:

    minimise    1/2 sum_j penalty_j z_j^2 + q . z + sum_i c_i loss(r_i - a_i . z)

where loss(v) is max(0, v) or its square. Its dual (Boyd and Vandenberghe, Convex Optimization, 2004, ch. 5) is

    maximise    r . alpha - sum_j (a_j . alpha - q_j)^2 / (2 penalty_j)     [- sum_i alpha_i^2 / (4 c_i) if squared]
    subject to  0 <= alpha_i <= c_i   [alpha_i >= 0 if squared]
                a_j . alpha = q_j     where penalty_j = 0; here at most the last coordinate, the free bias

Any primal value minus any dual value bounds how far both are from optimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# Of the objective at a margin violated by 1 on every row: less than this is 0 for every purpose.
FLOOR = 1e-12


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "sign", "r", "c", "penalty", "q"],
    meta_fields=["squared", "free_bias", "ones"],
)
@dataclass(frozen=True)
class Program:
    """The data of the program above.

    Attributes:
      rows: `(p, n)`, column i is `a_i` but for its sign, so that problems which differ in their targets share them.
        The features come first, the bias, if any, is a last row of ones, which may be left out.
      sign: `(n,)`, of `a_i`; 0 for a row that should not count, whose `r_i` is 0 too.
      r: `(n,)`.
      c: `(n,)`, positive.
      penalty: `(p,)`, positive but for a free bias, where it is 0.
      q: `(p,)`.
      squared: Whether the loss is squared.
      free_bias: Whether the last coordinate has no penalty.
      ones: Whether `rows` leaves out a last row of ones: a copy of the rows saved.
    """

    rows: jax.Array
    sign: jax.Array
    r: jax.Array
    c: jax.Array
    penalty: jax.Array
    q: jax.Array
    squared: bool
    free_bias: bool
    ones: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """`(p, n)`."""
        return len(self.penalty), len(self.sign)

    @property
    def columns(self) -> jax.Array:
        """`(p, n)`, all of `rows`."""
        return jnp.concatenate([self.rows, jnp.ones_like(self.rows[:1])]) if self.ones else self.rows

    @property
    def at(self) -> jax.Array:
        """`(p, n)`, column i is `a_i`."""
        return self.columns * self.sign[None, :]

    def products(self, z: jax.Array) -> jax.Array:
        """The products of `z` with the rows, whatever their signs, `(n,)`."""
        return z[:-1] @ self.rows + z[-1] if self.ones else z @ self.rows

    def scores(self, z: jax.Array) -> jax.Array:
        """`a_i . z` for every row, `(n,)`."""
        return self.sign * self.products(z)

    def adjoint(self, alpha: jax.Array) -> jax.Array:
        """`sum_i alpha_i a_i`, `(p,)`."""
        push = self.sign * alpha
        return jnp.append(self.rows @ push, jnp.sum(push)) if self.ones else self.rows @ push

    def astype(self, dtype: DTypeLike) -> Program:
        """The program rounded to another precision."""
        converted: Program = jax.tree.map(lambda leaf: leaf.astype(dtype), self)
        return converted


class Certified(NamedTuple):
    """A primal and a feasible dual point with their values, not necessarily of one iterate.

    Attributes:
      z: `(p,)`.
      alpha: `(n,)`, feasible.
      primal: Its objective at `z`.
      dual: The dual objective at `alpha`.
    """

    z: jax.Array
    alpha: jax.Array
    primal: jax.Array
    dual: jax.Array

    def astype(self, dtype: DTypeLike) -> Certified:
        """The same in another precision."""
        return Certified(*(leaf.astype(dtype) for leaf in self))


def within(program: Program, found: Certified, tol: jax.Array) -> jax.Array:
    """Whether the gap is at most `tol` times the primal value, or times a floor where that is all but 0."""
    # One-class weights may add up to anything, while its dual adds up to 1.
    floor = FLOOR * jnp.minimum(jnp.sum(program.c), 1)
    return found.primal - found.dual <= tol * jnp.maximum(jnp.abs(found.primal), floor)


def primal_value(program: Program, z: jax.Array, violations: jax.Array) -> jax.Array:
    """The objective at `z`, given `violations = r - scores(z)`."""
    excess = jnp.maximum(violations, 0)
    losses = excess * excess if program.squared else excess
    return jnp.sum(program.penalty * z * z) / 2 + program.q @ z + program.c @ losses


def dual_value(program: Program, alpha: jax.Array, adjoint: jax.Array) -> jax.Array:
    """The dual objective at a feasible `alpha`, given `adjoint(alpha)`."""
    slack = adjoint - program.q
    penalised = program.penalty > 0
    quadratic = jnp.where(penalised, slack * slack / jnp.where(penalised, program.penalty, 1), 0)
    value = program.r @ alpha - jnp.sum(quadratic) / 2
    return value - jnp.sum(alpha * alpha / program.c) / 4 if program.squared else value


def feasible(program: Program, alpha: jax.Array) -> jax.Array:
    """The dual point made feasible: clipped to its box, and balanced where the bias is free.

    The heavier side of the balance `sum_i a_ip alpha_i = q_p` is scaled down; what the lighter side
    then still lacks (only where `q_p > 0`) is added in proportion to its room.
    """
    alpha = jnp.maximum(alpha, 0) if program.squared else jnp.clip(alpha, 0, program.c)
    if not program.free_bias:
        return alpha
    side, target = program.sign, program.q[-1]
    above, below = side > 0, side < 0
    push = jnp.sum(jnp.where(above, alpha, 0))
    pull = jnp.sum(jnp.where(below, alpha, 0))
    alpha = alpha * jnp.where(above, _ratio(jnp.minimum(push, pull + target), push), 1)
    alpha = alpha * jnp.where(below, _ratio(jnp.clip(push - target, 0, pull), pull), 1)
    room = jnp.where(above, program.c - alpha, 0)
    lack = jnp.maximum(target - push, 0)
    return jnp.where((side == 0), 0, alpha + room * _ratio(lack, jnp.sum(room)))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)


def certify(program: Program, z: jax.Array, alpha: jax.Array, scores: jax.Array | None = None) -> Certified:
    """Both values, the dual point made feasible first; `scores(z)` where they are known already."""
    alpha = feasible(program, alpha)
    primal = primal_value(program, z, program.r - (program.scores(z) if scores is None else scores))
    return Certified(z, alpha, primal, dual_value(program, alpha, program.adjoint(alpha)))


def better(old: Certified, new: Certified) -> Certified:
    """The better primal point with the better dual point; NaN is never better."""
    lower, higher = new.primal < old.primal, new.dual > old.dual
    return Certified(
        jnp.where(lower, new.z, old.z),
        jnp.where(higher, new.alpha, old.alpha),
        jnp.where(lower, new.primal, old.primal),
        jnp.where(higher, new.dual, old.dual),
    )
