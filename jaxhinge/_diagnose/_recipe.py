"""One way to write the gradient: the right one, with any of its parts replaced by a mistake."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._point import Array

Mask = npt.NDArray[np.bool_]
Labels = Literal["signed", "zero_one", "twice_minus_one", "none"]

# Unit roundoffs, from fine to coarse. That of float64 is widened: no mistake is as small, and a sum of
# products loses a few bits. "differences" are gradients taken as quotients of differences.
PRECISIONS = {
    "float64": 2.0**-46,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "differences": 2.0**-18,
}


@dataclass(frozen=True)
class Recipe:
    """The parts of a gradient; the defaults are the right gradient.

    Attributes:
      margin_labels: The labels as they enter the margin.
      push_labels: The labels as they enter the push `-y x` of a row.
      margin_bias: The factor of the bias in the score.
      mask: Which rows push, by `z = required margin - margin`.
      band: Between which two distances from the kink the mask ends, where it ends beside it.
      slope: How strongly a row pushes.
      rows: Which rows are summed.
      bias_rows: The same for the bias.
      label_push: Multiclass: what the column of the label gets.
      rival: Multiclass: the largest wrong class alone, or every class that violates.
      scores: Multiclass: whether `w` is transposed in the scores.
      layout: Multiclass: whether the gradient is transposed.
      divisor: What the data term is divided by.
      data_sign, whole_sign: The sign of the data term, and of everything.
      shrinkage: The gradient of the regulariser.
      strength: The factor of `w` where `shrinkage` is "fitted".
      bias_shrinkage: Whether the regulariser includes the bias, like the weights or with `l2` whatever they get.
      bias: What the bias gets of the data term.
    """

    margin_labels: Labels = "signed"
    push_labels: Labels = "signed"
    margin_bias: float = 1.0
    mask: Literal["violating", "zero", "inverted", "all", "shifted", "outer_band", "inner_band", "half_band"] = (
        "violating"
    )
    band: tuple[float, float] = (0.0, 0.0)
    slope: Literal["hinge", "squared", "half_squared", "logistic", "logistic_zero_one"] = "hinge"
    rows: Literal["all", "last", "last_row", "pairs", "pairs_by_label"] = "all"
    bias_rows: Literal["same", "all"] = "same"
    label_push: Literal["count", "forgotten", "once", "one_more", "one_less"] = "count"
    rival: Literal["own", "every", "largest", "largest_of_all"] = "own"
    scores: Literal["plain", "transposed"] = "plain"
    layout: Literal["plain", "transposed"] = "plain"
    divisor: Literal["rows", "one", "active", "pairs", "classes", "wrong_classes"] = "rows"
    data_sign: float = 1.0
    whole_sign: float = 1.0
    shrinkage: Literal[
        "l2", "none", "doubled", "halved", "averaged", "multiplied", "negative", "absolute", "norm", "fitted"
    ] = "l2"
    strength: float = 0.0
    bias_shrinkage: Literal["none", "same", "l2"] = "none"
    bias: Literal["same", "zero", "summed", "averaged_alone", "flipped"] = "same"

    def altered(self, changes: dict[str, Any]) -> Recipe:
        """This recipe with other parts."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Pushes:
    """The data term before averaging: `sum_i x_i (fixed_i + a point of each group of row i)`.

    Attributes:
      x: `(m, d)`, usually the rows.
      fixed: `(m, k)`, the slope in each score of the rows off the kink.
      groups: For each row (and class) on the kink, the row and its vertices `(v, k)`.
      size: `(m, k)`, the magnitude of the terms, by which rounding is measured.
      active: The least and the greatest number of rows that push.
    """

    x: Array
    fixed: Array
    groups: list[tuple[int, Array]]
    size: Array
    active: tuple[int, int]


def counted(z: Array, slack: Array, required: float, recipe: Recipe) -> tuple[Mask, Mask]:
    """Which entries of `z` push, and which may or may not because rounding cannot tell."""
    if recipe.mask == "all":
        return np.ones(z.shape, dtype=bool), np.zeros(z.shape, dtype=bool)
    low, high = recipe.band
    if recipe.mask == "outer_band":
        on, off = -z <= low * 1.001 - slack, -z >= high * 0.999 + slack
    elif recipe.mask == "half_band":
        on, off = z >= slack - low * 1.001, z <= -high * 0.999 - slack
        on &= (z <= low * 1.001 - slack) | (z >= high * 0.999 + slack)
    elif recipe.mask == "inner_band":
        on, off = z >= high * 0.999 + slack, z <= low * 1.001 - slack
        off |= z < -slack
        return on, ~on & ~off | (np.abs(z) <= slack)
    else:
        shift = {"zero": required, "shifted": 2.0 * required}.get(recipe.mask, 0.0)
        moved = -z if recipe.mask == "inverted" else z - shift
        on, off = moved > slack, moved < -slack
    return on, ~on & ~off


def weight_in_band(z: Array, recipe: Recipe) -> Array:
    """By how much an entry that pushes does so: by half in the band of a tolerance that halves, else in full."""
    halved = (np.abs(z) <= recipe.band[0] * 1.001) & (recipe.mask == "half_band")
    return np.where(halved, 0.5, 1.0)


def score_slack(point_x: Array, unit: float) -> Array:
    """`(n, 1)` factors: rounding of a score, relative to the sum of the magnitudes of its terms.

    At least that of float32: where a mask was computed in float32, the sums may still be exact.
    """
    terms = np.sum(point_x != 0.0, axis=1, keepdims=True)
    return np.asarray(max(unit, PRECISIONS["float32"]) * (2.0 + terms))


def last_alternatives(pushes: Pushes, recipe: Recipe) -> list[Pushes]:
    """The rows that an assignment in place of a sum may leave: the last that pushes, or any later on the kink."""
    active = np.flatnonzero(np.any(pushes.fixed != 0.0, axis=1))
    last = int(active[-1]) if len(active) else -1
    if recipe.rows == "last_row":
        candidates = [len(pushes.x) - 1]
    else:
        candidates = sorted({last} | {row for row, _ in pushes.groups if row > last})
    return [_only(pushes, row) for row in candidates]


def _only(pushes: Pushes, row: int) -> Pushes:
    kept = np.arange(len(pushes.x))[:, None] == row
    groups = [(index, vertices) for index, vertices in pushes.groups if index == row]
    return Pushes(pushes.x, pushes.fixed * kept, groups, pushes.size * kept, pushes.active)
