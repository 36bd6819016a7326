"""The loss of one score per class where several classes are right at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxhinge._base.arrays import as_array, at_least_float32, float_array, label_array, option_like, same_shape
from jaxhinge.losses._kink import never_positive, positive_part


def multilabel_margin_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Multilabel margin loss: every right class against every wrong one, per example.

    .. math::
        \frac1k \sum_{t \in \mathrm{targets}} \sum_{j \notin \mathrm{targets}} \max(0, \mathrm{margin} + s_j - s_t)

    The pairs of an example are computed at once, so memory grows with `k^2`. A mask of the right classes becomes
    targets with `-jnp.sort(-jnp.where(mask, jnp.arange(k), -1), axis=-1)`.

    Args:
      scores: `(..., k)`, floating. Differentiable: each pair that violates the margin adds `1/k` to the
        slope of the wrong class and takes it from the right one; a pair on the kink, `subgradient` times that.
      targets: Integers, the shape of `scores`: the right classes of each example, in any order, then -1 up to
        the end. What follows the first -1 is ignored, a class that is listed twice counts twice, and one
        outside `-1..k-1` gives NaN.
      margin: The margin that is asked for; a number or one for each example.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin + s_j - s_t| <= kink_tol` counts as the kink.

    Returns:
      Losses `(...)` in the dtype of `scores`; 0 where no class is right, or all are. A NaN score gives NaN.

    Raises:
      ValueError: Shapes differ, or there is no axis of classes.
      TypeError: `targets` are not integers, or scores are not real numbers.

    References:
      Elisseeff and Weston, A kernel method for multi-labelled classification, 2001. Values as
      `torch.nn.functional.multilabel_margin_loss(..., reduction="none")`.

    >>> import jax, jax.numpy as jnp, jaxhinge
    >>> scores, targets = jnp.array([0.5, 0.25, 0.0, 2.0]), jnp.array([3, 0, -1, -1])
    >>> float(jaxhinge.losses.multilabel_margin_loss(scores, targets))
    0.3125
    >>> print(jax.grad(jaxhinge.losses.multilabel_margin_loss)(scores, targets))
    [-0.5   0.25  0.25  0.  ]
    """
    scores = float_array("scores", scores)
    if as_array("targets", targets).dtype == jnp.bool_:
        raise TypeError(
            "targets must list the right classes; got booleans. Convert a mask: "
            "-jnp.sort(-jnp.where(targets, jnp.arange(targets.shape[-1]), -1), axis=-1)."
        )
    targets = label_array("targets", targets)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"scores must end in an axis of at least one class; got shape {scores.shape}.")
    num_classes = scores.shape[-1]
    if targets.shape == scores.shape[:-1]:
        raise ValueError(
            f"targets has shape {targets.shape} but scores has shape {scores.shape}; they must be equal: the right "
            "classes of a row, then -1 up to the end. One label for each row: multiclass_hinge_loss."
        )
    same_shape("targets", targets, "scores", scores)
    times = _times_listed(targets, num_classes)
    right = times > 0
    # [..., t, j]: the right class t against the wrong class j. The scores are subtracted first, as huge ones would
    # round the margin away.
    margin = option_like("margin", margin, scores[..., 0])
    margin = jnp.broadcast_to(margin[..., None, None], (*scores.shape, num_classes))
    difference = scores[..., None, :] - scores[..., :, None]
    # A bad target gives NaN, and so does a NaN score, though it be in no pair: all of them count in the row then.
    known = jnp.all((targets < num_classes) & (targets + 1 >= 0), axis=-1, keepdims=True)
    nan = (~known | jnp.any(jnp.isnan(scores), axis=-1, keepdims=True))[..., None]
    counts = (right[..., :, None] & ~right[..., None, :]) | nan
    pairs = jnp.where(counts, margin + difference, never_positive(scores.dtype))
    pairs = pairs + jnp.where(nan, jnp.nan, 0).astype(scores.dtype)
    losses = positive_part(pairs, subgradient=subgradient, kink_tol=kink_tol)
    wide = at_least_float32(scores.dtype)
    total = jnp.sum(times.astype(wide)[..., None] * losses.astype(wide), axis=(-2, -1))
    return (total / num_classes).astype(scores.dtype)


def _times_listed(targets: jax.Array, num_classes: int) -> jax.Array:
    """How often each class is listed before the first negative target."""
    listed = jax.lax.cummin(targets, axis=targets.ndim - 1) >= 0
    classes = jax.lax.broadcasted_iota(targets.dtype, (*targets.shape, num_classes), targets.ndim)
    return jnp.sum((targets[..., None] == classes) & listed[..., None], axis=-2)
