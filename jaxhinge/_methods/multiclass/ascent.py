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

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxhinge._base.precision import tiny
from jaxhinge._methods.multiclass.program import (
    Certified,
    Program,
    better,
    certify,
    differences,
    in_dtype,
    primal_value,
    pull,
    violations,
    within,
)

_STEPS_PER_CERTIFICATE = 50
_POWER_STEPS = 20
_PROJECTION_ROUNDS = 12
_STRETCHES = (1 + 3e-6, 1 + 3e-5, 1 + 3e-4)
# `_LIPSCHITZ_MARGIN`: the power method approaches the largest eigenvalue from below, so that its result is raised.
_LIPSCHITZ_MARGIN = 1.1


class _Momentum(NamedTuple):
    """Dual points `(k, n)`, the one reached and the extrapolated one, the momentum, and the centre `(k,)` of the bias.

    For Crammer-Singer the label's entry holds what a row keeps; for Weston-Watkins it is 0.
    """

    reached: jax.Array
    ahead: jax.Array
    momentum: jax.Array
    bias: jax.Array


def ascend(
    program: Program, best: Certified, tol: jax.Array, max_steps: jax.Array, dtype: DTypeLike
) -> tuple[Certified, jax.Array]:
    """Ascend from `best.push`, products in `dtype`, until the certificate is within `tol`.

    Also the number of certificates made: each is a step, of 50 ascents."""
    low = in_dtype(_with_penalised_bias(program), dtype)
    lipschitz = _LIPSCHITZ_MARGIN * _largest_eigenvalue(low) * (len(low.label) if program.summed else 1)

    def unfinished(state: tuple[_Momentum, Certified, jax.Array]) -> jax.Array:
        _, found, steps = state
        return (steps < max_steps) & ~within(program, found, tol)

    def block(state: tuple[_Momentum, Certified, jax.Array]) -> tuple[_Momentum, Certified, jax.Array]:
        momentum, found, steps = state
        momentum = jax.lax.fori_loop(0, _STEPS_PER_CERTIFICATE, lambda _, m: _ascent_step(low, m, lipschitz), momentum)
        push = program.wrong * momentum.reached.astype(best.push.dtype)
        bias = momentum.bias.astype(push.dtype)
        z = _primal_of(_with_penalised_bias(program), push, bias)
        if program.free_bias:
            momentum = momentum._replace(bias=z[:, -1].astype(dtype))
        return momentum, better(found, _stretched(program, z, push)), steps + 1

    kept = 0 if program.summed else low.label * (low.c - jnp.sum(best.push.astype(dtype), axis=0))[None, :]
    first = best.push.astype(dtype) + kept
    # Numbers that vary over the axes of a `shard_map` as the data do.
    zero = 0 * jnp.isnan(best.primal)
    bias = (best.z[:, -1] if program.free_bias else 0 * best.z[:, -1]).astype(dtype)
    start = _Momentum(first, first, 1 + zero.astype(dtype), bias)
    _, best, steps = jax.lax.while_loop(unfinished, block, (start, best, zero.astype(jnp.int32)))
    return best, steps


def _stretched(program: Program, z: jax.Array, push: jax.Array) -> Certified:
    """The certificate of the best of a few lengths of `z`.

    On separable rows every margin is 1 but for the rounding of low precision, and the losses of those that fall short
    of it by a millionth can outweigh the whole objective.
    """
    scores = z @ program.xt
    found = certify(program, z, push, scores)
    change = differences(program, scores)
    for stretch in _STRETCHES:
        primal = primal_value(program, stretch * z, program.wrong + stretch * change)
        found = better(found, found._replace(z=stretch * z, primal=primal))
    return found


def _with_penalised_bias(program: Program) -> Program:
    """A free bias with the penalty that makes it as stiff as the features are on average."""
    if not program.free_bias:
        return program
    features = program.xt[:-1]
    stiffness = jnp.sum(features * features * program.c[None, :]) / program.penalty[0] / len(features)
    penalty = jnp.sum(program.c) / jnp.maximum(stiffness, tiny(program.c.dtype))
    return replace(program, penalty=program.penalty.at[-1].set(penalty))


def _ascent_step(program: Program, state: _Momentum, lipschitz: jax.Array) -> _Momentum:
    z = _primal_of(program, program.wrong * state.ahead, state.bias)
    gradient = violations(program, z @ program.xt)
    reached = _projected(program, state.ahead + gradient / lipschitz)
    change = reached - state.reached
    # Momentum that points downhill is dropped.
    previous = jnp.where(jnp.sum((state.ahead - reached) * change) > 0, 1, state.momentum)
    momentum = (1 + jnp.sqrt(1 + 4 * previous**2)) / 2
    return _Momentum(reached, reached + (previous - 1) / momentum * change, momentum, state.bias)


def _primal_of(program: Program, push: jax.Array, bias: jax.Array) -> jax.Array:
    z = (pull(program, push) @ program.xt.T) / program.penalty[None, :]
    return z.at[:, -1].add(bias)


def _projected(program: Program, point: jax.Array) -> jax.Array:
    """The nearest point of the box, or of every row's simplex, by Michelot's rounds."""
    if program.summed:
        return program.wrong * jnp.clip(point, 0, program.c[None, :])
    allowed = (program.wrong + program.label) > 0

    def threshold(active: jax.Array) -> jax.Array:
        size = jnp.maximum(jnp.sum(active.astype(point.dtype), axis=0), 1)
        return (jnp.sum(jnp.where(active, point, 0), axis=0) - program.c) / size

    def narrow(_: int, active: jax.Array) -> jax.Array:
        return active & (point > threshold(active)[None, :])

    active = jax.lax.fori_loop(0, min(_PROJECTION_ROUNDS, len(point)), narrow, allowed)
    return jnp.where(allowed, jnp.maximum(point - threshold(active)[None, :], 0), 0)


def _largest_eigenvalue(program: Program) -> jax.Array:
    """Of `X' P^-1 X`, by the power method."""
    root = jax.lax.rsqrt(program.penalty)

    def power(_: int, direction: jax.Array) -> jax.Array:
        image = root * (program.xt @ ((root * direction) @ program.xt))
        return image / jnp.maximum(jnp.sqrt(image @ image), tiny(image.dtype))

    # A fixed start that is orthogonal to no likely eigenvector.
    first = jnp.cos(jnp.arange(len(root), dtype=root.dtype)) + 1.5 + 0 * root
    direction = jax.lax.fori_loop(0, _POWER_STEPS, power, first / jnp.sqrt(first @ first))
    image = (root * direction) @ program.xt
    return jnp.sum(image * image)
