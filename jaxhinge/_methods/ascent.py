r"""Accelerated projected gradient ascent on the dual of `Program`: two matrix-vector products a step.

Fast where the rows are nearly orthogonal, as they are when features outnumber them, and a cheap way to improve a
bound. The gradient of the dual is `r - A_w w(alpha)` with `w(alpha) = (A_w' alpha - q) / penalty`; the balance of a
free bias is kept by an exact projection, whose multiplier is the bias.

Nesterov, A method of solving a convex programming problem with convergence rate O(1/k^2), 1983; O'Donoghue and
Candes, Adaptive restart for accelerated gradient schemes, 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.typing import DTypeLike

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import tiny
from jaxhinge._methods.certificate import Certified, Program, better, certify, primal_value, within
from jaxhinge._methods.executor import Watch, namespace, repeat, while_loop

_ASCENTS_PER_STEP = 10
_POWER_STEPS = 20
_BISECTIONS = 40
_STRETCHES = (1 + 3e-6, 1 + 3e-5)
# `LIPSCHITZ_MARGIN`: the power method approaches the largest eigenvalue from below, so that its result is raised.
LIPSCHITZ_MARGIN = 1.1


class _Momentum(NamedTuple):
    """The dual point, the extrapolated point, the momentum and the multiplier of the balance."""

    alpha: Array
    ahead: Array
    momentum: Array
    bias: Array


class Ascent(NamedTuple):
    """The state of the loop: where the ascents are, the best certificate, and the steps made."""

    momentum: Any
    best: Certified
    steps: Array


def ascent_start(best: Certified, dtype: DTypeLike) -> Ascent:
    """At rest, at `best.alpha`."""
    alpha = best.alpha.astype(dtype)
    # Numbers that vary over the axes of a `shard_map` as the data do.
    xp = namespace(alpha)
    zero = 0 * xp.isnan(best.primal)
    return Ascent(_Momentum(alpha, alpha, 1 + zero.astype(dtype), zero.astype(dtype)), best, zero.astype(xp.int32))


def ascend(program: Program, ascent: Ascent, tol: Array, max_steps: Array, watch: Watch | None = None) -> Ascent:
    """Ascend, products in the precision of the momentum, until the certificate is within `tol`.

    A step is ten ascents and a certificate.
    """
    dtype = ascent.momentum.alpha.dtype
    low = program if program.c.dtype == dtype else program.astype(dtype)
    lipschitz = LIPSCHITZ_MARGIN * largest_eigenvalue(low.penalty, low.scores, low.adjoint)
    if program.squared:
        lipschitz += 1 / (2 * namespace(low.c).min(low.c))

    def unfinished(ascent: Ascent) -> Array:
        return (ascent.steps < max_steps) & ~within(program, ascent.best, tol)

    def block(ascent: Ascent) -> Ascent:
        momentum, best, steps = ascent
        momentum = repeat(_ASCENTS_PER_STEP, lambda m: _ascent_step(low, m, lipschitz), momentum)
        alpha = momentum.alpha.astype(best.alpha.dtype)
        z = _primal_of(program, alpha, momentum.bias.astype(alpha.dtype))
        scores = program.scores(z)

        def primal_at(length: float) -> Array:
            return primal_value(program, length * z, program.r - length * scores)

        found = stretched(certify(program, z, alpha, scores), _STRETCHES, primal_at)
        return Ascent(momentum, better(best, found), steps + 1)

    return while_loop(unfinished, block, ascent, watch)


def stretched(found: Certified, lengths: Sequence[float], primal_at: Callable[[float], Array]) -> Certified:
    """The certificate of the best of a few lengths of `z`.

    On separable rows every margin is 1 but for the rounding of low precision, and the hinges of those that fall short
    of it by a millionth can outweigh the whole objective.
    """
    z = found.z
    for length in lengths:
        found = better(found, found._replace(z=length * z, primal=primal_at(length)))
    return found


def extrapolated(old: Array, ahead: Array, reached: Array, momentum: Array) -> tuple[Array, Array]:
    """The next point to ascend from, and its momentum; momentum that points downhill is dropped."""
    xp, change = namespace(ahead), reached - old
    previous = xp.where(xp.sum((ahead - reached) * change) > 0, 1, momentum)
    new = (1 + xp.sqrt(1 + 4 * previous**2)) / 2
    return reached + (previous - 1) / new * change, new


def _ascent_step(program: Program, state: _Momentum, lipschitz: Array) -> _Momentum:
    xp = namespace(state.ahead)
    w = _primal_of(program, state.ahead, xp.zeros_like(state.bias))
    gradient = program.r - program.scores(w)
    if program.squared:
        gradient = gradient - state.ahead / (2 * program.c)
    alpha, multiplier = _project(program, state.ahead + gradient / lipschitz)
    ahead, momentum = extrapolated(state.alpha, state.ahead, alpha, state.momentum)
    return _Momentum(alpha, ahead, momentum, multiplier * lipschitz)


def _primal_of(program: Program, alpha: Array, bias: Array) -> Array:
    where, penalised = namespace(alpha).where, program.penalty > 0
    z = (program.adjoint(alpha) - program.q) / where(penalised, program.penalty, 1)
    return where(penalised, z, bias)


def _project(program: Program, alpha: Array) -> tuple[Array, Array]:
    """The nearest feasible dual point, and the multiplier of the balance (0 without a free bias)."""

    xp = namespace(alpha)

    def boxed(point: Array) -> Array:
        return xp.maximum(point, 0) if program.squared else xp.clip(point, 0, program.c)

    if not program.free_bias:
        return boxed(alpha), xp.zeros((), alpha.dtype)
    side, target = program.sign, program.q[-1]

    def halve(bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        heavy = side @ boxed(alpha - middle * side) > target
        return xp.where(heavy, middle, low), xp.where(heavy, high, middle)

    reach = xp.max(abs(alpha)) + xp.max(program.c) + abs(target)
    low, high = repeat(_BISECTIONS, halve, (-reach, reach))
    multiplier = (low + high) / 2
    return boxed(alpha - multiplier * side), multiplier


def largest_eigenvalue(penalty: Array, products: Callable[[Array], Array], adjoint: Callable[[Array], Array]) -> Array:
    """Of `A_w P_w^-1 A_w'`, by the power method."""
    xp, penalised = namespace(penalty), penalty > 0
    inverse_root = xp.where(penalised, 1 / xp.sqrt(xp.where(penalised, penalty, 1)), 0)

    def power(direction: Array) -> Array:
        image = inverse_root * adjoint(products(inverse_root * direction))
        return image / xp.maximum(xp.sqrt(image @ image), tiny(image.dtype))

    # A fixed start that is orthogonal to no likely eigenvector.
    first = xp.cos(xp.arange(len(inverse_root), dtype=inverse_root.dtype)) + 1.5 + 0 * inverse_root
    direction = repeat(_POWER_STEPS, power, first / xp.sqrt(first @ first))
    image = products(inverse_root * direction)
    return xp.sum(image * image)
