"""Losses of one score per class and an integer label `0..k-1`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxhinge._base.arrays import float_array, label_array, option_like
from jaxhinge.losses._kink import Ties, max_over_classes, positive_part


def multiclass_hinge_loss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    ties: Ties = "uniform",
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Crammer-Singer hinge loss `max(0, max_{j != label} margin + s_j - s_label)`, per example.

    Args:
      scores: `(..., k)`, floating. Differentiable: where the loss is positive, +1 for the largest
        wrong class (shared by `ties`) and -1 for the label; on the kink, `subgradient` times that.
      labels: Integers `0..k-1`, `(...)`, or one scalar for all. A label outside gives NaN.
      margin: The margin that is asked for; a number or one for each example.
      ties: `"uniform"` shares the slope among the tied wrong classes, `"first"` gives it to the
        lowest index.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin + max_j s_j - s_label| <= kink_tol` counts as the kink.

    Returns:
      Losses `(...)` in the dtype of `scores`. A NaN score gives NaN; a wrong class at minus infinity
      is never chosen (NaN where the label's score is minus infinity too); a single class has loss 0.

    Raises:
      ValueError: Shapes do not fit, or `ties` is unknown.
      TypeError: `labels` are not integers, or scores are not real numbers.

    References:
      Crammer and Singer, On the algorithmic implementation of multiclass kernel-based vector
      machines, 2001. Values as `optax.losses.multiclass_hinge_loss`.

    >>> import jax, jax.numpy as jnp, jaxhinge
    >>> scores = jnp.array([1.0, 0.5, 0.5])
    >>> float(jaxhinge.losses.multiclass_hinge_loss(scores, 0))
    0.5
    >>> print(jax.grad(jaxhinge.losses.multiclass_hinge_loss)(scores, 0))
    [-1.   0.5  0.5]
    """
    violations = _violations(scores, labels, margin)
    return positive_part(max_over_classes(violations, ties=ties), subgradient=subgradient, kink_tol=kink_tol)


def weston_watkins_loss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Weston-Watkins hinge loss `sum_{j != label} max(0, margin + s_j - s_label)`, per example.

    This is the multiclass SVM loss of the CS231n course, and `k` times
    `torch.nn.functional.multi_margin_loss`.

    Args:
      scores: `(..., k)`, floating. Differentiable: +1 for every wrong class that violates the
        margin, minus their number for the label; a class on the kink counts `subgradient`.
      labels: Integers `0..k-1`, `(...)`, or one scalar for all. A label outside gives NaN.
      margin: The margin that is asked for; a number or one for each example.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin + s_j - s_label| <= kink_tol` counts as the kink.

    Returns:
      Losses `(...)` in the dtype of `scores`.

    Raises:
      ValueError, TypeError: As `multiclass_hinge_loss` does.

    References:
      Weston and Watkins, Support vector machines for multi-class pattern recognition, 1999.

    >>> import jax, jax.numpy as jnp, jaxhinge
    >>> scores = jnp.array([1.0, 0.5, 0.25])
    >>> float(jaxhinge.losses.weston_watkins_loss(scores, 0))
    0.75
    >>> print(jax.grad(jaxhinge.losses.weston_watkins_loss)(scores, 0))
    [-2.  1.  1.]
    """
    violations = _violations(scores, labels, margin)
    return jnp.sum(positive_part(violations, subgradient=subgradient, kink_tol=kink_tol), axis=-1)


def one_vs_rest_hinge_loss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""One-vs-rest hinge loss `sum_j max(0, margin - t_j s_j)`, `t_j = +1` for the label, else -1, per example.

    Args:
      scores: `(..., k)`, floating. Differentiable, as the binary hinge of each class is.
      labels: Integers `0..k-1`, `(...)`, or one scalar for all. A label outside gives NaN.
      margin: The margin that is asked for; a number or one for each example.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin - t_j s_j| <= kink_tol` counts as the kink.

    Returns:
      Losses `(...)` in the dtype of `scores`.

    Raises:
      ValueError, TypeError: As `multiclass_hinge_loss` does.

    References:
      Rifkin and Klautau, In defense of one-vs-all classification, 2004.

    >>> import jax.numpy as jnp, jaxhinge
    >>> float(jaxhinge.losses.one_vs_rest_hinge_loss(jnp.array([0.5, -2.0, 0.0]), 0))
    1.5
    """
    scores, labels, is_label = _scores_and_labels(scores, labels)
    margin = option_like("margin", margin, labels.astype(scores.dtype))
    z = _over_classes(margin, scores) - jnp.where(is_label, scores, -scores)
    # NaN is added to z, not put in the place of the loss: so the gradient of a bad label is NaN too.
    z = z + jnp.where(jnp.any(is_label, axis=-1, keepdims=True), 0, jnp.nan).astype(z.dtype)
    return jnp.sum(positive_part(z, subgradient=subgradient, kink_tol=kink_tol), axis=-1)


def multiclass_perceptron_loss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.0,
    ties: Ties = "uniform",
    subgradient: ArrayLike = 1.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Multiclass perceptron loss `max(0, max_{j != label} s_j - s_label)`, per example.

    Args:
      scores: `(..., k)`, floating. Differentiable, as `multiclass_hinge_loss` is.
      labels: Integers `0..k-1`, `(...)`, or one scalar for all. A label outside gives NaN.
      margin: The margin that is asked for; a number or one for each example.
      ties: `"uniform"` or `"first"`, as for `multiclass_hinge_loss`.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1]. The default is 1: with
        0, weights that start at 0 would never move.
      kink_tol: `|max_j s_j - s_label| <= kink_tol` counts as the kink.

    Returns:
      Losses `(...)` in the dtype of `scores`.

    Raises:
      ValueError, TypeError: As `multiclass_hinge_loss` does.

    References:
      Collins, Discriminative training methods for hidden Markov models, 2002. Values as
      `optax.losses.multiclass_perceptron_loss`.

    >>> import jax, jax.numpy as jnp, jaxhinge
    >>> print(jax.grad(jaxhinge.losses.multiclass_perceptron_loss)(jnp.zeros(3), 1))
    [ 0.5 -1.   0.5]
    """
    return multiclass_hinge_loss(scores, labels, margin=margin, ties=ties, subgradient=subgradient, kink_tol=kink_tol)


def _violations(scores: ArrayLike, labels: ArrayLike, margin: ArrayLike) -> jax.Array:
    """`margin + (s_j - s_label)` for the wrong classes, minus infinity for the label."""
    scores, labels, is_label = _scores_and_labels(scores, labels)
    margin = _over_classes(option_like("margin", margin, labels.astype(scores.dtype)), scores)
    label_score = jnp.sum(jnp.where(is_label, scores, 0), axis=-1, keepdims=True)
    label_score = jnp.where(jnp.any(is_label, axis=-1, keepdims=True), label_score, jnp.nan)
    # The scores are subtracted first: at 1e9 in float32, margin + s_j would round the margin away.
    violations = margin + (scores - label_score)
    return jnp.where(is_label & ~jnp.isnan(scores), -jnp.inf, violations)


def _scores_and_labels(scores: ArrayLike, labels: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Checked scores `(..., k)`, labels `(...)`, and the mask `(..., k)` of the label's column."""
    scores = float_array("scores", scores)
    labels = label_array("labels", labels)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"scores must end in an axis of at least one class; got shape {scores.shape}.")
    if labels.shape not in ((), scores.shape[:-1]):
        raise ValueError(
            f"labels have shape {labels.shape} but scores have shape {scores.shape}; "
            f"expected one label per row, shape {scores.shape[:-1]}."
            + (" Drop the last axis: labels[..., 0]." if labels.shape == (*scores.shape[:-1], 1) else "")
            + (" One-hot labels: labels.argmax(-1)." if labels.shape == scores.shape and scores.ndim > 1 else "")
            + (" Scores need one column per class: w of shape (d, k)." if labels.shape == scores.shape[:1] else "")
        )
    labels = jnp.broadcast_to(labels, scores.shape[:-1])
    classes = jax.lax.broadcasted_iota(labels.dtype, scores.shape, scores.ndim - 1)
    return scores, labels, classes == labels[..., None]


def _over_classes(option: jax.Array, scores: jax.Array) -> jax.Array:
    return option if option.shape == () else jnp.broadcast_to(option[..., None], scores.shape)
