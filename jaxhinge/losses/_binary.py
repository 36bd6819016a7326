"""Losses of one score and a target of -1 or +1, in the margin `m = target * score`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxhinge._base.arrays import check_real_number, float_array, option_like, target_array
from jaxhinge.losses._kink import positive_part


def hinge_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Hinge loss `max(0, margin - target * score)`, per example.

    Args:
      scores: Any shape, floating. Differentiable: the slope in `target * score` is -1 below the
        required margin, 0 above it, `-subgradient` on it.
      targets: -1 or +1, the shape of `scores`, or one scalar for all. Values of floats and JAX arrays are not
        looked at; at a target of 0 the slope is 0.
      margin: The margin that is asked for; a number or one for each score.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin - target * score| <= kink_tol` counts as the kink.

    Returns:
      Losses in the shape and dtype of `scores`. A NaN score gives a NaN loss and gradient.

    Raises:
      ValueError: Shapes differ (`(n,)` against `(n, 1)` is refused, not broadcast); or targets are NumPy or
        Python integers that hold a 0 (labels `y` of 0 and 1 become targets with `2 * y - 1`).
      TypeError: Scores or targets are not real numbers, or targets are booleans.

    References:
      Cortes and Vapnik, Support-vector networks, 1995. Values as `optax.losses.hinge_loss`.

    >>> import jax, jax.numpy as jnp, jaxhinge
    >>> scores, targets = jnp.array([0.5, 1.0, -2.0]), jnp.array([1, 1, -1])
    >>> print(jaxhinge.losses.hinge_loss(scores, targets))
    [0.5 0.  0. ]
    >>> total = lambda scores, **options: jaxhinge.losses.hinge_loss(scores, targets, **options).sum()
    >>> print(jax.grad(total)(scores, subgradient=0.5))
    [-1.  -0.5  0. ]
    """
    scores = float_array("scores", scores)
    margins = target_array("targets", targets, scores) * scores
    required = option_like("margin", margin, margins)
    return positive_part(required - margins, subgradient=subgradient, kink_tol=kink_tol)


def squared_hinge_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Squared hinge loss `max(0, margin - target * score)^2`, per example.

    Args:
      scores: Any shape, floating. Once differentiable everywhere: the slope in `target * score` is
        `-2 max(0, margin - target * score)`, 0 on the kink. The second derivative jumps there from
        2 to 0, and is taken as `2 subgradient^2` (a generalised Hessian).
      targets: -1 or +1, the shape of `scores`, or one scalar for all.
      margin: The margin that is asked for; a number or one for each score.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1].
      kink_tol: `|margin - target * score| <= kink_tol` counts as the kink.

    Returns:
      Losses in the shape and dtype of `scores`.

    Raises:
      ValueError, TypeError: As `hinge_loss` does.

    References:
      Keerthi and DeCoste, A modified finite Newton method for fast solution of large scale linear
      SVMs, 2005. Values as `sklearn.svm.LinearSVC(loss="squared_hinge")`.

    >>> import jax.numpy as jnp, jaxhinge
    >>> print(jaxhinge.losses.squared_hinge_loss(jnp.array([0.5, -1.0]), jnp.array([1, 1])))
    [0.25 4.  ]
    """
    return hinge_loss(scores, targets, margin=margin, subgradient=subgradient, kink_tol=kink_tol) ** 2


def smooth_hinge_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    width: ArrayLike = 1.0,
    margin: ArrayLike = 1.0,
    subgradient: ArrayLike = 0.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Smooth hinge loss: the hinge with its corner rounded to a parabola, per example.

    .. math::
        0 \text{ if } m \ge 1, \quad
        1 - m - \mathrm{width} / 2 \text{ if } m \le 1 - \mathrm{width}, \quad
        (1 - m)^2 / (2\,\mathrm{width}) \text{ between}

    Args:
      scores: Any shape, floating. Once differentiable everywhere; the second derivative in the
        margin is `1 / width` on the parabola and 0 outside it.
      targets: -1 or +1, the shape of `scores`, or one scalar for all.
      width: The length of the parabola in units of margin, above 0; a number or one for each score.
      margin: The margin that is asked for (the 1 of the formula).
      subgradient: The derivative of `positive_part` at `m = margin`; only the second derivative
        sees it.
      kink_tol: `|margin - m| <= kink_tol` counts as the kink.

    Returns:
      Losses in the shape and dtype of `scores`.

    Raises:
      ValueError: Shapes differ, or `width` is a number that is not above 0.
      TypeError: As `hinge_loss` does.

    References:
      Shalev-Shwartz and Zhang, Stochastic dual coordinate ascent methods for regularized loss
      minimization, 2013.

    >>> import jax.numpy as jnp, jaxhinge
    >>> print(jaxhinge.losses.smooth_hinge_loss(jnp.array([2.0, 0.5, -1.0]), 1, width=1.0))
    [0.    0.125 1.5  ]
    """
    violation = hinge_loss(scores, targets, margin=margin, subgradient=subgradient, kink_tol=kink_tol)
    # A smaller width may round to 0 in the dtype of the scores, and the loss would be 0/0.
    smallest = float(jnp.finfo(violation.dtype).tiny)  # type: ignore[no-untyped-call]
    meaning = f"a length above 0, at least {smallest:g} in {violation.dtype}"
    check_real_number("width", width, meaning=meaning, valid=lambda value: value >= smallest)
    width = option_like("width", width, violation)
    # `clipped` is min(violation, width) and `linear` the rest, so that huge violations are exact.
    # At violation = width, `linear` has slope 0 and `clipped` slope 1: together that of the loss.
    linear = positive_part(violation - width, subgradient=0.0)
    clipped = width - positive_part(width - violation, subgradient=1.0)
    return linear + clipped * (clipped / (2 * width))


def perceptron_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    margin: ArrayLike = 0.0,
    subgradient: ArrayLike = 1.0,
    kink_tol: ArrayLike = 0.0,
) -> jax.Array:
    r"""Perceptron loss `max(0, -target * score)`, per example: the hinge with a required margin of 0.

    Args:
      scores: Any shape, floating. Differentiable; on the kink, which is where all scores are 0, the
        slope in `target * score` is `-subgradient`.
      targets: -1 or +1, the shape of `scores`, or one scalar for all.
      margin: The margin that is asked for; a number or one for each score.
      subgradient: The derivative of `positive_part` on the kink, in [0, 1]. The default is 1, as in
        Rosenblatt's rule: with 0, weights that start at 0 would never move.
      kink_tol: `|target * score| <= kink_tol` counts as the kink.

    Returns:
      Losses in the shape and dtype of `scores`.

    Raises:
      ValueError, TypeError: As `hinge_loss` does.

    References:
      Rosenblatt, The perceptron, 1958. Values as `optax.losses.perceptron_loss`.

    >>> import jax, jaxhinge
    >>> float(jaxhinge.losses.perceptron_loss(-2.0, 1))
    2.0
    >>> float(jax.grad(jaxhinge.losses.perceptron_loss)(0.0, 1))
    -1.0
    """
    return hinge_loss(scores, targets, margin=margin, subgradient=subgradient, kink_tol=kink_tol)
