r"""Accelerated projected gradient ascent on the multiclass dual: two matrix products a step, no system to factor.

For problems whose Newton system would not fit. The gradient of the dual by the pushes is the violations at
`z(B) = P^-1 sum_i V_i(B) a_i`. Weston-Watkins pushes are clipped to their box. Crammer-Singer pushes, with what a row
keeps for its label, are projected on the simplex of sum c_i; in those variables V is linear with norm 1. The balance of
a free bias is kept by an augmented Lagrangian: the bias counts as penalised around its last estimate.

Nesterov, A method of solving a convex programming problem with convergence rate O(1/k^2), 1983; O'Donoghue and
Candes, Adaptive restart for accelerated gradient schemes, 2015; Michelot, A finite algorithm for finding the
projection of a point onto the canonical simplex, 1986; Bertsekas, Constrained Optimization and Lagrange Multiplier
Methods, 1982.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jax.typing import DTypeLike

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import tiny
from jaxhinge._methods.ascent import LIPSCHITZ_MARGIN, Ascent, extrapolated, largest_eigenvalue, stretched
from jaxhinge._methods.certificate import Certified, better, within
from jaxhinge._methods.executor import Watch, namespace, repeat, while_loop
from jaxhinge._methods.multiclass.program import (
    Program,
    certify,
    differences,
    in_dtype,
    primal_value,
    violations,
)

_STEPS_PER_CERTIFICATE = 50
_PROJECTION_ROUNDS = 12
_STRETCHES = (1 + 3e-6, 1 + 3e-5, 1 + 3e-4)
# `_PROBES`: products with so many vectors of random signs tell how stiff the features are on average.
_PROBES = 8


class _Momentum(NamedTuple):
    """Dual points `(k, n)`, the one reached and the extrapolated one, the momentum, and the centre `(k,)` of the bias.

    For Crammer-Singer the label's entry holds what a row keeps; for Weston-Watkins it is 0.
    """

    reached: Array
    ahead: Array
    momentum: Array
    bias: Array


def ascend(
    program: Program, best: Certified, tol: Array, max_steps: Array, dtype: DTypeLike, watch: Watch | None = None
) -> Ascent:
    """Ascend from `best.alpha`, products in `dtype`, until the certificate is within `tol`.

    A step is 50 ascents and a certificate.
    """
    penalised = _with_penalised_bias(program)
    low = penalised if program.c.dtype == dtype else in_dtype(penalised, dtype)
    eigenvalue = largest_eigenvalue(low.penalty, low.rows.products, low.rows.adjoint)
    lipschitz = LIPSCHITZ_MARGIN * eigenvalue * (len(low.label) if program.summed else 1)

    def unfinished(ascent: Ascent) -> Array:
        return (ascent.steps < max_steps) & ~within(program, ascent.best, tol)

    def block(ascent: Ascent) -> Ascent:
        momentum, found, steps = ascent
        momentum = repeat(_STEPS_PER_CERTIFICATE, lambda m: _ascent_step(low, m, lipschitz), momentum)
        push = program.wrong * momentum.reached.astype(best.alpha.dtype)
        z = _primal_of(penalised, push, momentum.bias.astype(push.dtype))
        if program.free_bias:
            momentum = momentum._replace(bias=z[:, -1].astype(dtype))
        return Ascent(momentum, better(found, _stretched(program, z, push)), steps + 1)

    return while_loop(unfinished, block, _at_rest(low, best, dtype), watch)


def _at_rest(program: Program, best: Certified, dtype: DTypeLike) -> Ascent:
    """At `best.alpha`."""
    xp, push = namespace(best.alpha), best.alpha.astype(dtype)
    kept = 0 if program.summed else program.label * (program.c - xp.sum(push, axis=0))[None, :]
    # Numbers that vary over the axes of a `shard_map` as the data do.
    zero = 0 * xp.isnan(best.primal)
    bias = (best.z[:, -1] if program.free_bias else 0 * best.z[:, -1]).astype(dtype)
    momentum = _Momentum(push + kept, push + kept, 1 + zero.astype(dtype), bias)
    return Ascent(momentum, best, zero.astype(xp.int32))


def _stretched(program: Program, z: Array, push: Array) -> Certified:
    scores = program.scores(z)
    change = differences(program, scores)

    def primal_at(length: float) -> Array:
        return primal_value(program, length * z, program.wrong + length * change)

    return stretched(certify(program, z, push, scores), _STRETCHES, primal_at)


def _with_penalised_bias(program: Program) -> Program:
    """A free bias with the penalty that makes it about as stiff as the features are on average."""
    if not program.free_bias:
        return program
    xp, d = namespace(program.c), len(program.penalty) - 1
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(_PROBES, d))
    probes = program.rows.products(xp.asarray(np.pad(signs, ((0, 0), (0, 1))), dtype=program.c.dtype))
    stiffness = xp.sum(probes * probes * program.c[None, :]) / (_PROBES * d * program.penalty[0])
    bias = xp.sum(program.c) / xp.maximum(stiffness, tiny(program.c.dtype))
    return replace(program, penalty=xp.append(program.penalty[:-1], bias))


def _ascent_step(program: Program, state: _Momentum, lipschitz: Array) -> _Momentum:
    z = _primal_of(program, program.wrong * state.ahead, state.bias)
    gradient = violations(program, program.scores(z))
    reached = _projected(program, state.ahead + gradient / lipschitz)
    return _Momentum(reached, *extrapolated(state.reached, state.ahead, reached, state.momentum), state.bias)


def _primal_of(program: Program, push: Array, bias: Array) -> Array:
    xp, z = namespace(push), program.adjoint(push) / program.penalty[None, :]
    return xp.concatenate([z[:, :-1], z[:, -1:] + bias[:, None]], axis=1)


def _projected(program: Program, point: Array) -> Array:
    """The nearest point of the box, or of every row's simplex."""
    if program.summed:
        return program.wrong * namespace(point).clip(point, 0, program.c[None, :])
    return on_simplex(point, (program.wrong + program.label) > 0, program.c)


def on_simplex(point: Array, allowed: Array, total: Array) -> Array:
    """The nearest point `(k, n)` whose columns are at least 0, sum to `total` `(n,)`, and are 0 where not allowed, by
    Michelot's rounds."""
    xp = namespace(point)

    def threshold(active: Array) -> Array:
        size = xp.maximum(xp.sum(active.astype(point.dtype), axis=0), 1)
        return (xp.sum(xp.where(active, point, 0), axis=0) - total) / size

    def narrow(active: Array) -> Array:
        return active & (point > threshold(active)[None, :])

    active = repeat(min(_PROJECTION_ROUNDS, len(point)), narrow, allowed)
    return xp.where(allowed, xp.maximum(point - threshold(active)[None, :], 0), 0)
