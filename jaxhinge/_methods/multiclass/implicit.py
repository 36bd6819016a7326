r"""Derivatives of a multiclass solution, by implicit differentiation of its optimality system.

On the central path the solution z of `Program` is a smooth function of the data, and its differential solves one more
Newton system with the matrix of the last step. With L_i the Laplacian of the graph between the classes of row i, V_i
the pull of its pushes and H = P + sum_i L_i (x) a_i a_i',

    dz = H^-1 (sum_i dV_i (x) a_i + V_i (x) da_i - dP z) - sum_i H^-1 (L_i (x) a_i) (z da_i)

where dV_i is the pull that a change of c alone makes. As kappa -> 0 this is the derivative of the minimiser wherever no
row changes sides. The weights of edges of the graph between tied classes grow without bound, so that H would lose what
it says of all other directions; those of largest weight enter as equations of their own instead, which hold exactly in
the limit. The two matrices are made in float64; applied to tangents they are ordinary linear maps in the caller's
dtype, which transpose.

Amos and Kolter, OptNet, 2017; Blondel et al., Efficient and modular implicit differentiation, 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._methods.implicit import bordered_inverse, tangent_of, with_tangent
from jaxhinge._methods.multiclass.interior_point import interior_point_steps, newton_edges, pushes_of
from jaxhinge._methods.multiclass.linear_systems import Edges, by_matrix, penalised_system
from jaxhinge._methods.multiclass.program import Program
from jaxhinge._methods.multiclass.stages import (
    Config,
    LabelledRows,
    canonical,
    cold_start,
    solve_rows,
    task_of,
)
from jaxhinge._methods.problem import Answer, Start

# `_TIGHT`: complementarity, relative to the objective, at which the solution is differentiated.
_TIGHT = 1e-12
# `_TIGHT_STEPS`: steps at most on the way there.
_TIGHT_STEPS = 100
# `_EQUATIONS`: so many edges for each unknown become equations; among three tied classes the third follows from two.
_EQUATIONS = 2
# `_NEVER`: a tolerance that no gap meets, so that only complementarity ends the steps.
_NEVER = -1


class Sensitivity(NamedTuple):
    """What the tangents are made of, in centred features.

    Attributes:
      z: `(k, p)`, the solution.
      centre: `(d,)`, what was taken from the features.
      fraction: `(k, n)`, the pushes but for `c`.
      losses: `(n,)`.
      inverse: `(k p, (k - 1) p)`, `H^-1` for right-hand sides that sum to 0 over the classes.
      response: `(k p, k n)`, `-H^-1 (L_i (x) a_i)`.
    """

    z: jax.Array
    centre: jax.Array
    fraction: jax.Array
    losses: jax.Array
    inverse: jax.Array
    response: jax.Array


@lru_cache
def differentiable(config: Config) -> Callable[[LabelledRows, Start, jax.Array, jax.Array], Answer]:
    """`solve_rows` behind the float64 boundary, with a derivative in the rows."""

    def tangent(rows: LabelledRows, sensitivity: Any, change: LabelledRows, answer: Answer) -> Answer:
        return _tangent(config, rows, sensitivity(rows), change, answer)

    return with_tangent(config, solve_rows, _sensitivity, tangent)


def _sensitivity(config: Config, rows: LabelledRows) -> Sensitivity:
    program, centre, _ = task_of(config, rows)
    system, never = by_matrix(program), jnp.asarray(_NEVER, program.c.dtype)
    progress = interior_point_steps(program, cold_start(program), system, never, jnp.int32(_TIGHT_STEPS), _TIGHT)
    point, best = progress.point, progress.best
    inverse, response = _newton_maps(program, newton_edges(program, point))
    z = canonical(program, best.z)
    excess = jnp.maximum(_violations(rows, program.scores(z)), 0)
    losses = jnp.sum(excess, axis=0) if config.summed else jnp.max(excess, axis=0)
    # A row without weight has no dual: the slope of its loss tells what a little weight would do.
    idle = (excess > 0).astype(excess.dtype)
    if not config.summed:
        idle = idle * (excess == losses[None, :])
        idle = idle / jnp.maximum(jnp.sum(idle, axis=0), 1)[None, :]
    fraction = pushes_of(program, point.f) / program.c[None, :]
    fraction = jnp.where(rows.c[None, :] > 0, fraction, idle)
    return Sensitivity(z, centre, fraction, losses, inverse, response)


def _newton_maps(program: Program, edges: Edges) -> tuple[jax.Array, jax.Array]:
    """`H^-1` and `-H^-1 (L_i (x) a_i)`, however large some weights of edges are.

    With B the edges of largest weight, D these weights and H_R the rest of H, they are blocks of the inverse of
    `[[H_R, B'], [B, -1 / D]]`. The last class is left out of H, as in `by_matrix`.
    """
    at = program.rows.whole
    (p, n), k = at.shape, len(program.label)
    first, second = np.triu_indices(k, 1)
    ends = jnp.asarray(np.eye(k)[first] - np.eye(k)[second], at.dtype)
    weight = edges.left[first] * edges.right[second] + edges.right[first] * edges.left[second]
    number = min(_EQUATIONS * (k - 1) * p, weight.size)
    largest, chosen = jax.lax.top_k(weight.ravel(), number)
    rest = weight.ravel().at[chosen].set(0).reshape(weight.shape)
    exists = largest > 0
    sides = jnp.where(exists[:, None], ends[chosen // n], 0)
    rows = sides[:, : k - 1, None] * at.T[chosen % n][:, None, :]
    grams = (rest[:, None, :] * at[None]).reshape(-1, n) @ at.T
    graph = jnp.einsum("ma,mb,mpq->apbq", ends[:, :-1], ends[:, :-1], grams.reshape(-1, p, p))
    reduced = penalised_system(program, graph).reshape((k - 1) * p, (k - 1) * p)
    penalised = jnp.tile(program.penalty > 0, k - 1)
    blocks = bordered_inverse(reduced, penalised, rows.reshape(number, -1), 1 / jnp.where(exists, largest, 1))
    columns, equations = jnp.split(blocks[: (k - 1) * p], [(k - 1) * p], axis=1)
    laplacians = jnp.einsum("ma,mb,mn->abn", ends, ends, rest)[:-1]
    response = -columns @ (laplacians[:, None] * at[None, :, None, :]).reshape(-1, k * n)
    places = jnp.arange(k)[None, :] * n + (chosen % n)[:, None]
    response = response.at[:, places].add(-equations[:, :, None] * sides[None])
    return _all_classes(program, columns), _all_classes(program, response)


def _all_classes(program: Program, columns: jax.Array) -> jax.Array:
    """Columns of differences from the last class as columns of parameters, `(k p, m)`."""
    k, m = len(program.label), columns.shape[1]
    differences = jnp.concatenate([columns.reshape(k - 1, -1, m), jnp.zeros_like(columns.reshape(k - 1, -1, m)[:1])])
    found: jax.Array = jax.vmap(partial(canonical, program), in_axes=2, out_axes=2)(differences)
    return found.reshape(-1, m)


def _own(rows: LabelledRows, num_classes: int) -> jax.Array:
    """`(k, n)`, 1 for the label of a row, whether it counts or not."""
    own: jax.Array = (rows.labels[None, :] == jnp.arange(num_classes)[:, None]).astype(rows.c.dtype)
    return own


def _violations(rows: LabelledRows, scores: jax.Array) -> jax.Array:
    """`1 + s_ij - s_il`, and 0 for the label, of all rows, whether they count or not."""
    own = _own(rows, len(scores))
    violations: jax.Array = (1 - own) * (1 + scores - jnp.sum(own * scores, axis=0)[None, :])
    return violations


def _tangent(config: Config, rows: LabelledRows, at: Sensitivity, change: LabelledRows, answer: Answer) -> Answer:
    (k, p), d = at.z.shape, len(at.centre)
    own = _own(rows, k)

    def pull(push: jax.Array) -> jax.Array:
        return own * jnp.sum(push, axis=0)[None, :] - push

    w, penalised = at.z[:, :d], jnp.ones((1, p), at.z.dtype)
    if config.intercept == "free":
        penalised = penalised.at[:, d].set(0)
    fixed = pull(rows.c[None, :] * at.fraction)
    weighing = pull(change.c[None, :] * at.fraction)
    by_features = fixed @ change.xt.T + weighing @ (rows.xt - at.centre[:, None]).T
    by_bias = jnp.sum(weighing, axis=1)[:, None] if p > d else weighing[:, :0]
    rhs = jnp.concatenate([by_features, by_bias], axis=1) - change.l2 * penalised * at.z
    moved = w @ change.xt
    dz = (at.inverse @ rhs[:-1].ravel() + at.response @ moved.ravel()).reshape(k, p)
    value = change.l2 / 2 * jnp.sum(penalised * at.z * at.z) + change.c @ at.losses - jnp.sum(fixed * moved)
    db = dz[:, d] - dz[:, :d] @ at.centre if p > d else jnp.zeros_like(answer.b)
    return tangent_of(answer, dz[:, :d].T, db, value)
