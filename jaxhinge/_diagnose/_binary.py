"""The pushes of a binary hinge, for any recipe."""

from __future__ import annotations

import numpy as np

from jaxhinge._diagnose._point import Array, Objective, Point
from jaxhinge._diagnose._recipe import Labels, Pushes, Recipe, counted, last_alternatives, score_slack, weight_in_band


def binary_pushes(point: Point, objective: Objective, recipe: Recipe, unit: float) -> list[Pushes]:
    """What the rows contribute; more than one answer where the recipe leaves a discrete choice."""
    scores = point.x @ point.w + recipe.margin_bias * point.b
    terms = np.abs(point.x) @ np.abs(point.w) + np.abs(point.b) + objective.margin
    slack = score_slack(point.x, unit)[:, 0] * terms
    if recipe.rows == "pairs_by_label":
        return [_pairs_by_label(point, objective, recipe, scores, slack)]
    x, y, weight = point.x, point.y, np.ones(len(point.x))
    if recipe.rows == "pairs":
        # Every score meets every label: each row is there with both labels, as often as they occur.
        weight = np.concatenate([np.full(len(x), np.sum(y > 0)), np.full(len(x), np.sum(y < 0))]).astype(float)
        y = np.concatenate([np.ones(len(x)), -np.ones(len(x))])
        x, scores = np.concatenate([x, x]), np.concatenate([scores, scores])
        slack, terms = np.concatenate([slack, slack]), np.concatenate([terms, terms])
    margins = _labels(y, recipe.margin_labels) * scores
    z = objective.margin - margins
    on, free = counted(z, slack * np.maximum(1.0, np.abs(_labels(y, recipe.margin_labels))), objective.margin, recipe)
    push = weight * _push(z, margins, scores, y, recipe)
    size = weight * (np.abs(push) if recipe.slope == "hinge" else 3.0 * (1.0 + terms)) * (on | free)
    groups = [(int(row), np.array([[0.0], [push[row]]])) for row in np.flatnonzero(free & (weight > 0))]
    active = (int(np.sum(on)), int(np.sum(on | free)))
    pushes = Pushes(x, (push * on)[:, None], groups, size[:, None], active)
    return last_alternatives(pushes, recipe) if recipe.rows in ("last", "last_row") else [pushes]


def _labels(y: Array, use: Labels) -> Array:
    if use == "zero_one":
        return (y + 1.0) / 2.0
    if use == "twice_minus_one":
        return 2.0 * y - 1.0
    return y if use == "signed" else np.ones_like(y)


def _push(z: Array, margins: Array, scores: Array, y: Array, recipe: Recipe) -> Array:
    """The slope of each row in its score, where the row pushes."""
    if recipe.slope == "logistic_zero_one":
        return _sigmoid(scores) - y
    strength = {"hinge": np.ones_like(z), "squared": 2.0 * z, "half_squared": z, "logistic": _sigmoid(-margins)}
    return -_labels(y, recipe.push_labels) * strength[recipe.slope] * weight_in_band(z, recipe)


def _sigmoid(values: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def _pairs_by_label(point: Point, objective: Objective, recipe: Recipe, scores: Array, slack: Array) -> Pushes:
    """All pairs of label and score, but the push of a pair given to the row of its label."""
    fixed, groups = np.zeros((len(scores), 1)), []
    for label in (-1.0, 1.0):
        on, free = counted(objective.margin - label * scores, slack, objective.margin, recipe)
        rows = np.flatnonzero(point.y == label)
        fixed[rows] = -label * np.sum(on)
        if np.any(free):
            groups += [(int(row), np.array([[0.0], [-label * float(np.sum(free))]])) for row in rows]
    size = np.full((len(scores), 1), float(len(scores)))
    return Pushes(point.x, fixed, groups, size, (len(scores), len(scores)))
