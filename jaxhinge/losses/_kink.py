"""The two places where a hinge has no derivative, each with a rule that the caller chooses.

`positive_part` is the only `max(0, .)` of the package and `max_over_classes` the only `max` over
classes. Automatic differentiation returns some value at such points, and which one depends on how
the maximum was spelled (Bolte and Pauwels, Conservative set valued fields, 2021; Bertoin et al.,
Numerical influence of ReLU'(0) on backpropagation, 2021). Here it is an argument.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxhinge._base.arrays import at_least_float32, check_real_number, float_array, option_like

Ties = Literal["uniform", "first"]


def positive_part(z: ArrayLike, *, subgradient: ArrayLike = 0.0, kink_tol: ArrayLike = 0.0) -> jax.Array:
    r"""The positive part `max(0, z)`, with the derivative at `z = 0` chosen by name.

    .. math::
        \partial \max(0, z) = \{0\} \text{ if } z < 0, \quad [0, 1] \text{ if } z = 0, \quad \{1\} \text{ if } z > 0

    Args:
      z: Any shape, any floating dtype (integers are converted).
      subgradient: The derivative taken on the kink, in [0, 1]; a number or an array of the shape of
        `z`. It may be traced. Its own derivative is 0.
      kink_tol: Every `|z| <= kink_tol` counts as on the kink. It changes derivatives, never values.

    Returns:
      An array of the shape and dtype of `z`. NaN stays NaN, in the value and in the derivative; at
      infinity the derivative is its limit. The second derivative is 0 everywhere.

    Raises:
      TypeError: `z` or an option is not real.
      ValueError: `subgradient` is a number outside [0, 1], `kink_tol` is a negative number, or the
        shape of one of them is neither `()` nor that of `z`.

    References:
      Boyd and Vandenberghe, Subgradients (lecture notes to Convex Optimization), 2004.

    >>> import jax, jaxhinge
    >>> [float(jax.grad(jaxhinge.positive_part)(z)) for z in (-1.0, 0.0, 1.0)]
    [0.0, 0.0, 1.0]
    >>> float(jax.grad(lambda z: jaxhinge.positive_part(z, subgradient=0.5))(0.0))
    0.5
    """
    z = float_array("z", z)
    check_real_number(
        "subgradient",
        subgradient,
        meaning="the slope of max(0, z) at z = 0, in [0, 1] (for a hinge the slope in the margin is its negative)",
        valid=lambda value: 0.0 <= value <= 1.0,
    )
    check_real_number("kink_tol", kink_tol, meaning="a tolerance on |z|, at least 0", valid=lambda value: value >= 0.0)
    subgradient = option_like("subgradient", subgradient, z)
    kink_tol = option_like("kink_tol", kink_tol, z)
    return _positive_part(z, jax.lax.stop_gradient(subgradient), jax.lax.stop_gradient(kink_tol))


@jax.custom_jvp
def _positive_part(z: jax.Array, subgradient: jax.Array, kink_tol: jax.Array) -> jax.Array:
    del subgradient, kink_tol
    return jnp.maximum(z, 0)


@_positive_part.defjvp
def _positive_part_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    z, subgradient, kink_tol = jax.lax.stop_gradient(primals)
    # `sign` and `maximum` keep NaN, so the slope at NaN is NaN.
    slope = jnp.where(jnp.abs(z) <= kink_tol, subgradient, jnp.maximum(jnp.sign(z), 0))
    return _positive_part(*primals), slope * tangents[0]


def hinge(margin: ArrayLike, *, subgradient: ArrayLike = 0.0, kink_tol: ArrayLike = 0.0) -> jax.Array:
    r"""The hinge `max(0, 1 - margin)`, elementwise.

    Its derivative in the margin is -1 below 1, 0 above 1, and `-subgradient` at 1 (wherever
    `|1 - margin| <= kink_tol`). With the default, a point exactly on the margin has no gradient.

    Args:
      margin: `y * score`, any shape, any floating dtype (integers are converted).
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: Half the width of the band around margin 1 that counts as the kink.

    Returns:
      An array of the shape and dtype of `margin`.

    Raises:
      TypeError, ValueError: As `positive_part` does.

    References:
      Cortes and Vapnik, Support-vector networks, 1995.

    >>> import jax, jaxhinge
    >>> print(jaxhinge.hinge(jax.numpy.array([-1.0, 0.5, 1.0, 3.0])))
    [2.  0.5 0.  0. ]
    >>> slope = jax.grad(jaxhinge.hinge)
    >>> [float(slope(1.0, subgradient=s)) for s in (0.0, 0.5, 1.0)]
    [-0.0, -0.5, -1.0]
    """
    margin = float_array("margin", margin)
    return positive_part(1 - margin, subgradient=subgradient, kink_tol=kink_tol)


def never_positive(dtype: DTypeLike) -> float:
    """The lowest finite number of a dtype, in the place of classes that take no part in a sum or maximum.

    Minus infinity would do as well, but `jax_debug_infs` would report it.
    """
    return float(jnp.finfo(dtype).min)  # type: ignore[no-untyped-call]


def max_over_classes(z: jax.Array, *, ties: Ties = "uniform") -> jax.Array:
    """The maximum over the last axis, with the derivative at a tie chosen by name.

    `ties="uniform"` shares the slope equally among the tied classes (the centroid of the
    subdifferential's corners), `"first"` gives it to the lowest index. NaN anywhere in a row makes
    the value and the derivative of that row NaN.
    """
    if not isinstance(ties, str) or ties not in ("uniform", "first"):
        raise ValueError(f'ties must be "uniform" or "first"; got {ties!r}.')
    return _max_over_classes(z, ties)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_over_classes(z: jax.Array, ties: Ties) -> jax.Array:
    del ties
    return jnp.max(z, axis=-1)


@_max_over_classes.defjvp
def _max_over_classes_jvp(
    ties: Ties, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    largest = _max_over_classes(*primals, ties)
    z, top = jax.lax.stop_gradient((primals[0], largest[..., None]))
    if ties == "uniform":
        # The tied classes are counted in float32: in float16 a count above 65,504 is infinite.
        tied = (z == top).astype(at_least_float32(z.dtype))
        share = (tied / jnp.sum(tied, axis=-1, keepdims=True)).astype(z.dtype)
    else:
        share = jax.nn.one_hot(jnp.argmax(z, axis=-1), z.shape[-1], dtype=z.dtype)
    share = jnp.where(jnp.isnan(top), top, share)
    return largest, jnp.sum(share * tangents[0], axis=-1)
