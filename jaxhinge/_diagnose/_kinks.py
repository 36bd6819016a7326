"""What a function does on the kink: which rows are there, and which part of their push it takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._gradients import GradientSet, gradient_sets
from jaxhinge._diagnose._point import Array, Objective, Point
from jaxhinge._diagnose._probes import HIDDEN
from jaxhinge._diagnose._recipe import PRECISIONS, Recipe
from jaxhinge._diagnose._search import Evidence


def violations(point: Point, objective: Objective) -> tuple[Array, Array]:
    """`z = required margin - margin` `(n, rivals)`, and the magnitude of its terms."""
    scores, terms = point.x @ point.w + point.b, np.abs(point.x) @ np.abs(point.w) + np.abs(point.b)
    if objective.family == "binary":
        return (objective.margin - point.y * scores)[:, None], (terms + objective.margin)[:, None]
    every = np.arange(len(point.x))
    z = objective.margin + scores - scores[every, point.y][:, None]
    z[every, point.y] = -np.inf
    return z, terms + terms[every, point.y][:, None] + objective.margin


def rows_on_kink(point: Point, objective: Objective, precision: str) -> npt.NDArray[np.int64]:
    """The rows whose gradient is a choice, to the rounding of the dtype: on the kink, or with tied rivals."""
    z, terms = violations(point, objective)
    nonzero = np.sum(point.x != 0.0, axis=1, keepdims=True)
    slack = PRECISIONS[precision] * (2.0 + nonzero) * terms
    if objective.family != "crammer_singer":
        return np.flatnonzero(np.any(np.abs(z) <= slack, axis=1)).astype(np.int64)
    top, slack = np.max(z, axis=1), np.max(slack, axis=1)
    tied = np.sum(z >= (top - slack)[:, None], axis=1) > 1
    return np.flatnonzero((np.abs(top) <= slack) | (tied & (top > 0.0))).astype(np.int64)


def fractions(item: Evidence, objective: Objective, precision: str, rows: npt.NDArray[np.int64]) -> Array:
    """For each row the part of its push that the gradient takes, NaN where that is open."""
    gradient = item.returned.gradient
    allowed = gradient_sets(item.probe.point, objective, Recipe(), precision)[0]
    taken = np.full(len(rows), np.nan)
    if gradient is None or not allowed.groups or not _determined(allowed) or not allowed.contains(gradient):
        return taken
    shares = allowed.shares(gradient)
    for index, row in enumerate(rows):
        parts = [
            1.0 if np.any(vertices[0]) else 1.0 - share[0]
            for vertices, share, owner in zip(allowed.groups, shares, allowed.rows, strict=True)
            if owner == row
        ]
        taken[index] = np.mean(parts) if parts else np.nan
    nearest = np.round(2.0 * taken) / 2.0
    return np.where(np.abs(taken - nearest) < 1e-3, nearest, taken)


def _determined(allowed: GradientSet) -> bool:
    edges = np.concatenate([vertices[1:] - vertices[0] for vertices in allowed.groups])
    edges = edges[np.any(edges != 0.0, axis=1)]
    return len(edges) <= edges.shape[1] and int(np.linalg.matrix_rank(edges)) == len(edges)


def choice(evidence: list[Evidence], objective: Objective, precision: str) -> str:
    """What is taken on the kink at every point alike: "0", "1", "1/2", else "mixed"; "" without a kink."""
    names, seen = {0.0: "0", 1.0: "1", 0.5: "1/2"}, set[str]()
    for item in evidence:
        gradient = item.returned.gradient
        if gradient is None or not item.returned.finite or item.probe.role != "kink":
            continue
        allowed = gradient_sets(item.probe.point, objective, Recipe(), precision)[0]
        if not allowed.groups or not allowed.contains(gradient):
            continue
        first = {
            round(float(1.0 - share[0]), 3)
            for vertices, share in zip(allowed.groups, allowed.shares(gradient), strict=True)
            if not np.any(vertices[0])
        }
        seen |= {names.get(first.pop(), "mixed") if len(first) == 1 else "mixed"} if first else set()
    return "" if not seen else seen.pop() if len(seen) == 1 else "mixed"


def narrow_band(evidence: list[Evidence], objective: Objective) -> float | None:
    """The distance up to which rows outside the kink are counted in, where rounding would excuse it."""
    for item in evidence:
        if item.probe.role != "hidden" or item.returned.gradient is None or item.returned.precision != "float64":
            continue
        allowed = gradient_sets(item.probe.point, objective, Recipe(), "float64")[0]
        z = np.max(violations(item.probe.point, objective)[0], axis=1)
        for distance in sorted(HIDDEN, reverse=True):
            counted = [index for index, row in enumerate(allowed.rows) if -distance * 1.01 <= z[row] < 0.0]
            total = allowed.fixed + sum(allowed.groups[index][1] for index in counted)
            if counted and np.all(np.abs(item.returned.gradient - total) <= allowed.tolerance):
                return distance
    return None
