"""Losses that compare: two scores, a distance, or three points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxhinge._base.arrays import (
    at_least_float32,
    common_dtype,
    flag,
    float_array,
    option_like,
    same_shape,
    target_array,
)
from jaxhinge.losses._binary import hinge_loss
from jaxhinge.losses._kink import max_over_classes, positive_part
from jaxhinge.losses._norm import p_norm

# torch.nn.functional.pairwise_distance adds this to every coordinate of the difference.
_DISTANCE_EPS = 1e-6


def margin_ranking_loss(
    scores1: ArrayLike,
    scores2: ArrayLike,
    targets: ArrayLike,
    *,
    margin: ArrayLike = 0.0,
    subgradient: ArrayLike = 1.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Margin ranking loss `max(0, margin - target * (scores1 - scores2))`, per pair.

    Args:
      scores1: Any shape, floating. Differentiable, as `hinge_loss` is in its score.
      scores2: The shape of `scores1`. Differentiable.
      targets: +1 where `scores1` should be the larger, -1 where `scores2` should; the shape of
        `scores1`, or one scalar for all. A tied pair, target 0, has slope 0; as an integer, 0 is refused as
        `hinge_loss` does (`numpy.sign` of integers gives it: drop such pairs, or pass floats).
      margin: The margin that is asked for; a number or one for each pair.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1]. The default is 1: with
        a margin of 0, equal scores would never move apart.
      kink_tol: `|margin - target * (scores1 - scores2)| <= kink_tol` counts as the kink.

    Returns:
      Losses in the shape of `scores1`, in the common dtype of the scores.

    Raises:
      ValueError, TypeError: As `hinge_loss` does.

    References:
      Joachims, Optimizing search engines using clickthrough data, 2002. Values as
      `torch.nn.functional.margin_ranking_loss(..., reduction="none")`.

    >>> import jaxhinge
    >>> float(jaxhinge.losses.margin_ranking_loss(2.0, 1.5, 1, margin=1.0))
    0.5
    """
    scores1 = float_array("scores1", scores1)
    scores2 = same_shape("scores2", float_array("scores2", scores2), "scores1", scores1)
    dtype = common_dtype(scores1, scores2)
    return hinge_loss(
        scores1.astype(dtype) - scores2.astype(dtype),
        targets,
        margin=margin,
        subgradient=subgradient,
        kink_tol=kink_tol,
    )


def hinge_embedding_loss(
    distances: ArrayLike,
    targets: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Hinge embedding loss, per pair: `distance` where target is +1, `max(0, margin - distance)` where it is -1.

    Args:
      distances: Any shape, floating. Differentiable: the slope is 1 for similar pairs; for
        dissimilar ones -1 below the margin, 0 above it, `-subgradient` on it.
      targets: +1 for similar and -1 for dissimilar pairs; the shape of `distances`, or one scalar.
        Any other target gives NaN, but integers that hold a 0 are refused, as `hinge_loss` does.
      margin: The distance beyond which a dissimilar pair is left alone.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin - distance| <= kink_tol` counts as the kink.

    Returns:
      Losses in the shape and dtype of `distances`.

    Raises:
      ValueError, TypeError: As `hinge_loss` does.

    References:
      Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant mapping, 2006.
      Values as `torch.nn.functional.hinge_embedding_loss(..., reduction="none")`.

    >>> import jax.numpy as jnp, jaxhinge
    >>> print(jaxhinge.losses.hinge_embedding_loss(jnp.array([0.25, 0.25]), jnp.array([1, -1])))
    [0.25 0.75]
    """
    distances = float_array("distances", distances)
    targets = target_array("targets", targets, distances)
    apart = hinge_loss(distances, 1, margin=margin, subgradient=subgradient, kink_tol=kink_tol)
    # `known` is a factor of the loss, so that the gradient of a bad target is NaN too.
    known = jnp.where(jnp.abs(targets) == 1, 1, jnp.nan).astype(distances.dtype)
    return known * jnp.where(targets == 1, distances, apart)


def triplet_margin_loss(
    anchor: ArrayLike,
    positive: ArrayLike,
    negative: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    p: ArrayLike = 2,
    swap: bool = False,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Triplet loss `max(0, margin + |anchor - positive| - |anchor - negative|)`, per triplet.

    The distance is the `p`-norm over the last axis, with 1e-6 added to every coordinate of the
    difference as torch does. Where a distance is exactly 0, its gradient is taken as 0, and so is the slope of
    a coordinate whose difference is 0.

    Args:
      anchor: `(..., d)`, floating. Differentiable, like the other two points.
      positive: A point of the same kind, the shape of `anchor`.
      negative: A point of another kind, the shape of `anchor`.
      margin: By how much the negative should be farther; a number or one for each triplet.
      p: The order of the norm, at least 1: 2 for the Euclidean distance, 1 for the sum of the coordinates,
        `math.inf` for the largest (those that tie share the slope). One number, which may be traced; its own
        derivative is taken as 0.
      swap: Whether `|positive - negative|` takes the place of `|anchor - negative|` where it is smaller, so
        that the negative keeps its distance from both. Where the two are equal, each has half of the slope.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin + |a - p| - |a - n|| <= kink_tol` counts as the kink.

    Returns:
      Losses `(...)` in the common dtype of the points.

    Raises:
      ValueError: Shapes differ, there is no last axis of coordinates, or `p` is a number below 1.
      TypeError: Points or options are not real numbers, or `swap` is not a Python boolean.

    References:
      Balntas et al., Learning local feature descriptors with triplets and shallow convolutional
      neural networks, 2016. Values as `torch.nn.functional.triplet_margin_loss(..., reduction="none")`.

    >>> import jax.numpy as jnp, jaxhinge
    >>> anchor, positive, negative = jnp.zeros(2), jnp.array([3.0, 4.0]), jnp.array([0.0, 5.5])
    >>> print(round(float(jaxhinge.losses.triplet_margin_loss(anchor, positive, negative)), 3))
    0.5
    """
    anchor = float_array("anchor", anchor)
    positive = same_shape("positive", float_array("positive", positive), "anchor", anchor)
    negative = same_shape("negative", float_array("negative", negative), "anchor", anchor)
    if anchor.ndim == 0 or anchor.shape[-1] == 0:
        raise ValueError(f"anchor must end in an axis of at least one coordinate; got shape {anchor.shape}.")
    dtype = common_dtype(anchor, positive, negative)
    to_negative = _distance(anchor, negative, p, dtype)
    if flag("swap", swap):
        nearest = jnp.stack([to_negative, _distance(positive, negative, p, dtype)], axis=-1)
        to_negative = -max_over_classes(-nearest, ties="uniform")
    excess = _distance(anchor, positive, p, dtype) - to_negative
    margin = option_like("margin", margin, excess)
    return positive_part(margin + excess, subgradient=subgradient, kink_tol=kink_tol)


def _distance(a: jax.Array, b: jax.Array, p: ArrayLike, dtype: DTypeLike) -> jax.Array:
    """The distance over the last axis, computed in float32 at least: 1e-6 is nearly lost in float16."""
    wide = at_least_float32(dtype)
    return p_norm(a.astype(wide) - b.astype(wide) + _DISTANCE_EPS, p).astype(dtype)
