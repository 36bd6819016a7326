"""One way to write the gradient: the right one, with any of its parts replaced by a mistake."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._objective import Array

Mask = npt.NDArray[np.bool_]
Labels = Literal["signed", "zero_one", "twice_minus_one", "none"]

# Unit roundoffs, from fine to coarse. That of float64 is widened, for a sum of products loses a few bits, and the
# smallest mistake is far larger. "differences" stands for gradients taken as quotients of differences.
PRECISIONS = {
    "float64": 2.0**-46,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "differences": 2.0**-18,
}


class Part(NamedTuple):
    """How large a part of the gradient is: `factor * n**power` times the right one."""

    factor: float = 1.0
    power: int = 0


class Factors(NamedTuple):
    """The sizes of the parts of a gradient, as they were fitted.

    Attributes:
      data: Of the data term of the weights.
      bias: Of the data term of the bias.
      shrinkage: Of the regulariser of the weights, in units of `w`.
      bias_shrinkage: What the bias gets of itself.
    """

    data: Part
    bias: Part
    shrinkage: Part
    bias_shrinkage: float


@dataclass(frozen=True)
class Recipe:
    """The parts of a gradient; the defaults are the right gradient.

    Attributes:
      margin_labels: The labels as they enter the margin.
      push_labels: The labels as they enter the push `-y x` of a row.
      margin_bias: The factor of the bias in the score.
      bias_outside_label: Whether the margin is `y (x . w) + b`.
      bias_label: Whether the label enters the push of the bias.
      score_sign: The sign of the score in the margin.
      shift: By how much the required margin is too small.
      mask: Which rows push, by `z = required margin - margin`.
      band: Between which two distances from the kink the mask ends, where it ends beside it.
      slope: How strongly a row pushes; "own" is that of the stated loss.
      rows: Which rows are summed.
      bias_rows: The same for the bias.
      weights: Whether the weights of the rows count.
      label_push: Multiclass: what the column of the label gets.
      rival: Multiclass: which classes push; "own" is that of the stated loss.
      rival_sign, rival_push: Multiclass: the sign of a wrong class in the margin, and of its push.
      scores: Multiclass: whether `w` is transposed in the scores.
      layout: Multiclass: whether the gradient is transposed.
      divisor: What the data term is divided by; "own" is that of the stated objective.
      data_sign, whole_sign: The sign of the data term, and of everything.
      shrinkage: The size of the regulariser's gradient.
      direction: What it is a multiple of: `w`, its signs, its direction, or `w` and its direction.
      shrinkage_rows: Whether it is left out where no row violates, or counted once for each row that does (or that does
        not), as a loop may add it.
      strength: The factor of `w` where `shrinkage` is "fitted".
      bias_shrinkage: Whether the regulariser includes the bias: "own" as stated, like the weights, with `l2` whatever
        they get, or not.
      bias: What the bias gets of the data term.
      factors: The sizes of all parts, where they were fitted; the parts above that give sizes do not count then.
    """

    margin_labels: Labels = "signed"
    push_labels: Labels = "signed"
    margin_bias: float = 1.0
    bias_outside_label: bool = False
    bias_label: bool = True
    score_sign: float = 1.0
    shift: float = 0.0
    mask: Literal["violating", "inverted", "all", "outer_band", "inner_band", "half_band"] = "violating"
    band: tuple[float, float] = (0.0, 0.0)
    slope: Literal[
        "own", "hinge", "squared", "half_squared", "logistic", "logistic_zero_one", "times_score", "times_margin"
    ] = "own"
    rows: Literal[
        "all", "last", "last_row", "first", "first_row", "worst", "worst_of_class", "since_reset", "until_satisfied",
        "pairs", "pairs_by_label", "one_mask_of_sum", "one_mask_of_mean",
    ] = "all"  # fmt: skip
    bias_rows: Literal["same", "all"] = "same"
    weights: Literal["own", "none"] = "own"
    label_push: Literal["count", "forgotten", "once", "one_more", "one_less", "every_row", "number_of_rivals"] = "count"
    rival: Literal[
        "own", "every", "largest", "largest_of_all", "largest_score", "overwritten", "overwritten_argmax", "floored",
        "floored_label", "summed", "one_vs_rest",
    ] = "own"  # fmt: skip
    rival_sign: float = 1.0
    rival_push: float = 1.0
    scores: Literal["plain", "transposed"] = "plain"
    layout: Literal["plain", "transposed"] = "plain"
    divisor: Literal["own", "rows", "one", "active", "pairs", "classes", "wrong_classes", "count"] = "own"
    data_sign: float = 1.0
    whole_sign: float = 1.0
    shrinkage: Literal["l2", "none", "doubled", "halved", "averaged", "multiplied", "negative", "fitted"] = "l2"
    direction: Literal["w", "signs", "unit", "unit_too"] = "w"
    shrinkage_rows: Literal["all", "any_violating", "each_violating", "each_satisfied"] = "all"
    strength: float = 0.0
    bias_shrinkage: Literal["own", "none", "same", "l2"] = "own"
    bias: Literal["same", "zero", "summed", "averaged_alone", "flipped"] = "same"
    factors: Factors | None = None

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
      violation: `(m,)`, how much each row violates its margin; by it the worst row is found.
      slack: `(m,)`, the rounding of `violation`.
      bias_factor: `(m,)`, what the push of the bias has beyond that of the weights; None for ones.
    """

    x: Array
    fixed: Array
    groups: list[tuple[int, Array]]
    size: Array
    active: tuple[int, int]
    violation: Array
    slack: Array
    bias_factor: Array | None = None


def counted(z: Array, slack: Array, recipe: Recipe) -> tuple[Mask, Mask]:
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
        moved = -z if recipe.mask == "inverted" else z
        # A kink that was measured is known to so many digits.
        slack = slack + 1e-9 if recipe.shift else slack
        on, off = moved > slack, moved < -slack
    return on, ~on & ~off


def weight_in_band(z: Array, recipe: Recipe) -> Array:
    """By how much an entry that pushes does so: by half in the band of a tolerance that halves, else in full."""
    if recipe.mask != "half_band":
        return np.ones(z.shape)
    return np.where(np.abs(z) <= recipe.band[0] * 1.001, 0.5, 1.0)


def score_slack(terms: npt.NDArray[Any], unit: float) -> Array:
    """`(n, 1)` factors: rounding of a score of so many terms, relative to the sum of their magnitudes.

    At least that of float32: where a mask was computed in float32, the sums may still be exact.
    """
    return np.asarray(max(unit, PRECISIONS["float32"]) * (2.0 + terms))
