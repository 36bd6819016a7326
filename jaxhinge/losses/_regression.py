"""Losses of a prediction and a real target, in the residual `r = target - prediction`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxhinge._base.arrays import check_real_number, float_array, option_like, same_shape
from jaxhinge.losses._kink import positive_part


def epsilon_insensitive_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.1,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Epsilon-insensitive loss `max(0, r - epsilon) + max(0, -r - epsilon)`, `r = target - prediction`, per example.

    Args:
      predictions: Any shape, floating. Differentiable: the slope is 0 inside the tube, -1 where the
        prediction is too small, +1 where it is too large; `subgradient` times that on its edge.
      targets: Real, the shape of `predictions`, or one scalar for all.
      epsilon: Half the width of the tube, at least 0; a number or one for each prediction.
      subgradient: The derivative of `positive_part` on the two kinks, in [0, 1].
      kink_tol: `|abs(r) - epsilon| <= kink_tol` counts as a kink.

    Returns:
      Losses in the shape and dtype of `predictions`.

    Raises:
      ValueError: Shapes differ, or `epsilon` is a negative number.
      TypeError: Predictions or targets are not real numbers.

    References:
      Smola and Schoelkopf, A tutorial on support vector regression, 2004. Values as the loss of
      `sklearn.svm.LinearSVR`.

    >>> import jax.numpy as jnp, jaxhinge
    >>> print(jaxhinge.losses.epsilon_insensitive_loss(jnp.array([0.0, 2.0]), 0.5, epsilon=1.0))
    [0.  0.5]
    """
    below, above = _outside_tube(predictions, targets, epsilon, subgradient, kink_tol)
    return below + above


def squared_epsilon_insensitive_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.1,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Squared epsilon-insensitive loss `max(0, |target - prediction| - epsilon)^2`, per example.

    Args:
      predictions: Any shape, floating. Once differentiable everywhere (0 on the edge of the tube);
        `subgradient` chooses the second derivative there.
      targets: Real, the shape of `predictions`, or one scalar for all.
      epsilon: Half the width of the tube, at least 0; a number or one for each prediction.
      subgradient: The derivative of `positive_part` on the two kinks, in [0, 1].
      kink_tol: `|abs(r) - epsilon| <= kink_tol` counts as a kink.

    Returns:
      Losses in the shape and dtype of `predictions`.

    Raises:
      ValueError, TypeError: As `epsilon_insensitive_loss` does.

    References:
      Ho and Lin, Large-scale linear support vector regression, 2012. Values as the loss of
      `sklearn.svm.LinearSVR(loss="squared_epsilon_insensitive")`.

    >>> import jaxhinge
    >>> float(jaxhinge.losses.squared_epsilon_insensitive_loss(2.0, 0.5, epsilon=1.0))
    0.25
    """
    below, above = _outside_tube(predictions, targets, epsilon, subgradient, kink_tol)
    # Each part is squared by itself: the square of the sum would multiply an infinite residual by the
    # slope 0 of the other part, and its gradient would be NaN.
    return below**2 + above**2


def pinball_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    quantile: ArrayLike = 0.5,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Pinball loss `q max(0, r) + (1 - q) max(0, -r)`, `r = target - prediction`, per example.

    Its minimiser is the `q` quantile of the targets.

    Args:
      predictions: Any shape, floating. Differentiable: the slope is `-q` where the prediction is
        too small and `1 - q` where it is too large; where it is exact, `subgradient * (1 - 2q)`.
      targets: Real, the shape of `predictions`, or one scalar for all.
      quantile: `q` in [0, 1]; a number or one for each prediction.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|r| <= kink_tol` counts as the kink.

    Returns:
      Losses in the shape and dtype of `predictions`.

    Raises:
      ValueError: Shapes differ, or `quantile` is a number outside [0, 1].
      TypeError: Predictions or targets are not real numbers.

    References:
      Koenker, Quantile Regression, 2005. Values as `sklearn.metrics.mean_pinball_loss` before the mean.

    >>> import jax.numpy as jnp, jaxhinge
    >>> print(jaxhinge.losses.pinball_loss(jnp.array([0.0, 2.0]), 1.0, quantile=0.75))
    [0.75 0.25]
    """
    check_real_number("quantile", quantile, meaning="in [0, 1]", valid=lambda value: 0.0 <= value <= 1.0)
    residuals = _residuals(predictions, targets)
    quantile = option_like("quantile", quantile, residuals)
    below = positive_part(residuals, subgradient=subgradient, kink_tol=kink_tol)
    above = positive_part(-residuals, subgradient=subgradient, kink_tol=kink_tol)
    return _scaled(quantile, below) + _scaled(1 - quantile, above)


def _scaled(factor: jax.Array, value: jax.Array) -> jax.Array:
    """`factor * value`, but 0 where the factor is 0 and the value infinite."""
    return factor * jnp.where((factor == 0) & jnp.isinf(value), 0, value)


def _outside_tube(
    predictions: ArrayLike, targets: ArrayLike, epsilon: ArrayLike, subgradient: ArrayLike, kink_tol: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """How far a prediction lies below the tube around its target, and how far above."""
    check_real_number("epsilon", epsilon, meaning="half the width of the tube, at least 0", valid=_not_negative)
    residuals = _residuals(predictions, targets)
    epsilon = option_like("epsilon", epsilon, residuals)
    below = positive_part(residuals - epsilon, subgradient=subgradient, kink_tol=kink_tol)
    above = positive_part(-residuals - epsilon, subgradient=subgradient, kink_tol=kink_tol)
    return below, above


def _residuals(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    predictions = float_array("predictions", predictions)
    targets = float_array("targets", targets).astype(predictions.dtype)
    if targets.shape != ():
        same_shape("targets", targets, "predictions", predictions)
    return targets - predictions


def _not_negative(value: float) -> bool:
    return value >= 0.0
