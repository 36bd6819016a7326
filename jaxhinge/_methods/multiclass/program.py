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

from jaxhinge._base.precision import eps
from jaxhinge._methods.cholesky import cholesky

# Smallest objective, relative to that of an all-violated margin, that the relative stopping test divides by.
_FLOOR = 1e-12
_RIDGE = 1e3

_Tree = TypeVar("_Tree", bound=Any)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["xt", "label", "wrong", "c", "penalty"],
    meta_fields=["summed", "free_bias"],
)
@dataclass(frozen=True)
class Program:
    """The data of the program above.

    Attributes:
      xt: `(p, n)`, column i is `a_i`. The features come first, the bias, if any, is the last row.
      label: `(k, n)`, 1 for the label of a row that counts, else 0.
      wrong: `(k, n)`, 1 for the classes that a row can be pushed against, else 0.
      c: `(n,)`, above 0 even for rows that do not count.
      penalty: `(p,)`, P's diagonal.
      summed: Whether the violations of a row are summed (Weston-Watkins), else the largest counts (Crammer-Singer).
      free_bias: Whether the last row of `xt` has no penalty.
    """

    xt: jax.Array
    label: jax.Array
    wrong: jax.Array
    c: jax.Array
    penalty: jax.Array
    summed: bool
    free_bias: bool


class Certified(NamedTuple):
    """A primal and a feasible dual point with their values, not necessarily of one iterate.

    Attributes:
      z: `(k, p)`.
      push: `(k, n)`, feasible.
      primal: The objective at `z`.
      dual: The dual objective at `push`.
    """

    z: jax.Array
    push: jax.Array
    primal: jax.Array
    dual: jax.Array


def in_dtype(tree: _Tree, dtype: DTypeLike) -> _Tree:
    """The floating leaves of a program, or of anything else, in another precision."""

    def cast_leaf(leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return cast(_Tree, jax.tree.map(cast_leaf, tree))


def differences(program: Program, scores: jax.Array) -> jax.Array:
    """`s_ij - s_il` for the wrong classes `(k, n)`, 0 elsewhere: the linear part of the violations."""
    return program.wrong * (scores - jnp.sum(program.label * scores, axis=0)[None, :])


def violations(program: Program, scores: jax.Array) -> jax.Array:
    """`1 + s_ij - s_il` for the wrong classes `(k, n)`, 0 elsewhere."""
    return program.wrong + differences(program, scores)


def pull(program: Program, push: jax.Array) -> jax.Array:
    """V `(k, n)`: the pull of every row on every score; minus the gradient of the losses."""
    return program.label * jnp.sum(push, axis=0)[None, :] - push


def primal_value(program: Program, z: jax.Array, excess: jax.Array) -> jax.Array:
    """The objective at `z`, given its violations."""
    excess = jnp.maximum(excess, 0)
    losses = jnp.sum(excess, axis=0) if program.summed else jnp.max(excess, axis=0)
    return jnp.sum(program.penalty[None, :] * z * z) / 2 + program.c @ losses


def dual_value(program: Program, push: jax.Array) -> jax.Array:
    """The dual objective at a feasible point."""
    adjoint = pull(program, push) @ program.xt.T
    penalised = program.penalty > 0
    weight = jnp.where(penalised, 1 / jnp.where(penalised, program.penalty, 1), 0)
    return jnp.sum(push) - jnp.sum(adjoint * adjoint * weight[None, :]) / 2


def feasible(program: Program, push: jax.Array) -> jax.Array:
    """The dual point made feasible: not negative, for a free bias balanced, and within its bounds.

    A bound that is broken costs the one row, but after balancing the whole is scaled down, which keeps the balance.
    """
    push = _bounded(program, program.wrong * jnp.maximum(push, 0))
    if not program.free_bias:
        return push
    balanced = _balanced(program, push)
    return balanced / jnp.maximum(jnp.max(_used(program, balanced)), 1)


def _used(program: Program, push: jax.Array) -> jax.Array:
    """What part of its bound every push, or every row's sum of pushes, takes up."""
    return (push if program.summed else jnp.sum(push, axis=0, keepdims=True)) / program.c[None, :]


def _bounded(program: Program, push: jax.Array) -> jax.Array:
    return push / jnp.maximum(_used(program, push), 1)


def _balanced(program: Program, push: jax.Array) -> jax.Array:
    """Every class pushed as much as it is pulled, by factors near 1 on the pushes that are there.

    Summed over the rows of each label, the pushes are a flow F between classes, which must be conserved. The factors
    `1 - phi_l + phi_j` change what leaves a class by a Laplacian system, `L(F + F') phi = outflow - inflow`. Only
    pushes in use change: an inactive one would cost the bound far more. Where the factors are not near 1, pushes of 0
    are the feasible point instead.
    """
    flow = program.label @ push.T
    imbalance = jnp.sum(flow, axis=1) - jnp.sum(flow, axis=0)
    both = flow + flow.T
    degree = jnp.sum(both, axis=1)
    # The ridge settles the sum of the potentials, which moves nothing, and those of classes without flow.
    ridge = jnp.where(degree > 0, _RIDGE * eps(push.dtype) * degree, 1)
    root = cholesky(jnp.diag(degree + ridge) - both)
    potential = jax.scipy.linalg.cho_solve((root, True), imbalance)
    factor = 1 + potential[:, None] - (potential @ program.label)[None, :]
    usable = jnp.all(jnp.abs(program.wrong * (factor - 1)) < 1)
    return jnp.where(usable, program.wrong * factor * push, 0)


def certify(program: Program, z: jax.Array, push: jax.Array, scores: jax.Array | None = None) -> Certified:
    """Both values, the dual point made feasible first; `scores = z @ xt` where they are known already."""
    push = feasible(program, push)
    excess = violations(program, z @ program.xt if scores is None else scores)
    return Certified(z, push, primal_value(program, z, excess), dual_value(program, push))


def better(old: Certified, new: Certified) -> Certified:
    """The better primal point with the better dual point; NaN is never better."""
    lower, higher = new.primal < old.primal, new.dual > old.dual
    return Certified(
        jnp.where(lower, new.z, old.z),
        jnp.where(higher, new.push, old.push),
        jnp.where(lower, new.primal, old.primal),
        jnp.where(higher, new.dual, old.dual),
    )


def within(program: Program, found: Certified, tol: jax.Array) -> jax.Array:
    """Whether the gap is at most `tol` times the primal value, or times a floor where that is all but 0."""
    floor = _FLOOR * jnp.sum(program.c)
    return found.primal - found.dual <= tol * jnp.maximum(jnp.abs(found.primal), floor)
