r"""Derivatives of a solution, by implicit differentiation of its optimality system.

On the central path the solution z of `Program` is a smooth function of the data, and its differential solves one more
Newton system with the factor of the last step (H = P + A' D A, alpha = c f):

    dz = H^-1 (dA' alpha + A' (f dc) - dP z - dq) + (H^-1 A' D) (dr - dA z)

As kappa -> 0 this is the derivative of the minimiser wherever no row changes sides: rows on the margin have duals
strictly inside their box, all others are off the margin, and a free bias has a row on the margin to hold it. The two
matrices are made in float64; applied to tangents they are ordinary linear maps in the caller's dtype, which transpose.

Amos and Kolter, OptNet, 2017; Blondel et al., Efficient and modular implicit differentiation, 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge import _interior_point, _newton
from jaxhinge._core import Answer, Config, Rows, Start, build, cold_progress, solve_rows
from jaxhinge._precision import in_float64

# The solution is followed this far before it is differentiated, whatever the caller's tol.
_TIGHT = 1e-10
_TIGHT_STEPS = 100


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
    def run(rows: Rows, start: Start, tol: jax.Array, max_steps: jax.Array) -> Answer:
        return solver(rows, start, tol, max_steps)  # type: ignore[no-any-return]

    @run.defjvp
    def _rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Answer, Answer]:
        rows, answer = primals[0], run(*primals)
        return answer, _tangent(config, rows, sensitivity(rows), tangents[0], answer)

    return run


def _sensitivity(config: Config, rows: Rows) -> Sensitivity:
    program, centre = build(config, rows)
    progress = cold_progress(program)
    system = _newton.by_features(program, False)
    progress = _interior_point.run(program, progress, system, jnp.asarray(_TIGHT), jnp.int32(_TIGHT_STEPS), 1)
    point = progress.point
    weight = _interior_point.newton_weight(program, point)
    solve = partial(system.solve, system.factor(weight))
    # Columns of the uncentred problem: b = b_centred - centre . w.
    p = len(program.penalty)
    uncentre = jnp.eye(p, dtype=centre.dtype)
    if config.intercept != "none":
        uncentre = uncentre.at[-1, :-1].set(-centre)
    inverse = uncentre @ jax.vmap(solve, in_axes=1, out_axes=1)(uncentre.T)
    response = uncentre @ jax.vmap(solve, in_axes=1, out_axes=1)(program.at * weight[None, :])
    z = uncentre @ progress.best.z
    bias = z[-1] if config.intercept != "none" else 0.0
    violations = rows.r - rows.sign * (rows.x @ z[: rows.x.shape[1]] + bias)
    excess = jnp.maximum(violations, 0)
    # A row without weight has no dual; the loss that it would bring tells what a little weight would do.
    idle = 2 * excess if config.squared else (violations > 0).astype(excess.dtype)
    fraction = jnp.where(rows.c > 0, point.f, idle)
    return Sensitivity(z, fraction, excess * excess if config.squared else excess, inverse, response)


def _tangent(config: Config, rows: Rows, at: Sensitivity, change: Rows, answer: Answer) -> Answer:
    """The tangent of the answer. Dual variables and steps carry none; by duality both values move alike."""
    d = rows.x.shape[1]
    w, alpha = at.z[:d], rows.c * at.fraction
    pull = _with_bias(config, (alpha * rows.sign) @ change.x, jnp.zeros_like(change.l2))
    weighing = at.fraction * change.c * rows.sign
    pull += _with_bias(config, weighing @ rows.x, jnp.sum(weighing))
    shrink = _with_bias(config, change.l2 * w, change.l2 * at.z[-1] * (config.intercept == "regularized"))
    linear = _with_bias(config, jnp.zeros_like(w), change.q_bias)
    shift = change.r - rows.sign * (change.x @ w)
    dz = at.inverse @ (pull - shrink - linear) + at.response @ shift
    value = shrink @ at.z / 2 + linear @ at.z + change.c @ at.losses + alpha @ shift
    db = jnp.zeros_like(value) if config.intercept == "none" else dz[d]
    no_tangent = np.zeros((), jax.dtypes.float0)
    return Answer(
        dz[:d], db, jnp.zeros_like(answer.dual), value, value, jnp.zeros_like(answer.gap), no_tangent, no_tangent
    )


def _with_bias(config: Config, features: jax.Array, bias: jax.Array) -> jax.Array:
    return features if config.intercept == "none" else jnp.append(features, bias)
