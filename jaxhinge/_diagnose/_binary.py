"""The pushes of a loss of one score, for any recipe: margins of a label, or the two sides of a residual."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import Labels, Mask, Pushes, Recipe, counted, score_slack, weight_in_band
from jaxhinge._diagnose._rows_kept import kept_rows


class _Terms(NamedTuple):
    """The terms of the loss, `(m,)` each: a term pushes where `margin - sign * (score - offset) > 0`.

    `size` is what the rounding of a weight is in proportion to: of `1 - quantile` it is that of 1.
    """

    row: npt.NDArray[np.int_]
    sign: Array
    offset: Array
    weight: Array
    size: Array


def binary_pushes(point: Point, objective: Objective, recipe: Recipe, unit: float) -> list[Pushes]:
    """What the rows contribute; more than one answer where the recipe leaves a discrete choice."""
    data, magnitude, count = point.products
    bias, magnitude = recipe.margin_bias * point.b, magnitude + abs(objective.margin)
    if objective.family == "regression":
        magnitude = magnitude + np.abs(point.y)
    slack = score_slack(count, unit)[:, 0] * magnitude
    if recipe.rows == "pairs_by_label":
        return [_pairs_by_label(point, objective, recipe, data + bias, slack)]
    terms = _terms(point, objective, recipe)
    row = terms.row
    labels = _labels(terms.sign, recipe.margin_labels)
    scores = data[row] + bias
    margins = labels * (scores - terms.offset)
    if recipe.bias_outside_label:
        margins = labels * data[row] + bias
    margins = recipe.score_sign * margins
    z = objective.margin - margins
    slack = slack[row] * np.maximum(1.0, np.abs(labels))
    on, free = _on_and_free(z, slack, objective, recipe)
    push = terms.weight * _push(z, margins, scores, terms.sign, objective, recipe)
    steady = _slope(objective, recipe) == "hinge"
    size = terms.size if steady else 3.0 * terms.weight * (1.0 + magnitude[row]) ** _degree(recipe)
    size = np.maximum(np.abs(push), size) * (on | free)
    groups = [(int(i), np.array([[0.0], [push[i]]])) for i in np.flatnonzero(free & (terms.weight > 0))]
    active = (int(np.sum(on)), int(np.sum(on | free)))
    pushes = Pushes(point.x[row], (push * on)[:, None], groups, size[:, None], active, z, slack)
    if not recipe.bias_label:
        pushes = replace(pushes, bias_factor=terms.sign)
    if recipe.rows in ("one_mask_of_sum", "one_mask_of_mean"):
        return _one_mask(pushes, push, margins, slack, objective, recipe)
    return kept_rows(pushes, recipe)


def _terms(point: Point, objective: Objective, recipe: Recipe) -> _Terms:
    rows, ones = np.arange(len(point.x)), np.ones(len(point.x))
    weight = ones if recipe.weights == "none" else point.weights
    if objective.family == "regression":
        low, high = objective.sides
        return _Terms(
            np.concatenate([rows, rows]),
            np.concatenate([ones, -ones]),
            np.concatenate([point.y, point.y]),
            np.concatenate([low * weight, high * weight]),
            max(low, high, 1.0) * np.concatenate([weight, weight]),
        )
    if recipe.rows != "pairs":
        return _Terms(rows, point.y, 0.0 * ones, weight, weight)
    # Every score meets every label: each row is there with both labels, as often as they occur.
    positive, negative = float(np.sum(weight[point.y > 0])), float(np.sum(weight[point.y < 0]))
    weights = np.concatenate([positive * ones, negative * ones])
    signs, offsets = np.concatenate([ones, -ones]), np.zeros(2 * len(rows))
    return _Terms(np.concatenate([rows, rows]), signs, offsets, weights, weights)


def _on_and_free(z: Array, slack: Array, objective: Objective, recipe: Recipe) -> tuple[Mask, Mask]:
    on, free = counted(z, slack, recipe)
    if recipe.mask == "violating" and _slope(objective, recipe) in ("squared", "half_squared", "smooth"):
        # The slope begins at 0: on the kink there is no choice.
        return on | free, np.zeros_like(free)
    return on, free


def _labels(y: Array, use: Labels) -> Array:
    if use == "zero_one":
        return (y + 1.0) / 2.0
    if use == "twice_minus_one":
        return 2.0 * y - 1.0
    return y if use == "signed" else np.ones_like(y)


def _slope(objective: Objective, recipe: Recipe) -> str:
    return objective.slope if recipe.slope == "own" else recipe.slope


def _degree(recipe: Recipe) -> int:
    """The power of the score that a push grows with."""
    return 2 if recipe.slope in ("times_score", "times_margin") else 1


def _push(z: Array, margins: Array, scores: Array, y: Array, objective: Objective, recipe: Recipe) -> Array:
    """The slope of each row in its score, where the row pushes."""
    slope = _slope(objective, recipe)
    if slope == "logistic_zero_one":
        return _sigmoid(scores) - y
    strength = {"logistic": _sigmoid(-margins), "half_squared": z}.get(slope)
    if strength is None:
        kind = slope if slope in ("hinge", "squared") else objective.slope
        strength = {"hinge": np.ones_like(z), "squared": 2.0 * z, "smooth": np.clip(z / objective.width, 0.0, 1.0)}[
            kind
        ]
        strength = strength * {"times_score": scores, "times_margin": margins}.get(slope, 1.0)
    return -_labels(y, recipe.push_labels) * strength * weight_in_band(z, recipe)


def _sigmoid(values: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def _one_mask(
    pushes: Pushes, push: Array, margins: Array, slack: Array, objective: Objective, recipe: Recipe
) -> list[Pushes]:
    """All rows push where the sum (or mean) of the margins is too small, else no row does."""
    count, total = len(margins), float(np.sum(margins))
    required = objective.margin * (count if recipe.rows == "one_mask_of_mean" else 1.0)
    every = replace(pushes, fixed=push[:, None], groups=[], size=np.abs(push)[:, None], active=(count, count))
    no_row = replace(every, fixed=0.0 * every.fixed, active=(0, 0))
    if abs(required - total) <= float(np.sum(slack)):
        half = replace(every, fixed=0.5 * every.fixed)
        return [every, no_row, half]
    return [every if total < required else no_row]


def _pairs_by_label(point: Point, objective: Objective, recipe: Recipe, scores: Array, slack: Array) -> Pushes:
    """All pairs of label and score, but the push of a pair given to the row of its label."""
    fixed, groups = np.zeros((len(scores), 1)), []
    for label in (-1.0, 1.0):
        on, free = counted(objective.margin - label * scores, slack, recipe)
        rows = np.flatnonzero(point.y == label)
        fixed[rows] = -label * np.sum(on)
        if np.any(free):
            groups += [(int(row), np.array([[0.0], [-label * float(np.sum(free))]])) for row in rows]
    size = np.full((len(scores), 1), float(len(scores)))
    count = len(scores)
    return Pushes(point.x, fixed, groups, size, (count, count), objective.margin - point.y * scores, slack)
