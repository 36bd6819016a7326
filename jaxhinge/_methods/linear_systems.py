r"""The linear system of an interior-point or a Newton step, `(P + A' D A) dz = rhs`, by its features or by its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import eps
from jaxhinge._methods.certificate import Program
from jaxhinge._methods.cholesky import cholesky, solved_by_root
from jaxhinge._methods.executor import dot, namespace, while_loop


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
    """The Cholesky factor of the system scaled to a unit diagonal, known to a relative `rounding`; and that scale."""
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
        return scale * solved_by_root(root, scale * rhs)
    solution: jax.Array = scale * jax.scipy.linalg.cho_solve((root, True), scale * rhs)
    return solution


def conjugate_gradients(
    program: Program, weight: Array, penalty: Array, rhs: Array, reduction: float, max_iterations: int
) -> Array:
    """`(P + A' diag(weight) A) dz = rhs` solved roughly, by products with the rows whose weight is not 0.

    Until the residual, in the norm of the preconditioner, has fallen by `reduction`. The preconditioner is the
    diagonal of the system: features of other scales cost nothing (Hestenes and Stiefel, Methods of conjugate gradients
    for solving linear systems, 1952).
    """
    weight = weight * program.sign * program.sign
    inverse = 1 / (penalty + program.rows.squares(weight))
    rows, weight = program.rows.active(weight)

    def going(state: tuple[Array, ...]) -> Array:
        return (state[4] > reduction**2 * first) & (state[5] < max_iterations)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        solution, residual, direction, _, size, count = state
        image = penalty * direction + rows.adjoint(weight * rows.products(direction))
        length = size / dot(direction, image)
        solution, residual = solution + length * direction, residual - length * image
        scaled = inverse * residual
        new = dot(residual, scaled)
        return solution, residual, scaled + new / size * direction, scaled, new, count + 1

    scaled = inverse * rhs
    first = dot(rhs, scaled)
    return while_loop(going, step, (0 * rhs, rhs, scaled, scaled, first, 0 * first))[0]


def by_rows(program: Program) -> NewtonSystem:
    """An n x n system instead (Woodbury), for more features than rows that share one penalty.

    With `t = D A dz` and K = A_w P_w^-1 A_w', the penalised coordinates are eliminated, which leaves
    `(1 + D^(1/2) K D^(1/2)) D^(-1/2) t = D^(1/2) (A_w P_w^-1 rhs_w + a_b db)` and one equation for a free bias.
    """
    xp, rows, sign = namespace(program.c), program.rows, program.sign
    strength = program.penalty[..., :1]
    kernel = rows.kernel(last=not program.free_bias)

    def factor(weight: Array) -> tuple[Any, Array]:
        scale = sign * xp.sqrt(weight)
        scaled = kernel * (scale / strength)[..., :, None] * scale[..., None, :]
        root = cholesky(xp.eye(kernel.shape[0], dtype=kernel.dtype) + scaled), scale
        return root, solved(root, xp.ones_like(sign))

    def solve(factored: tuple[Any, Array], rhs: Array) -> Array:
        root, response = factored
        if not program.free_bias:
            return (rhs - rows.adjoint(solved(root, rows.products(rhs / strength)))) / strength
        head = xp.concatenate([rhs[..., :-1], 0 * rhs[..., -1:]], axis=-1) / strength
        t = solved(root, rows.products(head))
        db = (rhs[..., -1:] - xp.sum(t, axis=-1, keepdims=True)) / xp.sum(response, axis=-1, keepdims=True)
        dz = head - rows.adjoint(t + db * response) / strength
        return xp.concatenate([dz[..., :-1], db], axis=-1)

    return NewtonSystem(factor, solve)
