"""Probabilities from scores: a sigmoid fitted to the scores of rows that did not train."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from scipy.special import logsumexp

from jaxhinge._base.arrays import NDArray

# Newton's method converges in about ten steps.
_STEPS = 100
# It ends where a step promises to lower the mean loss by less than this.
_PROMISE = 1e-22
# A step is halved until it brings this share of what its slope promises.
_SHARE = 1e-4
# Scores that differ by less, relative to their size, are equal up to rounding.
_ROUNDING = 1e-12
# Added to the curvature, relative to that of a score with variance 1: scores that are all the same have none.
_RIDGE = 1e-12


def fit_sigmoid(scores: NDArray, positive: NDArray, weight: NDArray, noise: float = 0.0) -> tuple[float, float]:
    r"""`A` and `B` of the probability `1 / (1 + exp(A s + B))` of a row with score s, by maximum likelihood.

    The targets are Platt's, which keep `A` and `B` finite where a score divides the classes: `(N+ + 1) / (N+ + 2)` for
    the positive rows and `1 / (N- + 2)` for the others, `N+` and `N-` the sums of their weights.

    Args:
      scores: `(n,)`.
      positive: Which rows are positive `(n,)`.
      weight: `(n,)`, not negative: a weight of 2 is a row given twice.
      noise: Where the standard deviation of the scores is no larger, they say nothing: `A` is 0, and all probabilities
        are the share of the positive rows. Else a slope fitted to rounding would be steep beyond all bounds.

    References:
      Platt, Probabilistic outputs for support vector machines, 1999; Lin, Lin and Weng, A note on Platt's probabilistic
      outputs for support vector machines, 2007.

    >>> import numpy as np
    >>> A, B = fit_sigmoid(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]), np.ones(4))
    >>> bool(A < 0), abs(B) < 1e-12
    (True, True)
    """
    many, few = float(weight[positive].sum()), float(weight[~positive].sum())
    target = np.where(positive, (many + 1) / (many + 2), 1 / (few + 2))
    share = weight / weight.sum()
    # Scores of mean 0 and variance 1 make the Hessian well conditioned, whatever C has made of their scale.
    mean = float(share @ scores)
    scale = float(np.sqrt(share @ (scores - mean) ** 2))
    if scale <= max(noise, _ROUNDING * float(np.abs(scores).max())):
        mean, scale, scores = 0.0, 1.0, np.zeros_like(scores)
    design = np.column_stack([(scores - mean) / scale, np.ones(len(scores))])

    def loss(params: NDArray) -> float:
        logit = design @ params
        return float(share @ (np.logaddexp(0, logit) - target * logit))

    params = np.array([0.0, np.log((many + 1) / (few + 1))])
    value = loss(params)
    for _ in range(_STEPS):
        chance = np.exp(-np.logaddexp(0, -(design @ params)))
        gradient = design.T @ (share * (chance - target))
        hessian = (design.T * (share * chance * (1 - chance))) @ design + _RIDGE * np.eye(2)
        step = -np.linalg.solve(hessian, gradient)
        promised, length = gradient @ step, 1.0
        while -length * promised > _PROMISE and loss(params + length * step) > value + _SHARE * length * promised:
            length /= 2
        if -length * promised <= _PROMISE:
            break
        params = params + length * step
        value = loss(params)
    slope, offset = params
    return float(-slope / scale), float(slope * mean / scale - offset)


def score_noise(x: Any, gap: NDArray, l2: float) -> NDArray:
    """About how far scores may be from those of the optimum, for solutions with these gaps and strengths.

    The objective is strongly convex: weights whose objective is `gap` above the smallest are within `sqrt(2 gap / l2)`
    of the optimal ones. In a random direction this moves a score by so much, times the spread of a feature.
    """
    if issparse(x):
        mean = np.asarray(x.mean(axis=0))
        variance = max(0.0, float(x.data @ x.data) / x.shape[0] - float(mean @ mean)) / x.shape[1]
    else:
        variance = float(np.mean(np.var(x, axis=0)))
    spread = np.sqrt(variance)
    return np.asarray(spread * np.sqrt(2 * gap / l2))


def fit_sigmoids(scores: NDArray, labels: NDArray, weight: NDArray, noise: NDArray) -> tuple[NDArray, NDArray]:
    """`A` and `B` of two classes, `(1,)`, from scores `(n, 1)`; or of each of k against the rest, `(k,)`."""
    classes = range(scores.shape[1]) if scores.shape[1] > 1 else [1]
    found = [
        fit_sigmoid(column, labels == label, weight, float(of_one))
        for column, label, of_one in zip(scores.T, classes, noise, strict=True)
    ]
    A, B = np.array(found).T
    return A, B


def log_probabilities(scores: NDArray, A: NDArray, B: NDArray) -> NDArray:
    """The logarithms of probabilities `(n, k)`: from scores `(n,)` of two classes; from `(n, k)`, normalised."""
    exponent = A * scores.reshape(len(scores), -1) + B
    if exponent.shape[1] == 1:
        return np.asarray(-np.logaddexp(0, np.column_stack([-exponent, exponent])))
    chances = -np.logaddexp(0, exponent)
    return np.asarray(chances - logsumexp(chances, axis=1, keepdims=True))


def check_held_out_classes(classes: NDArray, labels: NDArray, weight: NDArray, held_out: NDArray) -> None:
    """A sigmoid needs rows of its class, among those that any fold holds out."""
    seen = np.bincount(labels[held_out.any(axis=0) & (weight > 0)], minlength=len(classes)) > 0
    if not seen.all():
        raise ValueError(
            f"probability=True needs rows of every class among those that the folds hold out; there are none of "
            f"{classes[~seen].tolist()}: change cv."
        )
