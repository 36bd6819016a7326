r"""Derivatives of a solution, by implicit differentiation of its optimality system.

On the central path the solution z of `Program` is a smooth function of the data, and its differential solves one more
Newton system with the factor of the last step (H = P + A' D A, alpha = c f):

    dz = H^-1 (dA' alpha + A' (f dc) - dP z - dq) + (H^-1 A' D) (dr - dA z)

As kappa -> 0 this is the derivative of the minimiser wherever no row changes sides: rows on the margin have duals
strictly inside their box, all others are off the margin, and a free bias has a row on the margin to hold it. D grows
without bound on the margin, so that H would lose what it says of all other directions; the p rows of largest D enter
as equations of their own instead, which hold exactly in the limit. The two matrices are made in float64; applied to
tangents they are ordinary linear maps in the caller's dtype, which transpose.

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

# `_TIGHT`: complementarity, relative to the objective, at which the solution is differentiated.
_TIGHT = 1e-13
# `_TIGHT_STEPS`: steps at most on the way there.
_TIGHT_STEPS = 100
# `_NEVER`: a tolerance that no gap meets, so that only complementarity ends the steps.
_NEVER = -1


class Sensitivity(NamedTuple):
    """The solution `z` `(p,)`, `f` `(n,)`, the losses `(n,)`, `H^-1` `(p, p)` and `H^-1 A' D` `(p, n)`."""

    z: jax.Array
    fraction: jax.Array
    losses: jax.Array
    inverse: jax.Array
    response: jax.Array


@lru_cache
def differentiable(config: Config) -> Callable[[Rows, Start, jax.Array, jax.Array], Answer]:
    """`solve_rows` behind the float64 boundary, with a derivative in the rows."""
    solver = jax.jit(in_float64(partial(solve_rows, config), config.dtype))
    sensitivity = jax.jit(in_float64(partial(_sensitivity, config), config.dtype))

    @jax.custom_jvp
    def solver_with_derivative(rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
        return solver(rows, start, tol, max_steps)  # type: ignore[no-any-return]

    @solver_with_derivative.defjvp
    def _rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Answer, Answer]:
        rows, answer = primals[0], solver_with_derivative(*primals)
        return answer, _tangent(config, rows, sensitivity(rows), tangents[0], answer)

    return solver_with_derivative


def _sensitivity(config: Config, rows: Rows) -> Sensitivity:
    program, centre = build(config, rows)
    progress = cold_progress(program)
    system = by_features(program)
    never = jnp.asarray(_NEVER, program.c.dtype)
    progress = interior_point_steps(program, progress, system, never, jnp.int32(_TIGHT_STEPS), 1, _TIGHT)
    point = progress.point
    inverse, response = _newton_maps(program, newton_weight(program, point))
    # The columns are those of the uncentred problem: b = b_centred - centre . w.
    p = len(program.penalty)
    uncentre = jnp.eye(p, dtype=centre.dtype)
    if config.intercept != "none":
        uncentre = uncentre.at[-1, :-1].set(-centre)
    inverse, response = uncentre @ inverse @ uncentre.T, uncentre @ response
    z = uncentre @ progress.best.z
    bias = z[-1] if config.intercept != "none" else 0.0
    violations = rows.r - rows.sign * (z[: len(rows.xt)] @ rows.xt + bias)
    excess = jnp.maximum(violations, 0)
    # A row without weight has no dual: the slope of its loss tells what a little weight would do.
    idle = 2 * excess if config.squared else (violations > 0).astype(excess.dtype)
    fraction = jnp.where(rows.c > 0, point.f, idle)
    return Sensitivity(z, fraction, excess * excess if config.squared else excess, inverse, response)


def _newton_maps(program: Program, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`H^-1` and `H^-1 A' D` for `D = diag(weight)`, however large some of its entries are.

    With B the rows of largest weight and H_R the rest of H, they are blocks of the inverse of
    `[[H_R, B'], [B, -1 / D_B]]`.
    """
    at = program.rows.whole * program.sign[None, :]
    p, n = at.shape
    _, chosen = jax.lax.top_k(weight, min(p, n))
    rows, rest = at[:, chosen], weight.at[chosen].set(0)
    reduced = (at * rest[None, :]) @ at.T + jnp.diag(program.penalty)
    # The system is scaled to a unit diagonal and to rows of unit length. A free bias has next to no diagonal and keeps
    # its scale.
    penalised = program.penalty > 0
    scale = jnp.where(penalised, jax.lax.rsqrt(jnp.where(penalised, jnp.diag(reduced), 1)), 1)
    length = jnp.sqrt(jnp.sum((scale[:, None] * rows) ** 2, axis=0))
    length = 1 / jnp.where(length > 0, length, 1)
    border = scale[:, None] * rows * length[None, :]
    corner = jnp.diag(-length * length / weight[chosen])
    system = jnp.block([[scale[:, None] * reduced * scale[None, :], border], [border.T, corner]])
    blocks = scale[:, None] * jnp.linalg.inv(system)[:p]
    inverse = blocks[:, :p] * scale[None, :]
    response = (inverse @ at) * rest[None, :]
    return inverse, response.at[:, chosen].set(blocks[:, p:] * length[None, :])


def _tangent(config: Config, rows: Rows, at: Sensitivity, change: Rows, answer: Answer) -> Answer:
    """The tangent of the answer. Dual variables and steps carry none; by duality both values move alike."""
    d = len(rows.xt)
    w, alpha = at.z[:d], rows.c * at.fraction
    pull = _with_bias(config, change.xt @ (alpha * rows.sign), jnp.zeros_like(change.l2))
    weighing = at.fraction * change.c * rows.sign
    pull += _with_bias(config, rows.xt @ weighing, jnp.sum(weighing))
    of_bias = at.z[-1] if config.intercept == "regularized" else jnp.zeros_like(at.z[-1])
    shrink = _with_bias(config, change.l2 * w, change.l2 * of_bias)
    linear = _with_bias(config, jnp.zeros_like(w), change.q_bias)
    shift = change.r - rows.sign * (w @ change.xt)
    dz = at.inverse @ (pull - shrink - linear) + at.response @ shift
    value = shrink @ at.z / 2 + linear @ at.z + change.c @ at.losses + alpha @ shift
    db = jnp.zeros_like(value) if config.intercept == "none" else dz[d]
    no_tangent = np.zeros((), jax.dtypes.float0)
    return Answer(
        dz[:d], db, jnp.zeros_like(answer.dual), value, value, jnp.zeros_like(answer.gap), no_tangent, no_tangent
    )


def _with_bias(config: Config, features: jax.Array, bias: jax.Array) -> jax.Array:
    return features if config.intercept == "none" else jnp.append(features, bias)
