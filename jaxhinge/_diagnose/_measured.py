"""The push of one row, measured: what the function does with a single margin, and where its kink is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from jaxhinge._diagnose._alterations import Alteration
from jaxhinge._diagnose._gradients import gradient_sets
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import Recipe
from jaxhinge._diagnose._returned import Returned

# Margins that the report shows.
SHOWN = (-2.0, -1.0, -0.5, 0.5, 1.5, 2.5)
# Margins at which the push is measured. Those between the eighths are on no usual kink, where a choice would be met.
_BETWEEN = np.arange(-2.9375, 3.0, 0.125)
_GRID = np.sort(np.concatenate([_BETWEEN, SHOWN]))
# Other classes than the two that are compared get this score, below any margin, and a number in float16.
_FAR = -1e4
_HALVINGS = 60
# A kink beyond the grid is sought up to here.
_BEYOND = 1e3
# A gradient whose kink lies inside the right one by more than this has another margin; by less, it has a tolerance.
_WIDEST_TOLERANCE = 0.1001


@dataclass(frozen=True)
class Curve:
    """The push of one row, `-d loss / d margin`, over the margin (for a regression, over the residual).

    Attributes:
      variable: What was varied: "margin" or "residual".
      places: `(g,)`, its values.
      returned: `(g,)`, the push of the function, for a positive label.
      other: `(g,)`, the same for a negative label; for a regression and for classes the same once more.
      right: `(g,)`, the push of the stated loss.
    """

    variable: str
    places: Array
    returned: Array
    other: Array
    right: Array


class Meter:
    """Calls the function on one row (or on several equal ones, where it needs so many)."""

    def __init__(self, own: Point, objective: Objective, called: Callable[[Point], Returned], rows: int | None) -> None:
        self.own, self.objective, self.called = own, objective, called
        self.rows = rows or 1

    def point(self, place: float, label: float) -> Point:
        """One row at this margin (or residual), by the bias alone where there is one, else by one feature."""
        w, b = np.zeros_like(self.own.w), np.zeros_like(self.own.b)
        x, y = np.zeros((self.rows, len(self.own.w))), np.full(self.rows, label)
        if self.objective.multiclass:
            scores = np.full(self.own.num_classes, _FAR)
            alone = self.objective.family == "one_vs_rest"
            scores[0], scores[1] = (place, _FAR) if alone else (0.0, -place)
            y = np.zeros(self.rows, dtype=np.int64)
        else:
            scores = np.asarray(-place if self.objective.family == "regression" else label * place)
            y = np.zeros(self.rows) if self.objective.family == "regression" else y
        if self.objective.intercept == "none":
            w[0], x[:, 0] = scores, 1.0
        else:
            b = np.asarray(scores, dtype=np.float64)
        weight = None if self.own.weight is None else self._weight()
        rows = float(self.rows) if weight is None else float(np.sum(weight))
        return Point(w, b, x, y, rows, weight)

    def _weight(self) -> Array:
        assert self.own.weight is not None
        return self.own.weight if self.rows == len(self.own.x) else np.ones(self.rows)

    def push(self, place: float, label: float = 1.0) -> float:
        """The push that the function gives the row; NaN where it returned no numbers."""
        point = self.point(place, label)
        gradient = self.called(point).gradient
        return np.nan if gradient is None else self._read(point, gradient, label)

    def right(self, place: float, label: float = 1.0) -> float:
        """The push of the stated loss."""
        point = self.point(place, label)
        allowed = gradient_sets(point, self.objective, Recipe(), "float64")[0]
        return self._read(point, allowed.nearest(np.zeros(point.size)), label)

    def _read(self, point: Point, gradient: Array, label: float) -> float:
        unit = float(np.sum(point.weights)) / point.rows if self.objective.C is None else self.objective.C * point.rows
        column = 1 if self.objective.multiclass and self.objective.family != "one_vs_rest" else 0
        if self.objective.intercept == "none":
            found = gradient[: point.w.size].reshape(point.w.shape)[0] - self.objective.l2 * point.w[0]
        else:
            shrinks = self.objective.l2 if self.objective.intercept == "regularized" else 0.0
            found = gradient[point.w.size :] - shrinks * point.b
        value = float(np.ravel(found)[column]) / unit
        return value if column else -label * value


def measured_curve(meter: Meter) -> Curve | None:
    """The curve, or None where the function does not take such a row."""
    regression = meter.objective.family == "regression"
    returned = np.array([meter.push(place) for place in _GRID])
    if not np.all(np.isfinite(returned)):
        return None
    other = returned
    if meter.objective.family == "binary":
        other = np.array([meter.push(place, -1.0) for place in _GRID])
    right = np.array([meter.right(place) for place in _GRID])
    return Curve("residual" if regression else "margin", _GRID, returned, other, right)


def measured_threshold(curve: Curve, meter: Meter) -> float | None:
    """The margin below which the function pushes, and evenly so, for both labels alike; None where it does not.

    For a regression the sides take the place of the labels.
    """
    between = np.isin(curve.places, _BETWEEN)
    returned, other, places = (part[between] for part in (curve.returned, curve.other, curve.places))
    if meter.objective.family == "regression":
        # A side of the residual is a margin of its own: minus the residual, or the residual, negative outside the tube.
        sides = np.where(places < 0.0, np.stack([returned[::-1], -returned]), 0.0)
        if meter.objective.sides[0] != meter.objective.sides[1]:
            return None
        returned, other = sides
    size = float(returned[0])
    if size == 0.0 or not np.all(np.isfinite(other)):
        return None
    if meter.objective.slope != "hinge":
        return _end_of_slope(returned, other, places, meter)
    pushes = returned / size > 0.5
    even = np.where(pushes, size, 0.0)
    near = 1e-3 * abs(size)
    if not np.all(pushes[:-1] >= pushes[1:]) or np.max(np.abs(np.stack([returned, other]) - even)) > near:
        return None
    low, high = places[pushes][-1], float(np.append(places[~pushes], _BEYOND)[0])
    if high == _BEYOND and max(abs(meter.push(high, label)) for label in (1.0, -1.0)) > near:
        return None
    direction = -1.0 if meter.objective.family == "regression" else 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if meter.push(direction * middle) / size > 0.5 else (low, middle)
    return _short(0.5 * (low + high))


def _end_of_slope(returned: Array, other: Array, places: Array, meter: Meter) -> float | None:
    """The margin at which a push that grows with the violation, as the stated one does, begins."""
    pushes = np.flatnonzero(np.abs(returned) > 1e-6 * abs(returned[0]))
    if len(pushes) < 2 or pushes[-1] != len(pushes) - 1:
        return None
    (one, two), (low, high) = places[pushes[-2:]], returned[pushes[-2:]]
    kink = _short(two - high * (two - one) / (high - low)) if high != low else np.inf
    moved = places + meter.objective.margin - kink
    if meter.objective.family == "regression":
        moved = -np.minimum(moved, 0.0)
    right = np.array([meter.right(place) for place in moved])
    even = right * returned[0] / right[0] if np.isfinite(kink) and right[0] else np.inf * right
    fits = np.allclose(np.stack([returned, other]), even, rtol=0.0, atol=1e-3 * abs(returned[0]))
    return kink if fits else None


def _short(value: float) -> float:
    """The number of few digits that it is, to rounding."""
    return float(np.round(value, 6)) if abs(value - np.round(value, 6)) < 3e-7 else float(value)


def threshold_alteration(threshold: float, objective: Objective, *, of_a_loss: bool) -> Alteration | None:
    """The mistake that a kink at this margin is; None where it is right or has a name of its own.

    A gradient that pushes beyond the kink is also the one of too wide a tolerance; the values of a loss show its kink.
    """
    required, tube = objective.margin, objective.family == "regression"
    if any(abs(threshold - known) < 1e-6 for known in ((required,) if tube else (required, 0.0, -required))):
        return None
    inside = required - threshold
    moved = of_a_loss or tube or objective.slope != "hinge" or inside > _WIDEST_TOLERANCE
    cause = "wrong_margin" if moved else "kink_tolerance_too_wide"
    return Alteration((cause,), {"shift": inside})


def ends_far_away(meter: Meter) -> bool:
    """Whether a row far beyond the margin does not push, though one that violates it does."""
    far, near = (max(abs(meter.push(place, label)) for label in (1.0, -1.0)) for place in (_BEYOND, -1.0))
    return far <= 1e-3 * near and near > 0.0


def rows_are_mixed(pair: Point, valid: Callable[[Point], bool]) -> bool:
    """Whether the function is right for each of two rows alone, and wrong for both together."""
    alone = [replace(pair, x=pair.x[[i]], y=pair.y[[i]], rows=1.0, weight=None) for i in (0, 1)]
    both = replace(pair, x=pair.x[:2], y=pair.y[:2], rows=2.0, weight=None)
    return all(valid(one) for one in alone) and not valid(both)
