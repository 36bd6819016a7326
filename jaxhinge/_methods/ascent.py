r"""Accelerated projected gradient ascent on the dual of `Program`: two matrix-vector products a step.

Fast where the rows are nearly orthogonal, as they are when features outnumber them, and a cheap way to improve a
bound. The gradient of the dual is `r - A_w w(alpha)` with `w(alpha) = (A_w' alpha - q) / penalty`; the balance of a
free bias is kept by an exact projection, whose multiplier is the bias.

Nesterov, A method of solving a convex programming problem with convergence rate O(1/k^2), 1983; O'Donoghue and
Candes, Adaptive restart for accelerated gradient schemes, 2015.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxhinge._base.precision import tiny
from jaxhinge._methods.certificate import Certified, Program, better, certify, primal_value, within

_ASCENTS_PER_STEP = 10
_POWER_STEPS = 20
_BISECTIONS = 40
_STRETCHES = (1 + 3e-6, 1 + 3e-5)
# The power method approaches the largest eigenvalue from below.
_LIPSCHITZ_MARGIN = 1.1


class _Momentum(NamedTuple):
    """The dual point, the extrapolated point, the momentum and the multiplier of the balance."""

    alpha: jax.Array
    ahead: jax.Array
    momentum: jax.Array
    bias: jax.Array


class Ascent(NamedTuple):
    """The state of the loop: where the ascents are, the best certificate, and the steps made."""

    momentum: _Momentum
    best: Certified
    steps: jax.Array


def ascent_start(best: Certified, dtype: DTypeLike) -> Ascent:
    """At rest, at `best.alpha`."""
    alpha = best.alpha.astype(dtype)
    # Numbers that vary over the axes of a `shard_map` as the data do.
    zero = 0 * jnp.isnan(best.primal)
    return Ascent(_Momentum(alpha, alpha, 1 + zero.astype(dtype), zero.astype(dtype)), best, zero.astype(jnp.int32))


def ascend(program: Program, ascent: Ascent, tol: jax.Array, max_steps: jax.Array) -> Ascent:
    """Ascend, products in the precision of the momentum, until the certificate is within `tol`.

    A step is ten ascents and a certificate.
    """
    low = program.astype(ascent.momentum.alpha.dtype)
    lipschitz = _LIPSCHITZ_MARGIN * _largest_eigenvalue(low)
    if program.squared:
        lipschitz += 1 / (2 * jnp.min(low.c))

    def unfinished(ascent: Ascent) -> jax.Array:
        return (ascent.steps < max_steps) & ~within(program, ascent.best, tol)

    def block(ascent: Ascent) -> Ascent:
        momentum, best, steps = ascent
        momentum = jax.lax.fori_loop(0, _ASCENTS_PER_STEP, lambda _, m: _ascent_step(low, m, lipschitz), momentum)
        alpha = momentum.alpha.astype(best.alpha.dtype)
        z = _primal_of(program, alpha, momentum.bias.astype(alpha.dtype))
        return Ascent(momentum, better(best, _stretched(program, z, alpha)), steps + 1)

    return jax.lax.while_loop(unfinished, block, ascent)


def _stretched(program: Program, z: jax.Array, alpha: jax.Array) -> Certified:
    """The certificate of the best of a few lengths of `z`.

    On separable rows every margin is 1 but for the rounding of low precision, and the hinges of those that fall short
    of it by a millionth can outweigh the whole objective.
    """
    scores = program.scores(z)
    found = certify(program, z, alpha, scores)
    for stretch in _STRETCHES:
        primal = primal_value(program, stretch * z, program.r - stretch * scores)
        found = better(found, found._replace(z=stretch * z, primal=primal))
    return found


def _ascent_step(program: Program, state: _Momentum, lipschitz: jax.Array) -> _Momentum:
    w = _primal_of(program, state.ahead, jnp.zeros_like(state.bias))
    gradient = program.r - program.scores(w)
    if program.squared:
        gradient -= state.ahead / (2 * program.c)
    alpha, multiplier = _project(program, state.ahead + gradient / lipschitz)
    change = alpha - state.alpha
    # Momentum that points downhill is dropped.
    previous = jnp.where((state.ahead - alpha) @ change > 0, 1, state.momentum)
    momentum = (1 + jnp.sqrt(1 + 4 * previous**2)) / 2
    return _Momentum(alpha, alpha + (previous - 1) / momentum * change, momentum, multiplier * lipschitz)


def _primal_of(program: Program, alpha: jax.Array, bias: jax.Array) -> jax.Array:
    penalised = program.penalty > 0
    z = (program.adjoint(alpha) - program.q) / jnp.where(penalised, program.penalty, 1)
    return jnp.where(penalised, z, bias)


def _project(program: Program, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest feasible dual point, and the multiplier of the balance (0 without a free bias)."""

    def boxed(point: jax.Array) -> jax.Array:
        return jnp.maximum(point, 0) if program.squared else jnp.clip(point, 0, program.c)

    if not program.free_bias:
        return boxed(alpha), jnp.zeros((), alpha.dtype)
    side, target = program.sign, program.q[-1]

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = (low + high) / 2
        heavy = side @ boxed(alpha - middle * side) > target
        return jnp.where(heavy, middle, low), jnp.where(heavy, high, middle)

    reach = jnp.max(jnp.abs(alpha)) + jnp.max(program.c) + jnp.abs(target)
    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (-reach, reach))
    multiplier = (low + high) / 2
    return boxed(alpha - multiplier * side), multiplier


def _largest_eigenvalue(program: Program) -> jax.Array:
    """Of `A_w P_w^-1 A_w'`, by the power method."""
    penalised = program.penalty > 0
    inverse_root = jnp.where(penalised, jax.lax.rsqrt(jnp.where(penalised, program.penalty, 1)), 0)

    def power(_: int, direction: jax.Array) -> jax.Array:
        image = inverse_root * (program.adjoint(program.scores(inverse_root * direction)))
        return image / jnp.maximum(jnp.sqrt(image @ image), tiny(image.dtype))

    size = program.penalty.shape[0]
    # A fixed start that is orthogonal to no likely eigenvector.
    first = jnp.cos(jnp.arange(size, dtype=program.rows.dtype)) + 1.5 + 0 * inverse_root
    direction = jax.lax.fori_loop(0, _POWER_STEPS, power, first / jnp.sqrt(first @ first))
    image = program.scores(inverse_root * direction)
    return jnp.sum(image * image)
