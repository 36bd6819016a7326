"""What a function does on the kink: which rows are there, and which part of their push it takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._evidence import Evidence
from jaxhinge._diagnose._gradients import GradientSet, gradient_sets
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._probes import HIDDEN
from jaxhinge._diagnose._recipe import Recipe
from jaxhinge._diagnose._violations import violations

__all__ = ["choice", "fractions", "narrow_band", "violations"]


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
            counted = [index for index, row in enumerate(allowed.rows) if -distance * 1.01 <= z[row] <= 0.0]
            total = allowed.fixed + sum(allowed.groups[index][1] for index in counted)
            if counted and np.all(np.abs(item.returned.gradient - total) <= allowed.tolerance):
                return distance
    return None
