"""How far rows are from their kinks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import PRECISIONS


def all_violations(objective: Objective, scores: Array, y: npt.NDArray[np.float64]) -> Array:
    """`z = required margin - margin`, `(n, terms)`: one for a margin, two for a residual, one for each class."""
    if objective.family == "binary":
        return np.asarray((objective.margin - y * scores)[:, None])
    if objective.family == "regression":
        residual = y - scores
        return np.stack([residual + objective.margin, objective.margin - residual], axis=1)
    every, label = np.arange(len(scores)), y.astype(int)
    if objective.family == "one_vs_rest":
        sign = np.full(scores.shape, -1.0)
        sign[every, label] = 1.0
        return np.asarray(objective.margin - sign * scores)
    z = objective.margin + scores - scores[every, label][:, None]
    z[every, label] = -np.inf
    return np.asarray(z)


def violation(objective: Objective, scores: Array, y: npt.NDArray[np.float64]) -> tuple[Array, Array]:
    """The largest `z` of each row, and how far the row is from any kink or tie, also of the usual mistakes."""
    z = all_violations(objective, scores, y)
    edges = (0.0, objective.margin, 2.0 * objective.margin)
    gap = np.min(np.concatenate([np.abs(z - edge) for edge in edges], axis=1), axis=1)
    if objective.slope == "smooth":
        gap = np.minimum(gap, np.min(np.abs(z - objective.width), axis=1))
    if objective.family in ("weston_watkins", "crammer_singer") and z.shape[1] > 2:
        ordered = np.sort(z, axis=1)
        gap = np.minimum(gap, ordered[:, -1] - ordered[:, -2])
    return np.max(z, axis=1), gap


def violations(point: Point, objective: Objective) -> tuple[Array, Array]:
    """`z` `(n, terms)`, and the magnitude of its terms."""
    products, magnitude, _ = point.products
    z = all_violations(objective, products + point.b, point.y)
    if not objective.multiclass:
        magnitude = magnitude[:, None] + (np.abs(point.y)[:, None] if objective.family == "regression" else 0.0)
        return z, np.broadcast_to(magnitude + abs(objective.margin), z.shape)
    every = np.arange(len(point.x))
    return z, magnitude + magnitude[every, point.y][:, None] + objective.margin


def rows_on_kink(point: Point, objective: Objective, precision: str) -> npt.NDArray[np.int64]:
    """The rows whose gradient is a choice, to the rounding of the dtype: on the kink, or with tied rivals."""
    if objective.slope != "hinge":
        return np.zeros(0, dtype=np.int64)
    z, magnitude = violations(point, objective)
    terms = point.products[2]
    slack = PRECISIONS[precision] * (2.0 + terms) * magnitude
    if objective.family != "crammer_singer":
        return np.flatnonzero(np.any(np.abs(z) <= slack, axis=1)).astype(np.int64)
    top, slack = np.max(z, axis=1), np.max(slack, axis=1)
    tied = np.sum(z >= (top - slack)[:, None], axis=1) > 1
    return np.flatnonzero((np.abs(top) <= slack) | (tied & (top > 0.0))).astype(np.int64)
