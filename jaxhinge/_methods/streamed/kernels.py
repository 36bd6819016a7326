r"""What is computed of one block of rows, and how; the kernels that every streamed solve needs.

A kernel gets a block of rows and gives back what belongs to each row, sums over the block, and the largest of some
number. In it the block is cut into slices, and what a slice needs stays in a cache until the slice is done with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxhinge._base.precision import eps
from jaxhinge._methods.certificate import Program
from jaxhinge._methods.linear_systems import factored, solved
from jaxhinge._methods.problem import Intercept
from jaxhinge._methods.streamed.blocks import SLICE
from jaxhinge._rows.columns import Columns
from jaxhinge._rows.gram import weighted_gram

# `_FEW`: at most so many rows of a slice are gathered for their Gram matrix. Near the kink there are seldom more.
_FEW = SLICE // 8


class KernelConfig(NamedTuple):
    """What the kernels are compiled for; `dtype` is that of the work."""

    squared: bool
    intercept: Intercept
    dtype: Any


class Coordinates(NamedTuple):
    """What all blocks share.

    Attributes:
      centre: `(d,)`, taken from the features; 0 but for a free bias.
      normal: `(p,)`, of the reflection `a - (scaled . a) normal` that turns the rows where no free bias takes up their
        common offset: one coordinate then holds it.
      scaled: `(p,)`.
      total: The sum of the weights.
      stand_in: The weight of a row that does not count.
      shares: The sum of `c`: 1, and what stands in.
    """

    centre: Any
    normal: Any
    scaled: Any
    total: Any
    stand_in: Any
    shares: Any


class Block(NamedTuple):
    """Rows on their way into a kernel: `x` `(m, d)`, int8 `sign` `(m,)`, 0 for padding, `weight` `(m,)` or None."""

    x: Any
    sign: Any
    weight: Any


class Certificate(NamedTuple):
    """Sums over rows from which the primal value of a point and the value of a dual point follow.

    Attributes:
      loss: The weighted loss.
      adjoint: `(2, p)`, `sum alpha_i a_i` over the rows of either sign.
      sides: `(2,)`, `sum alpha_i` over them.
      squares: `(2,)`, `sum alpha_i^2 / (4 c_i)`.
    """

    loss: Any
    adjoint: Any
    sides: Any
    squares: Any


class Smoothed(NamedTuple):
    """Sums over rows at a point of the smoothed objective.

    Attributes:
      certificate: Of the point, and of the dual point that its slopes are.
      loss: The weighted smoothed loss.
      slack: What the gap would be if the point were the minimiser, but for the difference of the two losses.
      gram: `(p, p)`, the second derivative of `loss`.
    """

    certificate: Certificate
    loss: Any
    slack: Any
    gram: Any


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled in float64, whatever the flags say in the thread that calls it; a `kernel_config` is static."""
    static = [name for name in inspect.signature(function).parameters if name == "kernel_config"]
    compiled = jax.jit(function, static_argnames=static)

    @wraps(function)
    def call(*args: Any) -> Any:
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            return compiled(*args)

    return call


def sliced(function: Callable[..., Any], block: Block, rows: Any) -> Any:
    """`function` of every slice: `(per row, sums, largest)` joined, added up, and the largest of all."""
    split = partial(jax.tree.map, lambda leaf: leaf.reshape(-1, SLICE, *leaf.shape[1:]))
    per_row, sums, largest = jax.lax.map(lambda part: function(*part), (split(block), split(rows)))
    joined = jax.tree.map(lambda leaf: leaf.reshape(-1), per_row)
    total = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), sums)
    return joined, total, jax.tree.map(jnp.max, largest)


def program_of(kernel_config: KernelConfig, coordinates: Coordinates, block: Block) -> Program:
    """The program of a slice, without what belongs to all rows together."""
    dtype = kernel_config.dtype
    wide = jnp.promote_types(block.x.dtype, dtype)
    features = (block.x.astype(wide) - coordinates.centre.astype(wide)[None, :]).astype(dtype).T
    if kernel_config.intercept != "none":
        features = jnp.concatenate([features, jnp.ones_like(features[:1])])
    if kernel_config.intercept != "free":
        features = features - jnp.tensordot(
            coordinates.normal.astype(dtype), coordinates.scaled.astype(dtype) @ features, axes=0
        )
    sign, c = _signs_and_shares(coordinates, block, dtype)
    none = jnp.zeros_like(features[:, 0])
    return Program(
        Columns(features), sign, jnp.abs(sign), c, none, none, kernel_config.squared, kernel_config.intercept == "free"
    )


def _signs_and_shares(coordinates: Coordinates, block: Block, dtype: Any) -> tuple[jax.Array, jax.Array]:
    sign = block.sign.astype(dtype)
    weight = jnp.where(sign != 0, 1, coordinates.stand_in) if block.weight is None else block.weight
    counts = (sign != 0) & (weight > 0)
    c = jnp.where(counts, weight, coordinates.stand_in) / coordinates.total
    return jnp.where(counts, sign, 0), c.astype(dtype)


def adjoints(program: Program, alphas: list[jax.Array]) -> jax.Array:
    """`(len(alphas), p)`, in one product."""
    sums: jax.Array = (program.sign[None, :] * jnp.stack(alphas)) @ program.rows.features.T
    return sums


def boxed(program: Program, alpha: jax.Array) -> jax.Array:
    """`alpha` within its bounds."""
    return jnp.maximum(alpha, 0) if program.squared else jnp.clip(alpha, 0, program.c)


def by_side(sign: jax.Array, alpha: jax.Array) -> list[jax.Array]:
    """`alpha` of the rows of either sign, 0 for the others."""
    return [jnp.where(sign > 0, alpha, 0), jnp.where(sign < 0, alpha, 0)]


def certificate(program: Program, violations: jax.Array, alpha: jax.Array, products: jax.Array) -> Certificate:
    """The sums, given `adjoints` of the two sides."""
    excess = jnp.maximum(violations, 0)
    loss = program.c @ (excess * excess if program.squared else excess)
    parts = jnp.stack(by_side(program.sign, alpha))
    return Certificate(loss, products, jnp.sum(parts, axis=1), jnp.sum(parts**2 / (4 * program.c[None, :]), axis=1))


@kernel
def first_pass_sums(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`weight @ x` in float64, and whether all of `x` is finite."""

    def function(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, weight = part
        return weight @ x.astype(weight.dtype), jnp.all(jnp.isfinite(x))

    split = (x.reshape(-1, SLICE, x.shape[1]), weight.reshape(-1, SLICE))
    sums, finite = jax.lax.map(function, split)
    return jnp.sum(sums, axis=0), jnp.all(finite)


@kernel
def certified_sums(
    kernel_config: KernelConfig, coordinates: Coordinates, block: Block, w: jax.Array, b: jax.Array, alpha: jax.Array
) -> Any:
    """The certificate of parameters and a dual, in the precision of `kernel_config`, nothing centred or turned."""

    def function(block: Block, alpha: jax.Array) -> Any:
        sign, c = _signs_and_shares(coordinates, block, kernel_config.dtype)
        x = block.x.astype(kernel_config.dtype)
        none = jnp.zeros((), kernel_config.dtype)
        program = Program(
            Columns(x.T), sign, jnp.abs(sign), c, none, none, kernel_config.squared, kernel_config.intercept == "free"
        )
        alpha = jnp.where(sign == 0, 0, boxed(program, alpha.astype(kernel_config.dtype)))
        violations = program.r - sign * (x @ w.astype(kernel_config.dtype) + b.astype(kernel_config.dtype))
        return None, certificate(program, violations, alpha, adjoints(program, by_side(sign, alpha))), None

    return sliced(function, block, alpha)


@kernel
def smoothed(
    kernel_config: KernelConfig, coordinates: Coordinates, block: Block, z: jax.Array, width: jax.Array
) -> Any:
    """The smoothed objective at `z`, its derivatives, and the dual point that its slopes are, in one pass.

    The hinge of a violation `v` becomes `(v + h)^2 / (4 h)` for `|v| < h`, h the width (Huber's; Chapelle, 2007); its
    slope there is `u = (v + h) / (2 h)`. At the minimiser, where `sum c_i u_i a_i` is what the penalty pulls, the dual
    point `c u` leaves a gap of `sum c_i h u_i (1 - u_i)` less what smoothing has added to the objective. The squared
    hinge is smooth as it is.
    """

    def function(block: Block, _: None) -> Any:
        program = program_of(kernel_config, coordinates, block)
        v = program.r - program.scores(z.astype(kernel_config.dtype))
        h = width.astype(kernel_config.dtype)
        if kernel_config.squared:
            excess = jnp.maximum(v, 0)
            u, loss, slack = 2 * excess, excess * excess, jnp.zeros_like(v)
            curvature = jnp.where(v > 0, jnp.full_like(v, 2), 0)
        else:
            u = jnp.clip((v + h) / (2 * h), 0, 1)
            loss, slack = jnp.where(v < h, h * u * u, v), h * u * (1 - u)
            curvature = jnp.where((u > 0) & (u < 1), 1 / (2 * h), 0)
        c, alpha = program.c, program.c * u
        products = adjoints(program, by_side(program.sign, alpha))
        found = certificate(program, v, alpha, products)
        gram = _gram_of_few(program.rows.features, c * curvature * program.sign * program.sign)
        counted = c * jnp.abs(program.sign)
        return alpha, Smoothed(found, counted @ loss, counted @ slack, gram), None

    return sliced(function, block, None)


def _gram_of_few(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """`rows @ diag(weight) @ rows.T`, of those columns only that have a weight, where they are few."""

    def few() -> jax.Array:
        chosen = jnp.nonzero(weight, size=_FEW, fill_value=0)[0]
        # Unused places are filled with column 0 and a weight of 0.
        real = jnp.arange(_FEW) < jnp.count_nonzero(weight)
        gram: jax.Array = weighted_gram(rows[:, chosen], jnp.where(real, weight[chosen], 0))
        return gram

    gram: jax.Array = jax.lax.cond(jnp.count_nonzero(weight) <= _FEW, few, lambda: weighted_gram(rows, weight))
    return gram


@kernel
def newton_step(
    kernel_config: KernelConfig, penalty: jax.Array, z: jax.Array, sums: Smoothed
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The value of the smoothed objective, the Newton direction, and how fast the objective falls along it."""
    gradient = penalty * z - jnp.sum(sums.certificate.adjoint, axis=0)
    factor = factored(sums.gram + jnp.diag(penalty), eps(kernel_config.dtype))
    dz = solved(factor, -gradient)
    return penalty @ (z * z) / 2 + sums.loss, dz, -gradient @ dz


@kernel
def slope(penalty: jax.Array, z: jax.Array, sums: Smoothed, dz: jax.Array) -> jax.Array:
    """Of the smoothed objective along `dz`."""
    return (penalty * z - jnp.sum(sums.certificate.adjoint, axis=0)) @ dz
