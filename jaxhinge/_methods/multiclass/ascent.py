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
from jaxhinge._methods.executor import Watch, namespace, repeat, while_loop
from jaxhinge._methods.multiclass.program import (
    Certified,
    Program,
    better,
    certify,
    differences,
    in_dtype,
    primal_value,
    violations,
    within,
)

_STEPS_PER_CERTIFICATE = 50
_POWER_STEPS = 20
_PROJECTION_ROUNDS = 12
_STRETCHES = (1 + 3e-6, 1 + 3e-5, 1 + 3e-4)
# `_LIPSCHITZ_MARGIN`: the power method approaches the largest eigenvalue from below, so that its result is raised.
_LIPSCHITZ_MARGIN = 1.1
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


class Ascent(NamedTuple):
    """The state of the loop: where the ascents are, the best certificate, and the steps made."""

    momentum: _Momentum
    best: Certified
    steps: Array


def ascend(
    program: Program, best: Certified, tol: Array, max_steps: Array, dtype: DTypeLike, watch: Watch | None = None
) -> Ascent:
    """Ascend from `best.push`, products in `dtype`, until the certificate is within `tol`.

    A step is 50 ascents and a certificate.
    """
    penalised = _with_penalised_bias(program)
    low = penalised if program.c.dtype == dtype else in_dtype(penalised, dtype)
    lipschitz = _LIPSCHITZ_MARGIN * _largest_eigenvalue(low) * (len(low.label) if program.summed else 1)

    def unfinished(ascent: Ascent) -> Array:
        return (ascent.steps < max_steps) & ~within(program, ascent.best, tol)

    def block(ascent: Ascent) -> Ascent:
        momentum, found, steps = ascent
        momentum = repeat(_STEPS_PER_CERTIFICATE, lambda m: _ascent_step(low, m, lipschitz), momentum)
        push = program.wrong * momentum.reached.astype(best.push.dtype)
        z = _primal_of(penalised, push, momentum.bias.astype(push.dtype))
        if program.free_bias:
            momentum = momentum._replace(bias=z[:, -1].astype(dtype))
        return Ascent(momentum, better(found, _stretched(program, z, push)), steps + 1)

    return while_loop(unfinished, block, _at_rest(low, best, dtype), watch)


def _at_rest(program: Program, best: Certified, dtype: DTypeLike) -> Ascent:
    """At `best.push`."""
    xp, push = namespace(best.push), best.push.astype(dtype)
    kept = 0 if program.summed else program.label * (program.c - xp.sum(push, axis=0))[None, :]
    # Numbers that vary over the axes of a `shard_map` as the data do.
    zero = 0 * xp.isnan(best.primal)
    bias = (best.z[:, -1] if program.free_bias else 0 * best.z[:, -1]).astype(dtype)
    momentum = _Momentum(push + kept, push + kept, 1 + zero.astype(dtype), bias)
    return Ascent(momentum, best, zero.astype(xp.int32))


def _stretched(program: Program, z: Array, push: Array) -> Certified:
    """The certificate of the best of a few lengths of `z`.

    On separable rows every margin is 1 but for the rounding of low precision, and the losses of those that fall short
    of it by a millionth can outweigh the whole objective.
    """
    scores = program.scores(z)
    found = certify(program, z, push, scores)
    change = differences(program, scores)
    for stretch in _STRETCHES:
        primal = primal_value(program, stretch * z, program.wrong + stretch * change)
        found = better(found, found._replace(z=stretch * z, primal=primal))
    return found


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
    xp = namespace(state.ahead)
    z = _primal_of(program, program.wrong * state.ahead, state.bias)
    gradient = violations(program, program.scores(z))
    reached = _projected(program, state.ahead + gradient / lipschitz)
    change = reached - state.reached
    # Momentum that points downhill is dropped.
    previous = xp.where(xp.sum((state.ahead - reached) * change) > 0, 1, state.momentum)
    momentum = (1 + xp.sqrt(1 + 4 * previous**2)) / 2
    return _Momentum(reached, reached + (previous - 1) / momentum * change, momentum, state.bias)


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


def _largest_eigenvalue(program: Program) -> Array:
    """Of `X' P^-1 X`, by the power method."""
    xp, rows = namespace(program.penalty), program.rows
    root = 1 / xp.sqrt(program.penalty)

    def power(direction: Array) -> Array:
        image = root * rows.adjoint(rows.products(root * direction))
        return image / xp.maximum(xp.sqrt(image @ image), tiny(image.dtype))

    # A fixed start that is orthogonal to no likely eigenvector.
    first = xp.cos(xp.arange(len(root), dtype=root.dtype)) + 1.5 + 0 * root
    direction = repeat(_POWER_STEPS, power, first / xp.sqrt(first @ first))
    image = rows.products(root * direction)
    return xp.sum(image * image)
