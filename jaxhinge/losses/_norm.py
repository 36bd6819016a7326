"""The p-norm, with a gradient where its formula has none: at 0, at infinity and at ties."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import check_real_number, scalar_like
from jaxhinge.losses._kink import max_over_classes


def p_norm(x: jax.Array, p: ArrayLike) -> jax.Array:
    r"""`(sum_i |x_i|^p)^(1/p)` over the last axis, for `1 <= p <= inf`; `p` may be traced.

    Where the norm is 0 its gradient is 0, and so is that of a coordinate which is 0. For `p = inf` the
    largest coordinates share the slope. Infinite coordinates count as equally large. The derivative in `p`
    is taken as 0.
    """
    meaning = "the order of the norm, at least 1 (math.inf for the largest coordinate)"
    check_real_number("p", p, meaning=meaning, valid=lambda value: value >= 1)
    number = p if isinstance(p, (int, float, np.integer, np.floating)) else None
    if number == 1:
        return jnp.sum(_size(x), axis=-1)
    if number == math.inf:
        return max_over_classes(_size(x), ties="uniform")
    order = jax.lax.stop_gradient(scalar_like("p", p, x.dtype))
    return _euclidean(x) if number == 2 else _general(x, order)


@jax.custom_jvp
def _euclidean(x: jax.Array) -> jax.Array:
    unit, scale = _scaled(x)
    return scale * jnp.sqrt(jnp.sum(unit * unit, axis=-1))


@_euclidean.defjvp
def _euclidean_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    unit, _ = _scaled(*primals)
    slope = unit / jnp.sqrt(_not_zero(jnp.sum(unit * unit, axis=-1, keepdims=True)))
    return _euclidean(*primals), jnp.sum(slope * tangents[0], axis=-1)


@jax.custom_jvp
def _general(x: jax.Array, p: jax.Array) -> jax.Array:
    unit, scale = _scaled(x)
    return scale * jnp.sum(jnp.abs(unit) ** p, axis=-1) ** (1 / p)


@_general.defjvp
def _general_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    x, p = primals[0], jax.lax.stop_gradient(primals[1])
    unit, _ = _scaled(x)
    total = _not_zero(jnp.sum(jnp.abs(unit) ** p, axis=-1, keepdims=True))
    # At p = inf, `total` is the number of largest coordinates, and 1 / p is 0.
    slope = jnp.sign(x) * jnp.abs(unit) ** (p - 1) / total ** (1 - 1 / p)
    return _general(x, p), jnp.sum(slope * tangents[0], axis=-1)


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`x` divided by its largest size, and that size: without it the powers of huge coordinates overflow."""
    size = jax.lax.stop_gradient(jnp.abs(x))
    largest = jnp.max(size, axis=-1, keepdims=True)
    unit = x / jnp.where(jnp.isfinite(largest), _not_zero(largest), 1)
    sign = jax.lax.stop_gradient(jnp.sign(x))
    # XLA may multiply by the reciprocal. Then the largest coordinates would not be exactly 1, and for p = inf vanish.
    unit = unit + jax.lax.stop_gradient(jnp.where(size == largest, sign - unit, 0))
    return jnp.where(jnp.isinf(largest), jnp.where(jnp.isinf(x), sign, 0), unit), largest[..., 0]


def _size(x: jax.Array) -> jax.Array:
    """`|x|` with slope 0 at 0, where JAX gives `abs` a slope of 1."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


def _not_zero(values: jax.Array) -> jax.Array:
    return jnp.where(values == 0, 1, values)
