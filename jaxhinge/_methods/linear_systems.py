r"""The linear system of an interior-point or a Newton step, `(P + A' D A) dz = rhs`, by its features or by its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import eps
from jaxhinge._methods.certificate import Program
from jaxhinge._methods.cholesky import cholesky
from jaxhinge._methods.executor import namespace


class NewtonSystem(NamedTuple):
    """How to factor `P + A' D A` for a given D, and how to solve with the factor for one right-hand side."""

    factor: Callable[[Array], Any]
    solve: Callable[[Any, Array], Array]


def by_features(program: Program) -> NewtonSystem:
    """The p x p system itself, in the precision of the program."""
    rows = program.rows if namespace(program.c) is np else program.rows.prepared()

    def factor(weight: Array) -> tuple[Array, Array]:
        gram = rows.gram(weight * program.sign * program.sign)
        return factored(gram + diagonal(program.penalty), eps(weight.dtype))

    return NewtonSystem(factor, solved)


def diagonal(values: Array) -> Array:
    """Diagonal matrices `(..., p, p)`."""
    xp = namespace(values)
    return xp.eye(values.shape[-1], dtype=values.dtype) * values[..., None, :] if values.ndim > 1 else xp.diag(values)


def factored(hessian: Array, rounding: float, root: Callable[[Array], Array] = cholesky) -> tuple[Array, Array]:
    """The Cholesky factor of the system scaled to a unit diagonal, known to a relative `rounding`; and that scale.

    On the host it is the inverse of the factor, with which many right-hand sides of many problems are solved at once.
    """
    xp = namespace(hessian)
    scale = 1 / xp.sqrt(xp.diagonal(hessian, axis1=-2, axis2=-1))
    size = scale.shape[-1]
    # What rounding may take from a unit diagonal: a product of duplicate columns would have no Cholesky factor.
    jitter = max(4, size / 2) * rounding * xp.eye(size, dtype=hessian.dtype)
    scaled = hessian * scale[..., :, None] * scale[..., None, :] + jitter
    return root(scaled), scale


def solved(factor: tuple[Array, Array], rhs: Array) -> Array:
    """The solution for one right-hand side."""
    root, scale = factor
    if namespace(root) is np:
        half = np.matmul(root, (scale * rhs)[..., None])
        return scale * np.matmul(np.swapaxes(root, -1, -2), half)[..., 0]
    solution: jax.Array = scale * jax.scipy.linalg.cho_solve((root, True), scale * rhs)
    return solution


def by_rows(program: Program) -> NewtonSystem:
    """An n x n system instead (Woodbury), for more features than rows.

    With `t = D A dz` and K = A_w P_w^-1 A_w', the penalised coordinates are eliminated, which leaves
    `(1 + D^(1/2) K D^(1/2)) D^(-1/2) t = D^(1/2) (A_w P_w^-1 rhs_w + a_b db)` and one equation for a free bias.
    """
    at = program.rows.whole * program.sign[None, :]
    penalised = at[:-1] if program.free_bias else at
    penalty = program.penalty[: len(penalised)]
    kernel = penalised.T @ (penalised / penalty[:, None])

    def factor(weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        scale = jnp.sqrt(weight)
        unit = jnp.eye(len(scale), dtype=kernel.dtype) + kernel * scale[:, None] * scale[None, :]
        return cholesky(unit), scale

    def solve(factored: tuple[jax.Array, jax.Array], rhs: jax.Array) -> jax.Array:
        root, scale = factored

        def rows_solve(value: jax.Array) -> jax.Array:
            return scale * jax.scipy.linalg.cho_solve((root, True), scale * value)

        head = rhs[: len(penalised)]
        t = rows_solve((head / penalty) @ penalised)
        if not program.free_bias:
            dz: jax.Array = (head - penalised @ t) / penalty
            return dz
        side = at[-1]
        response = rows_solve(side)
        db = (rhs[-1] - side @ t) / (side @ response)
        return jnp.append((head - penalised @ (t + db * response)) / penalty, db)

    return NewtonSystem(factor, solve)
