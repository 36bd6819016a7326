"""The set of gradients that a recipe allows at a point, and whether a returned gradient is one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._binary import binary_pushes
from jaxhinge._diagnose._multiclass import multiclass_pushes
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._polytope import nearest_point
from jaxhinge._diagnose._recipe import PRECISIONS, Part, Pushes, Recipe

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
    """`push` given to the vertices that push, by the rule for ties; 1 where every vertex pushes."""
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


class _Rows(NamedTuple):
    """One answer to what the rows contribute, over the coordinates, before it is averaged."""

    fixed: Array
    size: Array
    groups: list[Array]
    rows: list[int]
    active: tuple[int, int]
    num_terms: int


# The parts of a recipe that decide what the rows contribute; the others decide sizes and the regulariser.
_OF_ROWS = attrgetter(
    "margin_labels", "push_labels", "margin_bias", "bias_outside_label", "bias_label", "score_sign", "mask", "band",
    "shift", "slope", "rows", "bias_rows", "weights", "label_push", "rival", "rival_sign", "rival_push", "scores",
)  # fmt: skip
FEW = 24
# Points of more coordinates than this keep no answers: they would fill the memory.
_MOST_KEPT = 1000


def gradient_sets(
    point: Point, objective: Objective, recipe: Recipe, precision: str, features: int | None = None
) -> list[GradientSet]:
    """Every set that the recipe allows; several where it counts or picks rows and a kink leaves that open.

    With `features` the sets are over the coordinates of so many features only, and of the bias.
    """
    sets = []
    for rows in _contributions(point, objective, recipe, PRECISIONS[precision], features):
        for divisor in _divisors(point, objective, recipe, rows.active):
            for times in _times(point, objective, recipe, rows.active, divisor):
                shrinkage = times * _shrinkage(point, objective, recipe, features)
                sets.append(_combined(point, objective, recipe, precision, rows, divisor, shrinkage))
    return sets


def few_features(point: Point, recipe: Recipe) -> int | None:
    """The number of features that refute most recipes at a fraction of the cost; None where there are few."""
    return FEW if len(point.w) > 2 * FEW and recipe.layout == "plain" else None


def first_features(gradient: Array, point: Point, features: int | None) -> Array:
    """The coordinates of so many features, and of the bias."""
    kept = gradient.size - point.b.size
    return np.concatenate([gradient[:kept].reshape(point.w.shape)[:features].ravel(), gradient[kept:]])


def _contributions(
    point: Point, objective: Objective, recipe: Recipe, unit: float, features: int | None
) -> list[_Rows]:
    # Masks are judged to the rounding of float32 at least, so that a finer unit makes no difference.
    key = (_OF_ROWS(recipe), max(unit, PRECISIONS["float32"]), features)
    known: list[_Rows] | None = point.tried.get(key)
    if known is not None:
        return known
    make = multiclass_pushes if objective.multiclass else binary_pushes
    if recipe.shift:
        objective = replace(objective, margin=objective.margin - recipe.shift)
    found = []
    for pushes in make(point, objective, recipe, unit):
        bias_pushes = pushes
        if recipe.bias_rows == "all":
            bias_pushes = make(point, objective, recipe.altered({"rows": "all"}), unit)[0]
        found.append(_over_coordinates(point, recipe, pushes, bias_pushes, features))
    if (features or point.size) <= _MOST_KEPT and len(point.x) <= _MOST_KEPT:
        point.tried[key] = found
    return found


def _over_coordinates(point: Point, recipe: Recipe, pushes: Pushes, bias_pushes: Pushes, features: int | None) -> _Rows:
    x = pushes.x[:, :features]
    fixed = _flat(x.T @ pushes.fixed, _bias_sum(bias_pushes, bias_pushes.fixed))
    size = _flat(np.abs(x).T @ pushes.size, np.sum(bias_pushes.size, axis=0))
    groups, rows = _groups(x, pushes, with_bias=recipe.bias_rows == "same")
    if recipe.bias_rows == "all":
        extra, extra_rows = _groups(x, bias_pushes, with_bias=True)
        of_bias = _flat(np.zeros(x.shape[1] * pushes.fixed.shape[1]), np.ones(point.b.shape))
        groups, rows = groups + [vertices * of_bias for vertices in extra], rows + extra_rows
    return _Rows(fixed, size, groups, [row % len(point.x) for row in rows], pushes.active, len(x))


def _times(point: Point, objective: Objective, recipe: Recipe, active: tuple[int, int], divisor: float) -> list[float]:
    """How often the regulariser counts; every answer that a row on the kink leaves open."""
    if recipe.shrinkage_rows == "all":
        return [1.0]
    least, most = active
    if recipe.shrinkage_rows == "any_violating":
        return [1.0] if least else [0.0] if not most else [1.0, 0.0]
    # Where the data term is divided by their number, that is known.
    counts = [divisor] if recipe.divisor == "active" else [*range(least, min(most, least + _MOST_COUNTS) + 1)]
    if recipe.shrinkage_rows == "each_satisfied":
        counts = [len(point.x) - count for count in counts]
    share = 1.0 if objective.C is not None else divisor or 1.0
    return [count / share for count in counts]


def _divisors(point: Point, objective: Objective, recipe: Recipe, active: tuple[int, int]) -> list[float]:
    if recipe.divisor == "active":
        least, most = active
        return [float(count) for count in range(least, min(most, least + _MOST_COUNTS) + 1)]
    if recipe.divisor == "own":
        return [point.rows if objective.C is None else 1.0 / objective.C]
    classes, count = point.num_classes, len(point.x)
    factor = {"rows": 1.0, "pairs": point.rows, "classes": classes, "wrong_classes": classes - 1}
    return [{"one": 1.0, "count": float(count)}.get(recipe.divisor) or point.rows * factor[recipe.divisor]]


def _combined(
    point: Point,
    objective: Objective,
    recipe: Recipe,
    precision: str,
    rows: _Rows,
    divisor: float,
    shrinkage: Array,
) -> GradientSet:
    w_scale, b_scale = _scales(recipe, divisor or 1.0, point)
    if objective.intercept == "none":
        b_scale = 0.0
    scale = np.full(rows.fixed.shape, recipe.whole_sign * w_scale)
    scale[len(scale) - point.b.size :] = recipe.whole_sign * b_scale
    # The worst case of a running sum: equal terms are all rounded the same way.
    tolerance = PRECISIONS[precision] * (8.0 + rows.num_terms / 2.0) * (rows.size * np.abs(scale) + np.abs(shrinkage))
    tolerance += _SMALLEST[precision] * (1.0 + point.largest_weight)
    fixed = rows.fixed * scale + recipe.whole_sign * shrinkage
    groups = [vertices * scale for vertices in rows.groups]
    if recipe.layout == "transposed":
        order = _transposed_order(point)
        fixed, tolerance, groups = fixed[order], tolerance[order], [vertices[:, order] for vertices in groups]
    no_direction = recipe.direction in ("unit", "unit_too") and not np.any(point.w)
    return GradientSet(fixed, groups, rows.rows, tolerance, divisor == 0.0 or no_direction)


def _flat(w: Array, b: Array) -> Array:
    return np.concatenate([np.ravel(w), np.ravel(b)])


def _bias_sum(pushes: Pushes, values: Array) -> Array:
    return np.asarray(np.sum(values if pushes.bias_factor is None else values * pushes.bias_factor[:, None], axis=0))


def _groups(x: Array, pushes: Pushes, with_bias: bool) -> tuple[list[Array], list[int]]:
    groups = []
    for row, vertices in pushes.groups:
        w = (x[row][:, None] * vertices[:, None, :]).reshape(len(vertices), -1)
        factor = 1.0 if pushes.bias_factor is None else pushes.bias_factor[row]
        groups.append(np.concatenate([w, vertices * (factor * with_bias)], axis=1))
    return groups, [row for row, _ in pushes.groups]


def _scales(recipe: Recipe, divisor: float, point: Point) -> tuple[float, float]:
    """What the data terms of the weights and of the bias are multiplied by."""
    if recipe.factors is not None:
        data, bias = (recipe.data_sign * _sized(part, point) / divisor for part in recipe.factors[:2])
        return data, bias
    w_scale = recipe.data_sign / divisor
    scales = {"same": w_scale, "zero": 0.0, "summed": recipe.data_sign, "averaged_alone": w_scale, "flipped": -w_scale}
    return recipe.data_sign if recipe.bias == "averaged_alone" else w_scale, scales[recipe.bias]


def _sized(part: Part, point: Point) -> float:
    return float(part.factor * point.rows**part.power)


def _shrinkage(point: Point, objective: Objective, recipe: Recipe, features: int | None) -> Array:
    """The gradient of the regulariser, as the recipe takes it."""
    l2, zeros, w = objective.l2, np.zeros(point.b.shape), point.w[:features]
    if recipe.factors is not None:
        return _flat(_sized(recipe.factors.shrinkage, point) * w, recipe.factors.bias_shrinkage * point.b)
    factors = {"none": 0.0, "doubled": 2.0 * l2, "halved": l2 / 2.0, "averaged": l2 / point.rows}
    factors |= {"multiplied": l2 * point.rows, "negative": -l2, "fitted": recipe.strength}
    factor = factors.get(recipe.shrinkage, l2)
    included = "same" if objective.intercept == "regularized" else "none"
    included = included if recipe.bias_shrinkage == "own" else recipe.bias_shrinkage
    b = point.b if included == "same" else zeros
    if recipe.direction == "signs":
        w, b = np.sign(w), np.sign(b)
    elif recipe.direction != "w":
        length = np.sqrt(np.sum(point.w**2) + np.sum(b**2))
        share = 1.0 / length if length > 0.0 else 1.0
        share += 1.0 if recipe.direction == "unit_too" else 0.0
        w, b = share * w, share * b
    return _flat(factor * w, factor * b + (l2 * point.b if included == "l2" else zeros))


def _transposed_order(point: Point) -> npt.NDArray[np.int_]:
    order = np.arange(point.size)
    order[: point.w.size] = order[: point.w.size].reshape(point.w.shape).T.ravel()
    return order
