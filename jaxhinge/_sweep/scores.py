"""How good scores are on rows that were held out: the higher the better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxhinge._base.arrays import NDArray

# From targets (-1 and +1, or labels 0..k-1), scores `(n,)` or `(n, k)` and weights `(n,)`.
Metric = Callable[[NDArray, NDArray, NDArray], float]


def metric_of(scoring: str | Callable[[NDArray, NDArray], float]) -> Metric:
    """The metric of a name, or of a callable `(targets, scores) -> number`, which knows no weights."""
    if callable(scoring):
        return lambda targets, scores, weight: _number(scoring(targets, scores))
    if not isinstance(scoring, str) or scoring not in METRICS:
        raise ValueError(f"scoring must be one of {', '.join(map(repr, METRICS))}, or a callable; got {scoring!r}.")
    return METRICS[scoring]


def _number(found: Any) -> float:
    try:
        return float(found)
    except (TypeError, ValueError) as error:
        raise TypeError(f"scoring must return one number for the rows of a fold; got {found!r}.") from error


def check_held_out(scoring: Any, targets: NDArray, weight: NDArray, held_out: NDArray) -> None:
    """Whether the metric can be told from the rows of each fold `(folds, n)`, so that the solver need not run first."""
    if not isinstance(scoring, str) or scoring != "roc_auc":
        return
    counts = weight > 0
    for number, rows in enumerate(held_out):
        missing = np.setdiff1d(targets[counts], targets[rows & counts])
        if missing.size:
            raise ValueError(
                f"roc_auc needs rows of both classes, and of all where there are several, among those held out; fold "
                f"{number} holds out none of class {missing[0]}: stratify the folds, or take fewer."
            )


def predicted(scores: NDArray) -> NDArray:
    """-1 or +1 from `(n,)`, the first largest class from `(n, k)`."""
    return np.where(scores > 0, 1, -1) if scores.ndim == 1 else np.argmax(scores, axis=1)


def accuracy(targets: NDArray, scores: NDArray, weight: NDArray) -> float:
    """The share of rows predicted right."""
    return float(np.average(predicted(scores) == targets, weights=weight))


def balanced_accuracy(targets: NDArray, scores: NDArray, weight: NDArray) -> float:
    """The mean over the classes that occur of the share of their rows predicted right."""
    right = predicted(scores) == targets
    classes = [targets == label for label in np.unique(targets[weight > 0])]
    return float(np.mean([np.average(right[rows], weights=weight[rows]) for rows in classes]))


def roc_auc(targets: NDArray, scores: NDArray, weight: NDArray) -> float:
    """The chance that a positive row scores above a negative one, ties counted half; for k classes, the mean of each
    against the rest."""
    if scores.ndim == 1:
        return _area(targets > 0, scores, weight)
    return float(np.mean([_area(targets == label, scores[:, label], weight) for label in range(scores.shape[1])]))


def _area(positive: NDArray, scores: NDArray, weight: NDArray) -> float:
    distinct = np.unique(scores, return_inverse=True)[1].ravel()
    above = np.bincount(distinct, weights=weight * positive)
    below = np.bincount(distinct, weights=weight * ~positive)
    pairs = above.sum() * below.sum()
    if pairs == 0:
        raise ValueError("roc_auc needs rows of both classes among those held out: stratify the folds.")
    return float(above @ (np.cumsum(below) - below / 2) / pairs)


def hinge(targets: NDArray, scores: NDArray, weight: NDArray) -> float:
    """Minus the mean hinge; for k classes, minus that of the sum over the classes, each against the rest."""
    if scores.ndim == 1:
        return -float(np.average(np.maximum(0, 1 - targets * scores), weights=weight))
    sign = np.where(targets[:, None] == np.arange(scores.shape[1]), 1, -1)
    return -float(np.average(np.maximum(0, 1 - sign * scores).sum(axis=1), weights=weight))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "roc_auc": roc_auc,
    "hinge": hinge,
}
