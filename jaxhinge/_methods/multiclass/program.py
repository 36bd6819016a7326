r"""Multiclass duality: the value of any point, and of any dual point after it is made feasible.

With one column of parameters z_j = (w_j, b_j) per class, scores s_ij = a_i . z_j and the label l_i of row i, both
losses are made of the violations v_ij = 1 + s_ij - s_il of its wrong classes j:

    minimise    1/2 sum_j z_j . P z_j + sum_i c_i max(0, max_j v_ij)        (Crammer and Singer, 2001)
    or          1/2 sum_j z_j . P z_j + sum_i c_i sum_j max(0, v_ij)        (Weston and Watkins, 1999)

The dual variables are the pushes B_ij >= 0 of row i against its wrong classes. They pull the row's label up and push
the classes down, V_ij = [j = l_i] sum_m B_im - B_ij:

    maximise    sum_ij B_ij - 1/2 sum_j |P^(-1/2) sum_i V_ij a_i|^2
    subject to  sum_j B_ij <= c_i   (Crammer-Singer)   or   B_ij <= c_i   (Weston-Watkins)
                sum_i V_ij = 0 for every class j, where the bias has no penalty

(Keerthi et al., A sequential dual method for large scale multi-class linear SVMs, KDD 2008, with B for their
alpha.) Any primal value minus any dual value bounds how far both are from optimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import eps
from jaxhinge._methods.certificate import Certified
from jaxhinge._methods.executor import namespace
from jaxhinge._methods.linear_systems import factored, solved

# `_RIDGE`: added to the flow between classes, in units of rounding.
_RIDGE = 1e3

_Tree = TypeVar("_Tree", bound=Any)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "label", "wrong", "c", "penalty"],
    meta_fields=["summed", "free_bias"],
)
@dataclass(frozen=True)
class Program:
    """The data of the program above.

    Attributes:
      rows: An operator, row i is `a_i`. The features come first, the bias, if any, is the last coordinate.
      label: `(k, n)`, 1 for the label of a row that counts, else 0.
      wrong: `(k, n)`, 1 for the classes that a row can be pushed against, else 0.
      c: `(n,)`, above 0 even for rows that do not count.
      penalty: `(p,)`, P's diagonal.
      summed: Whether the violations of a row are summed (Weston-Watkins), else the largest counts (Crammer-Singer).
      free_bias: Whether the last coordinate has no penalty.
    """

    rows: Any
    label: Array
    wrong: Array
    c: Array
    penalty: Array
    summed: bool
    free_bias: bool

    @property
    def order(self) -> int:
        """Of the system of a Newton step."""
        return (len(self.label) - 1) * len(self.penalty)

    def scores(self, z: Array) -> Array:
        """`a_i . z_j` `(k, n)`."""
        return self.rows.products(z)

    def adjoint(self, push: Array) -> Array:
        """`sum_i V_ij a_i` `(k, p)`."""
        return self.rows.adjoint(pull(self, push))


def in_dtype(tree: _Tree, dtype: DTypeLike) -> _Tree:
    """The floating leaves of a program under a trace, or of anything else, in another precision."""

    def cast_leaf(leaf: Array) -> Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return cast(_Tree, jax.tree.map(cast_leaf, tree))


def differences(program: Program, scores: Array) -> Array:
    """`s_ij - s_il` for the wrong classes `(k, n)`, 0 elsewhere: the linear part of the violations."""
    return program.wrong * (scores - namespace(scores).sum(program.label * scores, axis=0)[None, :])


def violations(program: Program, scores: Array) -> Array:
    """`1 + s_ij - s_il` for the wrong classes `(k, n)`, 0 elsewhere."""
    return program.wrong + differences(program, scores)


def pull(program: Program, push: Array) -> Array:
    """V `(k, n)`: the pull of every row on every score; minus the gradient of the losses."""
    return program.label * namespace(push).sum(push, axis=0)[None, :] - push


def primal_value(program: Program, z: Array, excess: Array) -> Array:
    """The objective at `z`, given its violations."""
    xp = namespace(excess)
    excess = xp.maximum(excess, 0)
    losses = xp.sum(excess, axis=0) if program.summed else xp.max(excess, axis=0)
    return xp.sum(program.penalty[None, :] * z * z) / 2 + program.c @ losses


def dual_value(program: Program, push: Array, adjoint: Array) -> Array:
    """The dual objective at a feasible point, given `adjoint(push)`."""
    xp = namespace(push)
    return xp.sum(push) - xp.sum(adjoint * adjoint * over_penalty(program)[None, :]) / 2


def over_penalty(program: Program) -> Array:
    """`1 / penalty` `(p,)`, and 0 for a coordinate without a penalty."""
    where, penalised = namespace(program.penalty).where, program.penalty > 0
    return where(penalised, 1 / where(penalised, program.penalty, 1), 0)


class RowSums(NamedTuple):
    """Sums over rows, of all or of some, from which the gap between a point and a dual point follows.

    Attributes:
      loss: The weighted loss.
      terms: What each row adds to the gap.
      rounding: What rounding may have taken from these terms, but for that of their sum.
      pull: `sum_i V_ij a_i` `(k, p)`.
      sizes: The same of the absolute values.
    """

    loss: Array
    terms: Array
    rounding: Array
    pull: Array
    sizes: Array


def gap_between(program: Program, z: Array, scores: Array, push: Array, adjoint: Array) -> Array:
    """The primal value at `z` less the dual value at a feasible `push`, bounded from above."""
    return gap_of_sums(program, z, row_sums(program, z, scores, push, adjoint), len(program.c))


def row_sums(program: Program, z: Array, scores: Array, push: Array, adjoint: Array) -> RowSums:
    """What the rows add to the gap, by the inequality of Fenchel and Young terms of at least 0: with m the largest
    violation of a row or 0

        (c - sum_j B_j) m + sum_j B_j (m - v_j)   or   sum_j c max(0, v_j) - B_j v_j
    """
    xp, v = namespace(scores), violations(program, scores)
    (k, n), p, unit = v.shape, len(program.penalty), eps(v.dtype)
    excess = xp.maximum(v, 0)
    if program.summed:
        losses = xp.sum(excess, axis=0)
        terms = xp.where(v > 0, (program.c[None, :] - push) * v, -push * v)
    else:
        losses = xp.max(excess, axis=0)
        terms = push * (losses[None, :] - v)
        terms = terms + program.label * ((program.c - xp.sum(push, axis=0)) * losses)[None, :]
    of_scores, sizes = program.rows.magnitudes(abs(z), abs(pull(program, push)))
    of_label = xp.sum(program.label * of_scores, axis=0)
    wrong = program.wrong * unit * (p + 2) * (1 + of_scores + of_label[None, :])
    # How fast the terms of a row change with its violations: not at all where it is satisfied and has no dual.
    active = xp.where(v > -wrong, wrong, 0)
    of_losses = xp.sum(active, axis=0) if program.summed else xp.max(active, axis=0)
    rounding = program.c @ of_losses + xp.sum(push * (wrong + unit * _many(k, n) * abs(v)))
    return RowSums(program.c @ losses, xp.sum(terms), rounding, adjoint, sizes)


def gap_of_sums(program: Program, z: Array, sums: RowSums, num_rows: int) -> Array:
    """The gap, bounded from above: `(P z - pull)^2 / (2 P)` for each penalised coordinate of each class, and the rows.

    The relative error of a sum of such terms is that of a sum without cancellation. What rounding may have taken is
    added, so that the true difference is not above what is returned: a sum of m numbers errs by at most m eps/2 of the
    sum of their sizes; sums over many rows are made in blocks, which err by less. That the bounds of the dual point
    hold only up to rounding counts as one more such sum.
    """
    xp, unit, (k, p) = namespace(z), eps(z.dtype), z.shape
    weight = over_penalty(program)[None, :]
    stationary = program.penalty[None, :] * z - sums.pull
    gap = sums.terms + xp.sum(stationary * stationary * weight) / 2
    of_slack = unit * (_many(k, num_rows) * sums.sizes + program.penalty[None, :] * abs(z))
    of_coordinates = xp.sum((abs(stationary) + of_slack) * of_slack * weight)
    return xp.maximum(gap, 0) + sums.rounding + of_coordinates + unit * (_many(k, num_rows) + k * p) * gap


def _many(k: int, n: int) -> float:
    """How many roundings a sum over so many rows counts as."""
    many: float = k + min(n, 100 + n**0.5)
    return many


def feasible(program: Program, push: Array) -> Array:
    """The dual point made feasible: not negative, for a free bias balanced, and within its bounds.

    A bound that is broken costs the one row, but after balancing the whole is scaled down, which keeps the balance.
    """
    xp = namespace(push)
    push = _bounded(program, program.wrong * xp.maximum(push, 0))
    if not program.free_bias:
        return push
    balanced = _balanced(program, push)
    return balanced / xp.maximum(xp.max(_used(program, balanced)), 1)


def _used(program: Program, push: Array) -> Array:
    """What part of its bound every push, or every row's sum of pushes, takes up."""
    used = push if program.summed else namespace(push).sum(push, axis=0, keepdims=True)
    return used / program.c[None, :]


def _bounded(program: Program, push: Array) -> Array:
    return push / namespace(push).maximum(_used(program, push), 1)


def _balanced(program: Program, push: Array) -> Array:
    """Every class pushed as much as it is pulled; where that needs more than a nudge, pushes of 0 instead."""
    xp = namespace(push)
    potential = potential_of(program.label @ push.T)
    factor = 1 + potential[:, None] - (potential @ program.label)[None, :]
    usable = xp.all(abs(program.wrong * (factor - 1)) < 1)
    return xp.where(usable, program.wrong * factor * push, 0)


def potential_of(flow: Array) -> Array:
    """The potential phi `(k,)` that balances pushes by factors `1 - phi_l + phi_j` near 1 on those that are there.

    Summed over the rows of each label l, the pushes against class j are a flow F `(k, k)` between classes, which must
    be conserved. The factors change what leaves a class by a Laplacian system, `L(F + F') phi = outflow - inflow`.
    Only pushes in use change: an inactive one would cost the bound far more.
    """
    xp = namespace(flow)
    imbalance = xp.sum(flow, axis=1) - xp.sum(flow, axis=0)
    both = flow + flow.T
    degree = xp.sum(both, axis=1)
    # The ridge settles the sum of the potentials, which moves nothing, and those of classes without flow.
    ridge = xp.where(degree > 0, _RIDGE * eps(flow.dtype) * degree, 1)
    return solved(factored(xp.diag(degree + ridge) - both, 0.0), imbalance)


def certify(program: Program, z: Array, push: Array, scores: Array | None = None) -> Certified:
    """Both values, the dual point made feasible first; `scores(z)` where they are known already."""
    push = feasible(program, push)
    excess = violations(program, program.scores(z) if scores is None else scores)
    dual = dual_value(program, push, program.adjoint(push))
    return Certified(z, push, primal_value(program, z, excess), dual)
