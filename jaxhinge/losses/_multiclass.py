"""Losses of one score per class and an integer label `0..k-1`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxhinge._base.arrays import float_array, integer, label_array, option_like, shown
from jaxhinge.losses._kink import Ties, max_over_classes, never_positive, positive_part


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
    scores, labels, is_label = _scores_and_labels(scores, labels)
    violations = _violations(scores, is_label, option_like("margin", margin, labels.astype(scores.dtype)))
    return positive_part(max_over_classes(violations, ties=ties), subgradient=subgradient, kink_tol=kink_tol)


def weston_watkins_loss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    p: int = 1,
    class_weight: ArrayLike | None = None,
    class_margin: ArrayLike | None = None,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Weston-Watkins hinge loss `weight_label sum_{j != label} max(0, margin + s_j - s_label)^p`, per example.

    With the defaults this is the multiclass SVM loss of the CS231n course. It is `k` times
    `torch.nn.functional.multi_margin_loss`, which takes the mean over the classes.

    Args:
      scores: `(..., k)`, floating. Differentiable: +1 for every wrong class that violates the
        margin, minus their number for the label; a class on the kink counts `subgradient`. With `p=2` the loss
        is once differentiable everywhere, and `subgradient` chooses the second derivative on the kink.
      labels: Integers `0..k-1`, `(...)`, or one scalar for all. A label outside gives NaN.
      margin: The margin that is asked for; a number or one for each example.
      p: 1, or 2 for the squares of the violations. Known before tracing.
      class_weight: `(k,)`: the loss of a row is multiplied by the entry of its label. None is 1 for all. A
        weight of 0 does not hide NaN or infinity.
      class_margin: `(k,)`: the margin of a row is multiplied by the entry of its label, so that with `margin`
        at its default these are the margins that the classes ask for. None is 1 for all.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin + s_j - s_label| <= kink_tol` counts as the kink.

    Returns:
      Losses `(...)` in the dtype of `scores`.

    Raises:
      ValueError: Shapes do not fit, or `p` is neither 1 nor 2.
      TypeError: `labels` or `p` are not integers, or scores or options are not real numbers.

    References:
      Weston and Watkins, Support vector machines for multi-class pattern recognition, 1999.

    >>> import jax, jax.numpy as jnp, jaxhinge
    >>> scores = jnp.array([1.0, 0.5, 0.25])
    >>> float(jaxhinge.losses.weston_watkins_loss(scores, 0))
    0.75
    >>> print(jax.grad(jaxhinge.losses.weston_watkins_loss)(scores, 0))
    [-2.  1.  1.]
    >>> float(jaxhinge.losses.weston_watkins_loss(scores, 0, p=2, class_weight=[2.0, 1.0, 1.0]))
    0.625
    """
    if integer("p", p) not in (1, 2):
        raise ValueError(f"p must be 1, or 2 for squares; got {shown(p)}.")
    scores, labels, is_label = _scores_and_labels(scores, labels)
    margin = option_like("margin", margin, labels.astype(scores.dtype))
    if class_margin is not None:
        margin = margin * _of_label("class_margin", class_margin, scores, is_label)
    violations = _violations(scores, is_label, margin)
    losses = jnp.sum(positive_part(violations, subgradient=subgradient, kink_tol=kink_tol) ** p, axis=-1)
    if class_weight is None:
        return losses
    return _of_label("class_weight", class_weight, scores, is_label) * losses


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


def _violations(scores: jax.Array, is_label: jax.Array, margin: jax.Array) -> jax.Array:
    """`margin + (s_j - s_label)` for the wrong classes, and for the label a number that no loss counts."""
    label_score = jnp.sum(jnp.where(is_label, scores, 0), axis=-1, keepdims=True)
    label_score = jnp.where(jnp.any(is_label, axis=-1, keepdims=True), label_score, jnp.nan)
    # The scores are subtracted first: at 1e9 in float32, margin + s_j would round the margin away.
    violations = _over_classes(margin, scores) + (scores - label_score)
    return jnp.where(is_label & ~jnp.isnan(scores), never_positive(scores.dtype), violations)


def _of_label(name: str, values: ArrayLike, scores: jax.Array, is_label: jax.Array) -> jax.Array:
    """The entry of each row's label in an option that has one for each class."""
    array = float_array(name, values)
    if array.shape != scores.shape[-1:]:
        raise ValueError(
            f"{name} must have shape {scores.shape[-1:]}, one number for each class; got shape {array.shape}."
        )
    return jnp.sum(jnp.where(is_label, jnp.broadcast_to(array.astype(scores.dtype), scores.shape), 0), axis=-1)


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
