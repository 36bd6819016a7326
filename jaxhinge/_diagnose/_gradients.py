"""The set of gradients that a recipe allows at a point, and whether a returned gradient is one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._binary import binary_pushes
from jaxhinge._diagnose._multiclass import multiclass_pushes
from jaxhinge._diagnose._point import Array, Objective, Point
from jaxhinge._diagnose._polytope import nearest_point
from jaxhinge._diagnose._recipe import PRECISIONS, Pushes, Recipe

# The smallest positive numbers: below them a product is rounded to a multiple, or to 0.
_SMALLEST = {"float64": 1e-300, "float32": 1e-42, "float16": 2e-7, "bfloat16": 1e-37, "differences": 1e-7}
# More choices of a count than this are not told apart.
_MOST_COUNTS = 40


@dataclass(frozen=True)
class GradientSet:
    """`fixed` plus one point of the hull of each group, over the coordinates of `w` (row by row), then `b`.

    Attributes:
      fixed: `(p,)`.
      groups: Vertices `(v, p)`, one group for each row (and class) on the kink.
      rows: The row of each group.
      tolerance: `(p,)`, what rounding explains.
      undefined: Whether the recipe divides by zero here.
    """

    fixed: Array
    groups: list[Array]
    rows: list[int]
    tolerance: Array
    undefined: bool = False

    def bounds(self) -> tuple[Array, Array]:
        """The least and the greatest value of each coordinate."""
        low, high = self.fixed.copy(), self.fixed.copy()
        for vertices in self.groups:
            low += np.min(vertices, axis=0)
            high += np.max(vertices, axis=0)
        return low, high

    def bounded(self, gradient: Array) -> bool:
        """Whether each coordinate by itself has a possible value, to rounding."""
        low, high = self.bounds()
        return bool(np.all(gradient >= low - self.tolerance) and np.all(gradient <= high + self.tolerance))

    def contains(self, gradient: Array) -> bool:
        """Whether the gradient is in the set, to rounding."""
        if not self.bounded(gradient):
            return False
        return not self.groups or self._alike(gradient) is not None or self.residual(gradient) <= _root(gradient)

    def residual(self, gradient: Array) -> float:
        """The largest distance of a coordinate from the set, in units of rounding; not to the last digit where far."""
        far = 2.0 * np.sqrt(gradient.size) * _root(gradient)
        return float(np.max(np.abs(self._nearest(gradient, far=far)[0] / self.tolerance)))

    def nearest(self, gradient: Array) -> Array:
        """The nearest gradient of the set."""
        return np.asarray(gradient - self._nearest(gradient, gap=1e-6)[0])

    def shares(self, gradient: Array) -> list[Array]:
        """The weights of the vertices of each group that come nearest; alike in all groups where those do."""
        alike = self._alike(gradient)
        return self._nearest(gradient)[1] if alike is None else alike

    def _alike(self, gradient: Array) -> list[Array] | None:
        """The weights, where one rule for all groups explains the gradient: a few lines of code have one rule."""
        plain = all(len(vertices) == 2 and not np.any(vertices[0]) for vertices in self.groups)
        for push in (0.0, 1.0, 0.5):
            for tie in (_shared,) if plain else (_shared, _first, _last):
                shares = [_ruled(vertices, push, tie) for vertices in self.groups]
                moved = sum(share @ vertices for share, vertices in zip(shares, self.groups, strict=True))
                if np.all(np.abs(gradient - self.fixed - moved) <= self.tolerance):
                    return shares
        return None

    def _nearest(self, gradient: Array, far: float = np.inf, gap: float = 1e-13) -> tuple[Array, list[Array]]:
        if not self.groups:
            return gradient - self.fixed, []
        # A coordinate of zeros has no rounding; the floor keeps the quotients finite.
        scale = np.maximum(self.tolerance, 1e-9 * np.max(self.tolerance))
        groups = [-vertices / scale for vertices in self.groups]
        nearest, shares = nearest_point((gradient - self.fixed) / scale, groups, enough=1.0, far=far, gap=gap)
        return nearest * scale, shares


def _ruled(vertices: Array, push: float, tie: Callable[[int], Array]) -> Array:
    """`push` given to the vertices that push, by the rule for ties; all of it where none is without a push."""
    if np.any(vertices[0]):
        return tie(len(vertices))
    return np.concatenate([[1.0 - push], push * tie(len(vertices) - 1)])


def _shared(count: int) -> Array:
    return np.full(count, 1.0 / count)


def _first(count: int) -> Array:
    return np.asarray(np.eye(count)[0])


def _last(count: int) -> Array:
    return np.asarray(np.eye(count)[-1])


def _root(gradient: Array) -> float:
    # The nearest point minimises the Euclidean norm, so one coordinate may carry the rounding of all.
    return float(np.sqrt(gradient.size)) + 1.0


def gradient_sets(point: Point, objective: Objective, recipe: Recipe, precision: str) -> list[GradientSet]:
    """Every set that the recipe allows; several where it counts or picks rows and a kink leaves that open."""
    unit = PRECISIONS[precision]
    make = binary_pushes if objective.family == "binary" else multiclass_pushes
    sets = []
    for pushes in make(point, objective, recipe, unit):
        bias_pushes = pushes
        if recipe.bias_rows == "all":
            bias_pushes = make(point, objective, recipe.altered({"rows": "all"}), unit)[0]
        for divisor in _divisors(point, recipe, pushes):
            sets.append(_combined(point, objective, recipe, precision, pushes, bias_pushes, divisor))
    return sets


def _divisors(point: Point, recipe: Recipe, pushes: Pushes) -> list[float]:
    if recipe.divisor == "active":
        least, most = pushes.active
        return [float(count) for count in range(least, min(most, least + _MOST_COUNTS) + 1)]
    classes = point.num_classes
    factor = {"rows": 1.0, "pairs": point.rows, "classes": classes, "wrong_classes": classes - 1}
    return [1.0] if recipe.divisor == "one" else [point.rows * factor[recipe.divisor]]


def _combined(
    point: Point,
    objective: Objective,
    recipe: Recipe,
    precision: str,
    pushes: Pushes,
    bias_pushes: Pushes,
    divisor: float,
) -> GradientSet:
    scale = _scale(point, recipe, max(divisor, 1.0))
    shrinkage = _shrinkage(point, objective, recipe)
    fixed = _flat(pushes.x.T @ pushes.fixed, np.sum(bias_pushes.fixed, axis=0))
    size = _flat(np.abs(pushes.x).T @ pushes.size, np.sum(bias_pushes.size, axis=0))
    groups, rows = _groups(pushes, with_bias=recipe.bias_rows == "same")
    if recipe.bias_rows == "all":
        extra, extra_rows = _groups(bias_pushes, with_bias=True)
        groups += [vertices * _flat(np.zeros(point.w.shape), np.ones(point.b.shape)) for vertices in extra]
        rows += extra_rows
    unit, terms = PRECISIONS[precision], len(pushes.x)
    # The worst case of a running sum: equal terms are all rounded the same way.
    tolerance = unit * (8.0 + terms / 2.0) * (size * np.abs(scale) + np.abs(shrinkage))
    tolerance += _SMALLEST[precision] * (1.0 + np.max(np.abs(point.w)))
    order = _order(point, recipe)
    return GradientSet(
        fixed=recipe.whole_sign * (fixed * scale + shrinkage)[order],
        groups=[recipe.whole_sign * (vertices * scale)[:, order] for vertices in groups],
        rows=rows,
        tolerance=tolerance[order],
        undefined=divisor == 0.0 or (recipe.shrinkage == "norm" and not np.any(point.w)),
    )


def _flat(w: Array, b: Array) -> Array:
    return np.concatenate([np.ravel(w), np.ravel(b)])


def _groups(pushes: Pushes, with_bias: bool) -> tuple[list[Array], list[int]]:
    groups = []
    for row, vertices in pushes.groups:
        w = (pushes.x[row][:, None] * vertices[:, None, :]).reshape(len(vertices), -1)
        groups.append(np.concatenate([w, vertices * with_bias], axis=1))
    return groups, [row for row, _ in pushes.groups]


def _scale(point: Point, recipe: Recipe, divisor: float) -> Array:
    w_scale = recipe.data_sign / divisor
    b_scale = {"same": w_scale, "zero": 0.0, "summed": recipe.data_sign, "averaged_alone": w_scale, "flipped": -w_scale}
    if recipe.bias == "averaged_alone":
        w_scale = recipe.data_sign
    return _flat(np.full(point.w.shape, w_scale), np.full(point.b.shape, b_scale[recipe.bias]))


def _shrinkage(point: Point, objective: Objective, recipe: Recipe) -> Array:
    l2 = objective.l2
    factor = {
        "l2": l2,
        "none": 0.0,
        "doubled": 2.0 * l2,
        "halved": l2 / 2.0,
        "averaged": l2 / point.rows,
        "multiplied": l2 * point.rows,
        "negative": -l2,
        "absolute": l2,
        "norm": l2,
        "fitted": recipe.strength,
    }[recipe.shrinkage]
    w, b = point.w, point.b if recipe.bias_shrinkage == "same" else np.zeros(point.b.shape)
    alone = l2 * point.b if recipe.bias_shrinkage == "l2" else np.zeros(point.b.shape)
    if recipe.shrinkage == "absolute":
        w, b = np.sign(w), np.sign(b)
    elif recipe.shrinkage == "norm":
        length = np.sqrt(np.sum(w**2) + np.sum(b**2))
        w, b = (w / length, b / length) if length > 0.0 else (w, b)
    return factor * _flat(w, b) + _flat(np.zeros(point.w.shape), alone)


def _order(point: Point, recipe: Recipe) -> npt.NDArray[np.int_]:
    order = np.arange(point.size)
    if recipe.layout == "transposed":
        order[: point.w.size] = order[: point.w.size].reshape(point.w.shape).T.ravel()
    return order
