r"""Derivatives of a solution, of any order, by implicit differentiation of its optimality system.

On the central path the solution z of `Program` and its dual alpha = c f are smooth functions of the data. To first
order the fraction f_i moves with the violation v_i of its row by W_i = D_i / c_i, D the diagonal of the last Newton
system, so that their differentials solve a linear system,

    P dz - A' da = dA' alpha + A' (f dc) - dP z - dq,    da + D A dz = D (dr - dA z),    da = c df

As kappa -> 0 this is the derivative of the minimiser wherever no row changes sides: rows on the margin have duals
strictly inside their box, all others are off the margin, and a free bias has a row on the margin to hold it. There W
is a constant, infinite on the margin and 0 off it (2 or 0 for the squared hinge), and the same system, differentiated,
gives the derivatives of the next order. D grows without bound on the margin, so that H = P + A' D A would lose what it
says of all other directions; the p rows of largest D enter as equations of their own instead, which hold exactly in the
limit. The inverse is made in float64; applied to tangents it is an ordinary linear map in the caller's dtype, which
transposes.

Amos and Kolter, OptNet, 2017; Blondel et al., Efficient and modular implicit differentiation, 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.precision import in_float64
from jaxhinge._methods.certificate import Program
from jaxhinge._methods.interior_point import interior_point_steps, newton_weight
from jaxhinge._methods.linear_systems import by_features
from jaxhinge._methods.problem import Answer, Config, Rows, Start, build
from jaxhinge._methods.stages import cold_progress, solve_rows
from jaxhinge._rows.stored import StoredRows

# `_TIGHT`: complementarity, relative to the objective, at which the solution is differentiated.
_TIGHT = 1e-13
# `_TIGHT_STEPS`: steps at most on the way there.
_TIGHT_STEPS = 100
# `_NEVER`: a tolerance that no gap meets, so that only complementarity ends the steps.
_NEVER = -1


class Sensitivity(NamedTuple):
    """The solution and the inverse of its optimality system; the program's p coordinates are (w, b).

    Attributes:
      z: The solution, `(p,)`.
      fraction: `f`, `(n,)`.
      losses: `(n,)`.
      stiffness: `W`, `(n,)`.
      chosen: The rows that enter as equations, `(min(p, n),)`.
      stiff: Whether a row is one of them, `(n,)`.
      inverse: `H^-1`, `(p, p)`.
      response: `H^-1 A'`, `(p, n)`; `H^-1 A' D` for the chosen rows.
      corner: The last block of the inverse, of the chosen rows.
    """

    z: jax.Array
    fraction: jax.Array
    losses: jax.Array
    stiffness: jax.Array
    chosen: jax.Array
    stiff: jax.Array
    inverse: jax.Array
    response: jax.Array
    corner: jax.Array


class Optimum(NamedTuple):
    """What moves with the rows: `z` `(p,)`, the fractions and the losses `(n,)`."""

    z: jax.Array
    fraction: jax.Array
    losses: jax.Array


@lru_cache
def differentiable(config: Config) -> Callable[[Rows, Start, jax.Array, jax.Array], Answer]:
    """`solve_rows` behind the float64 boundary, with derivatives in the rows."""

    @jax.custom_jvp
    def optimum(rows: Rows, at: Sensitivity) -> Optimum:
        del rows
        return Optimum(at.z, at.fraction, at.losses)

    @optimum.defjvp
    def _rule_of_optimum(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Optimum, Optimum]:
        now = optimum(*primals)
        return now, _moved(config, *primals, now, tangents[0])

    def tangent(rows: Rows, sensitivity: Callable[[Rows], Sensitivity], change: Rows, answer: Answer) -> Answer:
        if isinstance(rows.xt, StoredRows):
            raise TypeError(
                "A solution of sparse rows has no derivative: what it rests on is a dense matrix of all features. Give "
                "dense rows (x.todense()) to differentiate it, or keep it out of grad with jax.lax.stop_gradient."
            )
        # Float64 work has no derivative of its own: `optimum` says how its results move.
        at = sensitivity(jax.lax.stop_gradient(rows))
        return _tangent(config, rows, at, optimum(rows, at), change, answer)

    return with_tangent(config, solve_rows, _sensitivity, tangent)


def with_tangent(
    config: Any, solve_rows: Callable[..., Answer], sensitivity: Callable[..., Any], tangent: Callable[..., Answer]
) -> Callable[..., Answer]:
    """A solver behind the float64 boundary, and how its answers move: `tangent(rows, sensitivity, change, answer)`, the
    sensitivity, a function of the rows, being behind that boundary too."""
    solver, at = (jax.jit(in_float64(partial(core, config), config.dtype)) for core in (solve_rows, sensitivity))

    @jax.custom_jvp
    def solver_with_derivative(rows: Any, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
        return solver(rows, start, tol, max_steps)  # type: ignore[no-any-return]

    @solver_with_derivative.defjvp
    def _rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Answer, Answer]:
        answer = solver_with_derivative(*primals)
        return answer, tangent(primals[0], at, tangents[0], answer)

    return solver_with_derivative


def tangent_of(answer: Answer, dw: jax.Array, db: jax.Array, value: jax.Array) -> Answer:
    """The tangent of an answer. Dual variables and steps carry none; by duality both values move alike."""
    none = np.zeros((), jax.dtypes.float0)
    return Answer(dw, db, jnp.zeros_like(answer.dual), value, value, jnp.zeros_like(answer.gap), none, none)


def _sensitivity(config: Config, rows: Rows) -> Sensitivity:
    program, centre = build(config, rows)
    progress = cold_progress(program)
    system = by_features(program)
    never = jnp.asarray(_NEVER, program.c.dtype)
    progress = interior_point_steps(program, progress, system, never, jnp.int32(_TIGHT_STEPS), 1, _TIGHT)
    point = progress.point
    weight = newton_weight(program, point)
    chosen, inverse, of_chosen, corner = _inverse_system(program, weight)
    # The coordinates are those of the uncentred problem: b = b_centred - centre . w.
    p = len(program.penalty)
    uncentre = jnp.eye(p, dtype=centre.dtype)
    if config.intercept != "none":
        uncentre = uncentre.at[-1, :-1].set(-centre)
    counts, response = rows.c > 0, uncentre @ (inverse @ program.rows.whole * rows.sign[None, :])
    stiff = jnp.zeros_like(counts).at[chosen].set(True) & counts
    response = jnp.where(stiff[None, :], response.at[:, chosen].set(uncentre @ of_chosen), response)
    z = uncentre @ progress.best.z
    violations = rows.r - rows.sign * (z[: len(rows.xt)] @ rows.xt + (z[-1] if config.intercept != "none" else 0.0))
    excess = jnp.maximum(violations, 0)
    # A row without weight has no dual: the slope of its loss tells what a little weight would do.
    idle = 2 * excess if config.squared else (violations > 0).astype(excess.dtype)
    idle_stiffness = 2.0 * (violations > 0) if config.squared else jnp.zeros_like(excess)
    return Sensitivity(
        z=z,
        fraction=jnp.where(counts, point.f, idle),
        losses=excess * excess if config.squared else excess,
        stiffness=jnp.where(counts, weight / program.c, idle_stiffness),
        chosen=chosen,
        stiff=stiff,
        inverse=uncentre @ inverse @ uncentre.T,
        response=response,
        corner=corner,
    )


def _inverse_system(program: Program, weight: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The rows B of largest weight, and the blocks of the inverse of `[[H_R, B'], [B, -1 / D_B]]`.

    `D = diag(weight)`, however large some of its entries are, and H_R is what H has of the other rows. The blocks are
    `H^-1`, `H^-1 B' D_B`, and that of the rows.
    """
    at = program.rows.whole * program.sign[None, :]
    p, n = at.shape
    _, chosen = jax.lax.top_k(weight, min(p, n))
    rows, rest = at[:, chosen], weight.at[chosen].set(0)
    reduced = (at * rest[None, :]) @ at.T + jnp.diag(program.penalty)
    blocks = bordered_inverse(reduced, program.penalty > 0, rows.T, 1 / weight[chosen])
    return chosen, blocks[:p, :p], blocks[:p, p:], blocks[p:, p:]


def bordered_inverse(matrix: jax.Array, penalised: jax.Array, border: jax.Array, corner: jax.Array) -> jax.Array:
    """The inverse of `[[matrix, border'], [border, -diag(corner)]]`.

    The system is scaled to a unit diagonal, and to rows of unit length, their corner included. Coordinates that are not
    penalised have next to no diagonal and keep their scale.
    """
    scale = jnp.where(penalised, jax.lax.rsqrt(jnp.where(penalised, jnp.diag(matrix), 1)), 1)
    scaled = border * scale[None, :]
    length = jax.lax.rsqrt(jnp.sum(scaled**2, axis=1) + corner)
    scaled = scaled * length[:, None]
    last = jnp.diag(-length * length * corner)
    system = jnp.block([[scale[:, None] * matrix * scale[None, :], scaled.T], [scaled, last]])
    both = jnp.concatenate([scale, length])
    found: jax.Array = both[:, None] * jnp.linalg.inv(system) * both[None, :]
    return found


def _tangent(config: Config, rows: Rows, at: Sensitivity, now: Optimum, change: Rows, answer: Answer) -> Answer:
    d, alpha = len(rows.xt), rows.c * now.fraction
    dz = _moved(config, rows, at, now, change).z
    shrink, linear, shift = _forces(config, rows, now, change)
    value = shrink @ now.z / 2 + linear @ now.z + change.c @ now.losses + alpha @ shift
    db = jnp.zeros_like(value) if config.intercept == "none" else dz[d]
    return tangent_of(answer, dz[:d], db, value)


def _forces(config: Config, rows: Rows, now: Optimum, change: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`dP z`, `dq` and `dr - dA z`."""
    w = now.z[: len(rows.xt)]
    linear = _with_bias(config, jnp.zeros_like(w), change.q_bias)
    return _penalised(config, change.l2, now.z), linear, change.r - rows.sign * (w @ change.xt)


def _moved(config: Config, rows: Rows, at: Sensitivity, now: Optimum, change: Rows) -> Optimum:
    """How the optimum moves with the rows; `now` and `rows` may themselves be differentiated."""
    shrink, linear, shift = _forces(config, rows, now, change)
    pull = _with_bias(config, change.xt @ (rows.c * now.fraction * rows.sign), jnp.zeros_like(change.l2))
    pull += _adjoint(config, rows, now.fraction * change.c)
    weight = rows.c * at.stiffness
    dz, dalpha = _solved_system(config, rows, at, pull - shrink - linear, jnp.where(at.stiff, shift, weight * shift))
    dv = shift - _scores(config, rows, dz)
    counts = rows.c > 0
    fraction = jnp.where(counts, dalpha / jnp.where(counts, rows.c, 1), at.stiffness * dv)
    return Optimum(dz, fraction, now.fraction * dv)


def _solved_system(
    config: Config, rows: Rows, at: Sensitivity, force: jax.Array, shift: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The solution `(u, a)` of `P u - A' a = force` and `a + D A u = shift`; by `D` divided where a row is stiff.

    The system is differentiated, its inverse never.
    """
    at = jax.lax.stop_gradient(at)
    weight = rows.c * at.stiffness
    divided, times = jnp.where(at.stiff, 1 / jnp.where(at.stiff, weight, 1), 1), jnp.where(at.stiff, 1, weight)
    rows_now, times_now = jax.lax.stop_gradient((rows, times))
    p = len(force)

    # Both parts are one vector: JAX transposes a linear solve only where every leaf depends on what is differentiated.
    def system(unknown: jax.Array) -> jax.Array:
        u, a = unknown[:p], unknown[p:]
        forces = _penalised(config, rows.l2, u) - _adjoint(config, rows, a)
        return jnp.concatenate([forces, divided * a + times * _scores(config, rows, u)])

    def stiffly(k: jax.Array, pushed: jax.Array) -> jax.Array:
        """`D (k - A H^-1 A' D k)` of the stiff rows, given `D k` of the others."""
        others = _adjoint(config, rows_now, jnp.where(at.stiff, 0, pushed))
        exact = others @ at.response[:, at.chosen] + at.corner @ k[at.chosen]
        return jnp.zeros_like(k).at[at.chosen].set(-exact)

    def solve(_: Any, given: jax.Array) -> jax.Array:
        g, k = given[:p], given[p:]
        of_k = at.response @ k
        other = k - times_now * _scores(config, rows_now, of_k)
        a = jnp.where(at.stiff, stiffly(k, k), other) - times_now * (g @ at.response)
        return jnp.concatenate([at.inverse @ g + of_k, a])

    def transposed(_: Any, given: jax.Array) -> jax.Array:
        g, k = given[:p], given[p:]
        pushed = times_now * k
        of_k = at.response @ pushed
        a = jnp.where(at.stiff, stiffly(k, pushed), k - _scores(config, rows_now, of_k)) + g @ at.response
        return jnp.concatenate([at.inverse @ g - of_k, a])

    given = jnp.concatenate([force, shift])
    found: jax.Array = jax.lax.custom_linear_solve(system, given, solve, transpose_solve=transposed)
    return found[:p], found[p:]


def _penalised(config: Config, l2: jax.Array, z: jax.Array) -> jax.Array:
    """`P z`."""
    if config.intercept == "none":
        return l2 * z
    bias = z[-1] if config.intercept == "regularized" else jnp.zeros_like(z[-1])
    return l2 * jnp.append(z[:-1], bias)


def _scores(config: Config, rows: Rows, z: jax.Array) -> jax.Array:
    """`A z`."""
    scores = z[: len(rows.xt)] @ rows.xt
    signed: jax.Array = rows.sign * (scores if config.intercept == "none" else scores + z[-1])
    return signed


def _adjoint(config: Config, rows: Rows, alpha: jax.Array) -> jax.Array:
    """`A' alpha`."""
    signed = alpha * rows.sign
    return _with_bias(config, rows.xt @ signed, jnp.sum(signed))


def _with_bias(config: Config, features: jax.Array, bias: jax.Array) -> jax.Array:
    return features if config.intercept == "none" else jnp.append(features, bias)
