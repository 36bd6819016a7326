"""Values of the stated objective, and what is wrong with a loss that the function returned."""

from __future__ import annotations

import numpy as np

from jaxhinge._diagnose._evidence import Evidence, Reading, read_point
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import PRECISIONS
from jaxhinge._diagnose._violations import violations

# A loss is known to the rounding of its scores, which are sums.
_ROUNDING = 16.0


def parts_of_loss(point: Point, objective: Objective) -> tuple[float, float, float]:
    """The data term, the regulariser, and the magnitude of the numbers that were summed."""
    z, magnitude = violations(point, objective)
    cell = {"hinge": _hinge, "squared": _squared, "smooth": _smooth}[objective.slope](z, objective)
    if objective.family == "crammer_singer":
        losses = np.max(cell, axis=1)
    elif objective.family == "regression":
        losses = cell @ np.array(objective.sides)
    else:
        losses = np.sum(cell, axis=1)
    factor = objective.C if objective.C is not None else 1.0 / point.rows
    squares = float(np.sum(point.w**2)) + (float(np.sum(point.b**2)) if objective.intercept == "regularized" else 0.0)
    size = factor * float(np.sum(point.weights[:, None] * magnitude)) + objective.l2 * squares
    return factor * float(point.weights @ losses), 0.5 * objective.l2 * squares, size


def _hinge(z: Array, objective: Objective) -> Array:
    return np.maximum(z, 0.0)


def _squared(z: Array, objective: Objective) -> Array:
    return np.maximum(z, 0.0) ** 2


def _smooth(z: Array, objective: Objective) -> Array:
    bent = np.clip(z, 0.0, objective.width)
    return np.asarray(bent**2 / (2.0 * objective.width) + np.maximum(z - objective.width, 0.0))


def loss_finding(evidence: list[Evidence], own: Point, objective: Objective, reading: Reading) -> str | None:
    """What is wrong with the losses: "" where they are right, None where no losses came."""
    judged = [item for item in evidence if item.returned.loss is not None and np.isfinite(item.returned.loss)]
    if not judged:
        return None
    points = [read_point(item.probe, own, reading) for item in judged]
    losses = np.array([item.returned.loss for item in judged], dtype=np.float64)
    data, penalty, size = np.array([parts_of_loss(point, objective) for point in points]).T
    rows = np.array([point.rows for point in points])
    precision = max((item.returned.precision for item in judged), key=list(PRECISIONS).index)
    # Losses are computed, not differences of them.
    unit = PRECISIONS["float64" if precision == "differences" else precision]
    near = _ROUNDING * unit * (8.0 + rows / 2.0) * (size + 1.0)
    off = np.abs(losses - data - penalty)
    if np.all(off <= near):
        return ""
    told = _told(losses, data, penalty, rows, near)
    if told:
        return told
    worst = int(np.argmax(off / near))
    return (
        f"it is {losses[worst]:.6g} where {data[worst] + penalty[worst]:.6g} is right "
        f"({judged[worst].probe.name}, n = {len(points[worst].x)})"
    )


def _told(losses: Array, data: Array, penalty: Array, rows: Array, near: Array) -> str:
    """The loss as sizes of its parts and a constant, in words; "" where that does not fit."""
    if len(losses) < 4:
        return ""
    for power in (0, 1, -1):
        scale = rows ** float(power)
        columns = [scale * data, scale, penalty] if np.any(penalty) else [scale * data, scale]
        basis = np.stack(columns, axis=1)
        if not (np.isfinite(basis).all() and np.isfinite(losses).all()):
            continue
        norms = np.maximum(np.linalg.norm(basis, axis=0), 1e-300)
        sizes = np.linalg.lstsq(basis / norms, losses, rcond=1e-12)[0] / norms
        if np.all(np.abs(losses - basis @ sizes) <= 4.0 * near + 1e-9 * np.abs(losses)):
            return _in_words(sizes, power)
    return ""


def _in_words(sizes: Array, power: int) -> str:
    factor, offset = float(sizes[0]), float(sizes[1])
    words = []
    if power == 1 and abs(factor - 1.0) < 1e-6:
        words.append("its data term is the sum over the rows, not the mean")
    elif power or abs(factor - 1.0) > 1e-6:
        times = {0: "", 1: " n", -1: " / n"}[power]
        words.append(f"its data term is {factor:.6g}{times} times the right one")
    if abs(offset) > 1e-6:
        side = "large" if offset > 0.0 else "small"
        words.append(f"it is too {side} by {abs(offset):.6g} for each row")
    if len(sizes) == 3 and abs(sizes[2] - 1.0) > 1e-6:
        size = float(sizes[2])
        missing = abs(size) < 1e-6
        words.append(
            "the regulariser is missing from it" if missing else f"its regulariser is {size:.6g} times the right one"
        )
    return "; ".join(words)
